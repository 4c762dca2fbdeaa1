"""The running service as seen by Prometheus, against a recount from the client's responses and the log."""

import json
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import httpx
import pandas as pd
import pytest
from factories import anytime

from service.__main__ import main
from service.events import NONE_FIRED
from sfs.function import ALL_ROWS
from sfs.intervals import clopper_pearson

TRAINED, ASKED, LABELLED, CORRECTED = 600, 240, 160, 5
MINIMUM_LABELS = 20
UNKNOWN = 'slicewatch_slice_unknown_total{slice="liked"} > 0'

# One function fails where a field is empty, and one slice has a target: both have panels of their own.
PYTHON = """

@slicing_function(owner="you")
def liked(x):
    return x["likes"] > 5


SLICES = (*SLICES, liked)
"""
TEMPLATE = """
  - {name: aimed, length: {field: text, unit: words, below: 12}, owner: trust, severity: critical, target: 0.7}
"""


@dataclass(frozen=True, slots=True)
class Row:
    """Predicted record with its slices, unknown memberships and label."""

    predicted: str
    slices: frozenset[str]
    unknown: frozenset[str]
    label: str | None


@dataclass(frozen=True, slots=True)
class History:
    """Requests and responses of a client."""

    rows: Sequence[Row]
    outcomes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Counted:
    """Counts of a slice from rows: members of known rows, correct of labelled rows."""

    members: int
    known: int
    right: int
    labelled: int


@dataclass(frozen=True)
class Live:
    """Running service, its Prometheus, and the traffic sent."""

    folder: Path
    client: httpx.Client
    server: object
    history: History


def command(*words: object, **environ: str) -> None:
    """Run a command in this process, to avoid repeated slow imports."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as said:
        assert main([str(word) for word in words], now=lambda: datetime.now(UTC), environ=environ) == 0, said


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Project on generated comments with a minimally trained champion."""
    folder = tmp_path_factory.mktemp("end_to_end") / "comments"
    command("init", folder)
    rows = pd.read_csv(folder / "comments.csv")
    rows.head(TRAINED).to_csv(folder / "comments.csv", index=False)
    rows.tail(ASKED).to_csv(folder / "traffic.csv", index=False)
    for name, addition in (("slices.py", PYTHON), ("slices.yaml", TEMPLATE)):
        with (folder / name).open("a") as file:
            file.write(addition)
    quick = {"SLICEWATCH_LEARNER_KIND": "erm", "SLICEWATCH_LEARNER_EPOCHS": "1"}
    command("train", "--config", folder / "slicewatch.yaml", **quick)
    return folder


@pytest.fixture(scope="module")
def live(project: Path, serving: Callable, prometheus: Callable, settled: Callable) -> Iterator[Live]:
    """Service after some traffic, scraped by a Prometheus; stops without lost rows."""
    with (
        serving(project, SLICEWATCH_MONITOR_TICK_SECONDS="0.5") as client,
        prometheus(client.base_url.port) as server,
    ):
        settled(lambda: server.query("slicewatch_predictions_total == 0"), "first scrape")
        history = send(client, project, lambda: settled(lambda: server.query(UNKNOWN), "failure of a function"))
        counted = f'slicewatch_slice_known_predictions{{slice="{ALL_ROWS}"}} == {ASKED}'
        labelled = f'slicewatch_slice_labelled_predictions{{slice="{ALL_ROWS}"}} == {LABELLED}'
        settled(lambda: len(server.query(counted)) == len(server.query(labelled)) == 2, "count of all rows")
        yield Live(project, client, server, history)


