"""``slicewatch labels``."""

import json
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from factories import label_history

from service.__main__ import main
from service.cli.labels import LabelSink, label_columns, read_rows, send_file
from service.cli.project import service_url
from service.client import Client
from service.errors import ServiceError
from service.events import FunctionSetVersion, Label, Prediction
from service.settings.loading import load
from service.store.engine import Store
from service.store.queries import labels
from service.store.writer import Writer

START = datetime(2026, 5, 1, tzinfo=UTC)
IDS = ("a", "b", "c", "007")


@pytest.fixture
def free_port() -> Iterator[str]:
    """A port on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield str(taken.getsockname()[1])


@pytest.fixture
def stored(trained: Path) -> Path:
    """Settings file of a trained project with four predictions in its store, and no running service."""
    path = load(trained, {}).store
    path.parent.mkdir(parents=True, exist_ok=True)
    with Store(path) as store:
        writer = Writer(store)
        writer.record_functions(FunctionSetVersion("set", ("short",), ("print",), START))
        at = START - timedelta(days=1)
        made = [Prediction(id_, "orders", 1, "set", at, "kept", None, b"\0", b"\0", None, 7, "live") for id_ in IDS]
        writer.append(made).result()
        writer.stop()
    return trained


@pytest.fixture
def send(cli: Callable, stored: Path, free_port: str, tmp_path: Path) -> Callable:
    """Writes a file of labels, and sends it."""

    def written_and_sent(text: str, *options: object, name: str = "labels.csv") -> Any:
        file = tmp_path / name
        file.write_text(text)
        return cli("labels", file, "--config", stored, *options, SLICEWATCH_SERVE_PORT=free_port)

    return written_and_sent


def kept(settings_file: Path) -> dict[str, str]:
    """Return the labels that count in the store."""
    with Store(load(settings_file, {}).store) as store, store.read() as connection:
        return labels(connection, "orders", IDS)


def test_labels_go_into_the_store_while_no_service_runs(send: Callable, stored: Path) -> None:
    """Labels are written to the store; the output has their outcomes, the file, the columns and the store."""
    answer = send("id,label\na,kept\nb,lost\n007,returned\nx,kept\n")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["outcome", "labels"], ["--------", "------"], ["accepted", "3"], ["pending", "1"],
    ]  # fmt: skip
    assert lines[4].startswith("pending: no prediction has this id yet")
    assert re.fullmatch(r"4 rows of .*labels\.csv \(columns id, label\), sent to .*store\.sqlite3", lines[-1])
    assert kept(stored) == {"a": "kept", "b": "lost", "007": "returned"}


@pytest.mark.parametrize("label", ["NA", "null", "1.0", "007", "True"])
@pytest.mark.parametrize("more", ["", "b,word\n", "b,2\n"])
def test_a_label_is_the_same_beside_any_other(tmp_path: Path, label: str, more: str) -> None:
    """The other labels of a file do not change a label: it is read as text."""
    file = tmp_path / "labels.csv"
    file.write_text(f"id,label\na,{label}\n{more}")
    rows = next(read_rows(file, label_columns(file, "id", "label"), 10))
    assert rows[0].label is not None
    assert rows[0].label.label == label


def test_a_second_sending_changes_nothing(send: Callable, stored: Path) -> None:
    """A label sent again is a duplicate; another label is a correction."""
    text = "id,label,observed_at\na,kept,2026-04-30T12:00:00Z\nb,lost,2026-04-30T12:00:00Z\n"
    send(text)
    assert json.loads(send(text, "--json").out)["outcomes"]["duplicate"] == 2
    assert json.loads(send("id,label\na,lost\n", "--json").out)["outcomes"]["corrected"] == 1
    assert kept(stored) == {"a": "lost", "b": "lost"}


def test_a_file_without_times_that_is_sent_again_overrides_no_correction(
    stored: Path, free_port: str, tmp_path: Path, capsys: Any
) -> None:
    """Rows of a file sent again later are duplicates; with another row it is another file."""
    file, environ = tmp_path / "labels.csv", {"SLICEWATCH_SERVE_PORT": free_port}

    def sent(hour: int, text: str) -> dict[str, int]:
        file.write_text(text)
        argv = ["labels", str(file), "--config", str(stored), "--json"]
        assert main(argv, now=lambda: START + timedelta(hours=hour), environ=environ) == 0
        return {name: n for name, n in json.loads(capsys.readouterr().out)["outcomes"].items() if n}

    text = "id,label\na,kept\nb,kept\n"
    assert sent(0, text) == {"accepted": 2}
    assert sent(1, "id,label\nb,lost\n") == {"corrected": 1}
    assert sent(2, text) == {"duplicate": 2}
    assert kept(stored) == {"a": "kept", "b": "lost"}
    assert sent(3, text + "c,kept\n") == {"accepted": 2, "corrected": 1}


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        (("spam", "ham", "spam"), "spam"),
        (("spam", "spam"), "spam"),
        (("spam", "ham"), "ham"),
        (("spam@1", "ham@1", "spam@1"), "spam"),
        (("spam@1", "ham@1", "spam@1", "ham@1"), "ham"),
        (("spam@2", "ham@1"), "spam"),
        (("spam", "spam@1", "ham"), "ham"),
    ],
)
def test_of_a_file_the_last_row_counts_and_sending_it_again_changes_nothing(
    tmp_path: Path, rows: tuple[str, ...], counts: str, batch_rows: int
) -> None:
    """In batches of any size, all rows sent again are duplicates, a day later as well."""
    file, now = tmp_path / "labels.csv", START
    times = [day and f"2026-04-0{day}T00:00:00Z" for _, _, day in (row.partition("@") for row in rows)]
    said = [f"a,{row.partition('@')[0]},{at}\n" for row, at in zip(rows, times, strict=True)]
    file.write_text("id,label,observed_at\n" + "".join(said))
    with Store(tmp_path / "log.db") as store:
        writer = Writer(store)
        writer.record_functions(FunctionSetVersion("set", ("short",), ("print",), START))
        writer.append([Prediction("a", "m", 1, "set", START, "ham", None, b"", b"", None, 7, "live")]).result()

        def take(given: Any) -> Any:
            stated = [
                Label(each.id, each.label, each.observed_at or now, now, idempotency_key=each.idempotency_key)
                for each in given
            ]
            return [(each.outcome, each.reason) for each in writer.label("m", stated).result()]

        columns = {"id": "id", "label": "label", "observed_at": "observed_at"}
        for day in range(3):
            now = START + timedelta(days=day)
            summary = send_file(file, columns, LabelSink("there", batch_rows, take))
            assert (summary.counts["duplicate"] == len(rows)) == bool(day)
            with store.read() as connection:
                assert labels(connection, "m", ["a"]) == {"a": counts}
        writer.stop()


def test_a_later_file_of_the_same_content_corrects_back(send: Callable, stored: Path) -> None:
    """Files at other paths count in the order in which they are sent; each sent again changes nothing."""
    days = {"monday.csv": "kept", "tuesday.csv": "lost", "wednesday.csv": "kept"}
    for name, label in days.items():
        send(f"id,label\na,{label}\n", name=name)
        assert kept(stored) == {"a": label}
    for name, label in days.items():
        told = json.loads(send(f"id,label\na,{label}\n", "--json", name=name).out)
        assert told["outcomes"]["duplicate"] == 1
        assert kept(stored) == {"a": "kept"}
    assert "duplicate: label 'kept' counts for this prediction" in send("id,label\na,lost\n", name="tuesday.csv").out


def test_the_format_of_a_label_file_can_be_stated(send: Callable, stored: Path) -> None:
    """The suffix does not count then."""
    answer = send('{"id": "a", "label": "lost"}\n', "--format", "jsonl", name="labels.csv")
    assert (answer.code, kept(stored)) == (0, {"a": "lost"})
    assert send("id\tlabel\nb\tlost\n", "--format", "tsv", name="labels.2026").code == 0
    assert send("id;label\nb;lost\n", "--format", "excel", name="labels.2026").code == 2
    assert kept(stored) == {"a": "lost", "b": "lost"}


def test_blanks_around_names_and_labels_of_a_file_mean_nothing(send: Callable, stored: Path) -> None:
    """A file with a blank after every comma is read as one without, ids included."""
    assert send("id, label, observed_at\na, lost, 2026-04-30T12:00:00Z\n").code == 0
    assert send("label, id\nlost, 007 \n").code == 0
    assert kept(stored) == {"a": "lost", "007": "lost"}


def test_two_columns_of_a_file_are_two_statements(send: Callable, stored: Path) -> None:
    """A label from another column of the same file is a correction."""
    text = "id,first,second\na,kept,lost\n"
    send(text, "--label-column", "first")
    again = json.loads(send(text, "--label-column", "second", "--json").out)["outcomes"]
    assert again["corrected"] == 1
    assert kept(stored) == {"a": "lost"}


def test_all_fields_of_a_row_are_stored(send: Callable, stored: Path) -> None:
    """Time, labeller and key are stored; a time without a zone is UTC."""
    send(
        "id,label,observed_at,labeller,idempotency_key\n"
        "a,kept,2026-04-30 12:00,ada,007\n"
        "a,lost,2026-04-30T15:00:00+02:00,,\n"
        "a,kept,,bob,\n"
    )
    with Store(load(stored, {}).store) as store, store.read() as connection:
        events = [event.label for event in label_history(connection, "orders", "a")]
    assert [each.label for each in events] == ["kept", "lost", "kept"]
    assert [each.labeller for each in events] == ["ada", "", "bob"]
    assert [each.idempotency_key for each in events[:2]] == ["007", None]
    assert [each.observed_at for each in events[:2]] == [
        datetime(2026, 4, 30, 12, tzinfo=UTC), datetime(2026, 4, 30, 13, tzinfo=UTC),
    ]  # fmt: skip
    assert events[2].observed_at == events[2].received_at


def test_rejected_rows_are_named_with_their_reasons(send: Callable, stored: Path) -> None:
    """Rejected rows are listed with their reasons; the others are accepted, and the exit code is 1."""
    answer = send(
        "id,label,observed_at\n"
        "a,kept,\n"
        "b,keep,\n"
        ",kept,\n"
        "c,,\n"
        "c,kept,yesterday\n"
        "c,kept,1712010100000\n"
        "c,kept,2031-01-01T00:00:00Z\n"
        f"{'x' * 300},kept,\n",
        "--json",
    )
    assert answer.code == 1
    told = json.loads(answer.out)
    assert (told["rows"], told["outcomes"]["accepted"], told["outcomes"]["rejected"]) == (8, 1, 7)
    reasons = {one["row"]: one["reason"] for one in told["rejected"]}
    assert sorted(reasons) == [1, 2, 3, 4, 5, 6, 7]
    assert reasons[1] == "'keep' is not a class; the classes are 'kept', 'lost', 'returned'"
    assert (reasons[2], reasons[3]) == ("the row has no id", "the row has no label")
    assert reasons[4] == "invalid observed_at 'yesterday': write it as 2026-05-01T12:00:00Z"
    assert reasons[5].startswith("invalid observed_at '1712010100000'")
    assert "is in the future" in reasons[6]
    assert reasons[7] == "id: String should have at most 200 characters"
    assert kept(stored) == {"a": "kept"}


def test_only_the_first_rejected_rows_are_printed(send: Callable) -> None:
    """Only the first rejected rows are printed; the rest are counted."""
    answer = send("id,label\n" + "a,nothing\n" * 12)
    assert answer.code == 1
    assert answer.out.count("rejected row ") == 10
    assert "rejected row 0 ('a'): 'nothing' is not a class" in answer.out
    assert "and 2 more; --json lists all" in answer.out


def test_columns_may_have_other_names(send: Callable, stored: Path) -> None:
    """Other columns are ignored."""
    answer = send(
        "verdict,text,comment\nlost,hello,a\n",
        "--id-column",
        "comment",
        "--label-column",
        "verdict",
        "--json",
    )
    assert json.loads(answer.out)["columns"] == ["comment", "verdict"]
    assert kept(stored) == {"a": "lost"}


def test_classes_are_spelled_as_in_training(cli: Callable, stored: Path, free_port: str, tmp_path: Path) -> None:
    """Numbers and booleans in a file become text."""
    file = tmp_path / "labels.jsonl"
    file.write_text('{"id": 7, "label": 1.0}\n{"id": "b", "label": true}\n{"id": ["c"], "label": "lost"}\n')
    told = json.loads(cli("labels", file, "--config", stored, "--json", SLICEWATCH_SERVE_PORT=free_port).out)
    reasons = [one["reason"] for one in told["rejected"]]
    classes = "the classes are 'kept', 'lost', 'returned'"
    assert reasons[:2] == [f"{label!r} is not a class; {classes}" for label in ("1", "true")]
    assert reasons[2] == "expected text, a boolean or a number, got list"


def test_a_parquet_file_has_times(cli: Callable, stored: Path, free_port: str, tmp_path: Path) -> None:
    """Times of a Parquet file may have a zone, lack one, or be missing."""
    at = pd.Timestamp("2026-04-30 12:00:00.123456789")
    for column in (pd.Series([at, pd.NaT]), pd.Series([at.tz_localize("Europe/Oslo"), pd.NaT])):
        frame = pd.DataFrame({"id": ["a", "b"], "label": ["kept", "lost"], "observed_at": column})
        frame.to_parquet(tmp_path / "labels.parquet")
        file = tmp_path / "labels.parquet"
        assert cli("labels", file, "--config", stored, SLICEWATCH_SERVE_PORT=free_port).code == 0
    with Store(load(stored, {}).store) as store, store.read() as connection:
        times = [event.label.observed_at.hour for event in label_history(connection, "orders", "a")]
    assert times == [12, 10]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ID,label\na,kept\n", r"no column 'id'; did you mean 'ID'\?; name the column with --id-column"),
        (
            "id,verdict\na,kept\n",
            r"no column 'label'; available: 'id', 'verdict'; name the column with --label-column",
        ),
        ("id,label\na,kept,x\n", "has 3 values where the header has 2"),
        ("id,label\n", "has a header but no rows"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_sends_nothing(send: Callable, stored: Path, text: str, message: str) -> None:
    """An invalid file ends with code 2, and nothing is sent."""
    answer = send(text)
    assert (answer.code, answer.out) == (2, "")
    assert re.search(message, answer.err)
    assert kept(stored) == {}


def test_without_a_store_nothing_can_be_labelled(cli: Callable, trained: Path, free_port: str, tmp_path: Path) -> None:
    """A missing store is reported with the command that creates it."""
    (tmp_path / "labels.csv").write_text("id,label\na,kept\n")
    answer = cli("labels", tmp_path / "labels.csv", "--config", trained, SLICEWATCH_SERVE_PORT=free_port)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert f"no service answers at http://127.0.0.1:{free_port}, and there is no store" in answer.err
    assert "slicewatch up" in answer.err


def test_a_store_that_is_in_use_is_not_opened(send: Callable, stored: Path, free_port: str) -> None:
    """A store in use is reported with the process that uses it."""
    with Store(load(stored, {}).store):
        answer = send("id,label\na,kept\n")
    assert answer.code == 1
    assert f"no service answers at http://127.0.0.1:{free_port}: pass the address" in answer.err
    assert re.search(r"is in use by process \d+", answer.err)
    assert kept(stored) == {}


def test_a_given_service_must_run(send: Callable, stored: Path, free_port: str) -> None:
    """With --url, labels are not written to the store instead."""
    answer = send("id,label\na,kept\n", "--url", f"http://127.0.0.1:{free_port}")
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert f"no service answers at http://127.0.0.1:{free_port}" in answer.err
    assert kept(stored) == {}


def test_the_running_service_takes_the_labels(cli: Callable, running: tuple[Path, str], tmp_path: Path) -> None:
    """Labels are sent to the address of the settings or of --url."""
    settings_file, url = running
    with Client(url) as client:
        client.log_predictions([{"id": id_, "features": {}, "label": "kept"} for id_ in "ab"])
    file = tmp_path / "labels.csv"
    file.write_text("id,label\na,kept\nb,nothing\n")
    first = cli("labels", file, "--config", settings_file, SLICEWATCH_SERVE_PORT=url.rpartition(":")[2])
    assert (first.code, first.err) == (1, "")
    assert re.search(r"rejected row 1 \('b'\): .*the classes are", first.out)
    assert first.out.rstrip().endswith(f"sent to {url}")
    again = json.loads(cli("labels", file, "--url", url, "--json").out)
    assert (again["outcomes"]["rejected"], again["sent_to"]) == (1, url)


def test_another_projects_service_is_not_sent_labels(cli: Callable, running: tuple[Path, str], tmp_path: Path) -> None:
    """A service of another project is refused."""
    settings_file, url = running
    port = url.rpartition(":")[2]
    (tmp_path / "labels.csv").write_text("id,label\na,kept\n")
    answer = cli(
        "labels", tmp_path / "labels.csv", "--config", settings_file,
        SLICEWATCH_SERVE_PORT=port, SLICEWATCH_NAME="refunds",
    )  # fmt: skip
    assert (answer.code, answer.out) == (2, "")
    assert f"{url} serves the model 'orders', but this project's model is 'refunds'" in answer.err


def test_a_later_failure_has_the_rows_sent(tmp_path: Path) -> None:
    """An error after the first batch says how many rows were sent."""
    file = tmp_path / "labels.csv"
    file.write_text("id,label\na,kept\nb,lost\nc,lost\n")
    batches: list[list[str]] = []

    def send(rows: Any) -> Any:
        if batches:
            raise ServiceError("the service has gone")
        batches.append([each.id for each in rows])
        return [("accepted", None)] * len(rows)

    with pytest.raises(ServiceError) as caught:
        send_file(file, {"id": "id", "label": "label"}, LabelSink("there", 2, send))
    assert batches == [["a", "b"]]
    assert caught.value.problems == (
        "the service has gone",
        "the first 2 rows were sent: send the file again, no label counts twice",
    )
    with pytest.raises(ServiceError, match=r"^the service has gone$"):
        send_file(file, {"id": "id", "label": "label"}, LabelSink("there", 2, send))


def test_a_model_served_elsewhere_has_its_classes_in_the_settings(send: Callable, stored: Path) -> None:
    """Without a registry, the classes come from the settings."""
    shutil.rmtree(load(stored, {}).registry)
    refused = send("id,label\na,anything\n")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "set `classes` in slicewatch.yaml, or train a model" in refused.err
    stored.write_text(stored.read_text() + "classes: [kept, lost]\n")
    answer = send("id,label\nb,anything\nc,lost\n")
    assert answer.code == 1
    assert "rejected row 0 ('b'): 'anything' is not a class; the classes are 'kept', 'lost'" in answer.out
    assert kept(stored) == {"c": "lost"}


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:9000"),
        ("0.0.0.0", "http://127.0.0.1:9000"),  # noqa: S104 - nothing is bound here
        ("::", "http://[::1]:9000"),
        ("::1", "http://[::1]:9000"),
        ("localhost", "http://localhost:9000"),
    ],
)
def test_the_address_is_the_one_in_the_settings(project: Path, host: str, url: str) -> None:
    """A service on all interfaces is reached at the loopback address."""
    variables = {"SLICEWATCH_SERVE_HOST": f"'{host}'", "SLICEWATCH_SERVE_PORT": "9000"}
    assert service_url(load(project, variables)) == url
