"""Training report: held-out results of the model and its plain peers, stored in the bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import ConfigDict, StrictFloat, StrictInt, TypeAdapter

from models.batches import FeatureRows
from models.bundle.files import parse_as
from models.errors import BundleError
from models.function_labels import FunctionLabelsReport
from models.learners import CandidateResult, FitResult, Network
from models.slice_report import (
    STRICT,
    SliceDifference,
    SliceMetrics,
    SliceReport,
    align_table,
    result_table,
    slice_differences,
    slice_report,
)
from models.splits import Hashes, SplitIndices
from sfs.apply import ApplyResult
from sfs.function import ALL_ROWS
from sfs.matrix import SliceMatrix
from sfs.validation import Metadata

PEERS = {
    "base": "the model without slices",
    "erm": "ERM",
    "weighted_erm": "slice-weighted ERM",
    "slice_residual": "the slice-aware network",
}
SHIPPED = "shipped"
FEW_ROWS = 30
SUSPICIOUS_ROWS = 10
_SHORT = {"base": "no slices", "erm": "ERM", "weighted_erm": "weighted", "slice_residual": "slice-aware"}


@dataclass(frozen=True, slots=True)
class SplitSizes:
    """Rows of each split."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    train: StrictInt
    valid: StrictInt
    held_out: StrictInt


