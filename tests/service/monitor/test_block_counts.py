"""Counting the rows of a block."""

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.events import BlockCounts
from service.monitor.block_counts import count, empty, unpack


@settings(deadline=None, max_examples=60)
@given(data=st.data(), set_hash=st.sampled_from(["first", "voting"]))
def test_a_block_equals_a_recount(traffic: Any, data: st.DataObject, set_hash: str) -> None:
    """Every count of a block equals the count of its rows one at a time."""
    rows = data.draw(traffic.histories(set_hashes=(set_hash,)))
    day = traffic.at.replace(hour=0, minute=0, second=0, microsecond=0)
    traffic.check(traffic.block_of(rows, day, 86_400), rows, traffic.sets[set_hash])


def test_n_member_unknown_and_labelled_are_read_from_the_arrays(traffic: Any) -> None:
    """A block tells its rows, labelled rows, members and unknown rows by column."""
    rows = [traffic.row("1", a="in"), traffic.row("2", b="unknown", label="x"), traffic.row("3")]
    block = traffic.block_of(rows)
    assert (block.n, block.labelled) == (3, 1)
    assert block.member.tolist() == [1, 0, 0, 1, 3]
    assert block.unknown.tolist() == [0, 1, 0, 1, 0]


def test_no_slice_fired_is_unknown_where_a_slice_is(traffic: Any) -> None:
    """A row that is unknown to a slice is neither inside nor outside, also where another slice took it in."""
    block = traffic.block_of([traffic.row("1", a="unknown"), traffic.row("2", a="unknown", b="in")])
    assert (block.member[3], block.unknown[3]) == (0, 2)


def test_no_slice_fired_does_not_ask_labelling_functions(traffic: Any) -> None:
    """A row that only votes took in, or that only a vote does not know, is one on which no slice fired."""
    rows = [
        traffic.row("1", set_hash="voting", v="in", w="unknown"),
        traffic.row("2", set_hash="voting", b="in"),
    ]
    block = traffic.block_of(rows)
    assert (block.member[5], block.unknown[5]) == (1, 0)
    assert block.member.tolist() == [1, 0, 1, 0, 0, 1, 2]


def test_a_label_of_a_class_that_was_never_predicted_counts_as_wrong(traffic: Any) -> None:
    """A true class that the model does not know has a row in the confusion, off the diagonal."""
    block = traffic.block_of([traffic.row("1", called="x", label="new")])
    assert block.classes == ("new", "x")
    assert block.confusion[0, 1, -1] == 1
    assert np.trace(block.confusion[..., -1]) == 0


def test_labels_of_other_rows_do_no_harm(traffic: Any) -> None:
    """A label whose prediction is not in the block is not counted there."""
    prediction = traffic.row("1").prediction
    start = traffic.at - timedelta(seconds=5)
    assert count([prediction], {"2": "x"}, 3, start, 10).labelled == 0


def test_a_set_without_functions_has_the_extra_columns_alone(traffic: Any) -> None:
    """Without slices every row is one that no slice took in."""
    made = traffic.row("1").prediction
    bare = type(made)("1", "m", 3, "none", traffic.at, "x", None, b"", b"", None, 0, "live")
    block = count([bare], {}, 0, traffic.at, 10)
    assert block.member.tolist() == [1, 1]


@pytest.mark.parametrize("seconds", [-1, 10])
def test_a_row_from_another_time_is_refused(traffic: Any, seconds: int) -> None:
    """A row before the start of a block, or at its end, is not counted in it."""
    late = traffic.row("late", traffic.at + timedelta(seconds=seconds)).prediction
    with pytest.raises(ValueError, match=r"'late' .* is not of the block"):
        count([late], {}, 3, traffic.at, 10)


def test_a_row_of_another_set_is_refused(traffic: Any) -> None:
    """Rows of two function sets are not counted in one block."""
    rows = [traffic.row("1").prediction, traffic.row("2", set_hash="edited").prediction]
    with pytest.raises(ValueError, match=r"'2' .* group rows first"):
        count(rows, {}, 3, traffic.at, 10)


def test_a_block_without_rows_is_refused(traffic: Any) -> None:
    """No rows name no model, so there is nothing to count."""
    with pytest.raises(ValueError, match=r"use blocks\.empty"):
        count([], {}, 3, traffic.at, 10)


@given(members=st.lists(st.lists(st.booleans(), min_size=11, max_size=11), max_size=5))
def test_bitmaps_come_back_as_they_were_packed(members: list[list[bool]]) -> None:
    """Unpacking reads what numpy packs in little bit order, past one byte as well."""
    maps = [np.packbits(bits, bitorder="little").tobytes() for bits in members]
    assert unpack(maps, 11).tolist() == members


def test_a_bitmap_of_another_width_is_refused() -> None:
    """A bitmap that does not have one bit per slice is an error, not a guess."""
    with pytest.raises(ValueError, match="9 slices has 2 bytes, got one of 1"):
        unpack([b"\x00"], 9)


def test_blocks_are_equal_by_what_they_count(traffic: Any) -> None:
    """Two blocks of the same rows are equal, a label makes the difference, and nothing else is a block."""
    one, again = traffic.block_of([traffic.row("1")]), traffic.block_of([traffic.row("1")])
    assert one == again
    assert one != traffic.block_of([traffic.row("1", label="x")])
    assert one != "a block"


def test_arrays_that_do_not_fit_together_are_refused(traffic: Any) -> None:
    """A block of three columns here and four there cannot be made."""
    block = empty("m", 3, "first", 1, traffic.at, 10)
    predicted, predicted_unknown, confusion, confusion_unknown, absent = block.arrays()
    with pytest.raises(ValueError, match="the counts of a block have shapes"):
        BlockCounts(
            *block.series,
            traffic.at,
            10,
            (),
            predicted,
            predicted_unknown,
            confusion,
            confusion_unknown[..., :2],
            absent,
        )
