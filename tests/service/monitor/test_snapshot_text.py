"""Snapshots as text."""

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.events import Snapshot
from service.monitor.block_index import BlockIndex
from service.monitor.estimates import EstimateConfig
from service.monitor.snapshot import SnapshotScope, from_text, take_snapshot, to_text


def taken(traffic: Any, rows: list[Any], labelled: bool = False) -> Snapshot:
    line = BlockIndex("m", 3, "first", 3)
    for block in traffic.blocks_of(rows):
        line.put(block)
    at = traffic.at
    watched = SnapshotScope("m", 3, traffic.sets["first"], at - timedelta(days=2), at if labelled else None)
    return take_snapshot(at, watched, [line], traffic.sets, EstimateConfig(2, "x"))


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_a_snapshot_comes_back_as_it_was(traffic: Any, data: st.DataObject) -> None:
    """Figures, reasons and times are the same after writing and reading, to the last bit."""
    rows = data.draw(traffic.histories(edges=traffic.edges))
    seen = taken(traffic, rows, data.draw(st.booleans()))
    assert from_text(to_text(seen)) == seen


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"format": 1}'])
def test_damaged_text_is_refused(text: str) -> None:
    """Text that is no snapshot gives one sentence."""
    with pytest.raises(ValueError, match="the last snapshot is damaged"):
        from_text(text)


def test_a_slice_that_lacks_a_part_is_damage(traffic: Any) -> None:
    """A snapshot that was cut inside is refused as a whole."""
    content = json.loads(to_text(taken(traffic, [traffic.row("1")])))
    content["windows"]["1h"]["slices"][0].pop()
    with pytest.raises(ValueError, match="the last snapshot is damaged"):
        from_text(json.dumps(content))


def test_another_format_is_refused(traffic: Any) -> None:
    """A snapshot of another release is not guessed at."""
    content = json.loads(to_text(taken(traffic, [traffic.row("1")]))) | {"format": 2}
    with pytest.raises(ValueError, match="of format 2 is of another release"):
        from_text(json.dumps(content))
