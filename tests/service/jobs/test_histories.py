"""Any history of rows, labels, ticks and restarts over days: one tick later every figure is right."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
from factories import (
    FUNCTION_SETS,
    LATE,
    START,
    anytime,
    make_deployment,
    make_label,
    make_local_state,
    make_page,
    make_prediction,
    make_settings,
    open_log,
)
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
from service.jobs.rollup import RollUp
from service.jobs.snapshot import SnapshotJob
from service.monitor.estimates import EstimateConfig
from service.settings.schema import MonitorSettings
from sfs.intervals import clopper_pearson

State = Literal["in", "out", "unknown", "absent"]
MONITORS = (  # of three classes none is positive by default
    {"classes": ("x", "y", "z"), "monitor": MonitorSettings(minimum_labels=2)},
    {"classes": ("x", "y", "z"), "monitor": MonitorSettings(minimum_labels=1, positive="x")},
)
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
histories = st.lists(st.one_of(predictions, predictions, labels, labels, ticks, steps), min_size=1, max_size=60)


@dataclass
class Sent:
    """Everything that was sent, in order."""

    rows: dict[str, Prediction] = field(default_factory=dict)
    labels: list[Label] = field(default_factory=list)

    def true(self, late: timedelta) -> dict[str, str]:
        """Return the effective label of every row: the latest observed, then the last that arrived."""
        statements: dict[tuple[Any, ...], tuple[datetime, int, Label]] = {}
        for arrival, each in enumerate(self.labels):
            statement = (each.prediction_id, each.observed_at, each.labeller, each.label)
            statements.setdefault(statement, (each.observed_at, arrival, each))
        out = {}
        for *_, each in sorted(statements.values(), key=lambda value: value[:2]):
            row = self.rows.get(each.prediction_id)
            if row is not None and each.received_at - row.at <= late:
                out[row.id] = each.label
        return out


class Player:
    """The log, snapshots and roll-up of a service, driven by events and their clock."""

    def __init__(self, folder: Path, monitor: dict[str, Any]) -> None:
        self.folder, self.now, self.sent = folder, START, Sent()
        self.settings = make_settings(folder, **monitor)
        self.state = make_local_state(classes=self.settings.classes)
        self.stack = ExitStack()
        self.open()

    def open(self) -> None:
        self.store, self.writer = self.stack.enter_context(open_log(self.folder / "log.db"))
        self.job = self.new_job()

    def new_job(self) -> SnapshotJob:
        log = self.store, self.writer
        self.deployment = make_deployment(*log, self.settings, state=self.state)
        return SnapshotJob(self.deployment, *log, make_page(), timer=lambda: 0.0)

    def close(self) -> None:
        assert self.writer.stop() == 0
        self.stack.close()

    def do(self, event: Event) -> None:
        getattr(self, f"do_{event.kind}")(event)

    def do_prediction(self, event: Event) -> None:
        row = make_prediction(
            event.id,
            self.now - timedelta(seconds=event.age),
            event.label,
            version=event.version,
            set_hash=event.set_hash,
            member=bytes([event.bits[0] & ~event.bits[1]]),
            unknown=bytes([event.bits[1]]),
        )
        self.sent.rows.setdefault(row.id, row)
        self.writer.append([row])

    def do_label(self, event: Event) -> None:
        observed_at = self.now - timedelta(seconds=event.ago)
        label = replace(make_label(event.id, self.now, event.label, observed_at), labeller=event.labeller)
        self.sent.labels.append(label)
        self.writer.label("m", [label])

    def do_tick(self, _: Event) -> None:
        self.job.run(self.now)

    def do_roll_up(self, _: Event) -> None:
        RollUp(self.writer).run(self.now)

    def do_restart(self, _: Event) -> None:
        self.close()
        self.open()

    def do_wait(self, event: Event) -> None:
        self.now += timedelta(seconds=event.age)

    def do_functions(self, event: Event) -> None:
        self.state = replace(self.state, functions_version=FUNCTION_SETS[event.set_hash])
        self.deployment.state = self.state

    def do_promote(self, event: Event) -> None:
        promoted_at = self.now - timedelta(seconds=max(event.age, 0))
        self.state = replace(self.state, version=event.version, promoted_at=promoted_at)
        self.deployment.state = self.state

    def last_tick(self) -> Iterator[Snapshot]:
        """After the last row, run the job once, and once more a new job without a cache."""
        self.writer.submit(lambda _: None).result()
        for job in (self.job, self.new_job()):
            snapshot = job.run(self.now)
            assert snapshot is not None
            yield snapshot


def floor(at: datetime, seconds: int) -> datetime:
    return datetime.fromtimestamp(at.timestamp() // seconds * seconds, UTC)


def spans(at: datetime, promoted_at: datetime | None) -> dict[str, tuple[datetime, datetime]]:
    """Return the windows as documented."""
    end = floor(at, 10) + timedelta(seconds=10)
    found = {name: (floor(at - timedelta(seconds=n), size), end) for name, (n, size) in SLIDING.items()}
    return found if promoted_at is None else {**found, "since_promotion": (floor(promoted_at, 3600), end)}


def state(row: Prediction, own: FunctionSetVersion, column: str, wanted: FunctionSetVersion) -> State:
    """Return the state of a row in a column of the wanted function set, by the results of its own functions."""
    results: dict[str, State] = {}
    for k, name in enumerate(own.names):
        results[name] = "in" if row.member[0] >> k & 1 else "unknown" if row.unknown[0] >> k & 1 else "out"
    mine = dict(zip(own.names, own.fingerprints, strict=True))
    theirs = dict(zip(wanted.names, wanted.fingerprints, strict=True))
    if column == "__all__":
        return "in"
    if column == "__none__":
        slices = [{n: p for n, p in of.items() if n != "v"} for of in (mine, theirs)]  # v is a vote
        if slices[0] != slices[1]:
            return "absent"
        fired = {results[name] for name in slices[0]}
        return "unknown" if "unknown" in fired else "out" if "in" in fired else "in"
    return results[column] if mine.get(column) == theirs[column] else "absent"


def share(count: int, n: int, least: int, window: str, config: EstimateConfig) -> tuple[Any, ...]:
    """Return a rate with its interval, or the number of rows and of those needed."""
    if n < least:
        return "not enough", n, least
    limits = anytime if window == "since_promotion" else clopper_pearson
    return (count, n, *limits(count, n, config.confidence))


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
    rows: Iterable[Prediction], true: dict[str, str], window: str, config: EstimateConfig
) -> tuple[Any, ...]:
    pairs = Counter((true[row.id], row.label) for row in rows if row.id in true)
    n, right = pairs.total(), sum(k for (one, other), k in pairs.items() if one == other)
    score = f1(pairs, config.positive) if n >= config.minimum_labels else None
    return n, share(right, n, config.minimum_labels, window, config), score


def naive(player: Player) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Return every figure of every window and column, from the list of what was sent."""
    active, true, config = player.state, player.sent.true(LATE), player.deployment.estimate_config
    wanted, out = active.functions_version, {}
    for window, (start, end) in spans(player.now, active.promoted_at).items():
        rows = [r for r in player.sent.rows.values() if r.version == active.version and start <= r.at < end]
        for column in (*wanted.names, "__none__", "__all__"):
            by: dict[State, list[Prediction]] = {"in": [], "out": [], "unknown": [], "absent": []}
            for row in rows:
                by[state(row, FUNCTION_SETS[row.set_hash], column, wanted)].append(row)
            members, known = len(by["in"]), len(by["in"]) + len(by["out"])
            out[window, column] = (
                share(members, known, 1, window, config),
                len(by["unknown"]),
                len(by["absent"]),
                performance(by["in"], true, window, config),
                performance(by["out"], true, window, config),
            )
    return out


