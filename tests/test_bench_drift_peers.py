"""Comparison with the drift detectors of other tools: its skill score, its delays, and our detector in it."""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest
from bench_drift_peers import DENSITIES, OURS, Cost, calm, calm_ours, changed, delay_figures, finish, ours, skills
from hypothesis import given
from hypothesis import strategies as st
from results import drift_peers_page
from traffic_streams import HOUR_BLOCKS, KINDS, Change, TrafficStream

DENSITY = st.floats(1e-6, 1 - 1e-6)


@given(DENSITY, st.lists(st.floats(0, 24), min_size=2, max_size=20))
def test_always_firing_has_no_skill(density: float, hours: list[float]) -> None:
    """At no density, and even if it finds every change at once; neither has its lower limit."""
    for lost in (hours, [0.0, 0.0]):
        cost = Cost(1_000, 1_000, lost)
        assert cost.skill_lower(density) <= cost.skill(density) <= 1e-9


@given(DENSITY)
def test_never_firing_has_no_skill(density: float) -> None:
    """Its skill is 0 where it is the cheaper of both trivial policies, and below elsewhere."""
    assert Cost(0, 1_000, [24.0, 24.0]).skill(density) <= 1e-9
    best = max(Cost(0, 10, [24.0] * 2).skill(density), Cost(10, 10, [0.0] * 2).skill(density))
    assert best == pytest.approx(0)


@given(DENSITY, st.integers(0, 100))
def test_a_mixture_of_both_has_no_skill(density: float, days: int) -> None:
    """Firing on random days finds the same share of the changes at once."""
    share = days / 100
    assert Cost(days, 100, [24 * (1 - share)] * 2).skill(density) <= 1e-9


@given(DENSITY)
def test_the_skill_of_a_perfect_detector_is_one(density: float) -> None:
    """No false alarm, no delay; the lower limit is that of the days that were watched."""
    perfect = Cost(0, 6_000, [0.0, 0.0])
    assert perfect.skill(density) == 1
    assert perfect.skill_lower(density) < 1


def test_the_skill_is_the_saved_share_of_the_cost() -> None:
    """At 10 % always firing costs .9 a slice-day, never firing 2.4; at .1 % never firing is cheaper."""
    cost = Cost(30, 300, [1.0, 3.0])
    assert cost.skill(0.1) == pytest.approx(1 - (0.9 * 0.1 + 0.1 * 2) / 0.9)
    assert cost.skill(0.001) == pytest.approx(1 - (0.999 * 0.1 + 0.001 * 2) / 0.024)


def test_a_change_that_is_found_too_late_is_missed() -> None:
    """It is not in the mean delay; of the hours lost each change has at most 24."""
    figures = delay_figures(np.array([6.0, 18.0, math.inf, 73.0 * HOUR_BLOCKS]), 72)
    assert (figures["missed"], figures["mean_minutes"], figures["mean_rows"]) == (2, 2.0, 12_000)
    assert figures["hours_lost"] == [0.0167, 0.05, 24.0, 24.0]
    assert delay_figures(np.array([math.inf]), 72)["mean_rows"] is None


def test_ours_finds_a_change_and_nothing_else() -> None:
    """Within minutes, in the slice that changed, and only once if the changes are known."""
    rates, change = np.array([0.01, 0.05]), Change(7 * HOUR_BLOCKS + 5, (1,), 0.0)
    stream = TrafficStream(KINDS["independent"], rates, 0, (change,))
    alarms = ours(stream.hours(8), rates, 6)
    assert set(alarms.slice.tolist()) == {1}
    assert change.block <= alarms.block[0] < change.block + 12
    once = ours(stream.hours(8), rates, 6, np.array([8 * HOUR_BLOCKS, change.block]))
    assert once.block.tolist() == alarms.block[:1].tolist() < alarms.block.tolist()


def test_ours_watches_several_kinds_of_traffic_at_once() -> None:
    """Those whose blocks have the same rows share a detector."""
    kinds = ["independent", "clumps x3", "sparse nights"]
    assert calm_ours(kinds, 3, 1, learning_hours=1) == {kind: {"alarms": 0, "slice_days": 0} for kind in kinds}


def test_all_detectors_are_compared_on_the_same_stream(tmp_path: Path) -> None:
    """Calm and changed slices, their skills, targets and pictures."""
    own = {"alarms": 0, "slice_days": 0}
    rows = [calm("independent", 3, 1, own, learning_hours=24)]
    changes = changed("independent", 1, learning_hours=24, change_hours=2, patience_hours=2)
    setting = {"slices": 3, "days": 1, "streams": 1, "budget_slices": 1_000}
    finish(
        {**setting, "calm": rows, "changes": changes}, argparse.Namespace(out=tmp_path / "out.json", images=tmp_path)
    )
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["calm"][0]["detectors"][OURS] == own
    assert document["calm"][0]["detectors"]["always fire"] == {"alarms": 72, "slice_days": 3}
    assert len(document["changes"]) == 15
    vanished = next(row for row in changes if (row["coverage"], row["ratio"]) == (0.05, 0.0))["detectors"]
    assert vanished[OURS]["missed"] == 0
    assert vanished[OURS]["mean_minutes"] < vanished["hourly z-test, BH"]["mean_minutes"] <= 60
    assert vanished["always fire"]["mean_minutes"] <= 60
    assert [row["density"] for row in document["skills"]] == list(DENSITIES)
    for row in skills(rows, changes):
        assert row["detectors"]["always fire"]["skill"] <= 0 >= row["detectors"]["never fire"]["skill"]
    known = {name: {"alarms": -1} for name in rows[0]["detectors"] if name != OURS}
    assert calm("independent", 3, 1, own, learning_hours=24, known=known)["detectors"] == {**known, OURS: own}
    page = drift_peers_page(document)
    assert all(f"images/{path.name}" in page for path in tmp_path.glob("*.svg"))
    assert "| independent | 10.0% |" in page
    pictures = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert pictures == ["drift-peers-delays-independent.svg", "drift-peers-false-alarms.svg"]
