"""Pictures on disk: atomic publishing, names, and what is known of each camera."""

from camserver.storage.store import SnapshotStore

__all__ = ["SnapshotStore"]
