"""Names of archived pictures, and a pattern that matches them. The code is pure."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from camserver.config.model import ARCHIVE_DIRECTIVES, OutputTable


def within(directory: Path, output: OutputTable) -> OutputTable:
    """`output` of a new inventory with the old directory: only a restart changes the directory."""
    return output.model_copy(update={"directory": directory})


def archive_name(pattern: str, moment: datetime) -> str:
    """The path below the camera's folder for a picture of `moment`.

    %L is milliseconds. The other directives are those of strftime.
    """
    milliseconds = f"{moment.microsecond // 1000:03d}"
    parts = re.split(r"(%.)", pattern)
    return moment.strftime("".join(milliseconds if part == "%L" else part for part in parts))


def numbered(name: str, number: int) -> str:
    """The name of the number-th picture of the same moment: a.jpg, a-1.jpg, a-2.jpg."""
    stem, dot, suffix = name.rpartition(".")
    return name if number == 0 else f"{stem}-{number}{dot}{suffix}"


def archive_regex(pattern: str) -> re.Pattern[str]:
    """A pattern that matches exactly the paths that `archive_name` and `numbered` can give.

    camserver must not delete other files in the folder.
    """
    stem, _, suffix = pattern.rpartition(".")
    body = "".join(
        ARCHIVE_DIRECTIVES[part[1]] if part.startswith("%") else re.escape(part)
        for part in re.split(r"(%.)", stem)
    )
    return re.compile(rf"{body}(?:-\d+)?\.{re.escape(suffix)}")
