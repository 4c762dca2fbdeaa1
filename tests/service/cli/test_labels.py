"""Labels from a file: into the store, to the service, and why not."""

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

from service.__main__ import main
from service.cli.label_doors import Door
from service.cli.labels import send_file
from service.cli.running import address
from service.client import Client
from service.errors import ServiceError
from service.events import FunctionSetVersion, Prediction
from service.settings.project import load
from service.store.engine import Store
from service.store.queries import label_history, labels
from service.store.writer import Writer

START = datetime(2026, 5, 1, tzinfo=UTC)
IDS = ("a", "b", "c", "007")


@pytest.fixture
def nobody() -> Iterator[str]:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield str(taken.getsockname()[1])


@pytest.fixture
def stored(trained: Path) -> Path:
    """A trained project whose service has made four predictions, and does not run; its settings file."""
    path = load(trained, {}).store
    path.parent.mkdir(parents=True, exist_ok=True)
    with Store(path) as store:
        writer = Writer(store)
        writer.record_functions(FunctionSetVersion("set", ("short",), ("print",), START))
        at = START - timedelta(days=1)
        made = [
            Prediction(id_, "orders", 1, "set", at, "kept", None, b"\0", b"\0", None, 7, "live")
            for id_ in IDS
        ]
        writer.append(made).result()
        writer.stop()
    return trained


@pytest.fixture
def send(cli: Callable, stored: Path, nobody: str, tmp_path: Path) -> Callable:
    """Writes a file of labels and sends it."""

    def written_and_sent(text: str, *options: object, name: str = "labels.csv") -> Any:
        file = tmp_path / name
        file.write_text(text)
        return cli("labels", file, "--config", stored, *options, SLICEWATCH_SERVE_PORT=nobody)

    return written_and_sent


def kept(settings_file: Path) -> dict[str, str]:
    """Return the labels that count in the project's store."""
    with Store(load(settings_file, {}).store) as store, store.read() as connection:
        return labels(connection, "orders", IDS)


def test_labels_go_into_the_store_while_no_service_runs(send: Callable, stored: Path) -> None:
    """Each has an outcome; the file, the columns and the store are named."""
    answer = send("id,label\na,kept\nb,lost\n007,returned\nx,kept\n")
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["outcome", "labels"], ["--------", "------"], ["accepted", "3"], ["pending", "1"],
    ]  # fmt: skip
    assert lines[4].startswith("pending: no prediction has this id yet")
    assert re.fullmatch(r"4 rows of .*labels\.csv \(id, label\), sent to .*store\.sqlite3", lines[-1])
    assert kept(stored) == {"a": "kept", "b": "lost", "007": "returned"}


def test_a_second_sending_changes_nothing(send: Callable, stored: Path) -> None:
    """The same statements are duplicates; another label is a correction."""
    text = "id,label,observed_at\na,kept,2026-04-30T12:00:00Z\nb,lost,2026-04-30T12:00:00Z\n"
    send(text)
    assert json.loads(send(text, "--json").out)["outcomes"]["duplicate"] == 2
    assert json.loads(send("id,label\na,lost\n", "--json").out)["outcomes"]["corrected"] == 1
    assert kept(stored) == {"a": "lost", "b": "lost"}


def test_a_file_without_times_that_is_sent_again_overrides_no_correction(
    stored: Path, nobody: str, tmp_path: Path, capsys: Any
) -> None:
    """However much later: its rows are the same statements. With another row it is another file."""
    file, environ = tmp_path / "labels.csv", {"SLICEWATCH_SERVE_PORT": nobody}

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


def test_two_columns_of_a_file_are_two_statements(send: Callable, stored: Path) -> None:
    """What another column says corrects, though file and row are the same."""
    text = "id,first,second\na,kept,lost\n"
    send(text, "--label-column", "first")
    again = json.loads(send(text, "--label-column", "second", "--json").out)["outcomes"]
    assert again["corrected"] == 1
    assert kept(stored) == {"a": "lost"}


