"""The gauges of one snapshot, the same in every process that has read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client.core import Metric

from service.decisions import Alarm, DriftStatus
from service.events import Estimate, SliceEstimate, Snapshot, WindowName
from service.metrics.exposition import Families, gauge, render
from sfs.intervals import Rate
from sfs.validation import NO_METADATA, Metadata

WINDOWS: tuple[WindowName, ...] = ("1h", "since_promotion")
"""The windows that are exported; the others are for people, who ask by HTTP."""

_FIGURES = {
    "slice_coverage_ratio": "Share of the rows of known membership that are in the slice.",
    "slice_known_predictions": "Rows whose membership of the slice is known: the n of its coverage.",
    "slice_accuracy_ratio": "Share of the slice's labelled rows that were predicted right.",
    "slice_accuracy_lower_ratio": "Lower limit of the accuracy's interval.",
    "slice_accuracy_upper_ratio": "Upper limit of the accuracy's interval.",
    "slice_f1_ratio": "F1 on the slice's labelled rows.",
    "slice_labelled_predictions": "Labelled rows of the slice.",
}


def render_snapshot(
    snapshot: Snapshot, metadata: Mapping[str, Metadata], references: Mapping[str, Rate]
) -> bytes:
    """Return the gauges of a snapshot as Prometheus reads them.

    A figure that the snapshot does not give has no series: it is absent, neither 0 nor NaN.

    Parameters
    ----------
    snapshot
        What the monitor committed.
    metadata
        By slice; a slice that is not in it, as the extra columns, has the defaults of ``Metadata``.
    references
        Coverage that is expected of a slice, by its name; for slices only whose function is still the one
        that the reference was counted with.
    """
    return render(Families(_families(snapshot, metadata, references)))


def _families(
    snapshot: Snapshot, metadata: Mapping[str, Metadata], references: Mapping[str, Rate]
) -> Iterator[Metric]:
    shown = {name: snapshot.windows[name].slices for name in WINDOWS if name in snapshot.windows}
    # a name is shown as it is in the snapshot's set: references and metadata of other slices are left out
    names = tuple(dict.fromkeys(each.slice for slices in shown.values() for each in slices))
    yield from _windows(snapshot, shown)
    yield from _references(snapshot, [(name, references[name]) for name in names if name in references])
    yield from _facts(snapshot, [(name, metadata.get(name, NO_METADATA)) for name in names])
    yield from _times(snapshot)


def _windows(snapshot: Snapshot, shown: Mapping[WindowName, Iterable[SliceEstimate]]) -> Iterable[Metric]:
    labels = ["model", "version", "slice", "window"]
    families = {name: gauge(name, help_text, labels) for name, help_text in _FIGURES.items()}
    for window, slices in shown.items():
        for each in slices:
            values = [snapshot.model, str(snapshot.version), each.slice, window]
            for name, figure in _figures(each):
                families[name].add_metric(values, figure)
    return families.values()


def _figures(each: SliceEstimate) -> Iterator[tuple[str, float]]:
    """Yield the figures that there are."""
    accuracy, f1 = each.members.accuracy, each.members.f1
    if isinstance(each.coverage, Estimate):
        yield "slice_coverage_ratio", each.coverage.value
        yield "slice_known_predictions", each.coverage.rate.n
    if isinstance(accuracy, Estimate):
        yield "slice_accuracy_ratio", accuracy.value
        yield "slice_accuracy_lower_ratio", accuracy.lower
        yield "slice_accuracy_upper_ratio", accuracy.upper
    if isinstance(f1, float):
        yield "slice_f1_ratio", f1
    yield "slice_labelled_predictions", each.members.labelled


def _references(snapshot: Snapshot, references: Iterable[tuple[str, Rate]]) -> Iterable[Metric]:
    labels = ["model", "version", "slice"]
    coverage = gauge("slice_reference_coverage_ratio", "Coverage that is expected of the slice.", labels)
    n = gauge("slice_reference_predictions", "Rows that the expected coverage was counted on.", labels)
    for name, rate in references:
        if rate.value is not None:
            coverage.add_metric([snapshot.model, str(snapshot.version), name], rate.value)
            n.add_metric([snapshot.model, str(snapshot.version), name], rate.n)
    return coverage, n


def _facts(snapshot: Snapshot, metadata: Iterable[tuple[str, Metadata]]) -> Iterable[Metric]:
    target = gauge(
        "slice_target_ratio",
        "Accuracy that the slice must keep, as a number to compare with; only slices that have one.",
        ["model", "version", "slice"],
    )
    info = gauge(
        "slice_info",
        "Who answers for the slice, and how bad it is if it fails; always 1.",
        ["slice", "owner", "severity", "target"],
    )
    for name, each in metadata:
        if each.target is not None:
            target.add_metric([snapshot.model, str(snapshot.version), name], each.target)
        wanted = "" if each.target is None else f"{each.target:g}"
        info.add_metric([name, each.owner, each.severity, wanted], 1)
    return target, info


def _times(snapshot: Snapshot) -> Iterator[Metric]:
    at = gauge("snapshot_timestamp_seconds", "When the monitor made the snapshot that is shown.")
    at.add_metric([], snapshot.at.timestamp())
    yield at
    if snapshot.last_label_at is not None:
        label = gauge("last_label_timestamp_seconds", "When the last label arrived.")
        label.add_metric([], snapshot.last_label_at.timestamp())
        yield label


_LABELS = ("model", "slice", "kind")


def render_drift(model: str, drifts: Iterable[DriftStatus], unresolved: Sequence[Alarm]) -> bytes:
    """Return what the detectors say as Prometheus reads it.

    Parameters
    ----------
    model
        The model's name.
    drifts
        Where every slice stands; those without a reference have no series.
    unresolved
        The alarms that stand; their figures are those they were raised on.
    """
    evidence = gauge(
        "slice_drift_evidence",
        "Evidence that the slice has left its zone, as a share of what alarms, both as logarithms; 1 alarms.",
        _LABELS,
    )
    alarm = gauge("slice_drift_alarm", "1 while an alarm of the slice is unresolved, else 0.", _LABELS)
    standing = {(each.drift.slice, each.drift.kind) for each in unresolved}
    watched = {(each.slice, each.kind): each.share for each in drifts if each.zone is not None}
    for (name, kind), share in watched.items():
        evidence.add_metric([model, name, kind], share)
    for name, kind in sorted(standing | watched.keys()):
        alarm.add_metric([model, name, kind], float((name, kind) in standing))
    return render(Families([evidence, alarm, *_changes(model, unresolved)]))


def _changes(model: str, unresolved: Sequence[Alarm]) -> tuple[Metric, ...]:
    since = gauge(
        "slice_drift_since_timestamp_seconds", "When the change began that an alarm stands for.", _LABELS
    )
    observed = gauge(
        "slice_drift_observed_ratio", "Coverage or accuracy since that change, when it alarmed.", _LABELS
    )
    expected = gauge("slice_drift_expected_ratio", "Coverage or accuracy that was expected then.", _LABELS)
    for each in unresolved:
        drift = each.drift
        labels = [model, drift.slice, drift.kind]
        since.add_metric(labels, (drift.since or each.at).timestamp())
        if drift.observed.value is not None:
            observed.add_metric(labels, drift.observed.value)
        if drift.zone is not None and drift.zone.reference.value is not None:
            expected.add_metric(labels, drift.zone.reference.value)
    return since, observed, expected
