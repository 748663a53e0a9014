"""Pictures on disk: atomic publishing, the archive, and retention."""

from camserver.storage.janitor import Janitor
from camserver.storage.store import SnapshotStore

__all__ = ["SnapshotStore", "Janitor"]
