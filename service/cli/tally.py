"""Counts of functions over batches of rows, so that a file of any size is summed in little memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from service.cli.terminal import interval, percent, reasons, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sfs.apply import ApplyResult


@dataclass(slots=True)
class SliceTally:
    """What one function answered so far."""

    name: str
    rows: int = 0
    members: int = 0
    unknown: int = 0
    shared: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    first_fault: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return counts, rates and time as one JSON object; shares of nothing are null."""
        from sfs.intervals import Rate

        coverage, overlap = Rate(self.members, self.rows - self.unknown), Rate(self.shared, self.members)
        return {
            "slice": self.name,
            "members": self.members,
            "known": coverage.n,
            "coverage": coverage.value,
            "coverage_interval": list(coverage.interval()),
            "overlap": overlap.value,
            "unknown": self.unknown,
            "reasons": dict(self.reasons),
            "first_fault": self.first_fault,
            "microseconds_per_row": 1e6 * self.seconds / self.rows if self.rows else None,
        }


class Tally:
    """The sum over batches for every function, in the order of the functions."""

    def __init__(self, names: Sequence[str]) -> None:
        self.rows = 0
        self.slices = {name: SliceTally(name) for name in names}

    def add(self, applied: ApplyResult) -> None:
        """Add one batch."""
        matrix = applied.matrix
        shared = matrix.member & (matrix.member.sum(axis=1, keepdims=True) > 1)  # [N, K]
        for run in applied.stats:
            k, one = matrix.position(run.name), self.slices[run.name]
            if run.first_fault and not one.first_fault:
                one.first_fault = _in_file(run.first_fault, self.rows)
            one.rows += len(matrix)
            one.members += int(matrix.member[:, k].sum())
            one.unknown += int(matrix.unknown[:, k].sum())
            one.shared += int(shared[:, k].sum())
            one.seconds += run.seconds
            one.reasons.update(run.unknown)
        self.rows += len(matrix)

    def to_json(self) -> list[dict[str, Any]]:
        """Return one JSON object per slice."""
        return [one.to_json() for one in self.slices.values()]

    def to_text(self) -> str:
        """Return the table of every slice, then the first fault of each function that had one."""
        columns = (
            "slice",
            "members",
            "coverage",
            "95 % interval",
            "overlap",
            "unknown",
            "us/row",
            "why unknown",
        )
        lines = [table(columns, [_row(one.to_json()) for one in self.slices.values()])]
        lines += [
            f"{one.name}: first fault at {one.first_fault}" for one in self.slices.values() if one.first_fault
        ]
        return "\n".join(lines)


def _row(one: dict[str, Any]) -> list[Any]:
    low_high = interval(tuple(one["coverage_interval"])) if one["known"] else None
    spent = one["microseconds_per_row"]
    return [
        one["slice"],
        one["members"],
        percent(one["coverage"]),
        low_high,
        percent(one["overlap"]),
        one["unknown"],
        None if spent is None else f"{spent:.2f}",
        reasons(one["reasons"]),
    ]


def _in_file(fault: str, rows_before: int) -> str:
    """Return the fault with the row counted from the start of the file, not of its batch."""
    head, colon, rest = fault.partition(":")
    number = head.removeprefix("row ")
    return f"row {int(number) + rows_before}{colon}{rest}" if number.isdigit() else fault
