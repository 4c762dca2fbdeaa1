"""A trained model and its peers on held-out rows, and what to know before believing the numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from models.bundle_parts import Network
from models.learners import Fitted
from models.report import TrainingReport, compared
from models.rows import FeatureRows
from models.slice_report import SliceReport, compare, slice_report
from models.splits import Splits
from sfs.apply import ApplyResult
from sfs.function import ALL_ROWS
from sfs.matrix import SliceMatrix

FEW_ROWS = 30
SHIPPED = "shipped"


@dataclass(frozen=True, slots=True)
class Judged:
    """Held-out labels and memberships, and by model what it predicts and how well that is per slice."""

    truth: Sequence[str]
    slices: SliceMatrix
    predicted: Mapping[str, Sequence[str]]
    reports: Mapping[str, SliceReport]


def judge(
    truth: Sequence[str],
    X: FeatureRows,
    slices: SliceMatrix,
    classes: Sequence[str],
    models: Mapping[str, Network],
) -> Judged:
    """Let every model predict N held-out rows, and compare with the truth."""
    predicted = {}
    for name, model in models.items():
        best = model.predict_proba(X, slices).argmax(axis=1)
        predicted[name] = [classes[k] for k in best]
    reports = {name: slice_report(truth, said, slices, classes) for name, said in predicted.items()}
    return Judged(truth, slices, predicted, reports)


def training_report(
    judged: Judged, fitted: Fitted, splits: Splits, class_rows: Mapping[str, int], applied: ApplyResult
) -> TrainingReport:
    """Return the report of a training; nothing in it depends on the time it took."""
    peers = [name for name in judged.reports if name != SHIPPED]
    return TrainingReport(
        {
            "form": fitted.form,
            "sentences": list(fitted.sentences),
            "warnings": [*splits.remarks, *_warnings(judged, splits, applied)],
            "rows": {
                "train": len(splits.train),
                "valid": len(splits.valid),
                "held_out": len(splits.held_out),
            },
            "classes": dict(class_rows),
            "selection": [asdict(candidate) for candidate in fitted.selection],
            "shipped": judged.reports[SHIPPED].to_json(),
            "peers": {name: judged.reports[name].to_json() for name in peers},
            "comparisons": {
                name: compared(
                    compare(judged.truth, judged.predicted[SHIPPED], judged.predicted[name], judged.slices)
                )
                for name in peers
            },
            "functions": _functions(applied),
        }
    )


def _functions(applied: ApplyResult) -> list[dict[str, Any]]:
    return [
        {
            "name": each.name,
            "unknown": dict(each.unknown),
            "first_fault": _without_addresses(each.first_fault),
        }
        for each in applied.stats
    ]


def _without_addresses(fault: str | None) -> str | None:
    """Leave out where in memory an object lay, which differs from run to run and says nothing."""
    return None if fault is None else re.sub(r"0x[0-9a-fA-F]+", "0x...", fault)


def _warnings(judged: Judged, splits: Splits, applied: ApplyResult) -> Iterator[str]:
    members = applied.matrix.member[splits.train].sum(axis=0)
    empty = [name for name, rows in zip(applied.matrix.names, members, strict=True) if not rows]
    if empty:
        yield f"Without a training row, so that the model learned nothing about them: {', '.join(empty)}."
    few = [f"{row.name} ({row.n})" for row in judged.reports[SHIPPED].rows if row.n < FEW_ROWS]
    if few:
        shown = ", ".join(few).replace(ALL_ROWS, "all rows")
        yield f"Fewer than {FEW_ROWS} held-out rows, too few to say how accurate the model is: {shown}."
    for each in applied.stats:
        unknown = sum(each.unknown.values())
        if unknown:
            reasons = ", ".join(f"{reason}: {rows:,}" for reason, rows in each.unknown.items())
            first = f"; first {_without_addresses(each.first_fault)}" if each.first_fault else ""
            of_rows = f"{unknown:,} of {len(applied.matrix):,} rows"
            yield f"Slice {each.name!r} is unknown in {of_rows} ({reasons}{first})."
