"""Types of the fields of requests and responses."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from math import isfinite
from typing import Annotated, Any, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from sfs.record import text_of

NAME_CHARS = 200
REMARK_CHARS = 1_000
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)


class Body(BaseModel):
    """A request's body, or a part of it; a field that is not declared is an error, as it may be a misspelling."""

    model_config = ConfigDict(extra="forbid", frozen=True)


BodyT = TypeVar("BodyT", bound=BaseModel)


def _class_name(value: Any) -> str:
    if not isinstance(value, (str, int, float)) or (isinstance(value, float) and not isfinite(value)):
        raise ValueError("a class is text, a number or a boolean")
    text = text_of(value)
    if not 0 < len(text) <= NAME_CHARS or _CONTROL.search(text):
        raise ValueError(f"a class has 1 to {NAME_CHARS} characters, none of them control characters")
    return text


def _iso(value: Any) -> Any:
    if not isinstance(value, str) or value[4:5] != "-":  # pydantic would take numbers for seconds
        raise ValueError("a time is ISO 8601 text with a time zone, such as 2026-05-01T12:00:00Z")
    return value


def _utc(at: datetime) -> datetime:
    if not _FIRST <= at < _LAST:  # far from where arithmetic with steps of time would leave the calendar
        raise ValueError("a time lies in the years 1970 to 2999")
    return at.astimezone(UTC)


Name: TypeAlias = Annotated[
    str, StringConstraints(min_length=1, max_length=NAME_CHARS, pattern=r"^[^\x00-\x1f\x7f]+$")
]
"""An identifier that a client gives: short, and without control characters, which databases refuse."""

Text: TypeAlias = Annotated[str, StringConstraints(max_length=NAME_CHARS, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A short remark, or nothing."""

Remark: TypeAlias = Annotated[
    str, StringConstraints(max_length=REMARK_CHARS, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")
]
"""A few sentences, or nothing; tabs and new lines are allowed."""

ClassName: TypeAlias = Annotated[
    str,
    BeforeValidator(_class_name),
    WithJsonSchema({"type": ["string", "number", "boolean"], "minLength": 1, "maxLength": NAME_CHARS}),
]
"""A class, however it was typed: 1 and "1" are one, true is "true"."""

Time: TypeAlias = Annotated[AwareDatetime, BeforeValidator(_iso), AfterValidator(_utc)]
"""A moment, turned into UTC."""

Share: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""A number in [0, 1]."""

RecordFields: TypeAlias = dict[str, Any]
"""One record: any JSON values by column."""
