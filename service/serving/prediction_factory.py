"""Identifiers of our own making, in the order of their time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from os import urandom
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.errors import DataError
from service.events import Prediction
from sfs.matrix import SliceMatrix

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
RANDOM_BYTES = 10
"""Random bytes that an identifier takes, of which it keeps 74 bits."""


def uuid7(at: datetime, random: bytes) -> str:
    """Return a UUID of version 7 (RFC 9562): 48 bits of Unix milliseconds, then 74 random bits.

    Parameters
    ----------
    at
        Its time, with a time zone.
    random
        10 random bytes.

    Examples
    --------
    >>> uuid7(datetime(2026, 5, 1, tzinfo=UTC), bytes(10))
    '019de0d5-c800-7000-8000-000000000000'
    """
    bits = int.from_bytes(random[:RANDOM_BYTES], "big")
    high, low = bits >> 62 & 0xFFF, bits & (1 << 62) - 1
    number = (at - _EPOCH) // _MILLISECOND << 80 | 7 << 76 | high << 64 | 2 << 62 | low
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def uuid7s(at: datetime, count: int, draw: Callable[[int], bytes]) -> list[str]:
    """Return identifiers of one time; ``draw`` gives that many random bytes, as ``os.urandom`` does."""
    drawn = draw(RANDOM_BYTES * count)
    return [uuid7(at, drawn[i * RANDOM_BYTES : (i + 1) * RANDOM_BYTES]) for i in range(count)]


RecordFields: TypeAlias = Mapping[str, Any]

_to_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """One record to be predicted, and the client's id for it, if any."""

    record: RecordFields
    id: str | None = None


@dataclass(frozen=True, slots=True)
class ExternalPrediction:
    """One record that another server has predicted.

    Parameters
    ----------
    record
        What its functions and features are read from.
    label
        The predicted class.
    version
        Of the model that predicted.
    probabilities
        Of the classes, in their order; None where they are not known.
    id
        The client's, if any.
    at
        When it was predicted; None for now.
    """

    record: RecordFields
    label: str
    version: int
    probabilities: tuple[float, ...] | None = None
    id: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PredictionResult:
    """A prediction and the names of the slices that its bitmaps stand for.

    Parameters
    ----------
    prediction
        What goes into the log.
    classes
        The C classes of its probabilities, in order.
    slices, unknown_slices
        Those the record is in, and those of which it is not known.
    """

    prediction: Prediction
    classes: tuple[str, ...]
    slices: tuple[str, ...]
    unknown_slices: tuple[str, ...]


class ModelOutput(NamedTuple):
    """Output of a model for one record: version, class, and the C probabilities if known."""

    version: int
    label: str
    probabilities: tuple[float, ...] | None


@dataclass(frozen=True, slots=True)
class PredictionFactory:
    """Makes predictions for the log: ids, times, bitmaps, and the features that may be kept.

    Parameters
    ----------
    now
        Current time, UTC.
    features
        Feature policy: ``("all",)``, ``("none",)``, or the columns of a record to keep.
    random_bytes
        Source of random bytes.
    """

    now: Callable[[], datetime]
    features: tuple[str, ...] = ("all",)
    random_bytes: Callable[[int], bytes] = urandom

    def results(
        self,
        rows: Sequence[PredictionRequest] | Sequence[ExternalPrediction],
        outputs: Sequence[ModelOutput],
        S: SliceMatrix,
        model: str,
        classes: tuple[str, ...],
        set_hash: str,
    ) -> list[PredictionResult]:
        """Return the results of N records.

        Parameters
        ----------
        rows
            N records with their ids.
        outputs
            N outputs of the model.
        S
            Slices of the N records.
        model, classes, set_hash
            Name of the model, its C classes in order, and the hash of the function set.

        Raises
        ------
        DataError
            If a record is not made of JSON values.
        """
        now = self.now()
        ids = uuid7s(now, len(rows), self.random_bytes)
        columns = (
            rows, ids, outputs, bitmaps_of(S.member), bitmaps_of(S.unknown),
            names_of(S.member, S.names), names_of(S.unknown, S.names),
        )  # fmt: skip
        results = []
        for row, id_, output, member, unknown, slices, unknown_slices in zip(*columns, strict=True):
            external = isinstance(row, ExternalPrediction)
            text = _json_of(row.record)
            prediction = Prediction(
                id=id_ if row.id is None else row.id,
                model=model,
                version=output.version,
                set_hash=set_hash,
                at=(row.at or now) if external else now,
                label=output.label,
                probabilities=output.probabilities,
                member=member,
                unknown=unknown,
                features=self._kept(row.record, text),
                content_hash=_hash_of(row, text),
                source="logged" if external else "live",
            )
            results.append(PredictionResult(prediction, classes, slices, unknown_slices))
        return results

    def _kept(self, record: RecordFields, text: str) -> str | None:
        """Return the part of a record that may be kept, as JSON."""
        if self.features == ("all",):
            return text
        if self.features == ("none",):
            return None
        return _json_of({name: value for name, value in record.items() if name in self.features})


def content_hash(asked: PredictionRequest | ExternalPrediction) -> int:
    """Return 64 bits, signed, that are the same for the same content; an id is no part of it.

    Raises
    ------
    DataError
        If the record is not made of JSON values.

    Examples
    --------
    >>> one, same = PredictionRequest({"a": 1, "b": None}), PredictionRequest({"b": None, "a": 1}, id="mine")
    >>> content_hash(one) == content_hash(same)
    True
    """
    return _hash_of(asked, _json_of(asked.record))


def _hash_of(asked: PredictionRequest | ExternalPrediction, text: str) -> int:
    if isinstance(asked, ExternalPrediction):
        text += _to_json([asked.label, asked.version, asked.probabilities])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)


def bitmaps_of(bits: NDArray[np.bool_]) -> list[bytes]:
    """Return N bitmaps of bool[N, K]; bit k of a row is column k, the lowest bit of a byte first.

    Examples
    --------
    >>> [row.hex() for row in bitmaps_of(np.array([[True, False, True], [False, False, False]]))]
    ['05', '00']
    """
    return [row.tobytes() for row in np.packbits(bits, axis=1, bitorder="little")]


def names_of(bits: NDArray[np.bool_], names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return for each of N rows of bool[N, K] the names of the columns that are set.

    Examples
    --------
    >>> names_of(np.array([[True, False, True], [False, False, False]]), "abc")
    [('a', 'c'), ()]
    """
    found: list[list[str]] = [[] for _ in range(len(bits))]
    for row, k in zip(*(at.tolist() for at in np.nonzero(bits)), strict=True):
        found[row].append(names[k])
    return [tuple(each) for each in found]


def _json_of(record: RecordFields) -> str:
    try:
        return _to_json(record)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"a record is made of JSON values, this one is not: {error}") from None
