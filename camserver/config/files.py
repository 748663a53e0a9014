"""Reading the inventory's files: TOML, and what `include` names. The only door to tomli."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import tomli


class InventoryFiles:
    """The inventory at `path` and the files it includes. Faults are collected, none is raised."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[str] = []
        self.files: list[Path] = [path]
        # It may be a link
        self.directories: set[Path] = {path.absolute().parent, path.resolve().parent}

    def read(self, path: Path) -> dict[str, Any] | None:
        """The tables of one file; None when it has a fault."""
        try:
            return self.parse(path, path.read_bytes())
        except OSError as error:
            self.faults.append(f"{path}: cannot be read: {error.strerror}")
            return None

    def parse(self, path: Path, data: bytes) -> dict[str, Any] | None:
        """The same of bytes that were read."""
        try:
            return tomli.loads(data.decode())
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
        """The [[camera]] entries of the files that `include` names, each with its file."""
        if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
            self.faults.append(f"{self.path}: include: expected a list of file names or globs")
            return []
        entries = []
        base = self.path.absolute().parent
        for pattern in patterns:
            absolute = Path(pattern).is_absolute()
            root, relative = (Path("/"), pattern.lstrip("/")) if absolute else (base, pattern)
            self.directories.add((root / relative).parent)
            try:
                found = sorted(root.glob(_glob(relative))) if relative else []
            except (ValueError, OSError):
                self.faults.append(f"{self.path}: include: {pattern} is no file name or glob")
                continue
            if not found and not any(c in pattern for c in "*?["):
                self.faults.append(f"{self.path}: include: {pattern} does not exist")
            for path in found:
                self.files.append(path)
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
        """The [[camera]] entries of one file."""
        entries = raw.get("camera", [])
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            self.faults.append(
                f"{path}: camera: write each camera under [[camera]], with two brackets"
            )
            return []
        return [(path, entry) for entry in entries]


def _glob(pattern: str) -> str:
    """`pattern`.

    Raises ValueError where ** is part of a name: Python refuses it until 3.12, and takes it for *
    since.
    """
    if any("**" in part and part != "**" for part in pattern.split("/")):
        raise ValueError(pattern)
    return pattern


def builtin_profiles() -> dict[str, dict[str, Any]]:
    """The profiles that come with camserver, by name."""
    profiles: dict[str, dict[str, Any]] = tomli.loads(
        (files("camserver.config") / "profiles.toml").read_text()
    )
    return profiles
