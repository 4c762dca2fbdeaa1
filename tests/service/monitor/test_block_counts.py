"""Counts of blocks: counting, merging, remapping and packing."""

import json
import zlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from factories import count_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from models.outputs import low_limit
from service.events import BlockCounts
from service.monitor.block_counts import (
    PackedSum,
    compress,
    decompress,
    empty,
    merge,
    remap_columns,
    unpack_bitmaps,
)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), set_hash=st.sampled_from(["first", "voting"]))
def test_a_block_equals_a_recount(traffic: Any, data: st.DataObject, set_hash: str) -> None:
    """Every count of a block equals the count of its rows one at a time."""
    rows = data.draw(traffic.histories(set_hashes=(set_hash,)))
    day = traffic.at.replace(hour=0, minute=0, second=0, microsecond=0)
    traffic.check(traffic.block_of(rows, day, 86_400), rows, traffic.sets[set_hash])


def test_n_member_unknown_and_labelled_are_read_from_the_arrays(traffic: Any) -> None:
    """Rows, labelled rows, members and unknown rows are sums of the arrays."""
    rows = [traffic.row("1", a="in"), traffic.row("2", b="unknown", label="x"), traffic.row("3")]
    block = traffic.block_of(rows)
    assert (block.n, block.labelled) == (3, 1)
    assert block.member.tolist() == [1, 0, 0, 1, 3]
    assert block.unknown.tolist() == [0, 1, 0, 1, 0]


def test_no_slice_fired_is_unknown_where_a_slice_is(traffic: Any) -> None:
    """A row that is unknown to a slice is neither in nor out of the column, even if another slice fired."""
    block = traffic.block_of([traffic.row("1", a="unknown"), traffic.row("2", a="unknown", b="in")])
    assert (block.member[3], block.unknown[3]) == (0, 2)


def test_no_slice_fired_does_not_ask_labelling_functions(traffic: Any) -> None:
    """Votes are disregarded, whether they fired or failed."""
    rows = [
        traffic.row("1", set_hash="voting", v="in", w="unknown"),
        traffic.row("2", set_hash="voting", b="in"),
    ]
    block = traffic.block_of(rows)
    assert (block.member[5], block.unknown[5]) == (1, 0)
    assert block.member.tolist() == [1, 0, 1, 0, 0, 1, 2]


def test_a_label_of_a_class_that_was_never_predicted_counts_as_wrong(traffic: Any) -> None:
    """A class that the model does not know has a row of the confusion matrix, off the diagonal."""
    block = traffic.block_of([traffic.row("1", called="x", label="new")])
    assert block.classes == ("new", "x")
    assert block.confusion[0, 1, -1] == 1
    assert np.trace(block.confusion[..., -1]) == 0


def test_labels_of_other_rows_do_no_harm(traffic: Any) -> None:
    """A label of a prediction outside the block is ignored."""
    prediction = traffic.row("1").prediction
    start = traffic.at - timedelta(seconds=5)
    assert count_rows([prediction], {"2": "x"}, 3, start, 10).labelled == 0


def test_a_set_without_functions_has_the_extra_columns_alone(traffic: Any) -> None:
    """Without slices no slice fires on any row."""
    made = traffic.row("1").prediction
    bare = type(made)("1", "m", 3, "none", traffic.at, "x", None, b"", b"", None, 0, "live")
    block = count_rows([bare], {}, 0, traffic.at, 10)
    assert block.member.tolist() == [1, 1]


@given(members=st.lists(st.lists(st.booleans(), min_size=11, max_size=11), max_size=5))
def test_bitmaps_come_back_as_they_were_packed(members: list[list[bool]]) -> None:
    """Bitmaps packed by numpy in little bit order are read exactly, beyond one byte as well."""
    maps = [np.packbits(bits, bitorder="little").tobytes() for bits in members]
    assert unpack_bitmaps(maps, 11).tolist() == members


