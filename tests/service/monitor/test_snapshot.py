"""Snapshots against a recount of every row, and their JSON."""

import json
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from factories import anytime
from hypothesis import given, settings
from hypothesis import strategies as st

from service.decisions import RateKey
from service.events import Estimate, InsufficientData, Performance, Snapshot
from service.monitor.block_index import BlockIndex
from service.monitor.estimates import EstimateConfig
from service.monitor.snapshot import SnapshotScope, from_text, take_snapshot, to_text
from sfs.function import ALL_ROWS
from sfs.intervals import clopper_pearson

LEAST = 2


def lines_of(blocks: list[Any]) -> list[BlockIndex]:
    lines: dict[Any, BlockIndex] = {}
    for block in blocks:
        lines.setdefault(block.series, BlockIndex(*block.series, len(block.absent) - 2)).put(block)
    return list(lines.values())


def watched(traffic: Any, set_hash: str = "first", promoted_days: float | None = 8) -> SnapshotScope:
    at = None if promoted_days is None else traffic.at - timedelta(days=promoted_days)
    return SnapshotScope("m", 3, traffic.sets[set_hash], at, None)


def check_share(share: Estimate | InsufficientData, count: int, n: int, least: int, method: str) -> None:
    if n < least:
        assert isinstance(share, InsufficientData)
        assert (share.n, share.needed) == (n, least)
        return
    assert isinstance(share, Estimate)
    limits = (anytime if method == "anytime" else clopper_pearson)(count, n, 0.95)
    assert (share.rate.count, share.rate.n, share.method) == (count, n, method)
    assert (share.lower, share.upper) == pytest.approx(limits, abs=1e-9)


def check_performance(seen: Performance, counter: Any, state: str, method: str) -> None:
    labelled = {key[1:]: n for key, n in counter.items() if len(key) == 3 and key[0] == state}
    correct = sum(n for (true, called), n in labelled.items() if true == called)
    assert seen.labelled == sum(labelled.values())
    check_share(seen.accuracy, correct, seen.labelled, LEAST, method)


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_snapshot_equals_a_recount(traffic: Any, data: st.DataObject) -> None:
    """Every n, rate and interval of slices and complements equals a recount of the rows, in every window."""
    rows = data.draw(traffic.histories(set_hashes=tuple(traffic.sets), edges=traffic.edges))
    blocks = data.draw(st.permutations(traffic.age_out(traffic.blocks_of(rows), traffic.at)))
    wanted = watched(traffic, data.draw(st.sampled_from(sorted(traffic.sets))))
    seen = take_snapshot(traffic.at, wanted, lines_of(blocks), traffic.sets, EstimateConfig(LEAST))
    for name, window in seen.windows.items():
        method = "anytime" if name == "since_promotion" else "clopper-pearson"
        counts = traffic.recount(
            [row for row in rows if window.start <= row.prediction.at < window.end], wanted.functions
        )
        assert [each.slice for each in window.slices] == list(counts)
        for each, counter in zip(window.slices, counts.values(), strict=True):
            assert (each.unknown, each.absent) == (counter["unknown"], counter["absent"])
            check_share(each.coverage, counter["in"], counter["in"] + counter["out"], 1, method)
            triples = {key: n for key, n in counter.items() if isinstance(key, tuple)}
            check_performance(each.members, triples, "in", method)
            check_performance(each.complement, triples, "out", method)


def test_a_version_that_is_no_champion_has_no_window_since_promotion(traffic: Any) -> None:
    """Without a promotion there are only sliding windows."""
    seen = take_snapshot(traffic.at, watched(traffic, promoted_days=None), [], {}, EstimateConfig())
    assert list(seen.windows) == ["5m", "1h", "1d", "7d"]


def test_a_snapshot_says_what_it_is_of(traffic: Any) -> None:
    """Time, model, version, function set and last label are part of the snapshot."""
    late = traffic.at - timedelta(minutes=3)
    seen = take_snapshot(traffic.at, replace(watched(traffic), last_label_at=late), [], {}, EstimateConfig())
    assert (seen.at, seen.model, seen.version, seen.set_hash) == (traffic.at, "m", 3, "first")
    assert seen.last_label_at == late


def test_versions_are_never_added(traffic: Any) -> None:
    """Rows of other versions and models are left out."""
    block = traffic.block_of([traffic.row("1")])
    blocks = [block, replace(block, version=4), replace(block, model="n")]
    seen = take_snapshot(traffic.at, watched(traffic), lines_of(blocks), traffic.sets, EstimateConfig())
    everything = seen.windows["5m"].slices[-1]
    assert everything.slice == ALL_ROWS
    assert isinstance(everything.coverage, Estimate)
    assert everything.coverage.rate.n == 1


