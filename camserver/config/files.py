"""Read the inventory's TOML files, with those that `include` names. Only this module uses tomli."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import tomli

from camserver.host.files import read_regular


class InventoryFiles:
    """The inventory at `path` and the files that it includes. Faults are collected, not raised."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[str] = []
        self.files: list[Path] = [path]
        # The path may be a symbolic link, so both folders are watched
        self.directories: set[Path] = {path.absolute().parent, path.resolve().parent}

    def read(self, path: Path) -> dict[str, Any] | None:
        """The tables of one file. None when it has a fault."""
        try:
            return self.parse(path, read_file(path))
        except OSError as error:
            self.faults.append(f"{path}: cannot be read: {error.strerror}")
            return None

    def parse(self, path: Path, data: bytes) -> dict[str, Any] | None:
        """The tables in `data`, the bytes of one file. None when it has a fault."""
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
        """The [[camera]] entries of the included files, each with the path of its file."""
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
        """The [[camera]] entries of one file, each with the path of the file."""
        entries = raw.get("camera", [])
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            self.faults.append(
                f"{path}: camera: write each camera under [[camera]], with two brackets"
            )
            return []
        return [(path, entry) for entry in entries]


def read_file(path: Path) -> bytes:
    """The content of an inventory or password file. Raises OSError.

    Only a path below /dev may be a pipe: a shell gives such paths for `<(command)`.
    """
    return path.read_bytes() if path.parts[:2] == ("/", "dev") else read_regular(path)


def _glob(pattern: str) -> str:
    """`pattern`, after a check. Raises ValueError where ** is only a part of a name.

    Python refuses such a pattern until 3.12. Later versions treat ** as *.
    """
    if any("**" in part and part != "**" for part in pattern.split("/")):
        raise ValueError(pattern)
    return pattern


def builtin_profiles() -> dict[str, dict[str, Any]]:
    """The built-in profiles of camserver, by name."""
    profiles: dict[str, dict[str, Any]] = tomli.loads(
        (files("camserver.config") / "profiles.toml").read_text()
    )
    return profiles
