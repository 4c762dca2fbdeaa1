"""Opening, back-off and probes of a breaker."""

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import MisuseError
from service.serving.breaker import FAULTS, SLOW, Breaker, BreakerLimits

LIMITS = BreakerLimits(faults=3, slow_batches=2, back_off_seconds=1, longest_back_off_seconds=5)


@given(st.lists(st.lists(st.booleans(), max_size=6), max_size=8))
def test_it_opens_on_consecutive_faults_across_batches(batches: list[list[bool]]) -> None:
    """However rows are batched, it opens if and only if a run of faults is long enough."""
    rows = [row for batch in batches for row in batch]
    longest = max((len(list(run)) for fault, run in groupby(rows) if fault), default=0)
    breaker = Breaker()
    for batch in batches:
        if not breaker.is_open:
            breaker = breaker.add_rows(batch, LIMITS, 0.0)
    assert breaker.is_open == (longest >= LIMITS.faults)
    assert breaker.reason in (None, FAULTS)


def test_only_consecutive_slow_batches_count() -> None:
    """A batch within the budget resets the count."""
    breaker = Breaker()
    for slow in (True, False, True):
        breaker = breaker.add_batch(slow, LIMITS, 0.0)
    assert not breaker.is_open
    assert breaker.add_batch(True, LIMITS, 0.0).reason == SLOW


def test_the_back_off_doubles_up_to_the_longest() -> None:
    """A failed probe doubles the time to the next one."""
    breaker, waits = Breaker().trip(SLOW, LIMITS, 0.0), []
    for _ in range(5):
        waits.append(breaker.back_off_seconds)
        breaker = breaker.trip(SLOW, LIMITS, 0.0)
    assert waits == [1, 2, 4, 5, 5]


def test_a_probe_is_due_after_the_back_off_and_never_while_closed() -> None:
    """The back-off begins when it opens."""
    breaker = Breaker().trip(FAULTS, LIMITS, 10.0)
    assert [breaker.is_due(now) for now in (10.9, 11.0)] == [False, True]
    assert not breaker.close(11.0).is_due(99.0)


def test_opening_soon_after_closing_doubles_the_back_off() -> None:
    """A function that passes only its probes is not retried every second."""
    closed = Breaker().trip(SLOW, LIMITS, 0.0).close(2.0)
    assert closed.trip(SLOW, LIMITS, 3.0).back_off_seconds == 2
    assert closed.trip(SLOW, LIMITS, 60.0).back_off_seconds == 1


def test_closing_resets_the_counts() -> None:
    """After a successful probe, faults are counted from 0."""
    closed = Breaker(faults=2).trip(FAULTS, LIMITS, 0.0).close(1.0)
    assert not closed.add_rows([True, True], LIMITS, 2.0).is_open


def test_a_functions_own_budget_overrides_the_default() -> None:
    """An allowance is the budget times the rows, within the limits of a batch."""
    limits = BreakerLimits(budget_ms=1, least_ms=10, hold_ms=100)
    assert [limits.allowance(each, 20) for each in (None, 2.0, 50.0)] == [0.02, 0.04, 0.1]


def test_a_limit_of_0_is_refused() -> None:
    """The message names the limit and the value."""
    with pytest.raises(MisuseError, match="faults must be above 0, got 0"):
        BreakerLimits(faults=0)
