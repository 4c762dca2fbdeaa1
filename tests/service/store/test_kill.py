"""A killed process loses no acknowledged write."""

import random
import signal
import subprocess
import sys
from pathlib import Path

from sqlalchemy import select, text

from service.store import queries
from service.store.engine import Store
from service.store.tables import first_labels, label_current, label_events, predictions

ROUNDS = 3

CLIENT = """
import sys, threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from service.events import FunctionSetVersion, Label, Prediction
from service.store.block_store import read_dirty, replace_blocks
from service.store.engine import Store
from service.store.writer import Writer

START = datetime(2026, 5, 1, tzinfo=UTC)
path, round_ = sys.argv[1:]
store = Store(Path(path))
writer = Writer(store)
writer.record_functions(FunctionSetVersion("s", ("f",), ("x",), START)).result()
say = threading.Lock()

def acknowledge(kind, id_):
    with say:
        print(kind, id_, flush=True)

def client(k):
    n = 0
    while True:
        id_ = f"{round_}-{k}-{n}"
        at = START + timedelta(seconds=n)
        values = ("m", 1, "s", at, "a", (0.5, 0.5), b"\\1", b"\\0", "x" * 200, n, "live")
        writer.append([Prediction(id_, *values)]).result()
        acknowledge("prediction", id_)
        writer.label("m", [Label(id_, "b", at, at)]).result()
        acknowledge("label", id_)
        n += 1

for k in range(4):
    threading.Thread(target=client, args=(k,)).start()
while True:
    with store.read() as connection:
        counted = read_dirty(connection, 20)
    writer.submit(lambda connection: replace_blocks(connection, counted)).result()
"""


def acknowledged_until_killed(path: Path, round_: int, answers: int) -> list[tuple[str, str]]:
    """Return the responses to a client that writes continuously until it is killed."""
    command = [sys.executable, "-c", CLIENT, str(path), str(round_)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        lines = [client.stdout.readline() for _ in range(answers)]
        client.send_signal(signal.SIGKILL)
        lines += client.stdout.readlines()
    assert client.returncode == -signal.SIGKILL
    whole = [line.split() for line in lines if line.endswith("\n")]
    return [(kind, id_) for kind, id_ in whole]


def test_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path) -> None:
    """After three kills amid writes every acknowledged prediction and label is stored once, and the file is intact."""
    path = tmp_path / "log.db"
    draw, told = random.Random(1), []
    for round_ in range(ROUNDS):
        told += acknowledged_until_killed(path, round_, draw.randint(20, 400))
    with Store(path) as store, store.read() as connection:
        assert connection.scalar(text("PRAGMA integrity_check")) == "ok"
        logged = list(connection.scalars(select(predictions.c.id)))
        labelled = list(connection.scalars(select(label_events.c.prediction_id)))
        counting = queries.labels(connection, "m", logged)
        counted = list(connection.scalars(select(label_current.c.prediction_row)))
        first = list(connection.scalars(select(first_labels.c.prediction_row)))
    assert len(told) == len(set(told)) > ROUNDS * 20
    assert {id_ for kind, id_ in told if kind == "prediction"} <= set(logged)
    assert {id_ for kind, id_ in told if kind == "label"} <= set(counting)
    assert (len(set(logged)), len(set(labelled))) == (len(logged), len(labelled))
    assert sorted(first) == sorted(counted)
