"""The table of the inventory file for how pictures are judged: [health]."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator

from camserver.config.table import Table
from camserver.config.units import Duration


class HealthTable(Table):
    """From when on a camera's pictures are suspect. A suspect picture is published like any other.

    A camera's own `health = {...}` changes single keys; `health = false` judges nothing.
    """

    suspect_after: Duration = Field(
        180.0,
        ge=1,
        le=86_400,
        description="How long a fault must be seen before it is told, in three pictures at least.",
    )
    black_below: float = Field(
        0.07, ge=0, le=1, description="Black: nearly all of the picture is darker, of 0 to 1."
    )
    washed_out_above: float = Field(
        0.85, ge=0, le=1, description="Washed out: nearly all of it is brighter, of 0 to 1."
    )
    covered_below: float = Field(
        0.3, ge=0, le=1, description="Covered: the share of the usual contrast that is left."
    )
    moved_below: float = Field(
        0.4, ge=0, le=1, description="Another scene: how like a known one it is, of 0 to 1."
    )
    blurred_below: float = Field(
        0.6, ge=0, le=1, description="Blurred: the share of the usual sharpness that is left."
    )
    frozen_after: Duration = Field(
        120.0,
        ge=1,
        le=86_400,
        description=(
            "Frozen: for how long the same picture comes, five times as long when only a small"
            " part of it changes."
        ),
    )
    clock_tolerance: Duration = Field(
        60.0, ge=0.1, description="How far the camera's clock may be off."
    )
    accept_after: Duration = Field(
        7 * 86_400.0, ge=60, description="Another scene that stays so long is the usual one."
    )


def _switch_or_table(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    if isinstance(value, bool):
        return value
    if not isinstance(value, dict | HealthTable):
        raise ValueError("expected true, false or a table")  # noqa: TRY004 - pydantic reports it
    return handler(value)


HealthKey = Annotated[
    HealthTable, WrapValidator(_switch_or_table, json_schema_input_type=bool | HealthTable)
]
"""A camera's own key: a table, or whether its pictures are judged."""


def health_of(all_cameras: HealthTable, own: HealthTable | bool | None) -> HealthTable | None:
    """How the pictures of one camera are judged. None: they are not judged."""
    if own is False:
        return None
    if not isinstance(own, HealthTable):
        return all_cameras
    return all_cameras.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})
