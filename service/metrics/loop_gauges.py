"""The gauges of drift and alarms, the same in every process that has read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.core import Metric

from service.decisions import Alarm, Drift
from service.metrics.text import Families, gauge, written

_LABELS = ("model", "slice", "kind")


def rendered_drift(model: str, drifts: Iterable[Drift], unresolved: Sequence[Alarm]) -> bytes:
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
    return written(Families([evidence, alarm, *_changes(model, unresolved)]))


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
