"""Names of archived pictures, and how to know one again. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from camserver.config.model import ARCHIVE_DIRECTIVES, OutputTable


def within(directory: Path, output: OutputTable) -> OutputTable:
    """`output` of a new inventory, in the directory of the running one: a restart changes that."""
    return output.model_copy(update={"directory": directory})


def archive_name(pattern: str, moment: datetime) -> str:
    """The path below the camera's folder for a picture of `moment`.

    %L is milliseconds, the rest is strftime's.
    """
    milliseconds = f"{moment.microsecond // 1000:03d}"
    parts = re.split(r"(%.)", pattern)
    return moment.strftime("".join(milliseconds if part == "%L" else part for part in parts))


def numbered(name: str, number: int) -> str:
    """`name` for the number-th picture of the same moment: a.jpg, a-1.jpg, a-2.jpg."""
    stem, dot, suffix = name.rpartition(".")
    return name if number == 0 else f"{stem}-{number}{dot}{suffix}"


def archive_regex(pattern: str) -> re.Pattern[str]:
    """Matches exactly the paths `archive_name` and `numbered` can give.

    Nothing else in the folder is ours to delete.
    """
    stem, _, suffix = pattern.rpartition(".")
    body = "".join(
        ARCHIVE_DIRECTIVES[part[1]] if part.startswith("%") else re.escape(part)
        for part in re.split(r"(%.)", stem)
    )
    return re.compile(rf"{body}(?:-\d+)?\.{re.escape(suffix)}")
