"""Any history, in any order and with restarts, agrees with a naive recount."""

import random
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

from factories import count_rows, dirty_count, recount
from hypothesis import given, settings
from hypothesis import strategies as st

from service.events import BlockCounts, FunctionSetVersion, Label, Prediction
from service.monitor.block_counts import merge, spanning
from service.store import queries
from service.store.engine import Store
from service.store.labels import LabelRules
from service.store.writer import Writer

START = datetime(2026, 5, 1, tzinfo=UTC)
FUNCTIONS = FunctionSetVersion("s", ("f", "v", "g"), ("x", "y", "z"), START, votes=("v",))
RULES = LabelRules(late_after_seconds=500)
LENGTHS = (10, 300, 3600)


@dataclass(frozen=True)
class Step:
    """Something that is done to the store between rows and labels."""

    what: str


Event = Prediction | Label | Step


def prediction(
    id_: int, version: int, at: int, label: str, bits: tuple[int, int, int | None], content: int
) -> Prediction:
    member, unknown, wrong = bits[0] & ~bits[1], bits[1], bits[2]
    moment = START + timedelta(seconds=at)
    return Prediction(
        f"p{id_}",
        "m",
        version,
        "s",
        moment,
        label,
        None if wrong is None else (wrong / 8, 1 - wrong / 8),
        bytes([member]),
        bytes([unknown]),
        None,
        content,
        "live",
        None if wrong is None else bytes([wrong]),
    )


def label(id_: int, label: str, observed: int, delay: int, labeller: str) -> Label:
    observed_at = START + timedelta(seconds=observed)
    return Label(f"p{id_}", label, observed_at, observed_at + timedelta(seconds=delay), labeller)


ids, classes = st.integers(0, 5), st.sampled_from("ab")
bits = st.tuples(st.integers(0, 7), st.integers(0, 7), st.none() | st.integers(0, 7))
predictions = st.builds(prediction, ids, st.integers(1, 2), st.integers(0, 700), classes, bits, st.integers(0, 1))
labels = st.builds(
    label, ids, classes, st.integers(0, 900), st.sampled_from([0, 60, 400, 600]), st.sampled_from(["", "ann"])
)
steps = st.builds(Step, st.sampled_from(["recount", "roll_up_300", "roll_up_3600", "reopen"]))
histories = st.lists(st.one_of(predictions, labels, steps), max_size=40)


def play(history: Sequence[Event], group: int) -> tuple[dict[str, str], list[BlockCounts]]:
    """Return labels and blocks after a history, written in groups of this size."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        path.write_bytes(migrated_file())
        store, writer = opened(path)
        for start in range(0, len(history), group):
            for each in history[start : start + group]:
                if isinstance(each, Prediction):
                    writer.append([each])
                elif isinstance(each, Label):
                    writer.label("m", [each])
                elif each.what == "recount":
                    recount(store, writer, limit=2)
                elif each.what.startswith("roll_up"):
                    writer.roll_up(START + timedelta(days=1), int(each.what[8:]))
                else:
                    closed(store, writer)
                    store, writer = opened(path)
            writer.submit(lambda _: None).result()
        while recount(store, writer):
            pass
        with store.read() as connection:
            blocks = [
                block
                for version in (1, 2)
                for block in queries.counts_between(connection, "m", version, START, START + timedelta(days=1))
            ]
            counting = queries.labels(connection, "m", [f"p{n}" for n in range(6)])
            assert dirty_count(connection) == 0
        closed(store, writer)
        return counting, blocks


@cache
def migrated_file() -> bytes:
    """Return the file of a store without rows: migrating it for every history takes most of the time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.db"
        Store(path).close()
        return path.read_bytes()


def opened(path: Path) -> tuple[Store, Writer]:
    store = Store(path)
    writer = Writer(store, rules=RULES)
    writer.record_functions(FUNCTIONS)
    return store, writer


def closed(store: Store, writer: Writer) -> None:
    assert writer.stop() == 0
    store.close()


def first_rows(history: Iterable[Event]) -> dict[str, Prediction]:
    """Return the first prediction of every id."""
    rows: dict[str, Prediction] = {}
    for each in history:
        if isinstance(each, Prediction):
            rows.setdefault(each.id, each)
    return rows


def counting_labels(history: Iterable[Event], rows: dict[str, Prediction]) -> dict[str, str]:
    """Return the label that counts for every row, by sorting everything that was said of it."""
    said: dict[tuple[str, datetime, str, str], tuple[datetime, int, Label]] = {}
    for arrival, each in enumerate(history):
        if isinstance(each, Label):
            statement = (each.prediction_id, each.observed_at, each.labeller, each.label)
            said.setdefault(statement, (each.observed_at, arrival, each))
    out = {}
    for *_, each in sorted(said.values(), key=lambda value: value[:2]):
        row = rows.get(each.prediction_id)
        if row and (each.received_at - row.at).total_seconds() <= RULES.late_after_seconds:
            out[row.id] = each.label
    return out


def naive_block(block: BlockCounts, rows: dict[str, Prediction], true: dict[str, str]) -> BlockCounts:
    """Return the counts of the rows of a block, one row after the other."""
    here = [r for r in rows.values() if r.version == block.version and block.start <= r.at < block.end]
    one_by_one = [count_rows([row], true, 3, block.start, block.seconds, votes=[1]) for row in here]
    return spanning(merge(one_by_one), block.start, block.end)


def assert_agrees(history: Sequence[Event], counting: dict[str, str], blocks: Sequence[BlockCounts]) -> None:
    rows = first_rows(history)
    true = counting_labels(history, rows)
    assert counting == true
    assert blocks == [naive_block(block, rows, true) for block in blocks]
    assert sum(block.n for block in blocks) == len(rows)
    assert sum(block.labelled for block in blocks) == len(true)
    assert {block.seconds for block in blocks} <= set(LENGTHS)


@settings(max_examples=40, deadline=None)
@given(histories, st.integers(1, 8))
def test_any_history_agrees_with_a_naive_recount(history: list[Event], group: int) -> None:
    """Counts and labels equal a naive recount, with restarts and roll-ups in between."""
    assert_agrees(history, *play(history, group))


@settings(max_examples=15, deadline=None)
@given(histories, st.randoms(use_true_random=False), st.integers(1, 8))
def test_order_of_arrival_does_not_matter(history: list[Event], draw: random.Random, group: int) -> None:
    """Any order of arrival ends in the same state, unless ids or observation times collide."""
    seen: set[object] = set()
    told = []
    for each in history:
        key = each.id if isinstance(each, Prediction) else getattr(each, "observed_at", each)
        if isinstance(each, Step) or key not in seen:
            told.append(each)
        seen.add(key)
    shuffled = list(told)
    draw.shuffle(shuffled)
    counting, blocks = play([e for e in told if not isinstance(e, Step)], group)
    again, blocks_again = play([e for e in shuffled if not isinstance(e, Step)], group)
    assert (counting, blocks) == (again, blocks_again)
