"""Adding blocks, taking them apart, and reading them under another function set."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.events import BlockCounts
from service.monitor.block_counts import empty, merge, remap_columns, subtract


def day_of(traffic: Any, rows: list[Any]) -> BlockCounts:
    day = traffic.at.replace(hour=0, minute=0, second=0, microsecond=0)
    return traffic.block_of(rows, day, 86_400)  # type: ignore[no-any-return]


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_partition_and_order_equals_one_block(traffic: Any, data: st.DataObject) -> None:
    """Rows cut into blocks anyhow, added in any order and grouping, make the block of all rows."""
    rows = data.draw(traffic.histories(edges=(0, 300)))
    part = data.draw(st.lists(st.integers(0, 4), min_size=len(rows), max_size=len(rows)))
    groups = [[r for r, p in zip(rows, part, strict=True) if p == each] for each in set(part)]
    pending = data.draw(st.permutations([day_of(traffic, group) for group in groups]))
    while len(pending) > 1:
        some = data.draw(st.integers(2, len(pending)))
        pending = data.draw(st.permutations([merge(pending[:some]), *pending[some:]]))
    assert pending[0] == day_of(traffic, rows)
    traffic.check(pending[0], rows, traffic.sets["first"])


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_taking_a_part_away_leaves_the_rest(traffic: Any, data: st.DataObject) -> None:
    """A total without one of its parts counts the other rows, and has forgotten classes that only those had."""
    rows = data.draw(traffic.histories(least=2))
    cut = data.draw(st.integers(1, len(rows) - 1))
    part, rest = day_of(traffic, rows[:cut]), day_of(traffic, rows[cut:])
    assert subtract(merge([part, rest]), part) == rest


def test_the_empty_block_changes_no_count(traffic: Any) -> None:
    """Adding the block of no rows gives the same block."""
    block = traffic.block_of([traffic.row("1", a="in", label="y")])
    assert merge([empty(*block.series, 3, block.start, 0), block]) == block


def test_a_sum_reaches_from_first_to_last(traffic: Any) -> None:
    """The time of a sum spans the times of its blocks, the gap between them included."""
    early = traffic.block_of([traffic.row("1", traffic.at.replace(minute=10))])
    late = traffic.block_of([traffic.row("2", traffic.at.replace(minute=20))])
    total = merge([late, early])
    assert (total.start, total.end) == (early.start, late.end)


def test_counts_beyond_31_bits_add(traffic: Any) -> None:
    """Sums over years of traffic do not wrap around."""
    block = traffic.block_of([traffic.row("1")])
    huge = replace(block, predicted=block.predicted * 2**31)
    assert merge([huge, huge]).n == 2**32


@pytest.mark.parametrize("other", [{"model": "n"}, {"version": 4}, {"set_hash": "edited"}])
def test_blocks_of_two_series_do_not_add(traffic: Any, other: dict[str, Any]) -> None:
    """Models, versions and function sets are never added together."""
    block = traffic.block_of([traffic.row("1")])
    with pytest.raises(ValueError, match="several series"):
        merge([block, replace(block, **other)])


def test_blocks_of_different_numbers_of_slices_do_not_add(traffic: Any) -> None:
    """One set hash with two numbers of slices is an error."""
    block = traffic.block_of([traffic.row("1")])
    with pytest.raises(ValueError, match="differ in the number of their slices"):
        merge([block, empty(*block.series, 4, block.start, 10)])


def test_nothing_to_merge_is_refused() -> None:
    """A sum of no blocks has no series."""
    with pytest.raises(ValueError, match="no blocks to merge"):
        merge([])


def test_taking_away_what_is_not_there_is_refused(traffic: Any) -> None:
    """Rows that a total does not hold cannot be taken from it."""
    block = traffic.block_of([traffic.row("1")])
    with pytest.raises(ValueError, match="rows that the total does not"):
        subtract(block, merge([block, block]))


def test_taking_away_another_series_is_refused(traffic: Any) -> None:
    """A part is of the same series as its total."""
    block = traffic.block_of([traffic.row("1")])
    with pytest.raises(ValueError, match="only a part of the same"):
        subtract(block, replace(block, version=9))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_projecting_equals_a_recount_by_name_and_fingerprint(traffic: Any, data: st.DataObject) -> None:
    """A block under another set counts each slice that both sets have, and calls the rest absent."""
    made = data.draw(st.sampled_from(sorted(traffic.sets)))
    wanted = traffic.sets[data.draw(st.sampled_from(sorted(traffic.sets)))]
    rows = data.draw(traffic.histories(set_hashes=(made,)))
    block = remap_columns(day_of(traffic, rows), traffic.sets[made], wanted)
    assert block.set_hash == wanted.hash
    traffic.check(block, rows, wanted)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_projecting_and_adding_can_change_places(traffic: Any, data: st.DataObject) -> None:
    """The projection of a sum is the sum of the projections."""
    made, wanted = traffic.sets["first"], traffic.sets["edited"]
    left, right = (day_of(traffic, data.draw(traffic.histories())) for _ in range(2))
    apart = merge([remap_columns(left, made, wanted), remap_columns(right, made, wanted)])
    assert remap_columns(merge([left, right]), made, wanted) == apart


def test_a_changed_function_has_no_rows_before_its_change(traffic: Any) -> None:
    """A function with a new fingerprint was asked about none of the old rows."""
    block = traffic.block_of([traffic.row("1", b="in"), traffic.row("2")])
    seen = remap_columns(block, traffic.sets["first"], traffic.sets["edited"])
    assert (seen.member[1], seen.unknown[1], seen.absent[1]) == (0, 2, 2)


def test_no_slice_fired_survives_other_votes(traffic: Any) -> None:
    """It is absent where the slices are others, and not where labelling functions came or went."""
    block = traffic.block_of([traffic.row("1"), traffic.row("2", b="in")])
    made, sets = traffic.sets["first"], traffic.sets
    seen = {name: remap_columns(block, made, sets[name]) for name in ("voting", "shuffled", "turned")}
    assert {name: each.member[-2] for name, each in seen.items()} == {"voting": 1, "shuffled": 1, "turned": 0}
    assert {name: each.absent[-2] for name, each in seen.items()} == {"voting": 0, "shuffled": 0, "turned": 2}


def test_projecting_from_a_set_that_did_not_make_the_block_is_refused(traffic: Any) -> None:
    """Columns are only read by the set that wrote them."""
    block = traffic.block_of([traffic.row("1")])
    with pytest.raises(ValueError, match="made with set 'first', not with 'edited'"):
        remap_columns(block, traffic.sets["edited"], traffic.sets["first"])


def test_projecting_leaves_the_original_alone(traffic: Any) -> None:
    """A projection is another value; the block that it reads keeps its counts."""
    block = traffic.block_of([traffic.row("1", b="in")])
    before = [array.copy() for array in block.arrays()]
    remap_columns(block, traffic.sets["first"], traffic.sets["edited"])
    assert all(np.array_equal(a, b) for a, b in zip(before, block.arrays(), strict=True))
