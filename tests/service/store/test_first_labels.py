"""First labels: one for every labelled prediction, the first valid one, never replaced."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count, groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select

from service.events import FunctionSetVersion, Label, Prediction
from service.store import queries
from service.store.engine import Store
from service.store.labels import (
    FirstLabel,
    LabelRules,
    first_labels,
    first_unsettled,
    last_first_label,
    take_labels,
)
from service.store.tables import first_labels as kept
from service.store.writer import Writer

START = datetime(2026, 5, 1, tzinfo=UTC)
MODELS = count()
RULES = LabelRules(late_after_seconds=500)


def all_first(store: Store, model: str = "spam") -> list[FirstLabel]:
    with store.read() as connection:
        return first_labels(connection, model, 0, 10_000)


def test_the_first_label_is_kept_with_what_the_prediction_was(store: Store, writer, prediction, label) -> None:
    """Version, set, class and bitmaps come from the log; the time is the arrival of the label."""
    writer.append([prediction(version=3, label="ham", member=b"\x05", unknown=b"\x02")])
    writer.label("spam", [label(label="spam")]).result()
    at = label().received_at
    assert all_first(store) == [FirstLabel(1, at, 3, "set-1", "ham", "spam", b"\x05", b"\x02", 7, 1)]


@pytest.mark.parametrize(
    ("settling", "expected"), [(0, "spam"), (80, "spam"), (90, "ham"), (150, "eggs"), (200, "eggs"), (400, "ham")]
)
def test_the_class_in_force_some_time_later(
    store: Store, writer, prediction, label, settling: int, expected: str
) -> None:
    """Corrections within the time count, unless a label that was observed later is known; later ones do not."""
    writer.append([prediction()])
    first = label(label="spam")
    given = [(90, "ham", 90), (150, "eggs", 150), (200, "ham", 100), (400, "ham", 400)]  # received, observed after
    writer.label("spam", [first]).result()
    for received, name, observed in given:
        at = first.received_at + timedelta(seconds=received)
        seen = first.received_at + timedelta(seconds=observed)
        writer.label("spam", [replace(first, label=name, received_at=at, observed_at=seen)]).result()
    with store.read() as connection:
        (found,) = first_labels(connection, "spam", 0, 9, timedelta(seconds=settling))
    assert (found.label, found.at) == (expected, first.received_at)


def test_a_label_waits_unless_it_is_of_a_time_to_come(store: Store, writer, prediction, label) -> None:
    """The next label in [until, now] holds back those after it."""
    writer.append([prediction(f"p{k}") for k in range(4)])
    for k, seconds in enumerate((0, 900, 50, 100)):
        writer.label("spam", [label(f"p{k}", seconds=seconds)]).result()
    start = label(seconds=0).received_at

    def waiting(until: int, now: int, after: int = 0) -> int | None:
        moments = (start + timedelta(seconds=each) for each in (until, now))
        with store.read() as connection:
            return first_unsettled(connection, "spam", after, *moments)

    assert [waiting(1, 200), waiting(60, 200), waiting(101, 200), waiting(60, 900)] == [3, 4, None, 2]
    assert waiting(1, 200, after=3) == 4


def test_a_correction_leaves_it(store: Store, writer, prediction, label) -> None:
    """A later class, in the same batch or another, is not a first label."""
    writer.append([prediction()])
    writer.label("spam", [label(label="spam"), label(label="ham", seconds=90)])
    writer.label("spam", [label(label="eggs", seconds=120)]).result()
    assert [each.label for each in all_first(store)] == ["spam"]


def test_the_first_to_arrive_is_kept_not_the_first_observed(store: Store, writer, prediction, label) -> None:
    """An earlier observation that arrives second changes nothing."""
    writer.append([prediction()])
    writer.label("spam", [label(label="spam", seconds=90), label(label="ham", seconds=10)]).result()
    assert [each.label for each in all_first(store)] == ["spam"]


def test_of_labels_that_waited_the_first_to_arrive_is_kept(store: Store, writer, prediction, label) -> None:
    """A pending label becomes a first label when its prediction is logged."""
    writer.label("spam", [label(label="ham", seconds=5), label(label="spam", seconds=30)]).result()
    assert all_first(store) == []
    writer.append([prediction(seconds=600)]).result()
    ((at, said),) = [(each.at, each.label) for each in all_first(store)]
    assert (at, said) == (START + timedelta(seconds=600), "ham")
    with store.read() as connection:
        assert queries.labels(connection, "spam", ["p1"]) == {"p1": "spam"}


def test_labels_that_waited_stay_in_their_order(store: Store, writer, prediction, label) -> None:
    """Pending labels keep their order, whichever prediction is written first."""
    writer.label("spam", [label("p3"), label("p1"), label("p2")])
    writer.append([prediction(f"p{i}", member=bytes([i])) for i in (1, 2, 3)]).result()
    assert [each.member for each in all_first(store)] == [b"\x03", b"\x01", b"\x02"]


@pytest.mark.parametrize("received", [timedelta(days=31), timedelta(seconds=-1000)])
def test_labels_that_do_not_count_make_none(store: Store, writer, prediction, label, received) -> None:
    """Late and future labels are not first labels; the next valid one is."""
    writer.append([prediction()])
    refused = label(label="eggs", received_at=START + received)
    (answer,) = writer.label("spam", [refused]).result()
    assert (answer.outcome in {"too_late", "rejected"}, all_first(store)) == (True, [])
    writer.label("spam", [label(label="spam")]).result()
    assert [each.label for each in all_first(store)] == ["spam"]


def test_they_are_read_a_part_at_a_time(store: Store, writer, prediction, label) -> None:
    """Pages are in order of arrival, of one model."""
    ids = [f"p{i}" for i in range(30)]
    writer.append([prediction(id_, member=bytes([i])) for i, id_ in enumerate(ids)])
    writer.append([prediction("p0", model="other", member=b"\xff")])
    for part in (ids[20:], ids[:10], ids[10:20]):
        writer.label("spam", [label(id_) for id_ in reversed(part)])
        writer.label("other", [label("p0")])
    writer.submit(lambda _: None).result()
    read: list[FirstLabel] = []
    with store.read() as connection:
        while part := first_labels(connection, "spam", read[-1].seq if read else 0, 7):
            read += part
        assert last_first_label(connection, "spam") == read[-1].seq
        assert last_first_label(connection, "nobody") == 0
        assert first_labels(connection, "nobody", 0, 7) == []
    assert [each.member[0] for each in read] == [*range(29, 19, -1), *range(9, -1, -1), *range(19, 9, -1)]


def test_where_the_evidence_stood_at_a_moment(store: Store, writer, prediction, label) -> None:
    """The last one before the moment; 0 before the first."""
    writer.append([prediction("a"), prediction("b")])
    writer.label("spam", [label("a", seconds=0)])
    writer.label("spam", [label("b", seconds=100)]).result()
    came = [each.at for each in all_first(store)]
    with store.read() as connection:
        stood = [last_first_label(connection, "spam", at) for at in (*came, came[1] + timedelta(seconds=1))]
    assert stood == [0, 1, 2]


def test_a_transaction_that_fails_leaves_none(store: Store, writer, prediction, label) -> None:
    """First labels are rolled back with their labels."""

    def fail(connection: Connection) -> None:
        take_labels(connection, "spam", [label()], RULES)
        assert connection.scalar(select(func.count()).select_from(kept)) == 1
        raise ZeroDivisionError

    writer.append([prediction()])
    with pytest.raises(ZeroDivisionError):
        writer.submit(fail).result()
    assert all_first(store) == []
    writer.label("spam", [label(label="ham")]).result()
    assert [each.label for each in all_first(store)] == ["ham"]


Event = Prediction | Label


def prediction_of(number: int, at: int, source: str) -> Prediction:
    """Return a prediction whose bitmap is its number."""
    moment = START + timedelta(seconds=at)
    content = ("a", None, bytes([number]), b"\0", None, at, source)
    return Prediction(f"p{number}", "m", 1, "s", moment, *content)


def label_of(number: int, label: str, observed: int, delay: int, labeller: str) -> Label:
    at = START + timedelta(seconds=observed)
    return Label(f"p{number}", label, at, at + timedelta(seconds=delay), labeller)


numbers = st.integers(0, 4)
predictions = st.builds(prediction_of, numbers, st.integers(0, 700), st.sampled_from(["live", "live", "backfill"]))
delays = st.sampled_from([-400, -100, 0, 60, 400, 600])
labels = st.builds(label_of, numbers, st.sampled_from("ab"), st.integers(0, 900), delays, st.sampled_from(["", "ann"]))
histories = st.lists(st.one_of(predictions, labels, labels), max_size=40)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Writer]]:
    """A store for many histories, each of a model of its own."""
    with Store(tmp_path_factory.mktemp("shared") / "log.db") as store:
        writer = Writer(store, rules=RULES)
        writer.record_functions(FunctionSetVersion("s", ("f",), ("x",), START)).result()
        yield store, writer
        writer.stop()


def play(shared: tuple[Store, Writer], history: Sequence[Event], group: int) -> tuple[list[FirstLabel], dict[str, str]]:
    """Return the first labels after a history, neighbours of a kind in batches, and the labels that count."""
    (store, writer), model = shared, f"m{next(MODELS)}"
    for start in range(0, len(history), group):
        for kind, some in groupby(history[start : start + group], key=type):
            batch: list[Any] = list(some)
            if kind is Prediction:
                writer.append([each._replace(model=model) for each in batch]).result()
            else:
                writer.label(model, batch).result()
    with store.read() as connection:
        counting = queries.labels(connection, model, [f"p{n}" for n in range(5)])
        return first_labels(connection, model, 0, 100), counting


def naive_first(history: Sequence[Event]) -> list[tuple[int, str, datetime]]:
    """Return number, label and time of first labels, event by event, by looking through all that was before."""
    found: dict[str, tuple[int, str, datetime]] = {}
    rows: dict[str, Prediction] = {}
    said: list[Label] = []
    for each in history:
        if isinstance(each, Prediction):
            rows.setdefault(each.id, each)
        elif (each.observed_at - each.received_at).total_seconds() <= RULES.future_seconds:
            repeated = {(s.prediction_id, s.observed_at, s.labeller, s.label) for s in said}
            if (each.prediction_id, each.observed_at, each.labeller, each.label) not in repeated:
                said.append(each)
        for label in said:
            row = rows.get(label.prediction_id)
            if row and row.id not in found and (row.source == "backfill" or in_time(label, row)):
                found[row.id] = (row.member[0], label.label, max(label.received_at, row.at))
    return list(found.values())


def in_time(label: Label, row: Prediction) -> bool:
    return (label.received_at - row.at).total_seconds() <= RULES.late_after_seconds


@settings(max_examples=40, deadline=None)
@given(histories)
def test_any_history_one_by_one(shared, history: list[Event]) -> None:
    """Every labelled prediction has its first valid label, in order of arrival."""
    kept, counting = play(shared, history, 1)
    assert [(each.member[0], each.label, each.at) for each in kept] == naive_first(history)
    assert [f"p{each.member[0]}" for each in sorted(kept, key=lambda each: each.member)] == sorted(counting)


@settings(max_examples=40, deadline=None)
@given(histories, st.integers(2, 12))
def test_any_history_in_batches(shared, history: list[Event], group: int) -> None:
    """Batches give the same first labels."""
    kept, _ = play(shared, history, group)
    assert sorted((each.member[0], each.label, each.at) for each in kept) == sorted(naive_first(history))
