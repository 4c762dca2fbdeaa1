"""Every slice in one window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from factories import make_page, make_state

from service.decisions import ClockStep, DriftStatus, RateKey
from service.events import Estimate, Freshness, InsufficientData, Performance, SliceEstimate, Snapshot
from service.jobs.snapshot import SnapshotJob
from service.serving.deployment import Deployment, FunctionHealth
from service.serving.table_reference import TableReference
from service.views.slices import (
    FamilyView,
    NotReady,
    ReferenceTableView,
    estimate_of,
    families_view,
    slices_view,
    state_of,
)
from sfs.intervals import Rate
from sfs.validation import NO_METADATA, Metadata


def take_snapshot(log: Any, deployment: Deployment, now: datetime) -> Snapshot:
    snapshot = SnapshotJob(deployment, log.store, log.writer, make_page("orders"), timer=lambda: 0.0).run(now)
    assert snapshot is not None
    return snapshot


def test_no_slices_before_the_first_snapshot(deployment: Deployment) -> None:
    """Slices have no estimates before the first snapshot."""
    with pytest.raises(NotReady, match="no snapshot yet"):
        slices_view(deployment, "1h")


def test_an_hour_after_its_last_label_the_accuracy_of_a_slice_is_unknown(
    log: Any, deployment: Deployment, prediction: Callable[..., Any], now: datetime
) -> None:
    """Since its last label; the coverage is known while rows arrive, and unknown since the last one afterwards."""
    deployment.state = replace(deployment.state, promoted_at=now - timedelta(days=1))
    log.add(prediction("p1", timedelta(minutes=2), "c"), p1="lost")
    for hours, expected in ((0, {}), (2, {"accuracy": 0}), (4, {"accuracy": 0, "coverage": 2})):
        at = now + timedelta(hours=hours)
        if hours == 2:
            log.add(prediction("p2", -timedelta(hours=hours), "c"))
        take_snapshot(log, deployment, at)
        view = slices_view(deployment, "1h").slices[0]
        assert {kind: (since - now) / timedelta(hours=1) for kind, since in view.unknown_since.items()} == expected
    assert ((view.last_label_at or now) - now, (view.last_known_at or now) - now) == (timedelta(0), timedelta(hours=2))


def test_a_window_that_the_snapshot_lacks(log: Any, deployment: Deployment, now: datetime) -> None:
    """A model that was never promoted has no window since promotion."""
    take_snapshot(log, deployment, now)
    with pytest.raises(NotReady, match="no window 'since_promotion': no version of 'orders' was promoted"):
        slices_view(deployment, "since_promotion")


def test_every_slice_is_shown_with_what_is_known_of_it(
    log: Any,
    deployment: Deployment,
    prediction: Callable[..., Any],
    open_breaker: Callable[..., None],
    now: datetime,
) -> None:
    """All rows come first, then the rows in no slice, then the slices in order."""
    age = timedelta(minutes=2)
    log.add(prediction("p1", age, "c"), prediction("p2", age, "c", "s"), prediction("p3", age), p1="lost")
    snapshot = take_snapshot(log, deployment, now)
    open_breaker("short", "faults")
    view = slices_view(deployment, "5m")
    assert (view.at, view.model, view.version, view.window) == (now, "orders", 1, "5m")
    assert (view.start, view.end) == (snapshot.windows["5m"].start, snapshot.windows["5m"].end)
    assert (view.last_label_at, deployment.estimate_config.minimum_labels) == (now, 1)
    assert [(each.name, each.kind, each.origin) for each in view.slices] == [
        ("__all__", "all", None),
        ("__none__", "none", None),
        ("cheap", "slice", "http"),
        ("short", "slice", "file"),
        ("loud", "labeling", "file"),
    ]
    every, none, cheap, short, loud = view.slices
    assert [each.estimate for each in (cheap, short, loud, none, every)] == list(snapshot.windows["5m"].slices)
    assert (cheap.metadata.owner, short.metadata.description, every.metadata) == (
        "shop",
        "A short text.",
        NO_METADATA,
    )
    assert (short.health, cheap.health, none.health) == (
        FunctionHealth("short", "open", "faults"),
        None,
        None,
    )
    assert cheap.reference == estimate_of(Rate(300, 1000))
    assert loud.reference == InsufficientData(0, 1, "not counted on the reference table yet")
    assert short.estimate.unknown == 1


def test_a_function_newer_than_the_snapshot_has_no_estimates(
    log: Any,
    deployment: Deployment,
    change: Callable[..., None],
    prediction: Callable[..., Any],
    now: datetime,
) -> None:
    """Live functions are listed at once, and never with estimates of another function."""
    log.add(prediction("p1", timedelta(minutes=2), "c"))
    snapshot = take_snapshot(log, deployment, now)
    window = snapshot.windows["5m"]
    others = [replace(each, fingerprint="other") if each.slice == "cheap" else each for each in window.slices]
    gone = replace(others[0], slice="gone")
    windows = {"5m": replace(window, slices=(*others, gone))}
    deployment.snapshot = replace(snapshot, windows=windows)
    view = slices_view(deployment, "5m")
    assert [each.name for each in view.slices] == ["__all__", "__none__", "cheap", "short", "loud"]
    assert view.slices[2].estimate.coverage == InsufficientData(0, 1, "the slice is newer than the latest snapshot")
    assert view.slices[2].state == "too_few"
    assert isinstance(view.slices[3].estimate.coverage, Estimate)


def test_estimates_of_the_previous_version_have_no_reference(
    log: Any, deployment: Deployment, change: Callable[..., None], now: datetime
) -> None:
    """Until the first snapshot after a promotion, the view is of the previous version."""
    take_snapshot(log, deployment, now)
    change(version=2)
    view = slices_view(deployment, "1h")
    assert view.version == 1
    assert {type(each.reference) for each in view.slices} == {InsufficientData}


def test_a_step_of_the_clock_is_shown_for_a_day(log: Any, deployment: Deployment, now: datetime) -> None:
    """And for longer while rows are evidence in order of arrival."""
    take_snapshot(log, deployment, now)
    shown = []
    for days, until in ((0.9, None), (1.1, None), (1.1, now + timedelta(days=5))):
        deployment.clock_step, deployment.behind_until = ClockStep(now - timedelta(days=days), -60.0), until
        shown.append("set back by 0:01:00" in (slices_view(deployment, "1h").clock or ""))
    assert shown == [True, False, True]


def test_first_labels_of_few_contents_are_explained(log: Any, deployment: Deployment, now: datetime) -> None:
    """As many again are gathered."""
    take_snapshot(log, deployment, now)
    shown = []
    for count in (299, 300):
        key = RateKey("short", deployment.state.fingerprints["short"], "accuracy")
        deployment.state = replace(deployment.state, label_counts={key: count}, reference_labels=300)
        short = next(each for each in slices_view(deployment, "1h").slices if each.name == "short")
        assert isinstance(short.accuracy_reference, InsufficientData)
        shown.append((short.accuracy_reference.needed, "few contents" in short.accuracy_reference.reason))
    assert shown == [(300, False), (600, True)]


def test_a_reference_without_known_rows_says_so(
    log: Any, deployment: Deployment, change: Callable[..., None], now: datetime
) -> None:
    """A slice whose function failed on every held-out row has a reference, but no expected coverage."""
    take_snapshot(log, deployment, now)
    change(references={"cheap": Rate(0, 0)})
    cheap = next(each for each in slices_view(deployment, "1h").slices if each.name == "cheap")
    assert cheap.reference == InsufficientData(0, 1, "no rows of known membership")


def test_of_a_champion_that_cannot_be_loaded_the_reason_is_shown(
    log: Any, deployment: Deployment, now: datetime
) -> None:
    """Nothing is expected of it, whatever was gathered for a version served elsewhere."""
    deployment.set_table(TableReference("rows.csv", "", 500, False, None, {}, {}), "being counted on rows.csv")
    deployment.record_fault("the champion, version 1, cannot be loaded: weights were altered", 1, (), ())
    take_snapshot(log, deployment, now)
    view, reason = slices_view(deployment, "1h"), InsufficientData(0, 1, "the champion cannot be loaded")
    assert {(each.reference, each.accuracy_reference) for each in view.slices[2:]} == {(reason, reason)}
    assert (view.fault, view.reference_table) == (deployment.state.fault, None)


def test_the_reference_table_of_a_version_served_elsewhere_is_shown(
    log: Any, deployment: Deployment, now: datetime
) -> None:
    """A failed count of a changed table has its reason beside the rows that were counted before."""
    take_snapshot(log, deployment, now)
    table, note = TableReference("rows.csv", "", 500, False, None, {}, {}), "rows.csv could not be counted: no column"
    shown = []
    for changed in ((None, ""), (None, note), (table, ""), (table, note)):
        deployment.set_table(*changed)
        shown.append(slices_view(deployment, "1h").reference_table)
    assert shown == [
        None,
        ReferenceTableView(None, None, note),
        ReferenceTableView("rows.csv", 500, ""),
        ReferenceTableView("rows.csv", 500, note),
    ]


def estimate(coverage: tuple[int, int], accuracy: tuple[int, int], unknown: int = 0) -> SliceEstimate:
    share = estimate_of(Rate(*accuracy))
    performance = Performance(accuracy[1], share, InsufficientData(0, 1, "not computed"))
    return SliceEstimate("s", "f", estimate_of(Rate(*coverage)), unknown, 0, performance, performance)


@pytest.mark.parametrize(
    ("seen", "reference", "target", "state"),
    [
        (estimate((10, 100), (95, 100)), (100, 1000), 0.9, "ok"),
        (estimate((10, 100), (50, 100)), (100, 1000), 0.9, "accuracy_low"),
        (estimate((10, 100), (50, 100)), (100, 1000), None, "ok"),
        (estimate((10, 100), (85, 100)), (100, 1000), 0.9, "ok"),
        (estimate((30, 100), (95, 100)), (100, 1000), 0.9, "coverage_off"),
        (estimate((1, 100), (95, 100)), (100, 1000), 0.9, "coverage_off"),
        (estimate((30, 100), (95, 100)), (1, 10), 0.9, "ok"),
        (estimate((30, 100), (50, 100)), (100, 1000), 0.9, "accuracy_low"),
        (estimate((10, 100), (95, 100), unknown=12), (100, 1000), 0.9, "unknown_high"),
        (estimate((10, 100), (95, 100), unknown=11), (100, 1000), 0.9, "ok"),
        (estimate((0, 0), (0, 0), unknown=1), (100, 1000), 0.9, "unknown_high"),
        (estimate((0, 0), (0, 0)), (100, 1000), None, "too_few"),
        (estimate((10, 100), (0, 0)), (100, 1000), 0.9, "too_few"),
        (estimate((10, 100), (0, 0)), (100, 1000), None, "ok"),
        (estimate((30, 100), (95, 100)), (0, 0), 0.9, "ok"),
    ],
)
def test_states(seen: SliceEstimate, reference: tuple[int, int], target: float | None, state: str) -> None:
    """Disjoint intervals, upper limits below targets, and many unknown rows are found, worst first."""
    assert state_of(seen, estimate_of(Rate(*reference)), target) == state


def test_a_family_has_the_status_of_its_slices() -> None:
    """That of its present functions; a family whose accuracy is not monitored has none."""
    metadata = dict.fromkeys("ab", Metadata(family="f")) | {"c": Metadata(family="alone")}
    state = make_state(metadata=metadata)
    now, before = (RateKey.of_family("f", {"a": "1", "b": print_}) for print_ in "12")
    statuses = [DriftStatus(*key, None, 1.0, 9.0, None, None, Rate(0, 0), 0.0, 1.0) for key in (now, before)]
    deployed: Any = SimpleNamespace(state=state, drift_statuses=statuses, snapshot=None)
    assert families_view(deployed) == (FamilyView("f", ("a", "b"), statuses[0]),)
    deployed.drift_statuses = statuses[1:]
    assert families_view(deployed) == (FamilyView("f", ("a", "b"), None),)


def test_a_family_is_unknown_since_its_last_label() -> None:
    """Once it had none for an hour; another set of functions is another family."""
    state = make_state(metadata=dict.fromkeys("ab", Metadata(family="f")))
    key, now = RateKey.of_family("f", {"a": "1", "b": "1"}), datetime(2026, 5, 1, 12, tzinfo=UTC)
    dry = now - timedelta(hours=2)
    for fingerprint, since in ((key.fingerprint, dry), ("other", None)):
        fresh = {"family/f": Freshness(fingerprint, 0, None, 0, None, dry)}
        deployed: Any = SimpleNamespace(
            state=state, drift_statuses=[], snapshot=Snapshot(now, "m", 1, "", {}, now, fresh)
        )
        (family,) = families_view(deployed)
        assert family.unknown_since == since
