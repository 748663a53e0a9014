"""Reading the inventory for a command: a disk that does not answer is told of, and given up."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from camserver.errors import InventoryTimeout
from camserver.host.threads import call_and_say

if TYPE_CHECKING:
    from camserver.config import Inventory

SAY_S, LIMIT_S = 3.0, 60.0
"""A disk that does not answer is told of after the one, and given up after the other."""


def read_inventory(path: Path, *, passwords: bool = True) -> Inventory:
    """Return the inventory. `passwords`: also read the files that have them.

    Raises InventoryError, which is an InventoryTimeout when the disk does not answer.
    """
    from camserver.config import load_inventory  # `--help` does not need it

    def say() -> None:
        waits = f"waiting for the disk of {path} and of the files that it names, at most"
        print(f"camserver: {waits} {LIMIT_S:g} s", file=sys.stderr, flush=True)

    try:
        return call_and_say(partial(load_inventory, path, passwords=passwords), say, SAY_S, LIMIT_S)
    except TimeoutError:
        raise InventoryTimeout((f"{path}: its disk gave no answer in {LIMIT_S:g} s",)) from None
