"""Whatever comes in whatever order over days, with restarts in between: one tick later every figure is right."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.events import (
    Estimate,
    FunctionSetVersion,
    InsufficientData,
    Label,
    Performance,
    Prediction,
    Snapshot,
)
from service.jobs.rollup import roll_up
from service.jobs.snapshot import SnapshotJob
from service.monitor.estimates import EstimateConfig
from service.views.current import Current
from sfs.intervals import anytime, clopper_pearson

State = Literal["in", "out", "unknown", "absent"]
JUDGINGS = (EstimateConfig(minimum_labels=2), EstimateConfig(minimum_labels=1, positive="x", confidence=0.9))
SLIDING = {"5m": (300, 10), "1h": (3600, 10), "1d": (86_400, 10), "7d": (7 * 86_400, 300)}
AGES = (0, 5, 30, 300, 3600, 86_400, 7 * 86_400, 9 * 86_400)


@dataclass(frozen=True)
class Event:
    """One thing that happens: a kind, and the numbers and names that it needs, drawn beforehand."""

    kind: str
    id: str = ""
    age: float = 0.0
    label: str = "x"
    version: int = 1
    set_hash: str = "first"
    bits: tuple[int, int] = (0, 0)
    ago: float = 0.0
    labeller: str = ""


@st.composite
def ages(draw: st.DrawFn) -> float:
    return draw(st.sampled_from(AGES)) + draw(st.integers(-45_000, 45_000)) / 1000


ids, hashes = (
    st.sampled_from([f"p{n}" for n in range(14)]),
    st.sampled_from(["first", "edited", "shuffled", "voting"]),
)
bits = st.tuples(st.integers(0, 15), st.integers(0, 15))
predictions = st.builds(
    Event,
    st.just("prediction"),
    ids,
    ages(),
    st.sampled_from("xyz"),
    st.sampled_from([1, 1, 1, 2]),
    hashes,
    bits,
)
labels = st.builds(
    Event,
    st.just("label"),
    ids,
    label=st.sampled_from("xyw"),
    ago=st.sampled_from([0, 0, 60, 90_000]),
    labeller=st.sampled_from(["", "ann"]),
)
steps = st.one_of(
    st.builds(Event, st.sampled_from(["roll_up", "restart"])),
    st.builds(Event, st.just("wait"), age=st.sampled_from([7.0, 400.0, 4000.0, 90_000.0, 3.0 * 86_400])),
    st.builds(Event, st.just("functions"), set_hash=hashes),
    st.builds(Event, st.just("promote"), age=ages(), version=st.sampled_from([1, 1, 2])),
)
ticks = st.builds(Event, st.just("tick"))
histories = st.lists(
    st.one_of(predictions, predictions, labels, labels, ticks, steps), min_size=1, max_size=60
)


@dataclass
class Told:
    """Everything that was sent, in order."""

    rows: dict[str, Prediction] = field(default_factory=dict)
    labels: list[Label] = field(default_factory=list)

    def true(self, late: timedelta) -> dict[str, str]:
        """Return the label that counts for each row: the latest observed, then the last that came."""
        said: dict[tuple[Any, ...], tuple[datetime, int, Label]] = {}
        for arrival, each in enumerate(self.labels):
            statement = (each.prediction_id, each.observed_at, each.labeller, each.label)
            said.setdefault(statement, (each.observed_at, arrival, each))
        out = {}
        for *_, each in sorted(said.values(), key=lambda value: value[:2]):
            row = self.rows.get(each.prediction_id)
            if row is not None and each.received_at - row.at <= late:
                out[row.id] = each.label
        return out


class Play:
    """A service's log and monitor, driven by events under a clock of its own."""

    def __init__(self, desk: Any, path: Path, judging: EstimateConfig) -> None:
        self.desk, self.path, self.judging, self.now, self.told = desk, path, judging, desk.start, Told()
        self.current = Current(desk.in_force_of())
        self.open()

    def open(self) -> None:
        self.store, self.writer = self.desk.opened(self.path)
        self.monitor = self.another_monitor()

    def another_monitor(self) -> SnapshotJob:
        return SnapshotJob(self.store, self.writer, self.current, lambda: self.judging, lambda _: None)

    def do(self, event: Event) -> None:
        getattr(self, f"do_{event.kind}")(event)

    def do_prediction(self, event: Event) -> None:
        member, unknown = bytes([event.bits[0] & ~event.bits[1]]), bytes([event.bits[1]])
        row = self.desk.prediction(
            event.id,
            self.now - timedelta(seconds=event.age),
            event.label,
            version=event.version,
            set_hash=event.set_hash,
            member=member,
            unknown=unknown,
        )
        self.told.rows.setdefault(row.id, row)
        self.writer.append([row])

    def do_label(self, event: Event) -> None:
        observed_at = self.now - timedelta(seconds=event.ago)
        label = replace(
            self.desk.label(event.id, self.now, event.label, observed_at), labeller=event.labeller
        )
        self.told.labels.append(label)
        self.writer.label("m", [label])

    def do_tick(self, _: Event) -> None:
        self.monitor.tick(self.now)

    def do_roll_up(self, _: Event) -> None:
        roll_up(self.writer, self.now)

    def do_restart(self, _: Event) -> None:
        self.desk.closed(self.store, self.writer)
        self.open()

    def do_wait(self, event: Event) -> None:
        self.now += timedelta(seconds=event.age)

    def do_functions(self, event: Event) -> None:
        in_force = self.current.in_force
        self.current.in_force = replace(in_force, functions_version=self.desk.sets[event.set_hash])

    def do_promote(self, event: Event) -> None:
        promoted_at = self.now - timedelta(seconds=max(event.age, 0))
        self.current.in_force = replace(self.current.in_force, version=event.version, promoted_at=promoted_at)

    def last_tick(self) -> Iterator[Snapshot]:
        """Let traffic stop, tick once, and tick once more with a monitor that knows nothing yet."""
        self.writer.submit(lambda _: None).result()
        for monitor in (self.monitor, self.another_monitor()):
            made = monitor.tick(self.now)
            assert made is not None
            yield made