def send(client: httpx.Client, folder: Path, scraped: Callable[[], object]) -> History:
    """Predict in batches; send early, late, corrected, repeated, unmatched and invalid labels.

    The function waits for a scrape after the first batch, so that rates include the later batches.
    """
    table = pd.read_csv(folder / "traffic.csv")
    records = table[["text", "video", "likes"]].astype(object).where(table.notna(), None).to_dict("records")
    ids, truth = [f"comment-{k}" for k in range(ASKED)], table["label"].tolist()
    first = datetime.now(UTC)
    labeller = Labeller(client, Counter())

    labeller.say(ids[:1], truth[:1], first)
    answers: list[dict[str, object]] = []
    for start in range(0, ASKED, 40):
        body = {"instances": records[start : start + 40], "ids": ids[start : start + 40]}
        answers += client.post("/v1/predict", json=body).raise_for_status().json()["predictions"]
        if start == 0:
            scraped()
    late = slice(1, 1 + CORRECTED)
    labeller.say(ids[late], [{"spam": "ham", "ham": "spam"}[each] for each in truth[late]], first)
    labeller.say(ids[late], truth[late], first + timedelta(milliseconds=1))
    labeller.say(ids[:1], truth[:1], first)
    labeller.say(["nobody", ids[-1]], ["spam", "no class"], first)
    labeller.say(ids[1 + CORRECTED : LABELLED], truth[1 + CORRECTED : LABELLED], first)

    label_of = dict(zip(ids[:LABELLED], truth, strict=False))
    rows = [
        Row(
            each["label"],
            frozenset(each["slices"]),
            frozenset(each["unknown_slices"]),
            label_of.get(each["id"]),
        )
        for each in answers
    ]
    return History(rows, labeller.outcomes)


@dataclass(frozen=True, slots=True)
class Labeller:
    """Send labels and count their outcomes."""

    client: httpx.Client
    outcomes: Counter[str]

    def say(self, ids: Sequence[str], classes: Sequence[str], observed_at: datetime) -> None:
        stated = [
            {"id": name, "label": each, "observed_at": observed_at.isoformat()}
            for name, each in zip(ids, classes, strict=True)
        ]
        answer = self.client.post("/v1/labels", json={"labels": stated}).raise_for_status().json()
        self.outcomes.update(each["outcome"] for each in answer["labels"])


def recount(rows: Sequence[Row], names: Sequence[str]) -> dict[str, Counted]:
    """Count all slices row by row, __none__ and __all__ included."""
    found = {}
    for name in (*names, NONE_FIRED, ALL_ROWS):
        standing = [(row, belongs(row, name)) for row in rows]
        members = [row for row, member in standing if member]
        labelled = [row for row in members if row.label is not None]
        found[name] = Counted(
            len(members),
            sum(member is not None for _, member in standing),
            sum(row.predicted == row.label for row in labelled),
            len(labelled),
        )
    return found


def belongs(row: Row, name: str) -> bool | None:
    """Return the membership of a row in a slice; None if unknown."""
    if name == ALL_ROWS:
        return True
    if name == NONE_FIRED:
        return None if row.unknown else not row.slices
    return None if name in row.unknown else name in row.slices


def logged(folder: Path) -> tuple[list[Row], tuple[str, ...]]:
    """Return the logged rows with their labels, read directly from the store, and the slice names."""
    with closing(sqlite3.connect(f"file:{folder / '.slicewatch' / 'store.sqlite3'}?mode=ro", uri=True)) as store:
        ((names,),) = store.execute("select names from function_sets").fetchall()
        rows = store.execute(
            "select p.label, p.member, p.unknown, l.label from predictions p"
            " left join label_current l on l.prediction_row = p.row order by p.row"
        ).fetchall()
    names = tuple(json.loads(names))
    kept = [Row(label, those(member, names), those(unknown, names), true) for label, member, unknown, true in rows]
    return kept, names


