"""What all parts of a study's description share."""

from __future__ import annotations

from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from hpo.errors import Said

MANY = 1_000_000
"""The most of anything that is counted: beyond, a number is a slip, and would fill a memory."""
TINY, HUGE = 1e-30, 1e6
"""Bounds of rates and other measures: beyond, float32 has no such step."""


class Part(BaseModel):
    """Frozen, unknown keys are errors, no infinities, and no number is true or false."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _is_no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what pydantic would take for 0 or 1."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and {int, float} & set(get_args(annotation) or [annotation]):
            raise file_fault(Said("it is {value}; expected a number", value=str(value).lower()))
        return value


def file_fault(said: str) -> PydanticCustomError:
    """Return what a validator raises: in a study file the sentence stands as it is, in either language."""
    return PydanticCustomError("file_fault", "{said}", {"said": said})