def test_the_last_label_and_row_of_a_slice_are_those_of_the_snapshot_that_counted_them(traffic: Any) -> None:
    """More rows, labels or a correction are new; fewer of them, since the clock was set back, are not."""
    row, at = traffic.row, traffic.at
    scope, minute = watched(traffic, promoted_days=1), timedelta(minutes=1)
    inside, lost = {scope.functions.names[0]: "in"}, {scope.functions.names[0]: "unknown"}
    name = scope.functions.names[0]
    labelled = [row("1", label="x", **inside), row("2", label="y", **inside)]
    seen: Snapshot | None = None
    expected = {}
    for n, rows in enumerate(
        (
            [row("1", **inside)],
            labelled,
            [*labelled, row("3", **lost)],
            labelled[:1],
            [*labelled, row("3", **lost)],
            [labelled[0], row("2", label="x", **inside), row("3", **lost)],
        )
    ):
        scope = replace(scope, last_label_at=at)
        seen = take_snapshot(
            at + n * minute, scope, lines_of(traffic.blocks_of(rows)), traffic.sets, EstimateConfig(2), seen
        )
        fresh = seen.freshness[name]
        expected[n] = ((fresh.known_at or at) - at) / minute, ((fresh.labelled_at or at) - at) / minute
    assert expected == {0: (0, 0), 1: (1, 1), 2: (1, 1), 3: (1, 1), 4: (1, 1), 5: (1, 5)}
    assert from_text(to_text(seen)) == seen


def test_the_last_label_of_a_family_is_that_of_any_of_its_slices(traffic: Any) -> None:
    """A family without a label has none; its time is kept while no label arrives."""
    first, second = traffic.sets["first"].names[:2]
    web, mail = RateKey("web", "f1", "family_accuracy"), RateKey("mail", "f2", "family_accuracy")
    scope = replace(watched(traffic, promoted_days=1), families={web: (first, second), mail: (second,)})
    seen: Snapshot | None = None
    for hours, label in ((0, None), (1, "x"), (3, "x")):
        at = traffic.at + timedelta(hours=hours)
        blocks = traffic.blocks_of([traffic.row("1", label=label, **{first: "in", second: "out"})])
        seen = take_snapshot(
            at, replace(scope, last_label_at=at), lines_of(blocks), traffic.sets, EstimateConfig(2), seen
        )
        assert seen.last_evidence(*web) == (traffic.at + timedelta(hours=1) if hours else None)
        assert seen.last_evidence(*mail) is None
    assert seen is not None
    assert seen.unknown_since(*web) == traffic.at + timedelta(hours=1)
    assert seen.unknown_since("web", "other functions", "family_accuracy") is None
    assert seen.last_evidence("web", "f1", "accuracy") is None  # a slice of the same name
    assert from_text(to_text(seen)) == seen


def test_what_is_known_of_an_earlier_snapshot_ends_with_its_version(traffic: Any) -> None:
    """The first snapshot of a version, or of an earlier release, has the model's last label."""
    rows = [traffic.row("1", label="x")]
    scope = replace(watched(traffic, promoted_days=1), last_label_at=traffic.at - timedelta(hours=3))
    before = take_snapshot(traffic.at, scope, lines_of(traffic.blocks_of(rows)), traffic.sets, EstimateConfig(2))
    late = traffic.at + timedelta(hours=1)
    for earlier in (None, replace(before, version=2), replace(before, freshness={})):
        again = take_snapshot(late, scope, lines_of(traffic.blocks_of(rows)), traffic.sets, EstimateConfig(2), earlier)
        assert again.last_evidence(ALL_ROWS, None, "accuracy") == scope.last_label_at
        assert again.last_evidence(ALL_ROWS, None, "coverage") == late
    assert again.last_evidence(ALL_ROWS, "another function", "accuracy") is None
    text = json.loads(to_text(before))
    del text["freshness"]
    assert from_text(json.dumps(text)) == replace(before, freshness={})


def test_an_unknown_function_set_is_refused(traffic: Any) -> None:
    """Counts of an unknown set are an error."""
    lines = lines_of([traffic.block_of([traffic.row("1")])])
    with pytest.raises(ValueError, match="unknown function set 'first'"):
        take_snapshot(traffic.at, watched(traffic), lines, {}, EstimateConfig())


def test_the_monitor_reaches_nothing_heavy() -> None:
    """Importing the monitor loads no network, store, web or metrics library."""
    heavy = {"torch", "pandas", "fastapi", "sqlalchemy", "prometheus_client"}
    rooms = [
        "block_counts",
        "estimates",
        "snapshot",
        "block_index",
        "windows",
        "drift_detector",
        "promotion_gate",
    ]
    code = "; ".join(f"import service.monitor.{room}" for room in rooms)
    code += f"; import sys; sys.exit(bool({heavy!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
    """Figures, reasons and times survive exactly."""
    rows = data.draw(traffic.histories(edges=traffic.edges))
    seen = taken(traffic, rows, data.draw(st.booleans()))
    assert from_text(to_text(seen)) == seen


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"format": 1}'])
def test_damaged_text_is_refused(text: str) -> None:
    """Text that is not a snapshot gives one error."""
    with pytest.raises(ValueError, match="the last snapshot is damaged"):
        from_text(text)


def test_a_slice_that_lacks_a_part_is_damage(traffic: Any) -> None:
    """A truncated slice makes the whole snapshot damaged."""
    content = json.loads(to_text(taken(traffic, [traffic.row("1")])))
    content["windows"]["1h"]["slices"][0].pop()
    with pytest.raises(ValueError, match="the last snapshot is damaged"):
        from_text(json.dumps(content))


def test_another_format_is_refused(traffic: Any) -> None:
    """A snapshot of another release is an error."""
    content = json.loads(to_text(taken(traffic, [traffic.row("1")]))) | {"format": 2}
    with pytest.raises(ValueError, match="has format 2, of another release"):
        from_text(json.dumps(content))