@dataclass(frozen=True, slots=True)
class FunctionFaults:
    """Unknown rows of a function by reason, and row and kind of its first fault."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: str
    unknown: Mapping[str, StrictInt]
    first_fault: str | None


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """Report of one training.

    Parameters
    ----------
    form
        The form of the shipped learner.
    sentences
        A description of the selection.
    warnings
        Limits of the results.
    rows, classes
        Rows of each split, and of each class.
    selection
        Validation scores of every candidate.
    shipped, peers
        Results on held-out rows, of all rows and per slice, of the shipped model and of each other model.
    comparisons
        Shipped minus peer, paired, per slice.
    functions
        Faults of each function.
    targets, protected
        Target accuracies of slices, and protected slices, as their functions declare them.
    labels
        Labels from functions; None if every row had a label.

    Raises
    ------
    BundleError
        If the parts contradict each other.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    form: str
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]
    rows: SplitSizes
    classes: Mapping[str, StrictInt]
    selection: tuple[CandidateResult, ...]
    shipped: tuple[SliceMetrics, ...]
    peers: Mapping[str, tuple[SliceMetrics, ...]]
    comparisons: Mapping[str, tuple[SliceDifference, ...]]
    functions: tuple[FunctionFaults, ...]
    targets: Mapping[str, StrictFloat] = field(default_factory=dict)
    protected: tuple[str, ...] = ()
    labels: FunctionLabelsReport | None = None

    def __post_init__(self) -> None:
        slices = [row.slice for row in self.shipped]
        if set(self.peers) != set(self.comparisons):
            raise BundleError("report.json: peers and comparisons must have the same keys")
        for part in (self.peers, self.comparisons):
            for peer, rows in part.items():
                if [row.slice for row in rows] != slices:
                    raise BundleError(f"report.json: {peer} must have the slices of the shipped model")
        for row in self.shipped:
            if row.n and None in (row.accuracy_lower, row.accuracy_upper):
                raise BundleError(f"report.json, shipped: slice {row.slice} has rows, but no interval")
        for compared in (row for rows in self.comparisons.values() for row in rows):
            if compared.difference is not None and None in (
                compared.difference_lower,
                compared.difference_upper,
            ):
                raise BundleError(f"report.json, comparisons: slice {compared.slice} has no interval")

    @classmethod
    def from_json(cls, content: bytes) -> TrainingReport:
        """Return the report of a JSON file; BundleError if it is malformed."""
        return parse_as(_REPORT, "report.json", content)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, without empty targets, protection and labels, as in earlier versions."""
        values: dict[str, Any] = _REPORT.dump_python(self, mode="json", exclude_defaults=True)
        return values

    def to_text(self) -> str:
        """Return the table per slice beside the peers, then the sentences and warnings."""
        rows, peers = self.rows, list(self.peers)
        about = [
            f"Accuracy on {rows.held_out:,} held-out rows, after {rows.train:,} training and {rows.valid:,} "
            "validation rows."
        ]
        if peers:
            names = " and ".join(PEERS.get(peer, peer) for peer in peers)
            about.append(f"Gains are paired differences to {names} on the same rows.")
        targets = {name: f"{target:.3f}" for name, target in self.targets.items()}
        table = result_table(self.shipped)
        for cells, target in zip(
            table, ["target", *(targets.get(row.slice, "-") for row in self.shipped)], strict=True
        ):
            cells.append(target)
        for peer in peers:
            table[0] += [_SHORT.get(peer, peer), "gain", "95% interval"]
            for cells, row, gain in zip(table[1:], self.peers[peer], self.comparisons[peer], strict=True):
                if gain.difference is None:
                    cells += ["-", "-", "-"]
                else:
                    interval = f"{gain.difference_lower:+.3f} to {gain.difference_upper:+.3f}"
                    cells += [f"{row.accuracy:.3f}", f"{gain.difference:+.3f}", interval]
        notes = [f"Note: {warning}" for warning in self.warnings]
        labels = [] if self.labels is None else ["", *self.labels.sentences(), "", self.labels.table()]
        return "\n".join([*about, "", align_table(table), "", *self.sentences, *notes, *labels])


_REPORT = TypeAdapter(TrainingReport)


@dataclass(frozen=True, slots=True)
class HeldOutEvaluation:
    """Held-out labels, memberships and contents, and per model the predictions and the results per slice."""

    truth: Sequence[str]
    slices: SliceMatrix
    predicted: Mapping[str, Sequence[str]]
    reports: Mapping[str, SliceReport]
    contents: Hashes


def held_out_evaluation(
    truth: Sequence[str],
    inputs: Mapping[str, FeatureRows],
    slices: SliceMatrix,
    classes: Sequence[str],
    models: Mapping[str, Network],
    contents: Hashes,
) -> HeldOutEvaluation:
    """Evaluate every model on its features of N held-out rows; ``contents`` are the hashes of their contents."""
    predicted = {
        name: [classes[k] for k in model.predict_proba(inputs[name], slices).argmax(axis=1)]
        for name, model in models.items()
    }
    reports = {name: slice_report(truth, own, slices, classes, contents) for name, own in predicted.items()}
    return HeldOutEvaluation(truth, slices, predicted, reports, contents)


def training_report(
    evaluation: HeldOutEvaluation,
    fitted: FitResult,
    splits: SplitIndices,
    class_rows: Mapping[str, int],
    applied: ApplyResult,
    leaks: Sequence[str],
    metadata: Mapping[str, Metadata],
    labels: FunctionLabelsReport | None = None,
) -> TrainingReport:
    """Return the report of a training; it does not depend on the time taken.

    ``leaks`` are warnings of columns that give the label away, ``metadata`` that of the functions by name, ``labels``
    the report of labels from functions.
    """
    targets = {name: float(entry.target) for name, entry in metadata.items() if entry.target is not None}
    predicted = evaluation.predicted
    metrics = {name: tuple(row.metrics() for row in report.rows) for name, report in evaluation.reports.items()}
    shipped = metrics.pop(SHIPPED)
    return TrainingReport(
        form=fitted.form,
        sentences=fitted.sentences,
        warnings=(
            *splits.remarks,
            *leaks,
            *_warnings(shipped, splits, applied, targets),
            *(() if labels is None else labels.warnings()),
        ),
        rows=SplitSizes(len(splits.train), len(splits.valid), len(splits.held_out)),
        classes=dict(class_rows),
        selection=fitted.selection,
        shipped=shipped,
        peers=metrics,
        comparisons={
            peer: slice_differences(
                evaluation.truth, predicted[SHIPPED], predicted[peer], evaluation.slices, evaluation.contents
            )
            for peer in metrics
        },
        functions=tuple(  # a fault without its message, which may quote a value of the row
            FunctionFaults(run.name, dict(run.unknown), run.first_fault and ": ".join(run.first_fault.split(": ")[:2]))
            for run in applied.stats
        ),
        targets=targets,
        protected=tuple(name for name, entry in metadata.items() if entry.protected),
        labels=labels,
    )


def _warnings(
    shipped: Sequence[SliceMetrics], splits: SplitIndices, applied: ApplyResult, targets: Mapping[str, float]
) -> Iterator[str]:
    members = applied.matrix.member[splits.learned].sum(axis=0)
    empty = [name for name, rows in zip(applied.matrix.names, members, strict=True) if not rows]
    if empty:
        yield f"Slices without a training row, from which the model learned nothing: {', '.join(empty)}."
    overall = next(row for row in shipped if row.slice == ALL_ROWS)
    if overall.accuracy == 1 and overall.independent_n >= SUSPICIOUS_ROWS:
        yield (
            f"A held-out accuracy of 1.0 ({overall.n:,} rows) is suspicious: look for a column that is known only "
            "after the outcome, and for rows of one subject in both training and held-out rows."
        )
    below = [
        f"{row.slice} ({row.accuracy:.3f} of {targets[row.slice]:.3f}, n = {row.n:,})"
        for row in shipped
        if row.accuracy is not None and row.accuracy < targets.get(row.slice, 0)
    ]
    if below:
        yield (
            f"Slices with a held-out accuracy below their target: {', '.join(below)}. If the live accuracy is the "
            "same, their accuracy alarm is raised, and rightly."
        )
    few = [
        f"{row.slice} ({row.n:,}{f', effective n {row.independent_n}' if row.independent_n < row.n else ''})"
        for row in shipped
        if row.independent_n < FEW_ROWS
    ]
    if few:
        shown = ", ".join(few).replace(ALL_ROWS, "all rows")
        yield (
            f"Slices with fewer than {FEW_ROWS} independent held-out rows, too few to estimate an accuracy (with fewer "
            f"than 2, no accuracy is expected and only a target is monitored): {shown}."
        )
    for run in applied.stats:
        unknown = sum(run.unknown.values())
        if unknown:
            reasons = ", ".join(f"{reason}: {rows:,}" for reason, rows in run.unknown.items())
            of_rows = f"{unknown:,} of {len(applied.matrix):,} rows"
            first = f"; first in {run.first_fault.partition(':')[0]}" if run.first_fault else ""
            why = ": `sfs stats` shows the first message" if run.first_fault else ""
            yield f"Slice {run.name!r} is unknown in {of_rows} ({reasons}{first}){why}."
