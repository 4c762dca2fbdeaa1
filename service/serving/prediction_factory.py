"""Predictions for the log: ids, times, bitmaps, content hashes, and the features that may be kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from os import urandom
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.errors import DataError
from service.events import Prediction, Source
from service.metrics.process import StageTimer
from sfs.matrix import SliceMatrix

RecordFields: TypeAlias = Mapping[str, Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_UUID_RANDOM_BYTES = 10
_VARIANT = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}
_to_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


class PredictionRequest(NamedTuple):
    """One record to predict, and the client's id for it, if any."""

    record: RecordFields
    id: str | None = None


class ExternalPrediction(NamedTuple):
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


class PredictionResult(NamedTuple):
    """A prediction, and the names behind its bitmaps.

    Parameters
    ----------
    prediction
        The prediction for the log.
    classes
        The C classes of its probabilities, in order.
    slices, unknown_slices
        Names of the slices that contain the record, and of those whose membership is unknown.
    timer
        Times of its batch.
    """

    prediction: Prediction
    classes: tuple[str, ...]
    slices: tuple[str, ...]
    unknown_slices: tuple[str, ...]
    timer: StageTimer | None = None


class ModelOutput(NamedTuple):
    """Output of a model for one record: version, class, the C probabilities if known; ``Prediction.disagreement``."""

    version: int
    label: str
    probabilities: tuple[float, ...] | None
    disagreement: bytes | None = None


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
        timer: StageTimer | None = None,
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
        timer
            Times of the batch.

        Raises
        ------
        DataError
            If a record is not made of JSON values.
        """
        now = self.now()
        new_ids = uuids7(now, self.random_bytes(_UUID_RANDOM_BYTES * len(rows)))
        columns = (
            rows, outputs, new_ids, bitmaps_of(S.member), bitmaps_of(S.unknown),
            names_of(S.member, S.names), names_of(S.unknown, S.names),
        )  # fmt: skip
        keeps_all, results = self.features == ("all",), []
        source: Source
        for row, (version, label, probabilities, wrong), new_id, member, unknown, slices, unknown_slices in zip(
            *columns, strict=True
        ):
            content = _json_of(row.record)
            features = content if keeps_all else self._kept(row.record)
            if isinstance(row, ExternalPrediction):
                source, at = "logged", row.at or now
                content += _output_json(row.label, row.version, row.probabilities)
            else:
                source, at = "live", now
            digest = blake2b(content.encode(), digest_size=8).digest()
            prediction = Prediction(
                new_id if row.id is None else row.id,
                model,
                version,
                set_hash,
                at,
                label,
                probabilities,
                member,
                unknown,
                features,
                int.from_bytes(digest, "big", signed=True),
                source,
                wrong,
            )
            results.append(PredictionResult(prediction, classes, slices, unknown_slices, timer))
        return results

    def _kept(self, record: RecordFields) -> str | None:
        """Return the features that are kept, as JSON."""
        if self.features == ("none",):
            return None
        return _json_of({name: value for name, value in record.items() if name in self.features})


def uuids7(at: datetime, random: bytes) -> list[str]:
    """Return UUIDs of version 7 (RFC 9562): 48 bits of Unix milliseconds, then 74 random bits.

    Parameters
    ----------
    at
        Their time, with a time zone.
    random
        10 random bytes for each.

    Examples
    --------
    >>> uuids7(datetime(2026, 5, 1, tzinfo=UTC), bytes(10))
    ['019de0d5-c800-7000-8000-000000000000']
    """
    ms, digits, size = f"{(at - _EPOCH) // _MILLISECOND:012x}", random.hex(), 2 * _UUID_RANDOM_BYTES
    start = f"{ms[:8]}-{ms[8:]}-7"
    return [
        f"{start}{digits[n : n + 3]}-{_VARIANT[digits[n + 3]]}{digits[n + 4 : n + 7]}-{digits[n + 7 : n + 19]}"
        for n in range(0, len(digits), size)
    ]


def bitmaps_of(bits: NDArray[np.bool_]) -> list[bytes]:
    """Return N bitmaps of bool[N, K]; bit k of a row is column k, the lowest bit of a byte first.

    Examples
    --------
    >>> [row.hex() for row in bitmaps_of(np.array([[True, False, True], [False, False, False]]))]
    ['05', '00']
    """
    packed, size = np.packbits(bits, axis=1, bitorder="little").tobytes(), -(-bits.shape[1] // 8)
    return [packed[row * size : row * size + size] for row in range(len(bits))]


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


def _output_json(label: str, version: int, probabilities: tuple[float, ...] | None) -> str:
    """Return an output as the JSON encoder writes it, in a third of the time."""
    p = "null" if probabilities is None else f"[{','.join(map(float.__repr__, probabilities))}]"
    return f"[{_label_json(label)},{version},{p}]"


@lru_cache
def _label_json(label: str) -> str:
    return _to_json(label)


def _json_of(record: RecordFields) -> str:
    try:
        return _to_json(record)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"a record must be made of JSON values: {error}") from None
