"""The tables of the inventory file for the pictures on disk: [output] and [retention]."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import Field, model_validator

from camserver.config.table import Table
from camserver.config.units import Duration, Size

ARCHIVE_DIRECTIVES = {
    "Y": r"\d{4}",
    "m": r"\d\d",
    "d": r"\d\d",
    "H": r"\d\d",
    "M": r"\d\d",
    "S": r"\d\d",
    "L": r"\d{3}",
    "f": r"\d{6}",
    "j": r"\d{3}",
    "y": r"\d\d",
    "I": r"\d\d",
    "z": r"[+-]\d{4}(?:\d\d)?",
    "s": r"\d+",
    "p": r"[^/]*",
    "a": r"[^/]+",
    "A": r"[^/]+",
    "b": r"[^/]+",
    "B": r"[^/]+",
    "Z": r"[^/]*",
    "%": "%",
}
"""The regular expression for the result of each strftime directive.

Retention needs them to recognise the names of pictures. %L is camserver's own: milliseconds.
"""


class OutputTable(Table):
    """Where pictures go."""

    directory: Path = Field(
        Path("/var/lib/camserver/snapshots"),
        description="One folder for each camera id is made in it.",
    )
    archive: str = Field(
        "%Y/%m/%d/%H%M%S.%LZ.jpg",
        description=(
            "strftime pattern of archived pictures below <directory>/<camera>/; %L is milliseconds."
            ' "" keeps only latest.jpg.'
        ),
    )
    timezone: str = Field(
        "UTC", description="Time zone of names in the archive; facts are always UTC."
    )
    quality: int = Field(85, ge=1, le=100, description="JPEG quality.")
    fsync: bool = Field(True, description="Flush each picture to the disk before it gets its name.")
    index: Path | None = Field(
        None,
        description=(
            "File of the archive's index; default: .camserver-index.sqlite in the directory. It"
            " needs a local disk, so name one when pictures go to a network file system."
        ),
    )

    @property
    def index_path(self) -> Path:
        """The file of the archive's index."""
        return self.index or self.directory / ".camserver-index.sqlite"

    @model_validator(mode="after")
    def _check(self) -> OutputTable:
        if self.archive and not self.archive.endswith((".jpg", ".jpeg")):
            raise ValueError('archive must end in ".jpg", or be "" to keep only latest.jpg')
        if Path(self.archive).is_absolute() or ".." in Path(self.archive).parts:
            raise ValueError("archive must be a path below the camera's folder")
        used = re.findall("%(.?)", self.archive)
        if self.archive and not set(used) - {"%"}:
            raise ValueError("archive must hold a date or a time, e.g. %Y/%m/%d/%H%M%S.%LZ.jpg")
        if strangers := sorted({f"%{d}" for d in used if d not in ARCHIVE_DIRECTIVES}):
            raise ValueError(
                f"archive: {', '.join(strangers)}: not known; there are"
                f" %{', %'.join(ARCHIVE_DIRECTIVES)}"
            )
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"timezone {self.timezone!r} is not known on this machine") from None
        return self


class ThinningTable(Table):
    """One step of thinning: of older pictures, one for each `every` stays."""

    after: Duration = Field(ge=1, description="Age from which on pictures are thinned out.")
    every: Duration = Field(
        ge=1, description="Distance of the marks; the picture nearest to each mark stays."
    )


Thinning = Annotated[
    list[ThinningTable],
    Field(
        description=(
            'Thin out older pictures: keep = [{after = "7d", every = "1h"}, {after = "90d", every'
            ' = "1d"}].'
        )
    ),
]


class CameraRetention(Table):
    """What is deleted of one camera. A key that is not given is as in [retention]."""

    max_age: Duration | None = Field(None, description="Delete pictures older than this.")
    max_bytes: Size | None = Field(
        None, description="Delete the camera's oldest when its archive is larger than this."
    )
    keep_last: int = Field(10, ge=1, description="The newest pictures that are always kept.")
    keep: Thinning = Field([])


class RetentionTable(Table):
    """What is deleted from the archive, and when. latest.jpg is never deleted."""

    max_age: Duration | None = Field(None, description="Delete pictures older than this.")
    max_bytes: Size | None = Field(
        None, description="Delete the oldest when the archive of all cameras is larger."
    )
    min_free: Size | None = Field(
        500_000_000, description="Delete the oldest when the disk has less free space than this."
    )
    keep_last: int = Field(
        10, ge=1, description="The newest pictures of each camera that are always kept."
    )
    keep: Thinning = Field([])