def test_a_bitmap_of_another_width_is_refused() -> None:
    """A bitmap without exactly one bit per slice is an error."""
    with pytest.raises(ValueError, match="9 slices has 2 bytes, got 1"):
        unpack_bitmaps([b"\x00"], 9)


def test_blocks_are_equal_by_what_they_count(traffic: Any) -> None:
    """Blocks are equal if their counts are; one label makes a difference."""
    one, again = traffic.block_of([traffic.row("1")]), traffic.block_of([traffic.row("1")])
    assert one == again
    assert one != traffic.block_of([traffic.row("1", label="x")])
    assert one != "a block"


def test_arrays_that_do_not_fit_together_are_refused(traffic: Any) -> None:
    """Arrays with different numbers of columns are an error."""
    block = empty("m", 3, "first", 1, traffic.at, 10)
    predicted, predicted_unknown, confusion, confusion_unknown, *others = block.arrays()
    with pytest.raises(ValueError, match="the counts of a block must have shapes"):
        BlockCounts(
            *block.series,
            traffic.at,
            10,
            (),
            predicted,
            predicted_unknown,
            confusion,
            confusion_unknown[..., :2],
            *others,
        )


def day_of(traffic: Any, rows: list[Any]) -> BlockCounts:
    day = traffic.at.replace(hour=0, minute=0, second=0, microsecond=0)
    return traffic.block_of(rows, day, 86_400)  # type: ignore[no-any-return]


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_any_partition_and_order_equals_one_block(traffic: Any, data: st.DataObject) -> None:
    """Blocks of any partition of the rows, merged in any order and grouping, equal the block of all rows."""
    rows = data.draw(traffic.histories(edges=(0, 300)))
    part = data.draw(st.lists(st.integers(0, 4), min_size=len(rows), max_size=len(rows)))
    groups = [[r for r, p in zip(rows, part, strict=True) if p == each] for each in set(part)]
    pending = data.draw(st.permutations([day_of(traffic, group) for group in groups]))
    while len(pending) > 1:
        some = data.draw(st.integers(2, len(pending)))
        pending = data.draw(st.permutations([merge(pending[:some]), *pending[some:]]))
    assert pending[0] == day_of(traffic, rows)
    traffic.check(pending[0], rows, traffic.sets["first"])


def test_the_empty_block_changes_no_count(traffic: Any) -> None:
    """The empty block is the neutral element."""
    block = traffic.block_of([traffic.row("1", a="in", label="y")])
    assert merge([empty(*block.series, 3, block.start, 0), block]) == block


def test_a_sum_reaches_from_first_to_last(traffic: Any) -> None:
    """The time of a sum spans its blocks and the gaps between them."""
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
    """Models, versions and function sets cannot be merged."""
    block = traffic.block_of([traffic.row("1")])
    with pytest.raises(ValueError, match="different series"):
        merge([block, replace(block, **other)])


def test_blocks_of_different_numbers_of_slices_do_not_add(traffic: Any) -> None:
    """One set hash with two numbers of slices is an error."""
    block = traffic.block_of([traffic.row("1")])
    with pytest.raises(ValueError, match="differ in their number of slices"):
        merge([block, empty(*block.series, 4, block.start, 10)])


def test_nothing_to_merge_is_refused() -> None:
    """A sum of zero blocks has no series."""
    with pytest.raises(ValueError, match="cannot merge zero blocks"):
        merge([])


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_projecting_equals_a_recount_by_name_and_fingerprint(traffic: Any, data: st.DataObject) -> None:
    """Under another set, slices of both sets keep their counts, and the others are absent."""
    made = data.draw(st.sampled_from(sorted(traffic.sets)))
    wanted = traffic.sets[data.draw(st.sampled_from(sorted(traffic.sets)))]
    rows = data.draw(traffic.histories(set_hashes=(made,)))
    block = remap_columns(day_of(traffic, rows), traffic.sets[made], wanted)
    assert block.set_hash == wanted.hash
    traffic.check(block, rows, wanted)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_projecting_and_adding_can_change_places(traffic: Any, data: st.DataObject) -> None:
    """Remapping commutes with merging."""
    made, wanted = traffic.sets["first"], traffic.sets["edited"]
    left, right = (day_of(traffic, data.draw(traffic.histories())) for _ in range(2))
    apart = merge([remap_columns(left, made, wanted), remap_columns(right, made, wanted)])
    assert remap_columns(merge([left, right]), made, wanted) == apart


