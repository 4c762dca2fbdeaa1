"""Gauges of the last snapshot and of drift, identical in every process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime

from service.decisions import Alarm, DriftStatus, Incident
from service.events import Estimate, SliceEstimate, Snapshot, WindowName
from service.formatting import truncated
from service.metrics.exposition import OPENMETRICS_END, Families, gauge, render
from service.metrics.process import ProcessMetrics
from sfs.intervals import Rate
from sfs.validation import MAX_NAME_CHARACTERS, NO_METADATA, SEVERITIES, Metadata

WINDOWS: tuple[WindowName, ...] = ("1h", "since_promotion")
"""Exported windows; the others are available over HTTP."""

_ESTIMATES = {
    "slice_coverage_ratio": "Members among the rows of known membership.",
    "slice_known_predictions": "Rows of known membership: the n of the coverage.",
    "slice_accuracy_ratio": "Accuracy on the labelled rows of the slice.",
    "slice_accuracy_lower_ratio": "Lower limit of the accuracy's interval.",
    "slice_accuracy_upper_ratio": "Upper limit of the accuracy's interval.",
    "slice_f1_ratio": "F1 on the labelled rows of the slice.",
    "slice_labelled_predictions": "Labelled rows of the slice.",
}


def render_snapshot(snapshot: Snapshot, metadata: Mapping[str, Metadata], references: Mapping[str, Rate]) -> bytes:
    """Return the gauges of a snapshot in the text format.

    A figure that the snapshot lacks has no series: neither 0 nor NaN.

    Parameters
    ----------
    snapshot
        Latest committed snapshot.
    metadata
        Metadata by slice; other slices and the extra columns have the defaults of ``Metadata``.
    references
        Expected coverage by slice, for slices whose function is the one that the reference was counted with.
    """
    windows = {name: snapshot.windows[name].slices for name in WINDOWS if name in snapshot.windows}
    # References and metadata of slices that the snapshot lacks are left out.
    names = list(dict.fromkeys(estimate.slice for slices in windows.values() for estimate in slices))
    model, version = snapshot.model, str(snapshot.version)
    by_slice = ["model", "version", "slice"]

    estimates = {name: gauge(name, help_text, [*by_slice, "window"]) for name, help_text in _ESTIMATES.items()}
    for window, slices in windows.items():
        for estimate in slices:
            for name, value in _estimates(estimate):
                estimates[name].add_metric([model, version, estimate.slice, window], value)

    coverage = gauge("slice_reference_coverage_ratio", "Expected coverage of the slice.", by_slice)
    rows = gauge("slice_reference_predictions", "Rows behind the expected coverage.", by_slice)
    target = gauge("slice_target_ratio", "Accuracy target of the slice, if it has one.", by_slice)
    info = gauge(
        "slice_info",
        "Owner, severity and accuracy target of the slice; always 1.",
        ["slice", "owner", "severity", "target"],
    )
    known_at = gauge("slice_last_known_prediction_timestamp_seconds", "Last row of known membership.", by_slice)
    labelled_at = gauge("slice_last_label_timestamp_seconds", "Arrival of the last label of the slice.", by_slice)
    for name in names:
        if (fresh := snapshot.freshness.get(name)) is not None:
            for family, seen_at in ((known_at, fresh.known_at), (labelled_at, fresh.labelled_at)):
                if seen_at is not None:
                    family.add_metric([model, version, name], seen_at.timestamp())
        rate, facts = references.get(name), metadata.get(name, NO_METADATA)
        if rate is not None and rate.value is not None:
            coverage.add_metric([model, version, name], rate.value)
            rows.add_metric([model, version, name], rate.n)
        if facts.target is not None:
            target.add_metric([model, version, name], facts.target)
        wanted = "" if facts.target is None else f"{facts.target:g}"
        info.add_metric([name, truncated(facts.owner, MAX_NAME_CHARACTERS), facts.severity, wanted], 1)

    at = gauge("snapshot_timestamp_seconds", "Time of the snapshot behind these gauges.")
    at.add_metric([], snapshot.at.timestamp())
    families = [*estimates.values(), coverage, rows, known_at, labelled_at, target, info, at]
    if snapshot.last_label_at is not None:
        label = gauge("last_label_timestamp_seconds", "Arrival of the last label.")
        label.add_metric([], snapshot.last_label_at.timestamp())
        families.append(label)
    return render(Families(families))


def _estimates(estimate: SliceEstimate) -> Iterator[tuple[str, float]]:
    """Yield metric names and values, without missing figures."""
    accuracy, f1 = estimate.members.accuracy, estimate.members.f1
    if isinstance(estimate.coverage, Estimate):
        yield "slice_coverage_ratio", estimate.coverage.value
        yield "slice_known_predictions", estimate.coverage.rate.n
    if isinstance(accuracy, Estimate):
        yield "slice_accuracy_ratio", accuracy.value
        yield "slice_accuracy_lower_ratio", accuracy.lower
        yield "slice_accuracy_upper_ratio", accuracy.upper
    if isinstance(f1, float):
        yield "slice_f1_ratio", f1
    yield "slice_labelled_predictions", estimate.members.labelled


def render_drift(
    model: str, drifts: Iterable[DriftStatus], unresolved: Sequence[Alarm], watched_until: datetime | None = None
) -> bytes:
    """Return the gauges of drift in the text format.

    Parameters
    ----------
    model
        Name of the model.
    drifts
        Detector states; those without a reference have no series.
    unresolved
        Unresolved alarms; their gauges show the figures at the time of the alarm.
    watched_until
        End of the rows that the detectors have read; None leaves its gauge out.
    """
    labels = ["model", "slice", "kind"]
    evidence = gauge(
        "slice_drift_evidence",
        "Drift evidence divided by the alarm threshold, both as logarithms; 1 raises an alarm.",
        labels,
    )
    alarm = gauge("slice_drift_alarm", "1 if the slice has an unresolved alarm, else 0.", labels)
    since = gauge("slice_drift_since_timestamp_seconds", "Start of the change behind the alarm.", labels)
    observed = gauge("slice_drift_observed_ratio", "Rate since the change, as of the alarm.", labels)
    expected = gauge("slice_drift_expected_ratio", "Expected rate, or target, as of the alarm.", labels)

    watched = gauge("drift_watched_until_timestamp_seconds", "End of the rows that the detectors have read.", ["model"])
    if watched_until is not None:
        watched.add_metric([model], watched_until.timestamp())
    ratios = {(drift.slice, drift.kind): drift.evidence_ratio for drift in drifts if drift.zone is not None}
    alarmed = {(raised.drift.slice, raised.drift.kind) for raised in unresolved}
    for (name, kind), ratio in ratios.items():
        evidence.add_metric([model, name, kind], ratio)
    for name, kind in sorted(alarmed | ratios.keys()):
        alarm.add_metric([model, name, kind], float((name, kind) in alarmed))
    for raised in unresolved:
        drift = raised.drift
        values = [model, drift.slice, drift.kind]
        since.add_metric(values, (drift.since or raised.at).timestamp())
        if drift.observed.value is not None:
            observed.add_metric(values, drift.observed.value)
        if drift.zone is not None and drift.zone.expected is not None:
            expected.add_metric(values, drift.zone.expected)
    return render(Families([evidence, alarm, since, observed, expected, watched]))


def render_incidents(model: str, unresolved: Sequence[Incident], metadata: Mapping[str, Metadata]) -> bytes:
    """Return the gauges of incidents in the text format.

    Severity and owner route notifications, so they change as little as possible: the severity is the highest of all
    slices that have had an alarm, and the owner that of the slice whose alarm opened the incident.
    """
    labels = ["model", "incident", "cause", "kind", "severity", "owner"]
    slices = gauge("incident_slices", "Slices with an unresolved alarm in the incident.", labels)
    since = gauge("incident_since_timestamp_seconds", "Start of the change of the cause.", ["model", "incident"])
    count = gauge("incidents", "Unresolved incidents.", ["model"])
    count.add_metric([model], len(unresolved))
    for incident in unresolved:
        cause = incident.alarms[0]
        facts = {
            alarm.id: [metadata.get(name, NO_METADATA) for name in alarm.drift.slices] or [NO_METADATA]
            for alarm in incident.alarms
        }
        severity = max((fact.severity for own in facts.values() for fact in own), key=SEVERITIES.index)
        owner = truncated(facts[min(facts)][0].owner, MAX_NAME_CHARACTERS)
        values = [model, str(incident.id), incident.cause, cause.drift.kind, severity, owner]
        slices.add_metric(values, len({alarm.drift.slice for alarm in incident.unresolved}))
        since.add_metric(values[:2], (cause.drift.since or cause.at).timestamp())
    return render(Families([slices, since, count]))


class MetricsPage:
    """Metrics of this process, followed by the gauges of the last snapshot, once there is one."""

    def __init__(self, process: ProcessMetrics) -> None:
        self._process = process
        self._snapshot = self._drift = self._incidents = b""

    def show(self, snapshot: Snapshot, metadata: Mapping[str, Metadata], references: Mapping[str, Rate]) -> None:
        """Serve the gauges of a snapshot until the next call; arguments as for ``render_snapshot``."""
        self._snapshot = render_snapshot(snapshot, metadata, references)

    def show_drift(
        self,
        model: str,
        drifts: Iterable[DriftStatus],
        unresolved: Sequence[Alarm],
        watched_until: datetime | None = None,
    ) -> None:
        """Serve the gauges of drift until the next call; arguments as for ``render_drift``."""
        self._drift = render_drift(model, drifts, unresolved, watched_until)

    def show_incidents(self, model: str, unresolved: Sequence[Incident], metadata: Mapping[str, Metadata]) -> None:
        """Serve the gauges of incidents until the next call; arguments as for ``render_incidents``."""
        self._incidents = render_incidents(model, unresolved, metadata)

    def text(self) -> bytes:
        """Return the page, of type ``CONTENT_TYPE``; takes milliseconds, so call it off the event loop."""
        return self._process.text() + self._snapshot + self._drift + self._incidents

    def openmetrics(self) -> bytes:
        """Return the page with exemplars, of type ``OPENMETRICS_TYPE``; gauges are the same lines in both formats."""
        return self._process.openmetrics() + self._snapshot + self._drift + self._incidents + OPENMETRICS_END
