"""The kinds of fields that requests are made of, and the one way in which a body is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
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
    ValidationError,
    WithJsonSchema,
)

from service.api.refusals import MOST_ERRORS, FieldError, InvalidRequest
from sfs.values import text_of

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


def decoded(kind: type[BodyT], body: bytes) -> BodyT:
    """Return a body as a value of its kind.

    Raises
    ------
    InvalidRequest
        If it is not JSON, or not of the kind; the message names the fields.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequest(_told(error)) from None


def require_finite(value: Any, place: str) -> None:
    """Refuse numbers that JSON does not have: NaN, or beyond 64-bit floats.

    Parameters
    ----------
    value
        JSON values of any kind and depth.
    place
        Where they are in the body; empty for the whole of it.

    Raises
    ------
    InvalidRequest
        If there is such a number.
    """
    if _is_finite(value):
        return
    message = "a number is finite, this one is not; send null for a missing one"
    raise InvalidRequest([FieldError(found, message) for found in islice(_places(value, place), MOST_ERRORS)])


def require_distinct(ids: Sequence[str | None], field: str, part: str = "") -> None:
    """Refuse ids that occur twice in one request.

    Raises
    ------
    InvalidRequest
        If there are such.
    """
    given = [each for each in ids if each is not None]
    if len(set(given)) == len(given):
        return
    first: dict[str, int] = {}
    for i, each in enumerate(ids):
        if each is not None and first.setdefault(each, i) != i:
            message = f"{each!r} is there twice in the request: an id names one record"
            raise InvalidRequest([FieldError(f"{field}[{i}]{part}", message)])


def _is_finite(value: Any) -> bool:
    kind = type(value)
    if kind is float:
        return isfinite(value)
    if kind is dict:
        return all(map(_is_finite, value.values()))
    return kind is not list or all(map(_is_finite, value))


def _places(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _places(each, f"{place}.{key}")
    elif isinstance(value, list):
        for i, each in enumerate(value):
            yield from _places(each, f"{place}[{i}]")
    elif not _is_finite(value):
        yield place.removeprefix(".")


def _told(error: ValidationError) -> list[FieldError]:
    count = error.error_count()
    if count > MOST_ERRORS:  # the list of them all may be larger than the body
        return [FieldError("", f"{count} fields are wrong: compare the request with /openapi.json")]
    return told(error.errors(include_url=False, include_context=False, include_input=False))


def told(errors: Sequence[Mapping[str, Any]]) -> list[FieldError]:
    """Return pydantic's errors with their places as paths.

    Examples
    --------
    >>> told([{"loc": ("instances", 3, "likes"), "msg": "Input should be a number"}])
    [FieldError(field='instances[3].likes', message='Input should be a number')]
    """
    return [FieldError(_path(each["loc"]), each["msg"].removeprefix("Value error, ")) for each in errors]


def _path(place: Sequence[int | str]) -> str:
    return "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in place).removeprefix(".")
