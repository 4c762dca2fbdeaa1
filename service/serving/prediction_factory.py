"""Predictions for the log: ids, times, bitmaps, content hashes, and the features that may be kept."""

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

RecordFields: TypeAlias = Mapping[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_UUID_RANDOM_BYTES = 10
_to_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """One record to predict, and the client's id for it, if any."""

    record: RecordFields
    id: str | None = None


@dataclass(frozen=True, slots=True)
class ExternalPrediction:
    """One prediction made by another server.

    Parameters
    ----------
    record
        Features of the record.
    label
        The predicted class.
    version
        Version of the model that predicted.
    probabilities
        C probabilities, in the order of the classes; None if unknown.
    id
        The client's id, if any.
    at
        Time of the prediction; None for now.
    """

    record: RecordFields
    label: str
    version: int
    probabilities: tuple[float, ...] | None = None
    id: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PredictionResult:
    """A prediction, and the names behind its bitmaps.

    Parameters
    ----------
    prediction
        The prediction for the log.
    classes
        The C classes of its probabilities, in order.
    slices, unknown_slices
        Names of the slices that contain the record, and of those whose membership is unknown.
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
    """Makes predictions for the log.

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
        random = self.random_bytes(_UUID_RANDOM_BYTES * len(rows))
        columns = (
            rows, outputs, bitmaps_of(S.member), bitmaps_of(S.unknown),
            names_of(S.member, S.names), names_of(S.unknown, S.names),
        )  # fmt: skip
        results = []
        for n, (row, output, member, unknown, slices, unknown_slices) in enumerate(zip(*columns, strict=True)):
            external = isinstance(row, ExternalPrediction)
            features: str | None
            features = content = _json_of(row.record)
            if self.features == ("none",):
                features = None
            elif self.features != ("all",):
                features = _json_of({k: value for k, value in row.record.items() if k in self.features})
            if external:
                content += _to_json([row.label, row.version, row.probabilities])
            digest = blake2b(content.encode(), digest_size=8).digest()
            id_ = row.id
            if id_ is None:
                id_ = uuid7(now, random[n * _UUID_RANDOM_BYTES : (n + 1) * _UUID_RANDOM_BYTES])
            prediction = Prediction(
                id=id_,
                model=model,
                version=output.version,
                set_hash=set_hash,
                at=(row.at or now) if external else now,
                label=output.label,
                probabilities=output.probabilities,
                member=member,
                unknown=unknown,
                features=features,
                content_hash=int.from_bytes(digest, "big", signed=True),
                source="logged" if external else "live",
            )
            results.append(PredictionResult(prediction, classes, slices, unknown_slices))
        return results


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
    bits = int.from_bytes(random[:_UUID_RANDOM_BYTES], "big")
    high, low = bits >> 62 & 0xFFF, bits & (1 << 62) - 1
    number = (at - _EPOCH) // _MILLISECOND << 80 | 7 << 76 | high << 64 | 2 << 62 | low
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def bitmaps_of(bits: NDArray[np.bool_]) -> list[bytes]:
    """Return N bitmaps of bool[N, K]; bit k of a row is column k, the lowest bit of a byte first.

    Examples
    --------
    >>> [row.hex() for row in bitmaps_of(np.array([[True, False, True], [False, False, False]]))]
    ['05', '00']
    """
    return [row.tobytes() for row in np.packbits(bits, axis=1, bitorder="little")]


def names_of(bits: NDArray[np.bool_], names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return, for each of N rows of bool[N, K], the names of the columns that are set.

    Examples
    --------
    >>> names_of(np.array([[True, False, True], [False, False, False]]), "abc")
    [('a', 'c'), ()]
    """
    rows: list[list[str]] = [[] for _ in range(len(bits))]
    for row, k in zip(*(at.tolist() for at in np.nonzero(bits)), strict=True):
        rows[row].append(names[k])
    return [tuple(names) for names in rows]


def _json_of(record: RecordFields) -> str:
    try:
        return _to_json(record)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"a record must be made of JSON values: {error}") from None