def test_everything_that_a_row_says_is_kept(send: Callable, stored: Path) -> None:
    """Time, labeller and key; a time without a zone is UTC."""
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
    """Rows are counted from 0; the others are taken all the same, and the exit code is 1."""
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
    assert reasons[1] == "this is no class; the classes are 'kept', 'lost', 'returned'"
    assert (reasons[2], reasons[3]) == ("the row has no id", "the row has no label")
    assert reasons[4] == "observed_at 'yesterday' is no time: write it as 2026-05-01T12:00:00Z"
    assert reasons[5].startswith("observed_at '1712010100000' is no time")
    assert "lies in the future" in reasons[6]
    assert reasons[7] == "id: String should have at most 200 characters"
    assert kept(stored) == {"a": "kept"}


def test_only_the_first_rejected_rows_are_printed(send: Callable) -> None:
    """The others are counted."""
    answer = send("id,label\n" + "a,nothing\n" * 12)
    assert answer.code == 1
    assert answer.out.count("rejected row ") == 10
    assert "rejected row 0 ('a'): this is no class" in answer.out
    assert "and 2 more; --json tells all" in answer.out


def test_columns_may_have_other_names(send: Callable, stored: Path) -> None:
    """Columns that are neither named nor known are left alone."""
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


def test_classes_are_spelled_as_in_training(cli: Callable, stored: Path, nobody: str, tmp_path: Path) -> None:
    """Ids and labels that are numbers in the file are text in the store; JSON lines are read too."""
    file = tmp_path / "labels.jsonl"
    file.write_text('{"id": 7, "label": 1.0}\n{"id": "b", "label": true}\n{"id": ["c"], "label": "lost"}\n')
    told = json.loads(cli("labels", file, "--config", stored, "--json", SLICEWATCH_SERVE_PORT=nobody).out)
    reasons = [one["reason"] for one in told["rejected"]]
    assert reasons[:2] == ["this is no class; the classes are 'kept', 'lost', 'returned'"] * 2
    assert reasons[2] == "expected text, a boolean or a number, got list"


