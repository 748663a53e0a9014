"""Inventories for tests: loaded, or refused with their faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from camserver.config import Inventory, load_inventory
from camserver.errors import InventoryError


def load(folder: Path, text: str, **files: str) -> Inventory:
    for name, content in files.items():
        (folder / name).write_text(content)
    path = folder / "cameras.toml"
    path.write_text(text)
    return load_inventory(path, {"CREDENTIALS_DIRECTORY": str(folder)})


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(InventoryError) as caught:
        load(folder, text)
    return [f.removeprefix(f"{folder}/cameras.toml: ") for f in caught.value.faults]