def those(bits: bytes, names: Sequence[str]) -> frozenset[str]:
    """Return the names encoded in a bitmap."""
    return frozenset(name for k, name in enumerate(names) if bits[k // 8] >> (k % 8) & 1)


@pytest.fixture(scope="module")
def expected(live: Live) -> dict[str, Counted]:
    """Counts of all slices, from the client's responses."""
    _, names = logged(live.folder)
    return recount(live.history.rows, names)


def test_the_log_matches_the_responses(live: Live) -> None:
    """The log has every row once, in order, with its slices and current label."""
    rows, _ = logged(live.folder)
    assert rows == live.history.rows
    assert len(rows) == ASKED


def test_the_history_has_something_of_everything(expected: Mapping[str, Counted], live: Live) -> None:
    """The traffic has slices with many and few labels, unknown memberships, and all label outcomes."""
    assert expected["liked"].known < ASKED
    assert any(each.labelled < MINIMUM_LABELS for each in expected.values())
    assert 0 < expected["aimed"].right < expected["aimed"].labelled >= MINIMUM_LABELS
    assert live.history.outcomes == {
        "accepted": LABELLED - 1,
        "corrected": CORRECTED,
        "duplicate": 1,
        "pending": 2,
        "rejected": 1,
    }


@pytest.mark.parametrize("window", ["1h", "since_promotion"])
def test_coverage_and_n_equal_the_recount(live: Live, expected: Mapping[str, Counted], window: str) -> None:
    """Coverage and n from the Prometheus API equal the recount for all slices, __none__ and __all__."""
    coverage, known, labelled = (
        shown(live, name, window) for name in ("coverage_ratio", "known_predictions", "labelled_predictions")
    )
    assert coverage == {name: each.members / each.known for name, each in expected.items()}
    assert known == {name: each.known for name, each in expected.items()}
    assert labelled == {name: each.labelled for name, each in expected.items()}


@pytest.mark.parametrize(("window", "interval"), [("1h", clopper_pearson), ("since_promotion", anytime)])
def test_accuracy_and_its_interval_equal_the_recount(
    live: Live, expected: Mapping[str, Counted], window: str, interval: Callable
) -> None:
    """Accuracy from the Prometheus API equals the recount, and exists only for slices with enough labels."""
    enough = {name: each for name, each in expected.items() if each.labelled >= MINIMUM_LABELS}
    value, lower, upper = (
        shown(live, name, window) for name in ("accuracy_ratio", "accuracy_lower_ratio", "accuracy_upper_ratio")
    )
    assert value == {name: each.right / each.labelled for name, each in enough.items()}
    limits = {name: interval(each.right, each.labelled) for name, each in enough.items()}
    assert {name: (lower[name], upper[name]) for name in lower} == limits


def shown(live: Live, name: str, window: str) -> dict[str, float]:
    """Return a figure by slice from Prometheus."""
    found = live.server.values(f'slicewatch_slice_{name}{{window="{window}"}}', "model", "version", "slice")
    assert {key[:2] for key in found} == {("comments", "1")}
    return {name: value for (*_, name), value in found.items()}


def test_counters_equal_the_recount(live: Live, expected: Mapping[str, Counted]) -> None:
    """Counters of rows, members, unknown memberships and labels equal the recount."""
    rows, values = live.history.rows, live.server.values
    by_class = Counter(row.predicted for row in rows)
    slices = {name: each for name, each in expected.items() if name not in (NONE_FIRED, ALL_ROWS)}
    assert values("slicewatch_predictions_total > 0", "label") == {(name,): n for name, n in by_class.items()}
    assert values("slicewatch_slice_predictions_total", "slice") == {
        (name,): each.members for name, each in slices.items()
    }
    assert values("sum by (slice) (slicewatch_slice_unknown_total)", "slice") == {
        (name,): ASKED - each.known for name, each in slices.items() if each.known < ASKED
    }
    assert values("slicewatch_labels_total > 0", "outcome") == {(name,): n for name, n in live.history.outcomes.items()}


def test_every_query_of_the_dashboard_is_answered(live: Live, queries: Sequence) -> None:
    """No panel, column or annotation is empty after some traffic, except the tables of alarms and incidents."""
    empty = [each for each in queries if not live.server.over_time(each.filled(model="comments"))]
    assert {each.panel for each in empty} == {"Unresolved alarms", "Unresolved incidents"}


def test_no_rule_fails_and_no_alert_fires(live: Live, settled: Callable) -> None:
    """All rules are evaluated without error, and traffic like the reference fires no alert."""

    def rules() -> list[Mapping]:
        return [rule for group in live.server.ask("rules")["groups"] for rule in group["rules"]]

    settled(lambda: all(rule["health"] != "unknown" for rule in rules()), "judgement of all rules")
    assert [rule for rule in rules() if rule["health"] != "ok"] == []
    assert [alert for rule in rules() for alert in rule.get("alerts", [])] == []


def test_the_page_is_clean(live: Live) -> None:
    """promtool reports nothing, and the content type is the one that Prometheus reads."""
    answer = live.client.get("/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    said = subprocess.run(["promtool", "check", "metrics"], input=answer.content, capture_output=True, check=False)
    assert (said.returncode, said.stdout + said.stderr) == (0, b"")


def test_prometheus_keeps_the_exemplars(live: Live, settled: Callable) -> None:
    """It asks for OpenMetrics, and finds requests at the buckets of their duration."""
    asked = {"query": "slicewatch_request_duration_seconds_bucket", "start": 0, "end": 4e9}
    found = settled(lambda: live.server.ask("query_exemplars", **asked), "exemplar")
    assert {name for series in found for each in series["exemplars"] for name in each["labels"]} == {"request_id"}