def test_a_changed_function_has_no_rows_before_its_change(traffic: Any) -> None:
    """A function with a new fingerprint was not applied to the old rows."""
    block = traffic.block_of([traffic.row("1", b="in"), traffic.row("2")])
    seen = remap_columns(block, traffic.sets["first"], traffic.sets["edited"])
    assert (seen.member[1], seen.unknown[1], seen.absent[1]) == (0, 2, 2)


def test_no_slice_fired_survives_other_votes(traffic: Any) -> None:
    """The column is absent if the slices differ, not if only the votes do."""
    block = traffic.block_of([traffic.row("1"), traffic.row("2", b="in")])
    made, sets = traffic.sets["first"], traffic.sets
    seen = {name: remap_columns(block, made, sets[name]) for name in ("voting", "shuffled", "turned")}
    assert {name: each.member[-2] for name, each in seen.items()} == {"voting": 1, "shuffled": 1, "turned": 0}
    assert {name: each.absent[-2] for name, each in seen.items()} == {"voting": 0, "shuffled": 0, "turned": 2}


def test_projecting_from_a_set_that_did_not_make_the_block_is_refused(traffic: Any) -> None:
    """Columns are read by their own set only."""
    block = traffic.block_of([traffic.row("1")])
    with pytest.raises(ValueError, match="counted with set 'first', not with 'edited'"):
        remap_columns(block, traffic.sets["edited"], traffic.sets["first"])


def test_projecting_leaves_the_original_alone(traffic: Any) -> None:
    """Remapping does not change its argument."""
    block = traffic.block_of([traffic.row("1", b="in")])
    before = [array.copy() for array in block.arrays()]
    remap_columns(block, traffic.sets["first"], traffic.sets["edited"])
    assert all(np.array_equal(a, b) for a, b in zip(before, block.arrays(), strict=True))


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_block_comes_back_as_it_was(traffic: Any, data: st.DataObject) -> None:
    """Compressing and decompressing changes nothing."""
    block = traffic.block_of(data.draw(traffic.histories()), traffic.at.replace(hour=0), 86_400)
    assert decompress(compress(block), *block.series, block.start, block.seconds) == block


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_packed_blocks_add_up_to_their_merger(traffic: Any, data: st.DataObject) -> None:
    """The packed sum equals the merged blocks, for any classes and integer widths."""
    blocks = traffic.blocks_of(data.draw(traffic.histories(edges=(0, 30, 300))))
    blocks.append(replace(blocks[0], predicted=blocks[0].predicted * 2**40))
    total, whole = PackedSum(), merge(blocks)
    for block in blocks:
        total.add(compress(block))
    assert total.block(*whole.series, whole.start, whole.seconds) == whole


def test_counts_beyond_31_bits_come_back(traffic: Any) -> None:
    """A block of more than 2 ** 31 rows is packed in wider numbers."""
    block = traffic.block_of([traffic.row("1")])
    huge = replace(block, predicted=block.predicted * 2**40)
    assert decompress(compress(huge), *huge.series, huge.start, 10).n == 2**40


def test_a_block_of_no_rows_comes_back(traffic: Any) -> None:
    """An empty block can be packed, with any number of slices."""
    for slices in (0, 5):
        block = empty("m", 3, "first", slices, traffic.at, 10)
        assert decompress(compress(block), *block.series, block.start, 10) == block


