"""``slicewatch drift replay``."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from factories import make_prediction, open_log

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
DAY = 1440  # minutes
EVERY = 5  # minutes from a block or a row to the next
SETTINGS = """\
name: m
data: rows.csv
label: truth
classes: [x, y]
features: {price: number, n: number}
functions: [slices.yaml]
"""
CHEAP = "slices:\n  - {name: cheap, compare: {field: price, below: 40}}\n"


def at(minute: int) -> str:
    return (MONDAY + timedelta(minutes=minute)).isoformat().replace("+00:00", "Z")


def counts(path: Path, shares: Sequence[float], known: int = 300) -> Path:
    """Write a block of five minutes per share of members in the slice `cheap`."""
    lines = [f"{at(EVERY * k)},{known},{round(known * share)}" for k, share in enumerate(shares)]
    path.write_text("\n".join(["start,known,cheap", *lines]) + "\n")
    return path


def share(value: float, minutes: int) -> list[float]:
    """Return the share of members of each block of some minutes."""
    return [value] * (minutes // EVERY)


def rows_of_two_days(first: int) -> pd.DataFrame:
    """Rows, one in five minutes: one of five is cheap, all from minute ``first`` on."""
    minutes = range(0, 2 * DAY, EVERY)
    prices = [10.0 if k >= first or n % 5 == 0 else 90.0 for n, k in enumerate(minutes)]
    return pd.DataFrame({"at": [at(k) for k in minutes], "price": prices, "n": list(minutes)})


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with one slice; its settings file."""
    (tmp_path / "slices.yaml").write_text(CHEAP)
    file = tmp_path / "slicewatch.yaml"
    file.write_text(SETTINGS)
    return file


@pytest.fixture
def replay(cli: Callable, shop: Path) -> Callable[..., dict[str, Any]]:
    """Replays in the project, and returns the document."""

    def run(*words: object) -> dict[str, Any]:
        answer = cli("drift", "replay", *words, "--config", shop, "--json")
        assert answer.code == 0, answer.err
        document: dict[str, Any] = json.loads(answer.out)
        return document

    return run


def test_counts_alarm_from_the_start_of_the_change(replay: Callable, tmp_path: Path) -> None:
    """Counts that rise after two days alarm once, with the start of the change and the learned rate."""
    file = counts(tmp_path / "counts.csv", share(0.2, 2 * DAY) + share(0.5, 300))
    document = replay(file)
    (alarm,) = document["alarms"]
    assert list(alarm) == ["slice", "kind", "raised", "since", "direction", "observed", "expected"]
    assert (alarm["slice"], alarm["kind"], alarm["direction"]) == ("cheap", "coverage", "up")
    assert alarm["since"] == at(2 * DAY)
    assert at(2 * DAY) < alarm["raised"] < at(2 * DAY + 30)
    assert alarm["expected"]["value"] == pytest.approx(0.2)
    assert document["incidents"] == [
        {"slices": ["cheap"], "alarms": [0], "raised": alarm["raised"], "resolved": None, "overlap": "unknown"}
    ]
    (learned,) = document["learning"]["slices"]
    assert (learned["since"], learned["live"], learned["season"]) == (at(0), at(DAY), None)
    assert learned["missing"] == "hour of week: 2 of 8 days"
    assert document["traffic"]["blocks"] == (2 * DAY + 300) // EVERY


def test_other_settings_change_the_alarms(replay: Callable, tmp_path: Path) -> None:
    """A change within another tolerance does not alarm, and one during the days of learning is not listed."""
    file = counts(tmp_path / "counts.csv", share(0.2, 2 * DAY) + share(0.4, 300))
    assert len(replay(file)["alarms"]) == 1
    assert not replay(file, "--set", "drift.tolerance=0.9")["alarms"]
    learning = replay(file, "--learn", 3)
    assert (learning["alarms"], learning["learning"]["alarms_before"]) == ([], 1)


def test_the_text_has_alarms_learning_and_budget(cli: Callable, tmp_path: Path, monkeypatch: Any) -> None:
    """Counts of any slices are replayed where there is no project; text has a table, learning and a summary."""
    monkeypatch.chdir(tmp_path)
    answer = cli("drift", "replay", counts(tmp_path / "counts.csv", share(0.2, 2 * DAY) + share(0.5, 300)))
    head, _, first, _, *rest = answer.out.splitlines()
    assert head.split()[:3] == ["raised", "(UTC)", "slice"]
    assert first.split()[2:5] == ["cheap", "coverage", "up"]
    assert rest[0] == "2026-01-06 00:00:00: live traffic sets the expected coverage of 1 slice"
    assert rest[-1].startswith("2.21 days, 636 blocks, 1 slice: 1 alarms in 1 incidents; budget: 6.1e-06 false")
    assert answer.err == ""


