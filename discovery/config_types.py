"""What the sections of the configuration are made of: strict models, lists of names, seeds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator

from evaluators.written import Ambiguous, plain_values, settle


class Section(BaseModel):
    """A frozen section that knows all its keys and reads each value by the type that is due."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _as_meant(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        if info.field_name == "options" and isinstance(value, dict):  # their owner knows the types of the first level
            return {k: v if isinstance(v, Ambiguous) else plain_values(v) for k, v in value.items()}
        return settle(cls.model_fields[info.field_name].annotation, value)


def listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _seeds(value: Any) -> int | tuple[int, ...]:
    items = value if isinstance(value, (list, tuple)) else [value]
    if not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in items):
        raise ValueError("takes a count or a list of whole numbers from 0 on")
    if isinstance(value, int):
        if value < 1:
            raise ValueError("must be at least 1")
        return value
    if not items or len(set(items)) != len(items):
        raise ValueError("takes at least one seed, each once")
    return tuple(items)


Names = Annotated[tuple[str, ...], BeforeValidator(listed)]
Seeds = Annotated[int | tuple[int, ...], BeforeValidator(_seeds)]
