"""How well a model does overall and slice by slice, every rate with its n and interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.errors import DataError
from models.metrics import f_measure
from sfs.function import ALL_ROWS
from sfs.intervals import PairedDifference, Rate
from sfs.matrix import SliceMatrix

HEAD = ("slice", "n", "coverage", "unknown", "F1", "accuracy", "95 % interval")
"""What `cells` are called."""


@dataclass(frozen=True, slots=True)
class SliceResult:
    """One slice, or all rows (``__all__``).

    Parameters
    ----------
    n
        Rows judged: known members.
    accuracy
        The share of them that is predicted rightly.
    f1
        For two classes F1 of the second, for more the mean F1 over the classes that occur; None where no row
        has, or is given, a class to count.
    coverage
        Members among rows whose membership is known.
    unknown
        Rows whose membership is not known; they are in no other number.
    """

    name: str
    n: int
    accuracy: Rate
    f1: float | None
    coverage: Rate
    unknown: int

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON values, with the intervals' ends."""
        lower, upper = self.accuracy.interval()
        return {
            "slice": self.name,
            "n": self.n,
            "accuracy": self.accuracy.value,
            "accuracy_lower": lower,
            "accuracy_upper": upper,
            "f1": self.f1,
            "coverage": self.coverage.value,
            "unknown": self.unknown,
        }


@dataclass(frozen=True, slots=True)
class SliceReport:
    """The result of all rows, then of every slice in the matrix's order."""

    rows: tuple[SliceResult, ...]

    @property
    def overall(self) -> SliceResult:
        """The result of all rows."""
        return self.rows[0]

    def __getitem__(self, name: str) -> SliceResult:
        for row in self.rows:
            if row.name == name:
                return row
        raise DataError(f"no slice {name!r}; the report has {[row.name for row in self.rows]}")

    def to_json(self) -> list[dict[str, Any]]:
        """Return the rows as JSON values; None is what cannot be measured."""
        return [row.to_json() for row in self.rows]

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a data frame, indexed by slice."""
        return pd.DataFrame(self.to_json()).set_index("slice")

    def to_text(self) -> str:
        """Return an aligned table with n and the 95 % interval of every accuracy."""
        return aligned([HEAD, *map(cells, self.to_json())])


def slice_report(
    truth: Sequence[str], predicted: Sequence[str], S: SliceMatrix, classes: Sequence[str]
) -> SliceReport:
    """Judge N predictions overall and on the known members of every slice.

    Parameters
    ----------
    truth, predicted
        N classes each.
    S
        Memberships of the N rows.
    classes
        The C classes; the second is the positive one where there are two.

    Raises
    ------
    DataError
        If the lengths differ, or a label is none of the classes.
    """
    names = np.array(list(classes), dtype=object)
    gold, said = _codes(truth, names, "true"), _codes(predicted, names, "predicted")
    _same_length(len(S), truth=gold, predicted=said)
    everyone = np.ones(len(S), dtype=bool)
    rows = [_result(ALL_ROWS, gold, said, everyone, everyone, len(names))]
    for k, name in enumerate(S.names):
        rows.append(_result(name, gold, said, S.member[:, k], ~S.unknown[:, k], len(names)))
    return SliceReport(tuple(rows))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models on the known members of one slice: the first's accuracy minus the second's."""

    name: str
    difference: PairedDifference

    @property
    def n(self) -> int:
        """Rows compared."""
        return self.difference.n


def compare(
    truth: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
    S: SliceMatrix,
    confidence: float = 0.95,
) -> tuple[Comparison, ...]:
    """Compare two models on the same rows, overall (first) and slice by slice.

    Raises
    ------
    DataError
        If the lengths differ.
    """
    gold, one, other = (np.asarray(labels, dtype=object) for labels in (truth, first, second))
    _same_length(len(S), truth=gold, first=one, second=other)
    only_first, only_second = (one == gold) & (other != gold), (one != gold) & (other == gold)
    slices = [(ALL_ROWS, np.ones(len(S), dtype=bool)), *((name, S.column(name)) for name in S.names)]
    return tuple(
        Comparison(
            name,
            PairedDifference(int(only_first[m].sum()), int(only_second[m].sum()), int(m.sum()), confidence),
        )
        for name, m in slices
    )


def _codes(labels: Sequence[str], names: NDArray[Any], what: str) -> NDArray[np.int64]:
    index = {name: code for code, name in enumerate(names)}
    for row, label in enumerate(labels):
        if label not in index:
            raise DataError(f"row {row}: the {what} label {label!r} is none of the classes {list(names)}")
    return np.fromiter((index[label] for label in labels), dtype=np.int64, count=len(labels))


def _same_length(n: int, **arrays: NDArray[Any]) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if set(lengths.values()) != {n}:
        raise DataError(f"the slice matrix has {n} rows, but the labels are {lengths}")


def _result(
    name: str,
    gold: NDArray[np.int64],
    said: NDArray[np.int64],
    member: NDArray[np.bool_],
    known: NDArray[np.bool_],
    n_classes: int,
) -> SliceResult:
    gold, said, n = gold[member], said[member], int(member.sum())
    correct = int((gold == said).sum())
    coverage = Rate(n, int(known.sum()))
    return SliceResult(name, n, Rate(correct, n), _f1(gold, said, n_classes), coverage, int((~known).sum()))


def _f1(gold: NDArray[np.int64], said: NDArray[np.int64], n_classes: int) -> float | None:
    counted = [1] if n_classes == 2 else range(n_classes)
    triples = [
        (int(((gold == c) & (said == c)).sum()), int((said == c).sum()), int((gold == c).sum()))
        for c in counted
    ]
    measured = [f_measure(*triple) for triple in triples if triple[1] + triple[2]]
    return float(np.mean(measured)) if measured else None


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return a result, as `SliceResult.to_json` gives it, as text in the order of ``HEAD``."""
    interval = f"{row['accuracy_lower']:.3f} to {row['accuracy_upper']:.3f}" if row["n"] else "-"
    counts = [f"{row['n']:,}", _share(row["coverage"]), f"{row['unknown']:,}"]
    return [row["slice"], *counts, _share(row["f1"]), _share(row["accuracy"]), interval]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return cells as lines, the first column to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