def test_a_rate_that_returns_resolves_its_alarm(replay: Callable, tmp_path: Path) -> None:
    """An alarm is resolved once its rate over an hour is back in its band."""
    document = replay(counts(tmp_path / "counts.csv", share(0.2, 2 * DAY) + share(0.5, 60) + share(0.2, 300)))
    assert [alarm["since"] for alarm in document["alarms"]] == [at(2 * DAY)]
    assert at(2 * DAY + 90) <= document["incidents"][0]["resolved"] <= at(2 * DAY + 180)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_rows_alarm_as_their_counts(replay: Callable, tmp_path: Path, suffix: str) -> None:
    """Rows of any format give the alarm of a table of their counts."""
    rows = rows_of_two_days(first=DAY + 600)
    file = tmp_path / f"rows.{suffix}"
    {
        "csv": lambda: rows.to_csv(file, index=False),
        "parquet": lambda: rows.assign(at=pd.to_datetime(rows["at"])).to_parquet(file),
        "jsonl": lambda: rows.to_json(file, orient="records", lines=True),
    }[suffix]()
    found = replay(file, "--time", "at")
    table = counts(tmp_path / "counts.csv", (rows["price"] < 40).astype(int).tolist(), known=1)
    expected = replay(table, "--block-seconds", 10)
    assert found["alarms"] == expected["alarms"]
    assert [alarm["since"] for alarm in found["alarms"]] == [at(DAY + 600)]
    assert found["incidents"][0]["overlap"] == "rows"
    assert (found["traffic"]["rows"], found["traffic"]["blocks"]) == (len(rows), len(rows))


def test_the_time_column_may_stand_in_the_settings(replay: Callable, shop: Path, tmp_path: Path) -> None:
    """`time` in slicewatch.yaml names the column of times."""
    shop.write_text(f"{SETTINGS}time: at\n")
    rows_of_two_days(first=3 * DAY).to_csv(tmp_path / "rows.csv", index=False)
    assert replay(tmp_path / "rows.csv")["alarms"] == []


def test_unknown_rows_are_in_no_rate(replay: Callable, tmp_path: Path) -> None:
    """A value that the function cannot read is no known row."""
    rows = rows_of_two_days(first=3 * DAY).astype({"price": object})
    rows.loc[1::2, "price"] = "none"
    rows.to_json(tmp_path / "rows.jsonl", orient="records", lines=True)
    (learned,) = replay(tmp_path / "rows.jsonl", "--time", "at")["learning"]["slices"]
    assert learned["live"] == at(DAY)


