"""Blocks as bytes."""

import json
import zlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.monitor.block_counts import PackedSum, compress, decompress, empty, merge


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_block_comes_back_as_it_was(traffic: Any, data: st.DataObject) -> None:
    """Packing and unpacking changes nothing."""
    block = traffic.block_of(data.draw(traffic.histories()), traffic.at.replace(hour=0), 86_400)
    assert decompress(compress(block), *block.series, block.start, block.seconds) == block


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_packed_blocks_add_up_to_their_merger(traffic: Any, data: st.DataObject) -> None:
    """Whatever their classes are, and however wide their numbers."""
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
    """Nothing can be packed as well, with any number of slices, none among them."""
    for slices in (0, 5):
        block = empty("m", 3, "first", slices, traffic.at, 10)
        assert decompress(compress(block), *block.series, block.start, 10) == block


def test_a_block_of_many_slices_is_small(traffic: Any) -> None:
    """Empty columns cost next to nothing: 1,000 slices of which none fired take less than 2 kB."""
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
    """Bytes that no block was packed into give one sentence that says what to do."""
    with pytest.raises(ValueError, match="damaged: recount it from its rows"):
        decompress(data, "m", 3, "first", traffic.at, 10)


def test_a_later_format_is_refused(traffic: Any) -> None:
    """Counts that a later release packed are not guessed at."""
    block = traffic.block_of([traffic.row("1")])
    head, _, body = zlib.decompress(compress(block)).partition(b"\n")
    later = zlib.compress(json.dumps(json.loads(head) | {"format": 2}).encode() + b"\n" + body)
    with pytest.raises(ValueError, match="of a later release"):
        decompress(later, *block.series, block.start, 10)
