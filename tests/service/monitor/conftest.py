"""Rows of a made-up model under three function sets, and a recount of them one row at a time."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
import pytest
from factories import count_rows
from hypothesis import strategies as st

from service.events import NONE_FIRED, BlockCounts, FunctionSetVersion, Prediction
from service.monitor.block_counts import merge, spanning
from service.monitor.windows import BLOCK_SECONDS, floor_to, kept_seconds
from sfs.function import ALL_ROWS

State = Literal["in", "out", "unknown", "absent"]
AT = datetime(2026, 5, 1, 12, 34, 56, 789_000, tzinfo=UTC)
EDGES = (0, 5, 30, 300, 3600, 86_400, 7 * 86_400, 9 * 86_400)


def function_set(hash_: str, votes: tuple[str, ...] = (), **prints: str) -> FunctionSetVersion:
    return FunctionSetVersion(hash_, tuple(prints), tuple(prints.values()), AT, votes)


SETS = {
    each.hash: each
    for each in (
        function_set("first", a="1", b="1", c="1"),
        function_set("edited", a="1", b="2", d="1"),
        function_set("shuffled", c="1", a="1", b="1"),
        function_set("voting", ("v", "w"), v="1", a="1", b="1", w="1", c="1"),
        function_set("turned", ("c",), a="1", b="1", c="vote"),
    )
}


@dataclass(frozen=True)
class Row:
    """One prediction, what its functions said in words, and its label if it has one."""

    prediction: Prediction
    states: Mapping[str, State]
    label: str | None

    @property
    def made(self) -> FunctionSetVersion:
        return SETS[self.prediction.set_hash]

    def state(self, column: str, wanted: FunctionSetVersion) -> State:
        """Say it again for a column of another set, by the words of the documentation."""
        mine = dict(zip(self.made.names, self.made.fingerprints, strict=True))
        theirs = dict(zip(wanted.names, wanted.fingerprints, strict=True))
        if column == ALL_ROWS:
            return "in"
        if column == NONE_FIRED:
            said = {state for name, state in self.states.items() if name not in self.made.votes}
            alone: State = "unknown" if "unknown" in said else "out" if "in" in said else "in"
            for one, votes in ((mine, self.made.votes), (theirs, wanted.votes)):
                for name in votes:
                    del one[name]
            return alone if mine == theirs else "absent"
        return self.states[column] if mine.get(column) == theirs[column] else "absent"


def bitmap(states: Mapping[str, State], which: State) -> bytes:
    return np.packbits([state == which for state in states.values()], bitorder="little").tobytes()


def row(
    name: str,
    at: datetime = AT,
    called: str = "x",
    label: str | None = None,
    set_hash: str = "first",
    **states: State,
) -> Row:
    said = {each: states.get(each, "out") for each in SETS[set_hash].names}
    member, unknown = bitmap(said, "in"), bitmap(said, "unknown")
    prediction = Prediction(name, "m", 3, set_hash, at, called, None, member, unknown, None, 0, "live")
    return Row(prediction, said, label)


def block_of(rows: Iterable[Row], start: datetime | None = None, seconds: int = 10) -> BlockCounts:
    rows = list(rows)
    start = floor_to(rows[0].prediction.at, seconds) if start is None else start
    labels = {each.prediction.id: each.label for each in rows if each.label is not None}
    made = rows[0].made
    votes = [made.names.index(name) for name in made.votes]
    return count_rows([each.prediction for each in rows], labels, len(made.names), start, seconds, votes)


def blocks_of(rows: Iterable[Row], seconds: int = 10) -> list[BlockCounts]:
    groups: dict[tuple[str, datetime], list[Row]] = {}
    for each in rows:
        key = each.prediction.set_hash, floor_to(each.prediction.at, seconds)
        groups.setdefault(key, []).append(each)
    return [block_of(group, seconds=seconds) for group in groups.values()]


def age_out(blocks: Iterable[BlockCounts], at: datetime) -> list[BlockCounts]:
    """Return blocks as the store keeps them at a time: rolled up once all of the longer block is old enough."""
    groups: dict[tuple[tuple[str, int, str], datetime, int], list[BlockCounts]] = {}
    for block in blocks:
        for seconds in BLOCK_SECONDS:
            start = floor_to(block.start, seconds)
            age = at - start - timedelta(seconds=seconds)
            if seconds == BLOCK_SECONDS[0] or kept_seconds(age.total_seconds()) >= seconds:
                size = seconds
        groups.setdefault((block.series, floor_to(block.start, size), size), []).append(block)
    return [
        spanning(merge(group), start, start + timedelta(seconds=size)) for (_, start, size), group in groups.items()
    ]


def recount(rows: Iterable[Row], wanted: FunctionSetVersion) -> dict[str, Counter[Any]]:
    """Count each column one row at a time: states, and (state, true, predicted) of the labelled rows."""
    out: dict[str, Counter[Any]] = {name: Counter() for name in (*wanted.names, NONE_FIRED, ALL_ROWS)}
    for each in rows:
        for column, counter in out.items():
            state = each.state(column, wanted)
            counter[state] += 1
            counter[state, each.prediction.label] += 1
            if each.label is not None:
                counter[state, each.label, each.prediction.label] += 1
    return out


def as_counters(block: BlockCounts, wanted: FunctionSetVersion) -> dict[str, Counter[Any]]:
    """Spell the arrays of a block as ``recount`` does; absent rows are told apart only in number."""
    out: dict[str, Counter[Any]] = {}
    for k, name in enumerate((*wanted.names, NONE_FIRED, ALL_ROWS)):
        counter = out[name] = Counter()
        counter["in"], counter["absent"] = int(block.member[k]), int(block.absent[k])
        counter["unknown"] = int(block.unknown[k] - block.absent[k])
        for p, called in enumerate(block.classes):
            counter["in", called] = int(block.predicted[p, k])
            counter["lost", called] = int(block.predicted_unknown[p, k])
            for t, true in enumerate(block.classes):
                counter["in", true, called] = int(block.confusion[t, p, k])
                counter["lost", true, called] = int(block.confusion_unknown[t, p, k])
    return out


def comparable(counters: dict[str, Counter[Any]]) -> dict[str, Counter[Any]]:
    """Leave out the complement, and call unknown and absent rows lost where a block does not tell them apart."""
    out: dict[str, Counter[Any]] = {}
    for name, counter in counters.items():
        out[name] = Counter()
        for key, n in counter.items():
            if isinstance(key, tuple) and key[0] in ("unknown", "absent"):
                out[name]["lost", *key[1:]] += n
            elif (key[0] if isinstance(key, tuple) else key) != "out":
                out[name][key] += n
        out[name] = +out[name]
    return out


@st.composite
def _row(draw: st.DrawFn, set_hashes: tuple[str, ...], edges: tuple[int, ...]) -> Row:
    set_hash = draw(st.sampled_from(set_hashes))
    age = draw(st.sampled_from(edges)) + draw(st.integers(-45_000, 45_000)) / 1000
    states = {name: draw(st.sampled_from(["in", "out", "unknown"])) for name in SETS[set_hash].names}
    name = f"r{draw(st.integers(0, 10**12))}"
    label = draw(st.sampled_from([None, "w", "x", "y"]))
    called = draw(st.sampled_from("xyz"))
    return row(name, AT - timedelta(seconds=max(age, 0)), called, label, set_hash, **states)


def histories(
    set_hashes: tuple[str, ...] = ("first",), edges: tuple[int, ...] = (0,), least: int = 1
) -> st.SearchStrategy[list[Row]]:
    return st.lists(_row(set_hashes, edges), min_size=least, max_size=25, unique_by=lambda each: each.prediction.id)


@dataclass(frozen=True)
class Traffic:
    """Everything above, for tests to take as one fixture."""

    at: datetime
    sets: dict[str, FunctionSetVersion]
    row: Callable[..., Row]
    block_of: Callable[..., BlockCounts]
    blocks_of: Callable[..., list[BlockCounts]]
    histories: Callable[..., st.SearchStrategy[list[Row]]]
    edges: tuple[int, ...]

    def check(self, block: BlockCounts, rows: Iterable[Row], wanted: FunctionSetVersion) -> None:
        """Assert that a block counts exactly these rows."""
        assert comparable(as_counters(block, wanted)) == comparable(recount(rows, wanted))

    def age_out(self, blocks: Iterable[BlockCounts], at: datetime) -> list[BlockCounts]:
        return age_out(blocks, at)

    def recount(self, rows: Iterable[Row], wanted: FunctionSetVersion) -> dict[str, Counter[Any]]:
        return recount(rows, wanted)


@pytest.fixture(scope="session")
def traffic() -> Traffic:
    return Traffic(AT, SETS, row, block_of, blocks_of, histories, EDGES)
