"""Read the inventory's TOML files, with those that `include` names. Only this module uses tomli."""

from __future__ import annotations

import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import tomli

from camserver.config.sources import InventorySources, Stamp, included_paths, stamp_at, stamp_of
from camserver.host.files import open_regular


class InventoryFiles:
    """The inventory at `path` and the files that it includes. Faults are collected, not raised."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[str] = []
        self._stamps: dict[Path, Stamp | None] = {}
        self._includes: tuple[str, ...] = ()
        self._passwords: list[Path] = []

    @property
    def sources(self) -> InventorySources:
        """What was read until now."""
        return InventorySources(
            self.path, self._includes, tuple(self._passwords), dict(self._stamps)
        )

    def content(self, path: Path) -> bytes:
        """The content of one file of the inventory. Raises OSError."""
        self._stamps[path] = stamp_at(path)  # also of a file that can't be read
        content, stat = read_file(path)
        self._stamps[path] = stamp_of(stat)
        return content

    def password(self, path: Path) -> str:
        """The password in a file: its first line. Raises OSError, and ValueError for no UTF-8."""
        self._passwords.append(path)
        text = self.content(path).decode("utf-8-sig")
        return re.split(r"\r\n|\r|\n", text, maxsplit=1)[0]

    def read(self, path: Path) -> dict[str, Any] | None:
        """The tables of one file. None when it has a fault."""
        try:
            return self.parse(path, self.content(path))
        except OSError as error:
            self.faults.append(f"{path}: cannot be read: {error.strerror}")
            return None

    def parse(self, path: Path, data: bytes) -> dict[str, Any] | None:
        """The tables in `data`, the bytes of one file. None when it has a fault."""
        try:
            return tomli.loads(data.decode("utf-8-sig"))  # some editors write a mark first
        except UnicodeDecodeError as error:
            self.faults.append(
                f"{path}: not UTF-8 text: byte {error.start} is no part of a character"
            )
        except tomli.TOMLDecodeError as error:
            self.faults.append(
                f"{path}: not valid TOML: {error.msg} (line {error.lineno}, column {error.colno})"
            )
        except (ValueError, RecursionError):
            self.faults.append(
                f"{path}: not valid TOML: a number of thousands of digits, or tables nested too"
                " deep"
            )
        return None

    def included(self, patterns: object) -> list[tuple[Path, dict[str, Any]]]:
        """The [[camera]] entries of the included files, each with the path of its file."""
        if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
            self.faults.append(f"{self.path}: include: expected a list of file names or globs")
            return []
        entries = []
        self._includes = tuple(patterns)
        for pattern in patterns:
            try:
                found = included_paths(self.path, pattern)
            except (ValueError, OSError):
                self.faults.append(f"{self.path}: include: {pattern} is no file name or glob")
                continue
            if not found and not any(c in pattern for c in "*?["):
                self.faults.append(f"{self.path}: include: {pattern} does not exist")
            for path in found:
                raw = self.read(path)
                if raw is not None:
                    self.faults += [
                        f"{path}: {key}: an included file may hold only [[camera]] entries"
                        for key in raw
                        if key != "camera"
                    ]
                    entries += self.entries(raw, path)
        return entries

    def entries(self, raw: dict[str, Any], path: Path) -> list[tuple[Path, dict[str, Any]]]:
        """The [[camera]] entries of one file, each with the path of the file."""
        entries = raw.get("camera", [])
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            self.faults.append(
                f"{path}: camera: write each camera under [[camera]], with two brackets"
            )
            return []
        return [(path, entry) for entry in entries]


def read_file(path: Path) -> tuple[bytes, os.stat_result]:
    """The content of an inventory or password file, and its state. Raises OSError.

    Only a path below /dev may be a pipe: a shell gives such paths for `<(command)`.
    """
    if path.parts[:2] == ("/", "dev"):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    else:
        fd = open_regular(path, os.O_RDONLY)
    with os.fdopen(fd, "rb") as file:
        return file.read(), os.fstat(fd)


def builtin_profiles() -> dict[str, dict[str, Any]]:
    """The built-in profiles of camserver, by name."""
    profiles: dict[str, dict[str, Any]] = tomli.loads(
        (files("camserver.config") / "profiles.toml").read_text()
    )
    return profiles
