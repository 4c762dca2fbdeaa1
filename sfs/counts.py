"""Counts of members, unknown rows and faults of every function, summed over batches and partitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from sfs.apply import ApplyResult
from sfs.intervals import Rate


@dataclass(slots=True)
class SliceCount:
    """Counts of one function over the rows so far.

    Attributes
    ----------
    shared
        Number of members that are members of another slice, too.
    seconds
        Time over all rows.
    reasons
        Number of unknown rows by reason.
    first_fault
        First fault, with its row and reason; None without faults.
    """

    name: str
    rows: int = 0
    members: int = 0
    unknown: int = 0
    shared: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    first_fault: str | None = None

    def to_json(self, independent: int | None) -> dict[str, Any]:
        """Return counts, rates and time; a rate of no rows is null."""
        coverage, overlap = Rate(self.members, self.rows - self.unknown, independent), Rate(self.shared, self.members)
        return {
            "slice": self.name,
            "members": self.members,
            "known": coverage.n,
            "effective_n": coverage.effective_n,
            "coverage": coverage.value,
            "coverage_interval": list(coverage.interval()),
            "overlap": overlap.value,
            "unknown": self.unknown,
            "reasons": dict(self.reasons),
            "first_fault": self.first_fault,
            "microseconds_per_row": 1e6 * self.seconds / self.rows if self.rows else None,
        }


class ApplyCounts:
    """Counts of K functions over the rows so far.

    Parameters
    ----------
    names
        Names of the functions.

    Attributes
    ----------
    rows
        Number of rows.
    slices
        Counts by name.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.rows = 0
        self.slices = {name: SliceCount(name) for name in names}

    def add(self, applied: ApplyResult) -> None:
        """Add the next batch of rows."""
        matrix = applied.matrix
        shared = matrix.member & (matrix.member.sum(axis=1, keepdims=True) > 1)  # [N, K]
        for run in applied.stats:
            k, count = matrix.position(run.name), self.slices[run.name]
            count.first_fault = count.first_fault or _moved(run.first_fault, self.rows)
            count.rows += len(matrix)
            count.members += int(matrix.member[:, k].sum())
            count.unknown += int(matrix.unknown[:, k].sum())
            count.shared += int(shared[:, k].sum())
            count.seconds += run.seconds
            count.reasons.update(run.unknown)
        self.rows += len(matrix)

    def merge(self, later: ApplyCounts, place: str = "", first_row: int = 0) -> None:
        """Add the counts of the rows that follow.

        Parameters
        ----------
        later
            Counts of the same functions.
        place
            Name of the rows' file, which a fault is said to be in.
        first_row
            Position of the first of these rows in the file.
        """
        for name, other in later.slices.items():
            count = self.slices[name]
            fault = _moved(other.first_fault, first_row if place else self.rows)
            count.first_fault = count.first_fault or (f"{place}, {fault}" if fault and place else fault)
            count.rows += other.rows
            count.members += other.members
            count.unknown += other.unknown
            count.shared += other.shared
            count.seconds += other.seconds
            count.reasons.update(other.reasons)
        self.rows += later.rows

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values, which ``from_json`` reads."""
        names = [each.name for each in fields(SliceCount)]
        slices = [{name: getattr(count, name) for name in names} for count in self.slices.values()]
        return {"rows": self.rows, "slices": slices}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> ApplyCounts:
        """Return the counts of ``to_json``."""
        counts = cls(())
        counts.rows = saved["rows"]
        for each in saved["slices"]:
            counts.slices[each["name"]] = SliceCount(**{**each, "reasons": Counter(each["reasons"])})
        return counts


def _moved(fault: str | None, rows: int) -> str | None:
    """Return a fault whose row is counted from ``rows`` rows before."""
    head, colon, rest = (fault or "").partition(":")
    row = head.removeprefix("row ")
    return f"row {int(row) + rows}{colon}{rest}" if row.isdigit() else fault