def floor(at: datetime, seconds: int) -> datetime:
    return datetime.fromtimestamp(at.timestamp() // seconds * seconds, UTC)


def spans(at: datetime, promoted_at: datetime | None) -> dict[str, tuple[datetime, datetime]]:
    """Return the windows by the words of their documentation."""
    end = floor(at, 10) + timedelta(seconds=10)
    found = {name: (floor(at - timedelta(seconds=n), size), end) for name, (n, size) in SLIDING.items()}
    return found if promoted_at is None else {**found, "since_promotion": (floor(promoted_at, 3600), end)}


def state(row: Prediction, made: FunctionSetVersion, column: str, wanted: FunctionSetVersion) -> State:
    """Say whether a row is in a column of the set in force, by what its own functions said."""
    said: dict[str, State] = {}
    for k, name in enumerate(made.names):
        said[name] = "in" if row.member[0] >> k & 1 else "unknown" if row.unknown[0] >> k & 1 else "out"
    mine = dict(zip(made.names, made.fingerprints, strict=True))
    theirs = dict(zip(wanted.names, wanted.fingerprints, strict=True))
    if column == "__all__":
        return "in"
    if column == "__none__":
        slices = [{n: p for n, p in of.items() if n != "v"} for of in (mine, theirs)]  # v is a vote
        if slices[0] != slices[1]:
            return "absent"
        fired = {said[name] for name in slices[0]}
        return "unknown" if "unknown" in fired else "out" if "in" in fired else "in"
    return said[column] if mine.get(column) == theirs[column] else "absent"


def share(count: int, n: int, least: int, window: str, judging: EstimateConfig) -> tuple[Any, ...]:
    """Return a share with its interval, or how many rows there are of how many."""
    if n < least:
        return "not enough", n, least
    limits = anytime if window == "since_promotion" else clopper_pearson
    return (count, n, *limits(count, n, judging.confidence))


def f1(pairs: Counter[tuple[str, str]], positive: str | None) -> float | None:
    """Return the F1 of a class, or the mean of those that occur."""
    scores = {}
    for each in {each for pair in pairs for each in pair}:
        hits = pairs[each, each]
        misses = sum(n for (true, called), n in pairs.items() if (true == each) != (called == each))
        scores[each] = 2 * hits / (2 * hits + misses)
    if positive is not None:
        return scores.get(positive)
    return sum(scores.values()) / len(scores) if scores else None


def performance(
    rows: Iterable[Prediction], true: dict[str, str], window: str, judging: EstimateConfig
) -> tuple[Any, ...]:
    pairs = Counter((true[row.id], row.label) for row in rows if row.id in true)
    n, right = pairs.total(), sum(k for (one, other), k in pairs.items() if one == other)
    score = f1(pairs, judging.positive) if n >= judging.minimum_labels else None
    return n, share(right, n, judging.minimum_labels, window, judging), score


def naive(play: Play, late: timedelta) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Return every figure of every window and column, from the list of what was sent."""
    in_force, true = play.current.in_force, play.told.true(late)
    wanted, out = in_force.functions_version, {}
    for window, (start, end) in spans(play.now, in_force.promoted_at).items():
        rows = [r for r in play.told.rows.values() if r.version == in_force.version and start <= r.at < end]
        for column in (*wanted.names, "__none__", "__all__"):
            by: dict[State, list[Prediction]] = {"in": [], "out": [], "unknown": [], "absent": []}
            for row in rows:
                by[state(row, play.desk.sets[row.set_hash], column, wanted)].append(row)
            members, known = len(by["in"]), len(by["in"]) + len(by["out"])
            out[window, column] = (
                share(members, known, 1, window, play.judging),
                len(by["unknown"]),
                len(by["absent"]),
                performance(by["in"], true, window, play.judging),
                performance(by["out"], true, window, play.judging),
            )
    return out


def flat(figure: Estimate | InsufficientData) -> tuple[Any, ...]:
    if isinstance(figure, InsufficientData):
        return "not enough", figure.n, figure.needed
    return figure.rate.count, figure.rate.n, figure.lower, figure.upper


def flat_performance(each: Performance) -> tuple[Any, ...]:
    return each.labelled, flat(each.accuracy), None if isinstance(each.f1, InsufficientData) else each.f1


def figures(made: Snapshot) -> dict[tuple[str, str], tuple[Any, ...]]:
    return {
        (window, each.slice): (
            flat(each.coverage),
            each.unknown,
            each.absent,
            flat_performance(each.members),
            flat_performance(each.complement),
        )
        for window, shown in made.windows.items()
        for each in shown.slices
    }


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for each in value:
            yield from leaves(each)
    else:
        yield value


def assert_equal(found: dict[Any, Any], expected: dict[Any, Any]) -> None:
    """Counts must be equal, and limits and scores but for the last bits of a float."""
    assert found.keys() == expected.keys()
    for key, wanted in expected.items():
        one, other = list(leaves(found[key])), list(leaves(wanted))
        assert len(one) == len(other), key
        for a, b in zip(one, other, strict=True):
            assert a == (pytest.approx(b, abs=1e-12) if isinstance(b, float) else b), (
                key,
                found[key],
                wanted,
            )


def assert_right(play: Play) -> None:
    expected = naive(play, play.desk.late)
    for made in play.last_tick():
        assert (made.version, made.set_hash) == (
            play.current.in_force.version,
            play.current.in_force.functions_version.hash,
        )
        assert_equal(figures(made), expected)


def played(desk: Any, history: Sequence[Event], judging: EstimateConfig) -> None:
    with tempfile.TemporaryDirectory() as folder:
        play = Play(desk, Path(folder) / "log.db", judging)
        for event in history:
            play.do(event)
        assert_right(play)
        desk.closed(play.store, play.writer)


@settings(max_examples=60, deadline=None)
@given(history=histories, judging=st.sampled_from(JUDGINGS))
def test_every_figure_equals_a_naive_recount(
    desk: Any, history: list[Event], judging: EstimateConfig
) -> None:
    """Late, early, repeated and corrected, over days of merged blocks, changed functions and restarts."""
    played(desk, history, judging)


@settings(max_examples=25, deadline=None)
@given(
    history=st.lists(st.one_of(predictions, labels), min_size=10, max_size=40),
    draw=st.randoms(use_true_random=False),
    judging=st.sampled_from(JUDGINGS),
)
def test_shuffled_between_ticks_and_merges(
    desk: Any, history: list[Event], draw: Any, judging: EstimateConfig
) -> None:
    """However rows and labels fall between ticks that follow each other for days, the last one is right."""
    events = list(history)
    for kind, count in (("tick", 6), ("roll_up", 3), ("restart", 1)):
        events += [Event(kind)] * count
    events += [Event("wait", age=age) for age in (30.0, 4000.0, 90_000.0, 90_000.0, 4.0 * 86_400)]
    events += [Event("promote", age=3600.0), Event("functions", set_hash="edited")]
    events += [Event("promote", age=90_000.0, version=version) for version in (2, 1)]
    draw.shuffle(events)
    played(desk, events, judging)
