"""Results of a model overall and per slice, every rate with its n and interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ConfigDict, StrictFloat, StrictInt

from models.errors import DataError
from models.scoring import f_measure
from sfs.function import ALL_ROWS
from sfs.intervals import PairedDifference, Rate, effective_n
from sfs.matrix import SliceMatrix

HEADER = ("slice", "n", "coverage", "unknown", "F1", "accuracy", "95% interval")
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class SliceMetrics:
    """A `SliceResult` as it is stored: values of rates and ends of intervals, None where not measurable."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    slice: str
    n: StrictInt
    accuracy: StrictFloat | None
    accuracy_lower: StrictFloat | None
    accuracy_upper: StrictFloat | None
    f1: StrictFloat | None
    coverage: StrictFloat | None
    unknown: StrictInt
    effective_n: StrictInt | None = None  # not in reports of earlier versions

    @property
    def independent_n(self) -> int:
        """The effective n; in reports of earlier versions, n."""
        return self.n if self.effective_n is None else self.effective_n


@dataclass(frozen=True, slots=True)
class SliceResult:
    """Evaluation result of a slice, or of all rows (``__all__``).

    Parameters
    ----------
    n
        Number of known members.
    accuracy
        Share of correct predictions among them, with the effective n of their contents.
    f1
        For two classes F1 of the second, for more the mean F1 over the classes that occur; None where no row
        has, or is given, a class to count.
    coverage
        Members among rows whose membership is known, with the effective n of their contents.
    unknown
        Rows with unknown membership; they are in no other number.
    """

    name: str
    n: int
    accuracy: Rate
    f1: float | None
    coverage: Rate
    unknown: int

    def metrics(self) -> SliceMetrics:
        """Return the result with the ends of the interval."""
        lower, upper = self.accuracy.interval()
        accuracy, coverage, n = self.accuracy.value, self.coverage.value, self.accuracy.effective_n
        return SliceMetrics(self.name, self.n, accuracy, lower, upper, self.f1, coverage, self.unknown, n)


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
        """Return the rows as JSON values; None where not measurable."""
        return [asdict(row.metrics()) for row in self.rows]

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a data frame, indexed by slice."""
        return pd.DataFrame(self.to_json()).set_index("slice")

    def to_text(self) -> str:
        """Return an aligned table with n and the 95% interval of every accuracy."""
        return align_table(result_table([row.metrics() for row in self.rows]))


def slice_report(
    truth: Sequence[str],
    predicted: Sequence[str],
    S: SliceMatrix,
    classes: Sequence[str],
    contents: NDArray[Any] | None = None,
) -> SliceReport:
    """Return the results of N predictions overall and on the known members of every slice.

    Parameters
    ----------
    truth, predicted
        N classes each.
    S
        Memberships of the N rows.
    classes
        The C classes; the second is the positive one where there are two.
    contents
        N hashes, equal for rows of one content; None if no content repeats.

    Raises
    ------
    DataError
        If the lengths differ, or a label is none of the classes.
    """
    gold, pred = _codes(truth, classes, "true"), _codes(predicted, classes, "predicted")
    _check_same_length(len(S), truth=gold, predicted=pred)
    positives = [1] if len(classes) == 2 else range(len(classes))
    results = []
    for name, member, known in _with_all_rows(S):
        g, p, n = gold[member], pred[member], int(member.sum())
        counts = [(int(((g == c) & (p == c)).sum()), int((p == c).sum()), int((g == c).sum())) for c in positives]
        scores = [f_measure(*triple) for triple in counts if triple[1] + triple[2]]
        f1 = float(np.mean(scores)) if scores else None
        of_known = None if contents is None else effective_n(contents[known], member[known])
        of_members = None if contents is None else effective_n(contents[member])
        coverage, accuracy = Rate(n, int(known.sum()), of_known), Rate(int((g == p).sum()), n, of_members)
        results.append(SliceResult(name, n, accuracy, f1, coverage, int((~known).sum())))
    return SliceReport(tuple(results))


@dataclass(frozen=True, slots=True)
class SliceDifference:
    """The accuracy of one model minus that of another on the n known members of a slice, with its interval.

    ``only_first`` and ``only_second`` count the rows that only one of them predicts correctly.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    slice: str
    n: StrictInt
    only_first: StrictInt
    only_second: StrictInt
    difference: StrictFloat | None
    difference_lower: StrictFloat | None
    difference_upper: StrictFloat | None


def slice_differences(
    truth: Sequence[str],
    first: Sequence[str],
    second: Sequence[str],
    S: SliceMatrix,
    contents: NDArray[Any] | None = None,
) -> tuple[SliceDifference, ...]:
    """Compare two models on the same rows, overall (first) and per slice; without rows there is no difference.

    ``contents`` is that of ``slice_report``.

    Raises
    ------
    DataError
        If the lengths differ.
    """
    gold, one, other = (np.asarray(labels, dtype=object) for labels in (truth, first, second))
    _check_same_length(len(S), truth=gold, first=one, second=other)
    only_first, only_second = (one == gold) & (other != gold), (one != gold) & (other == gold)
    out = []
    for name, member, _ in _with_all_rows(S):
        a, b, n = int(only_first[member].sum()), int(only_second[member].sum()), int(member.sum())
        effective = n if contents is None else effective_n(contents[member])
        share = effective / max(n, 1)
        ends = PairedDifference(a * share, b * share, effective).limits if n else (None, None)
        out.append(SliceDifference(name, n, a, b, PairedDifference(a, b, n).value, *ends))
    return tuple(out)


def _with_all_rows(S: SliceMatrix) -> Iterator[tuple[str, NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield name, members and known rows, of all rows first."""
    everyone = np.ones(len(S), dtype=bool)
    yield ALL_ROWS, everyone, everyone
    for k, name in enumerate(S.names):
        yield name, S.member[:, k], ~S.unknown[:, k]


def _codes(labels: Sequence[str], classes: Sequence[str], kind: str) -> NDArray[np.int64]:
    index = {name: code for code, name in enumerate(classes)}
    for row, label in enumerate(labels):
        if label not in index:
            raise DataError(f"row {row}: the {kind} label {label!r} is not among the classes {list(classes)}")
    return np.fromiter((index[label] for label in labels), dtype=np.int64, count=len(labels))


def _check_same_length(n: int, **arrays: NDArray[Any]) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if set(lengths.values()) != {n}:
        raise DataError(f"the slice matrix has {n} rows, but the labels have {lengths}")


def result_table(rows: Sequence[SliceMetrics]) -> list[list[str]]:
    """Return results as a table with ``HEADER``, and with the effective n where a content repeats."""
    table = [list(HEADER)]
    for row in rows:
        interval = f"{row.accuracy_lower:.3f} to {row.accuracy_upper:.3f}" if row.n else "-"
        coverage, f1, accuracy = (
            "-" if value is None else f"{value:.3f}" for value in (row.coverage, row.f1, row.accuracy)
        )
        table.append([row.slice, f"{row.n:,}", coverage, f"{row.unknown:,}", f1, accuracy, interval])
    if any(row.independent_n < row.n for row in rows):
        for cells, n in zip(table, ["effective n", *(f"{row.independent_n:,}" for row in rows)], strict=True):
            cells.insert(2, n)
    return table


def align_table(rows: Sequence[Sequence[str]]) -> str:
    """Return cells as lines, the first column left-aligned and the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