def test_a_block_of_many_slices_is_small(traffic: Any) -> None:
    """Empty columns are cheap: 1,000 slices that never fired take less than 2 kB."""
    block = empty("m", 3, "first", 1000, traffic.at, 10)
    wide = block.absent + 1
    assert len(compress(replace(block, absent=wide))) < 2000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        zlib.compress(b"{}\n"),
        zlib.compress(b"[1]\n"),
        zlib.compress(b'{"format": 1, "dtype": "<i4", "classes": ["x"], "columns": 3}\n\0\0\0\0'),
        zlib.compress(b'{"format": 1, "dtype": "<i4", "classes": [], "columns": 3}\n\0\0'),
    ],
    ids=["nothing", "junk", "no header", "no object", "cut short", "half a number"],
)
def test_damaged_bytes_are_refused(traffic: Any, data: bytes) -> None:
    """Bytes of another origin give one error that names the remedy."""
    with pytest.raises(ValueError, match="damaged: recount it from its rows"):
        decompress(data, "m", 3, "first", traffic.at, 10)


def told(traffic: Any, name: str, p: tuple[float, ...] | None, wrong: bytes | None, **states: str) -> Any:
    """Return a row with probabilities and the slices that indicators contradict."""
    row = traffic.row(name, **states)
    return replace(row, prediction=row.prediction._replace(probabilities=p, disagreement=wrong))


def test_confidence_and_indicators_are_counted(traffic: Any) -> None:
    """Rows without probabilities or indicators, and unknown memberships, are left out; merging adds the rest."""
    rows = [
        told(traffic, "1", (0.6, 0.4), b"\x03", a="in", b="unknown"),
        told(traffic, "2", (0.1, 0.9), b"\x00"),
        told(traffic, "3", None, None, a="in"),
    ]
    block = traffic.block_of(rows)
    assert block.indicated.tolist() == [[2, 1, 2], [1, 0, 0]]
    below = block.confidence.cumsum()
    assert (below[-1], below[low_limit(np.array([0.6]))], below[low_limit(np.array([0.9])) - 1]) == (2, 1, 1)
    assert merge([traffic.block_of([row]) for row in rows]) == block
    packed = [compress(traffic.block_of([row])) for row in rows]
    total = PackedSum()
    for each in packed:
        total.add(each)
    assert total.block(*block.series, block.start, 10) == block


def test_indicators_follow_their_slices_to_another_set(traffic: Any) -> None:
    """A slice whose function was edited, or is new, has none."""
    block = traffic.block_of([told(traffic, "1", (0.6, 0.4), b"\x05", a="in")])
    edited = remap_columns(block, traffic.sets["first"], traffic.sets["edited"])
    assert edited.indicated.tolist() == [[1, 0, 0], [1, 0, 0]]
    shuffled = remap_columns(block, traffic.sets["first"], traffic.sets["shuffled"])
    assert shuffled.indicated.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert edited.confidence.sum() == 1


def test_blocks_of_format_1_are_read(traffic: Any) -> None:
    """Its counts add up with those of later blocks, and it has neither confidence nor indicators."""
    plain, later = traffic.block_of([traffic.row("1", a="in")]), told(traffic, "2", (0.6, 0.4), b"\x01")
    head, _, body = zlib.decompress(compress(plain)).partition(b"\n")
    first = json.loads(head) | {"format": 1}
    del first["rows"]
    packed = zlib.compress(json.dumps(first).encode() + b"\n" + body)
    assert decompress(packed, *plain.series, plain.start, 10) == plain
    total = PackedSum()
    total.add(packed)
    total.add(compress(traffic.block_of([later])))
    both = total.block(*plain.series, plain.start, 10)
    assert (both.n, both.confidence.sum(), both.indicated[1].tolist()) == (2, 1, [1, 0, 0])


def test_a_later_format_is_refused(traffic: Any) -> None:
    """Counts of a later format are an error."""
    block = traffic.block_of([traffic.row("1")])
    head, _, body = zlib.decompress(compress(block)).partition(b"\n")
    later = zlib.compress(json.dumps(json.loads(head) | {"format": 3}).encode() + b"\n" + body)
    with pytest.raises(ValueError, match="by a later release"):
        decompress(later, *block.series, block.start, 10)
