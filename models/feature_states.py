"""What a featurizer learned of each column, and its JSON, of which nothing is believed unchecked."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from models.errors import DataError
from models.table_features import NumberScale, Vocabulary
from models.text_features import N_HASHED


@dataclass(frozen=True, slots=True)
class TextState:
    """A text column: how many columns words are hashed to, and whether training saw a missing text."""

    n_hashed: int
    missing_seen: bool


State: TypeAlias = TextState | NumberScale | Vocabulary


def state_to_json(state: State) -> dict[str, Any]:
    """Return a column's state as JSON values; floats are exact when written by ``json``."""
    return asdict(state)


def state_from_json(column: str, kind: str, saved: Any) -> State:
    """Return the state of a column of a kind.

    Raises
    ------
    DataError
        If it is none, naming the column, the field and what was expected of it.
    """
    make, fields = _STATES[kind]
    if not isinstance(saved, Mapping) or set(saved) != set(fields):
        raise DataError(
            f"{kind} feature {column!r} must have the state {', '.join(fields)}, got {saved!r:.80}"
        )
    for name, (fits, wanted) in fields.items():
        if not fits(saved[name]):
            raise DataError(
                f"{kind} feature {column!r}: {name} must be {wanted}, got {saved[name]!r:.80}: "
                "the state was altered"
            )
    return make(**{name: tuple(value) if isinstance(value, list) else value for name, value in saved.items()})


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _is_scale(value: Any) -> bool:
    return _is_finite(value) and value > 0


def _are_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
    )


def _is_width(value: Any) -> bool:
    return type(value) is int and value == N_HASHED


_Field: TypeAlias = tuple[Callable[[Any], bool], str]
_FLAG: _Field = (_is_flag, "true or false")
_STATES: dict[str, tuple[Callable[..., State], dict[str, _Field]]] = {
    "text": (TextState, {"n_hashed": (_is_width, str(N_HASHED)), "missing_seen": _FLAG}),
    "number": (
        NumberScale,
        {
            "center": (_is_finite, "a finite number"),
            "scale": (_is_scale, "a number above 0"),
            "missing_seen": _FLAG,
        },
    ),
    "category": (
        Vocabulary,
        {"names": (_are_names, "different texts"), "other_seen": _FLAG, "missing_seen": _FLAG},
    ),
}