def test_a_parquet_file_has_times(cli: Callable, stored: Path, nobody: str, tmp_path: Path) -> None:
    """With a zone or without, and missing ones."""
    at = pd.Timestamp("2026-04-30 12:00:00.123456789")
    for column in (pd.Series([at, pd.NaT]), pd.Series([at.tz_localize("Europe/Oslo"), pd.NaT])):
        frame = pd.DataFrame({"id": ["a", "b"], "label": ["kept", "lost"], "observed_at": column})
        frame.to_parquet(tmp_path / "labels.parquet")
        file = tmp_path / "labels.parquet"
        assert cli("labels", file, "--config", stored, SLICEWATCH_SERVE_PORT=nobody).code == 0
    with Store(load(stored, {}).store) as store, store.read() as connection:
        times = [event.label.observed_at.hour for event in label_history(connection, "orders", "a")]
    assert times == [12, 10]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ID,label\na,kept\n", r"no column 'id'; did you mean 'ID'\?; --id-column names the one with the id"),
        ("id,verdict\na,kept\n", r"no column 'label'.*--label-column names the one with the label"),
        ("id,label\na,kept,x\n", "has 3 values where the header has 2"),
        ("id,label\n", "has a header but no rows"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_sends_nothing(
    send: Callable, stored: Path, text: str, message: str
) -> None:
    """It is misuse: code 2, and the store is as it was."""
    answer = send(text)
    assert (answer.code, answer.out) == (2, "")
    assert re.search(message, answer.err)
    assert kept(stored) == {}


def test_without_a_store_nothing_can_be_labelled(
    cli: Callable, trained: Path, nobody: str, tmp_path: Path
) -> None:
    """The service makes it, which is said."""
    (tmp_path / "labels.csv").write_text("id,label\na,kept\n")
    answer = cli("labels", tmp_path / "labels.csv", "--config", trained, SLICEWATCH_SERVE_PORT=nobody)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert f"no service answers at http://127.0.0.1:{nobody}, and there is no store" in answer.err
    assert "slicewatch up" in answer.err


def test_a_store_that_is_in_use_is_not_opened(send: Callable, stored: Path, nobody: str) -> None:
    """A service at another address has it, perhaps: which process, and how to name the address."""
    with Store(load(stored, {}).store):
        answer = send("id,label\na,kept\n")
    assert answer.code == 1
    assert f"no service answers at http://127.0.0.1:{nobody}: name the address" in answer.err
    assert re.search(r"is in use by process \d+", answer.err)
    assert kept(stored) == {}


def test_a_service_that_was_named_must_run(send: Callable, stored: Path, nobody: str) -> None:
    """The store is no substitute for it."""
    answer = send("id,label\na,kept\n", "--url", f"http://127.0.0.1:{nobody}")
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert f"no service answers at http://127.0.0.1:{nobody}" in answer.err
    assert kept(stored) == {}


def test_the_running_service_takes_the_labels(
    cli: Callable, running: tuple[Path, str], tmp_path: Path
) -> None:
    """At the address in the settings, or at one that is given."""
    settings_file, url = running
    with Client(url) as client:
        client.log_predictions([{"id": id_, "features": {}, "label": "kept"} for id_ in "ab"])
    file = tmp_path / "labels.csv"
    file.write_text("id,label\na,kept\nb,nothing\n")
    first = cli("labels", file, "--config", settings_file, SLICEWATCH_SERVE_PORT=url.rpartition(":")[2])
    assert (first.code, first.err) == (1, "")
    assert "rejected row 1 ('b'): this is no class" in first.out
    assert first.out.rstrip().endswith(f"sent to {url}")
    again = json.loads(cli("labels", file, "--url", url, "--json").out)
    assert (again["outcomes"]["rejected"], again["sent_to"]) == (1, url)


def test_another_projects_service_is_not_sent_labels(
    cli: Callable, running: tuple[Path, str], tmp_path: Path
) -> None:
    """Two projects may have the same address in their settings."""
    settings_file, url = running
    port = url.rpartition(":")[2]
    (tmp_path / "labels.csv").write_text("id,label\na,kept\n")
    answer = cli(
        "labels", tmp_path / "labels.csv", "--config", settings_file,
        SLICEWATCH_SERVE_PORT=port, SLICEWATCH_NAME="refunds",
    )  # fmt: skip
    assert (answer.code, answer.out) == (2, "")
    assert f"{url} serves the model 'orders', and this project's is 'refunds'" in answer.err


def test_a_failure_on_the_way_says_how_far_it_came(tmp_path: Path) -> None:
    """What was sent is there; sending the file again is what to do."""
    file = tmp_path / "labels.csv"
    file.write_text("id,label\na,kept\nb,lost\nc,lost\n")
    batches: list[list[str]] = []

    def send(rows: Any) -> Any:
        if batches:
            raise ServiceError("the service has gone")
        batches.append([each.id for each in rows])
        return [("accepted", None)] * len(rows)

    with pytest.raises(ServiceError) as caught:
        send_file(file, {"id": "id", "label": "label"}, Door("there", 2, send))
    assert batches == [["a", "b"]]
    assert caught.value.problems == (
        "the service has gone",
        "the first 2 rows were taken: send the file again, none counts twice",
    )
    with pytest.raises(ServiceError, match=r"^the service has gone$"):
        send_file(file, {"id": "id", "label": "label"}, Door("there", 2, send))


def test_a_model_served_elsewhere_has_its_classes_in_the_settings(send: Callable, stored: Path) -> None:
    """Without a registry and without them, none is taken, and what to do is said."""
    shutil.rmtree(load(stored, {}).registry)
    refused = send("id,label\na,anything\n")
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    assert "set `classes` in slicewatch.yaml, or train a model" in refused.err
    stored.write_text(stored.read_text() + "classes: [kept, lost]\n")
    answer = send("id,label\nb,anything\nc,lost\n")
    assert answer.code == 1
    assert "rejected row 0 ('b'): this is no class; the classes are 'kept', 'lost'" in answer.out
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
    """A service that listens everywhere is reached on this machine."""
    variables = {"SLICEWATCH_SERVE_HOST": f"'{host}'", "SLICEWATCH_SERVE_PORT": "9000"}
    assert address(load(project, variables)) == url
