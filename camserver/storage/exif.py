"""EXIF of a published JPEG (Exif 2.32): the capture time, the camera's name and the software.

The code is pure. Pillow writes the TIFF structure.
"""

from __future__ import annotations

import io
from datetime import datetime
from typing import Literal

from PIL import ExifTags, Image
from PIL.Image import Exif

from camserver import __version__
from camserver.jpeg_file import exif_segment

MAX_TAGS = 200


def with_exif(jpeg: bytes, name: str, captured_at: datetime) -> bytes:
    """`jpeg` with our APP1 segment, which replaces an Exif segment of the camera.

    The pixels do not change, and the orientation in the camera's segment stays.
    """
    exif = Exif()
    if (orientation := _orientation(exif_segment(jpeg))) is not None:
        exif[ExifTags.Base.Orientation] = orientation
    head, rest = _split_head(jpeg)
    # Bytes, because Pillow would turn every non-ASCII character of a str into "?"
    exif[ExifTags.Base.ImageDescription] = name.encode()
    exif[ExifTags.Base.Software] = f"camserver {__version__}"
    exif[ExifTags.Base.DateTime] = _stamp(captured_at)
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.DateTimeOriginal] = _stamp(captured_at)
    details[ExifTags.Base.SubsecTimeOriginal] = f"{captured_at.microsecond // 1000:03d}"
    details[ExifTags.Base.OffsetTimeOriginal] = (
        f"{captured_at:%z}"[:3] + ":" + f"{captured_at:%z}"[3:5]
    )
    payload = exif.tobytes()
    app1 = b"\xff\xe1" + (len(payload) + 2).to_bytes(2, "big") + payload
    return head + app1 + rest


def captured_at(jpeg: bytes) -> datetime | None:
    """The capture time of one of our pictures, to the millisecond. None when EXIF has none."""
    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            details = image.getexif().get_ifd(ExifTags.IFD.Exif)
        text = (
            f"{details[ExifTags.Base.DateTimeOriginal]}.{details[ExifTags.Base.SubsecTimeOriginal]}"
            f"{details[ExifTags.Base.OffsetTimeOriginal]}"
        )
        return datetime.strptime(text, "%Y:%m:%d %H:%M:%S.%f%z")
    except Exception:  # noqa: BLE001 - Pillow raises many kinds for broken and for huge pictures
        return None


def size(jpeg: bytes) -> tuple[int | None, int | None]:
    """(width, height) in pixels from the header, or (None, None)."""
    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            return image.size
    except Exception:  # noqa: BLE001 - as above
        return None, None


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y:%m:%d %H:%M:%S}"


def _orientation(segment: bytes) -> int | None:
    """The orientation in an Exif segment, 1 to 8 (Exif 2.32, 4.6.4); None when it has none.

    Only its first directory is read, and little of it: cameras send any bytes.
    """
    tiff = segment[10:]
    order: Literal["big", "little"] = "big" if tiff[:2] == b"MM" else "little"
    begin = int.from_bytes(tiff[4:8], order)
    count = int.from_bytes(tiff[begin : begin + 2], order)
    for number in range(min(count, MAX_TAGS)):
        entry = tiff[begin + 2 + 12 * number :][:12]
        if int.from_bytes(entry[:2], order) == ExifTags.Base.Orientation and len(entry) == 12:
            found = int.from_bytes(entry[8:10], order)  # a SHORT, at the left of its field
            return found if 1 <= found <= 8 else None
    return None


def _split_head(jpeg: bytes) -> tuple[bytes, bytes]:
    """(SOI and a leading JFIF segment, the rest without the Exif segments at its start)."""
    position = 2
    if jpeg[2:4] == b"\xff\xe0":
        position += 2 + int.from_bytes(jpeg[4:6], "big")
    head = jpeg[:position]
    while (
        jpeg[position : position + 2] == b"\xff\xe1"
        and jpeg[position + 4 : position + 8] == b"Exif"
    ):
        position += 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
    return head, jpeg[position:]
