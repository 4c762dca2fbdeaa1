"""When a breaker opens, and when it gives another chance."""

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import MisuseError
from service.serving.breaker import FAULTS, SLOW, Breaker, BreakerLimits

LIMITS = BreakerLimits(faults=3, slow_batches=2, back_off_seconds=1, longest_back_off_seconds=5)


@given(st.lists(st.lists(st.booleans(), max_size=6), max_size=8))
def test_it_opens_on_so_many_faulty_rows_in_a_row_across_batches(batches: list[list[bool]]) -> None:
    """However rows are cut into batches, it opens when and only when a run of faults is long enough."""
    rows = [row for batch in batches for row in batch]
    longest = max((len(list(run)) for fault, run in groupby(rows) if fault), default=0)
    breaker = Breaker()
    for batch in batches:
        if not breaker.is_open:
            breaker = breaker.after_rows(batch, LIMITS, 0.0)
    assert breaker.is_open == (longest >= LIMITS.faults)
    assert breaker.reason in (None, FAULTS)


def test_slow_batches_count_only_in_a_row() -> None:
    """One batch within the budget begins the count anew."""
    breaker = Breaker()
    for slow in (True, False, True):
        breaker = breaker.after_batch(slow, LIMITS, 0.0)
    assert not breaker.is_open
    assert breaker.after_batch(True, LIMITS, 0.0).reason == SLOW


def test_the_back_off_doubles_up_to_the_longest() -> None:
    """Each probe that fails doubles the time to the next one."""
    breaker, waits = Breaker().opened(SLOW, LIMITS, 0.0), []
    for _ in range(5):
        waits.append(breaker.back_off_seconds)
        breaker = breaker.opened(SLOW, LIMITS, 0.0)
    assert waits == [1, 2, 4, 5, 5]


def test_a_probe_is_due_after_the_back_off_and_never_while_closed() -> None:
    """The time of the probe is that of opening plus the back-off."""
    breaker = Breaker().opened(FAULTS, LIMITS, 10.0)
    assert [breaker.is_due(now) for now in (10.9, 11.0)] == [False, True]
    assert not breaker.closed(11.0).is_due(99.0)


def test_one_that_opens_soon_after_it_closed_backs_off_longer() -> None:
    """A function that only ever passes its probes does not come back every second."""
    closed = Breaker().opened(SLOW, LIMITS, 0.0).closed(2.0)
    assert closed.opened(SLOW, LIMITS, 3.0).back_off_seconds == 2
    assert closed.opened(SLOW, LIMITS, 60.0).back_off_seconds == 1


def test_closing_forgets_what_was_counted() -> None:
    """After a good probe, faults are counted from none."""
    closed = Breaker(faults=2).opened(FAULTS, LIMITS, 0.0).closed(1.0)
    assert not closed.after_rows([True, True], LIMITS, 2.0).is_open


def test_a_functions_own_budget_counts_before_the_common_one() -> None:
    """An allowance is the budget times the rows, within what a batch may be held."""
    limits = BreakerLimits(budget_ms=1, least_ms=10, hold_ms=100)
    assert [limits.allowance(each, 20) for each in (None, 2.0, 50.0)] == [0.02, 0.04, 0.1]


def test_a_limit_of_nothing_is_refused() -> None:
    """The message names the limit and the value."""
    with pytest.raises(MisuseError, match="faults must be above 0, got 0"):
        BreakerLimits(faults=0)
