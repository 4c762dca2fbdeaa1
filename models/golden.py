"""Records and memberships with a model's answers, by which the model is proved when it is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.bundle_files import FAULTS
from models.errors import BundleError
from sfs.matrix import SliceMatrix

TOLERANCE = 1e-5
MAX_ROWS = 16

Predict: TypeAlias = Callable[[Sequence[Mapping[str, Any]], SliceMatrix | None], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class GoldenBatch:
    """N records with their probabilities, once with memberships and once with all of them unknown.

    Parameters
    ----------
    records
        The feature columns of N rows.
    slices
        Memberships of the N rows.
    probabilities, without_slices
        float64[N, C], given the memberships and given none.
    """

    records: tuple[Mapping[str, Any], ...]
    slices: SliceMatrix
    probabilities: NDArray[np.float64]
    without_slices: NDArray[np.float64]

    @classmethod
    def record(
        cls, predict: Predict, records: Sequence[Mapping[str, Any]], slices: SliceMatrix
    ) -> GoldenBatch:
        """Ask a model about some records and keep its answers."""
        return cls(tuple(records), slices, predict(records, slices), predict(records, None))

    def prove(self, predict: Predict) -> None:
        """Raise BundleError unless a model gives the same answers within 1e-5."""
        for what, slices, expected in (
            ("with memberships", self.slices, self.probabilities),
            ("without memberships", None, self.without_slices),
        ):
            answers = predict(self.records, slices)
            if answers.shape != expected.shape:
                raise BundleError(
                    f"golden batch {what}: expected {expected.shape} answers, got {answers.shape}"
                )
            off = np.abs(answers - expected)
            if not bool((off <= TOLERANCE).all()):
                row = int(np.nan_to_num(off.max(axis=1), nan=np.inf).argmax())
                now, then = answers[row].round(6).tolist(), expected[row].round(6).tolist()
                raise BundleError(
                    f"golden batch {what}, row {row}: the model answers {now}, it answered {then} when it "
                    "was saved: train it anew on this machine"
                )

    def to_json(self) -> dict[str, Any]:
        """Return the batch as JSON values, floats exact."""
        return {
            "records": [dict(record) for record in self.records],
            "slices": list(self.slices.names),
            "member": self.slices.member.tolist(),
            "unknown": self.slices.unknown.tolist(),
            "probabilities": self.probabilities.tolist(),
            "without_slices": self.without_slices.tolist(),
        }

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> GoldenBatch:
        """Return the batch that ``to_json`` described; BundleError if it is none."""
        try:
            shape = (len(saved["records"]), len(saved["slices"]))
            member, unknown = (
                np.array(saved[name], dtype=bool).reshape(shape) for name in ("member", "unknown")
            )
            slices = SliceMatrix(saved["slices"], member, unknown)
            answers = (
                np.array(saved[name], dtype=np.float64) for name in ("probabilities", "without_slices")
            )
            batch = cls(tuple(saved["records"]), slices, *answers)
        except FAULTS as error:
            raise BundleError(f"golden.json is no golden batch: {error!r:.200}") from error
        if not batch.records:
            raise BundleError("golden.json has no record, and so proves nothing")
        return batch
