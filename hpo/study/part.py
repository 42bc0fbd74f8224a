"""What all parts of a study's description share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

MANY = 1_000_000
"""The most of anything that is counted: beyond, a number is a slip, and would fill a memory."""
TINY, HUGE = 1e-30, 1e6
"""Bounds of rates and other measures: beyond, float32 has no such step."""


class Part(BaseModel):
    """Frozen, unknown keys are errors, no infinities."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def file_fault(said: str) -> PydanticCustomError:
    """Return what a validator raises: in a study file the sentence stands as it is, in either language."""
    return PydanticCustomError("file_fault", "{said}", {"said": said})
