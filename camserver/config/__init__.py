"""The inventory: TOML in, frozen typed values out, or every fault at once."""

from camserver.config.inventory import Camera, Inventory
from camserver.config.load import DEFAULT_PATH, load_inventory
from camserver.config.model import schema

__all__ = ["Camera", "Inventory", "load_inventory", "schema", "DEFAULT_PATH"]
