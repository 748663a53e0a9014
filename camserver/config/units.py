"""Durations and sizes as people write them: "30s", "500ms", "7d", 2.5; "20GB", "512MiB". Pure."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
BYTES = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
MAX_SECONDS, MAX_BYTES = 3650 * 86400.0, 1e18
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)\s*"


def parse_duration(value: object) -> float:
    """Seconds from a number or a text such as "1.5s".

    Raises ValueError, whose text says which forms are valid.
    """
    return _parse(
        value,
        SECONDS,
        "s",
        MAX_SECONDS,
        'a duration such as "30s", "500ms", "7d" or a number of seconds',
    )


def parse_size(value: object) -> int:
    """Bytes from a number or a text such as "20GB".

    Raises ValueError, whose text says which forms are valid.
    """
    return int(
        _parse(value, BYTES, "B", MAX_BYTES, 'a size such as "20GB", "512MiB" or a number of bytes')
    )


def _parse(
    value: object, units: dict[str, float] | dict[str, int], default: str, most: float, wanted: str
) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if not 0 <= value <= most:  # this also refuses nan and inf
            raise ValueError(f"expected {wanted}, from 0 to {most:g}")
        return float(value)
    if isinstance(value, str) and (match := re.fullmatch(_NUMBER + "([A-Za-z]*)", value.strip())):
        number, unit = match.groups()
        if (unit or default) in units:
            return _parse(float(number) * units[unit or default], units, default, most, wanted)
    raise ValueError(f"expected {wanted}")


def _shape(units: dict[str, float] | dict[str, int], example: str) -> WithJsonSchema:
    pattern = "^" + _NUMBER + "(" + "|".join(units) + ")?$"
    return WithJsonSchema(
        {
            "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": pattern}],
            "examples": [example],
        }
    )


Duration = Annotated[float, BeforeValidator(parse_duration), Field(ge=0), _shape(SECONDS, "30s")]
Size = Annotated[int, BeforeValidator(parse_size), Field(ge=0), _shape(BYTES, "20GB")]
