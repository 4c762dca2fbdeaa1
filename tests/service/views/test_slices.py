"""What is said of every slice in a window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.events import Estimate, InsufficientData, Performance, SliceEstimate, Snapshot
from service.jobs.snapshot import SnapshotJob
from service.monitor.estimates import EstimateConfig
from service.views.current import Current, FunctionHealth, NotReady
from service.views.rates import estimate_of
from service.views.slices import slices_view, state_of
from sfs.validation import NO_METADATA


def ticked(log: Any, current: Current, now: Any) -> Snapshot:
    monitor = SnapshotJob(
        log.store, log.writer, current, lambda: EstimateConfig(minimum_labels=1), lambda _: None
    )
    made = monitor.tick(now)
    assert made is not None
    return made


def test_before_the_first_tick_there_is_nothing(current: Current) -> None:
    """Nothing is made up where nothing was counted."""
    with pytest.raises(NotReady, match="no snapshot yet"):
        slices_view(current, "1h")


def test_a_window_that_the_snapshot_lacks(log: Any, current: Current, now: Any) -> None:
    """Without a promotion there is no time since it."""
    ticked(log, current, now)
    with pytest.raises(NotReady, match="no window 'since_promotion': no version of 'orders' was promoted"):
        slices_view(current, "since_promotion")


def test_every_slice_is_shown_with_what_is_known_of_it(
    log: Any, current: Current, prediction: Callable[..., Any], now: Any
) -> None:
    """All rows first, then the rows of no slice, then the slices in their order."""
    age = timedelta(minutes=2)
    log.add(prediction("p1", age, "c"), prediction("p2", age, "c", "s"), prediction("p3", age), p1="lost")
    made = ticked(log, current, now)
    current.health = lambda: {"short": FunctionHealth("short", "open", "faults")}
    view = slices_view(current, "5m")
    assert (view.at, view.model, view.version, view.window) == (now, "orders", 1, "5m")
    assert (view.start, view.end) == (made.windows["5m"].start, made.windows["5m"].end)
    assert (view.last_label_at, current.judging.minimum_labels) == (now, 1)
    assert [(each.name, each.kind, each.origin) for each in view.slices] == [
        ("__all__", "all", None),
        ("__none__", "none", None),
        ("cheap", "slice", "http"),
        ("short", "slice", "file"),
        ("loud", "labeling", "file"),
    ]
    every, none, cheap, short, loud = view.slices
    assert [each.estimate for each in (cheap, short, loud, none, every)] == list(made.windows["5m"].slices)
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
    assert cheap.reference == estimate_of(300, 1000)
    assert loud.reference == InsufficientData(
        0, 1, "its function is not the one that the model's held-out rows were counted with"
    )
    assert short.estimate.unknown == 1


def test_a_function_that_came_since_the_snapshot_has_no_figures(
    log: Any, current: Current, put: Callable[..., None], prediction: Callable[..., Any], now: Any
) -> None:
    """What is in force is listed at once, and what went is not; nothing shows the figures of another function."""
    log.add(prediction("p1", timedelta(minutes=2), "c"))
    made = ticked(log, current, now)
    window = made.windows["5m"]
    others = [replace(each, fingerprint="other") if each.slice == "cheap" else each for each in window.slices]
    gone = replace(others[0], slice="gone")
    windows = {"5m": replace(window, slices=(*others, gone))}
    current.snapshot = replace(made, windows=windows)
    view = slices_view(current, "5m")
    assert [each.name for each in view.slices] == ["__all__", "__none__", "cheap", "short", "loud"]
    assert view.slices[2].estimate.coverage == InsufficientData(
        0, 1, "the slice came after the last snapshot"
    )
    assert view.slices[2].state == "too_few"
    assert isinstance(view.slices[3].estimate.coverage, Estimate)


def test_figures_of_the_version_before_are_not_held_against_the_new_reference(
    log: Any, current: Current, put: Callable[..., None], now: Any
) -> None:
    """Until the first tick after a promotion, the figures are those of the version before, and say so."""
    ticked(log, current, now)
    put(version=2)
    view = slices_view(current, "1h")
    assert view.version == 1
    assert {type(each.reference) for each in view.slices} == {InsufficientData}


def estimate(coverage: tuple[int, int], accuracy: tuple[int, int], unknown: int = 0) -> SliceEstimate:
    share = estimate_of(*accuracy)
    performance = Performance(accuracy[1], share, InsufficientData(0, 1, "not asked"))
    return SliceEstimate("s", "f", estimate_of(*coverage), unknown, 0, performance, performance)


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
    """Intervals that do not meet, upper limits below targets, and many unknown rows are said, worst first."""
    assert state_of(seen, estimate_of(*reference), target) == state
