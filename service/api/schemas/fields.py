"""Types of the fields of requests and responses, and the bases of their models."""

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
    """A request body, or a part of it; unknown fields are errors, as they may be misspelt."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Out(BaseModel):
    """A response, or a part of it, read from the attributes of a value of the same shape."""

    model_config = ConfigDict(from_attributes=True)


BodyT = TypeVar("BodyT", bound=BaseModel)
OutT = TypeVar("OutT", bound=Out)


def out_of(kind: type[OutT], *sources: object, **given: Any) -> OutT:
    """Return a response with the given fields; every other field is read from the first source that has it."""
    values = {
        name: getattr(next((source for source in sources if hasattr(source, name)), sources[0]), name)
        for name in kind.model_fields
        if name not in given
    }
    return kind.model_validate(values | given)


def _class_name(value: Any) -> str:
    if not isinstance(value, (str, int, float)) or (isinstance(value, float) and not isfinite(value)):
        raise ValueError("a class must be a string, a number or a boolean")
    text = text_of(value)
    if not 0 < len(text) <= NAME_CHARS or _CONTROL.search(text.strip()):
        raise ValueError(f"a class must have 1 to {NAME_CHARS} characters and no control characters")
    return text


def _iso(value: Any) -> Any:
    if not isinstance(value, str) or value[4:5] != "-":  # pydantic would read numbers as seconds
        raise ValueError("a time must be ISO 8601 with a time zone, such as 2026-05-01T12:00:00Z")
    return value


def _utc(at: datetime) -> datetime:
    if not _FIRST <= at < _LAST:  # arithmetic with time steps must stay within the calendar
        raise ValueError("a time must be in the years 1970 to 2999")
    return at.astimezone(UTC)


Name: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=NAME_CHARS, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""An identifier from a client, without control characters, which databases refuse."""

Text: TypeAlias = Annotated[str, StringConstraints(max_length=NAME_CHARS, pattern=r"^[^\x00-\x1f\x7f]*$")]
"""A short text, which may be empty."""

Remark: TypeAlias = Annotated[
    str, StringConstraints(max_length=REMARK_CHARS, pattern=r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f]*$")
]
"""A few sentences, which may be empty; tabs and line breaks are allowed."""

ClassName: TypeAlias = Annotated[
    str,
    BeforeValidator(_class_name),
    WithJsonSchema({"type": ["string", "number", "boolean"], "minLength": 1, "maxLength": NAME_CHARS}),
]
"""A class as text: 1 and "1" are equal, true is "true"."""

Time: TypeAlias = Annotated[AwareDatetime, BeforeValidator(_iso), AfterValidator(_utc)]
"""A time, converted to UTC."""

Share: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""A fraction in [0, 1]."""

RecordFields: TypeAlias = dict[str, Any]
"""One record: any JSON values by column."""
