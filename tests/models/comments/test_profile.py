"""Schedules and profiles: values at a position, and refused values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.comments.profile import DEFAULT, SLICES, Profile, ShareChange, ShareSchedule, SliceProfile
from models.errors import ConfigError

SHARES = st.floats(0, 1)


@given(SHARES, st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), SHARES), max_size=4))
def test_a_schedule_equals_its_literal_twin(start: float, steps: list[tuple[int, int, float]]) -> None:
    """At every position a schedule equals a walk through its changes one by one."""
    changes, at = [], 0
    for gap, over_rows, value in steps:
        changes.append(ShareChange(at + gap, value, over_rows))
        at += gap + over_rows
    schedule = ShareSchedule(start, tuple(changes))
    positions = list(range(at + 3))
    expected = []
    for position in positions:
        share = start
        for change in changes:
            if position >= change.at + change.over_rows:
                share = change.value
            elif position >= change.at:
                share += (change.value - share) * (position - change.at) / change.over_rows
        expected.append(share)
    np.testing.assert_allclose(schedule.at(positions), expected, atol=1e-12)


def test_a_step_is_exact_on_both_sides() -> None:
    """The last row before a step has the old share and its first row the new one, without rounding."""
    assert ShareSchedule(0.02).then(1_000, 0.08).at([999, 1_000]).tolist() == [0.02, 0.08]


def test_a_profile_tells_every_share_at_a_position() -> None:
    """A changed slice reads differently from the change on, and no other slice does."""
    changed = DEFAULT.with_change("short_link", at=100, over_rows=100, coverage=0.08, novelty=1.0)
    assert changed.at(99) == DEFAULT.at(99)
    halfway = changed.at(150)
    assert halfway["short_link"]["coverage"] == pytest.approx(0.05)
    assert halfway["short_link"]["novelty"] == pytest.approx(0.5)
    assert {name: shares for name, shares in halfway.items() if name != "short_link"} == {
        name: shares for name, shares in DEFAULT.at(150).items() if name != "short_link"
    }


def test_the_default_profile_plants_every_slice() -> None:
    """Calm traffic holds all the slices that can be planted, each once."""
    assert sorted(piece.name for piece in DEFAULT.slices) == sorted(SLICES)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ShareSchedule(1.2), "a schedule holds 1.2"),
        (lambda: ShareSchedule(float("nan")), "a schedule holds nan"),
        (lambda: ShareSchedule(0.1).then(10, 0.2, over_rows=5).then(12, 0.3), "starts before position 15"),
        (lambda: ShareSchedule(0.1).then(-1, 0.2), "negative number of rows"),
        (lambda: Profile((SliceProfile("sarcasm", ShareSchedule(0.1), ShareSchedule(0.5)),)), "'sarcasm'"),
        (lambda: Profile((DEFAULT["has_url"], DEFAULT["has_url"])), "repeat a name"),
        (lambda: Profile((), duplicates=2.0), "duplicates is 2.0"),
        (lambda: DEFAULT["sarcasm"], "has no planted slice 'sarcasm'"),
        (lambda: DEFAULT.with_change("has_url", at=0, colour=0.5), "no 'colour'"),
        (lambda: DEFAULT.with_change("short_comment", at=9, novelty=0.5), "short_comment has a novelty"),
        (
            lambda: DEFAULT.with_change("has_url", at=500, coverage=0.9),
            "'has_url' has more spam at position 500",
        ),
        (
            lambda: Profile(
                (SliceProfile("has_url", ShareSchedule(0.1), ShareSchedule(0.5)),),
                spam_share=ShareSchedule(0.0),
            ),
            "'has_url' has more spam",
        ),
    ],
)
def test_impossible_traffic_is_refused(make, message: str) -> None:
    """Impossible traffic is refused at declaration, with the value and the remedy."""
    with pytest.raises(ConfigError, match=message):
        make()
