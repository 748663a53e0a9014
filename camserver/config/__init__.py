"""The inventory: TOML in, frozen typed values out, or every fault at once."""

from camserver.config.inventory import Camera, Inventory
from camserver.config.load import DEFAULT_PATH, camera_from, load_inventory
from camserver.config.model import schema

__all__ = ["Camera", "Inventory", "camera_from", "load_inventory", "schema", "DEFAULT_PATH"]
