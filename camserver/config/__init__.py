"""Read the inventory: from TOML to frozen typed values, or to a list of all faults."""

from camserver.config.health import HealthTable
from camserver.config.inventory import Camera, Inventory
from camserver.config.load import DEFAULT_PATH, camera_from, load_inventory
from camserver.config.model import schema

__all__ = [
    "Camera",
    "DEFAULT_PATH",
    "HealthTable",
    "Inventory",
    "camera_from",
    "load_inventory",
    "schema",
]