def flat(figure: Estimate | InsufficientData) -> tuple[Any, ...]:
    if isinstance(figure, InsufficientData):
        return "not enough", figure.n, figure.needed
    return figure.rate.count, figure.rate.n, figure.lower, figure.upper


def flat_performance(each: Performance) -> tuple[Any, ...]:
    return each.labelled, flat(each.accuracy), None if isinstance(each.f1, InsufficientData) else each.f1


def figures(snapshot: Snapshot) -> dict[tuple[str, str], tuple[Any, ...]]:
    return {
        (window, each.slice): (
            flat(each.coverage),
            each.unknown,
            each.absent,
            flat_performance(each.members),
            flat_performance(each.complement),
        )
        for window, shown in snapshot.windows.items()
        for each in shown.slices
    }


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for each in value:
            yield from leaves(each)
    else:
        yield value


def assert_equal(found: dict[Any, Any], expected: dict[Any, Any]) -> None:
    """Counts must be equal, limits and scores up to rounding."""
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


def play(history: Sequence[Event], monitor: dict[str, Any]) -> None:
    """Play a history, and compare the last snapshots with a recount of everything that was sent."""
    with tempfile.TemporaryDirectory() as folder:
        player = Player(Path(folder), monitor)
        for event in history:
            player.do(event)
        expected = naive(player)
        for snapshot in player.last_tick():
            active = player.state
            assert (snapshot.version, snapshot.set_hash) == (active.version, active.functions_version.hash)
            assert_equal(figures(snapshot), expected)
        player.close()


@settings(max_examples=25, deadline=None)
@given(history=histories, monitor=st.sampled_from(MONITORS))
def test_every_figure_equals_a_naive_recount(history: list[Event], monitor: dict[str, Any]) -> None:
    """Rows and labels come late, early, repeated and corrected, over merged blocks, function changes and restarts."""
    play(history, monitor)


@settings(max_examples=15, deadline=None)
@given(
    history=st.lists(st.one_of(predictions, labels), min_size=10, max_size=40),
    random=st.randoms(use_true_random=False),
    monitor=st.sampled_from(MONITORS),
)
def test_the_order_of_ticks_and_merges_does_not_matter(
    history: list[Event], random: Any, monitor: dict[str, Any]
) -> None:
    """However rows and labels fall between the ticks of several days, the last snapshot is right."""
    events = list(history)
    for kind, count in (("tick", 6), ("roll_up", 3), ("restart", 1)):
        events += [Event(kind)] * count
    events += [Event("wait", age=age) for age in (30.0, 4000.0, 90_000.0, 90_000.0, 4.0 * 86_400)]
    events += [Event("promote", age=3600.0), Event("functions", set_hash="edited")]
    events += [Event("promote", age=90_000.0, version=version) for version in (2, 1)]
    random.shuffle(events)
    play(events, monitor)