def predicted(rows: pd.DataFrame, wrong: Callable[[int], bool]) -> pd.DataFrame:
    """Return rows with predictions that take turns by ten, and true classes."""
    called = [k // 10 % 2 for k in range(len(rows))]
    truth = ["xy"[(each + wrong(k)) % 2] for k, each in enumerate(called)]
    return rows.assign(predicted=["xy"[each] for each in called], truth=truth)


def test_predictions_alarm_on_lower_accuracy(replay: Callable, tmp_path: Path) -> None:
    """First labels set the expected accuracy; when it falls, all rows and the slice alarm in one incident."""
    rows = predicted(rows_of_two_days(first=0), lambda k: k % 10 == 0 or k > 400)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    document = replay(tmp_path / "rows.csv", "--time", "at", "--set", "drift.reference_labels=100")
    assert {(alarm["slice"], alarm["kind"]) for alarm in document["alarms"]} == {
        ("__all__", "accuracy"),
        ("cheap", "accuracy"),
    }
    assert all(at(1950) <= alarm["since"] <= at(2005) for alarm in document["alarms"])
    assert len(document["incidents"]) == 1
    assert [each["n"] for each in document["learning"]["accuracy"]] == [100, 100]


def test_labels_are_evidence_when_they_arrive(replay: Callable, tmp_path: Path) -> None:
    """With a column of arrivals, a fall alarms once its labels have arrived; a row without one has no label."""
    rows = predicted(rows_of_two_days(first=0), lambda k: k >= 200)
    rows["labelled_at"] = [at(k + 300) if k % (2 * EVERY) == 0 else None for k in rows["n"]]
    rows.to_csv(tmp_path / "rows.csv", index=False)
    words = ["--time", "at", "--label-time", "labelled_at", "--predicted-column", "predicted"]
    document = replay(tmp_path / "rows.csv", *words, "--set", "drift.reference_labels=100")
    assert {alarm["since"] for alarm in document["alarms"]} == {at(1300)}
    assert document["traffic"]["label_blocks"] == len(rows) // 2


def test_the_log_alarms_as_its_rows(replay: Callable, shop: Path, tmp_path: Path) -> None:
    """The log of the project is replayed from the store, also while a service has it open."""
    rows = rows_of_two_days(first=DAY + 600)
    given = [
        make_prediction(f"r{k}", MONDAY + timedelta(minutes=EVERY * k), member=bytes([is_cheap]))
        for k, is_cheap in enumerate((rows["price"] < 40).tolist())
    ]
    shop.write_text(f"{SETTINGS}store: log.sqlite3\n")
    with (tmp_path / "slices.yaml").open("a") as file:  # as many as in the log: their number is in the limits
        file.writelines(f"  - {{name: {name}, compare: {{field: price, below: 0}}}}\n" for name in ("b", "c"))
    rows.to_csv(tmp_path / "rows.csv", index=False)
    expected = replay(tmp_path / "rows.csv", "--time", "at")["alarms"]
    with open_log(tmp_path / "log.sqlite3") as (_, writer):
        writer.append(given).result()
        found = replay("--log")
        (alarm,) = found["alarms"]
        assert alarm == expected[0] | {"slice": "a"}
        assert found["incidents"][0]["overlap"] == "rows"
        part = replay("--log", "--from", at(DAY), "--to", at(DAY + 100), "--version", 1)
        assert (part["traffic"]["rows"], part["traffic"]["from"]) == (100 // EVERY, at(DAY))


def test_the_expected_rates_of_a_trained_version_are_used(cli: Callable, trained: Path, tmp_path: Path) -> None:
    """With a champion, its rates are expected until live traffic is learned."""
    rows = pd.read_csv(trained.parent / "orders.csv")
    rows["at"] = [at(k) for k in range(len(rows))]
    rows.to_csv(tmp_path / "rows.csv", index=False)
    answer = cli("drift", "replay", tmp_path / "rows.csv", "--time", "at", "--config", trained, "--json")
    document = json.loads(answer.out)
    assert (document["learning"]["reference"], document["alarms"]) == ("version 1", [])


@pytest.mark.parametrize(
    ("text", "words", "message"),
    [
        ("price,n\n1,1\n", [], "name the column of times with --time"),
        ("price,at\n1,x\n", ["--time", "when"], "no column 'when'"),
        ("price,at\n1,2026-01-05\n1,soon\n", ["--time", "at"], "row 1: column 'at' has 'soon': expected a time"),
        ("price,at\n1,2026-01-05\n1,\n", ["--time", "at"], "row 1: column 'at' has None: expected a time"),
        ("price,at\n1,20260105\n", ["--time", "at"], "row 0: column 'at' has 20260105: expected a time"),
        ("price,at\n1,2026-01-06\n1,2026-01-05\n", ["--time", "at"], "is before the row above: sort the file by 'at'"),
        ("price,at\n", ["--time", "at"], "has a header but no rows"),
        ("price,at\n1,2026-01-05\n", ["--time", "at", "--label-column", "truth"], "belong to predictions"),
        (
            "price,at,predicted,truth\n1,2026-01-05,x,z\n", ["--time", "at"],
            "row 0: 'z' in column 'truth' is not a class; the classes are 'x', 'y'",
        ),
        ("start,known,cheap\n2026-01-05,10,11\n", [], "has 11 members of 10 known rows: expected 0 to 10"),
        ("start,known,cheap\n2026-01-05,10,-1\n", [], "has -1 members of 10 known rows"),
        ("start,known,cheap\n2026-01-05,10,1.5\n", [], "column 'cheap' has 1.5: expected a whole number"),
        ("start,known,cheap\n2026-01-05,10,\n", [], "column 'cheap' has None: expected a whole number"),
        ("start,known,cheap\nnever,10,1\n", [], "column 'start' has 'never': expected a time"),
        ("start,known,cheep\n2026-01-05,10,1\n", [], "'cheep' is no function of the project; did you mean 'cheap'?"),
        ("start,known\n2026-01-05,10\n", [], "has no column of a slice"),
        (
            "start,known,cheap\n2026-01-05T00:00:00,9,1\n2026-01-05T00:00:00,9,1\n", [],
            "row 1: the block at 2026-01-05T00:00:00+00:00 is not after the one before: sort the blocks",
        ),
        (
            "start,known,cheap\n2026-01-05T00:00:00,9,1\n2026-01-05T00:01:00,9,1\n", ["--block-seconds", "300"],
            "overlaps, at 300 s a block, with the one before",
        ),
        ("start,known,cheap\n2026-01-05,9,1\n2026-01-06,9,1\n", [], "the starts are more than an hour apart"),
        ("price,at\n1,2026-01-05\n", ["--set", "drift.tolerence=1"], "did you mean 'drift.tolerance'?"),
        ("price,at\n1,2026-01-05\n", ["--set", "drift.tolerance=2"], "expected a number above 0 and below 1, got '2'"),
        ("price,at\n1,2026-01-05\n", ["--log"], "name either a FILE"),
        ("price,at\n1,2026-01-05\n", ["--from", "2026-01-05"], "belong to --log"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(
    cli: Callable, shop: Path, tmp_path: Path, text: str, words: Sequence[str], message: str
) -> None:
    """Wrong input ends with code 2, and a message with the place and the advice."""
    (tmp_path / "given.csv").write_text(text)
    answer = cli("drift", "replay", tmp_path / "given.csv", *words, "--config", shop)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.err


def test_a_missing_log_is_named(cli: Callable, shop: Path) -> None:
    """Without a store, or without rows at the time, there is nothing to replay."""
    assert "`slicewatch up` creates it" in cli("drift", "replay", "--log", "--config", shop).err
    shop.write_text(f"{SETTINGS}store: log.sqlite3\n")
    with open_log(shop.parent / "log.sqlite3"):
        assert "has no rows of the model 'm'" in cli("drift", "replay", "--log", "--config", shop).err
        answer = cli("drift", "replay", "--log", "--version", 3, "--config", shop)
        assert (answer.code, "no rows of version 3" in answer.err) == (2, True)
