"""EXIF of a published JPEG (Exif 2.32): the capture time, the camera's name and the software.

The code is pure. Pillow writes the TIFF structure.
"""

from __future__ import annotations

import io
from datetime import datetime

from PIL import ExifTags, Image
from PIL.Image import Exif

from camserver import __version__


def with_exif(jpeg: bytes, name: str, captured_at: datetime) -> bytes:
    """`jpeg` with our APP1 segment, which replaces an Exif segment of the camera.

    The pixels do not change, and the orientation in the camera's segment stays.
    """
    exif = Exif()
    head, rest, known = _split_head(jpeg)
    if known and (orientation := _orientation(known)) is not None:
        exif[ExifTags.Base.Orientation] = orientation
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
    """The orientation in an Exif segment, 1 to 8 (Exif 2.32, 4.6.4)."""
    try:
        exif = Exif()
        exif.load(segment[4:])
        found = exif.get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - as in captured_at
        return None
    return found if isinstance(found, int) and 1 <= found <= 8 else None


def _split_head(jpeg: bytes) -> tuple[bytes, bytes, bytes]:
    """(SOI and a leading JFIF segment, the rest without the Exif segments there, the first one)."""
    position = 2
    if jpeg[2:4] == b"\xff\xe0":
        position += 2 + int.from_bytes(jpeg[4:6], "big")
    head, first = jpeg[:position], b""
    while (
        jpeg[position : position + 2] == b"\xff\xe1"
        and jpeg[position + 4 : position + 8] == b"Exif"
    ):
        begin = position
        position += 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
        first = first or jpeg[begin:position]
    return head, jpeg[position:], first
