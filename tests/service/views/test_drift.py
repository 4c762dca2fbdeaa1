"""Where slices stand with their detectors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service.decisions import DriftStatus
from service.views.alarms import drift_view, drifts_by_slice
from service.views.current import Current
from sfs.function import ALL_ROWS
from sfs.intervals import Rate


@pytest.fixture
def cheap(current: Current) -> DriftStatus:
    """A slice in force, half way to an alarm."""
    print_ = current.in_force.functions.fingerprints["cheap"]
    return DriftStatus("cheap", print_, "coverage", None, 4.0, 8.0, None, None, Rate(3, 9), 0.0, 1.0)


def test_nothing_is_watched_at_first(current: Current) -> None:
    """Until the monitor has looked."""
    view = drift_view(current)
    assert (view.model, view.version, view.drifts) == ("orders", 1, ())


def test_those_nearest_to_an_alarm_come_first(current: Current, cheap: DriftStatus) -> None:
    """By their share of the threshold; evidence against a change counts as none."""
    near, far = replace(cheap, evidence=7.0, slice="short"), replace(cheap, evidence=-3.0, kind="accuracy")
    current.drifts = (far, cheap, near)
    assert drift_view(current).drifts == (near, cheap, far)
    assert far.evidence_ratio == 0.0


def test_a_slice_has_a_stand_of_each_kind(current: Current, cheap: DriftStatus) -> None:
    """The extra columns, which no function makes, too."""
    every, right = replace(cheap, slice=ALL_ROWS, fingerprint=None), replace(cheap, kind="accuracy")
    current.drifts = (cheap, right, every)
    assert drifts_by_slice(current) == {
        "cheap": {"coverage": cheap, "accuracy": right},
        ALL_ROWS: {"coverage": every},
    }


@pytest.mark.parametrize("change", [{"fingerprint": "before"}, {"slice": "gone"}])
def test_the_stand_of_another_function_is_not_shown(
    current: Current, cheap: DriftStatus, change: Any
) -> None:
    """A function that was changed or removed says nothing of the one in force."""
    current.drifts = (replace(cheap, **change),)
    assert drifts_by_slice(current) == {}
