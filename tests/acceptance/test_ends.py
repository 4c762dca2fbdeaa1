"""Durability after SIGKILL, and graceful shutdown on SIGTERM."""

import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from service.monitor.block_counts import unpack_bitmaps
from service.serving.prediction_factory import names_of
from service.store import queries
from service.store.engine import Store
from service.store.tables import label_events, predictions

# thirty are for a night; most of each is the start of a process
KILLS = int(os.environ.get("SLICEWATCH_TEST_KILLS", "3"))
CLIENTS = 4
CLASSES = ("ham", "spam")
TAKEN = ("accepted", "pending", "duplicate")

Record = dict[str, Any]


@dataclass
class Told:
    """Requests and responses of the clients, by prediction id."""

    sent: set[str] = field(default_factory=set)
    answers: dict[str, Record] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    cut: list[tuple[str, Record]] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)


class Load:
    """Clients that send predictions and labels one by one until the service exits."""

    def __init__(self, call: Callable[[], Any], records: Sequence[Record], told: Told, round_: int) -> None:
        self._call, self._records, self._told, self._round = call, records, told, round_
        self._over = threading.Event()
        self._clients = [threading.Thread(target=self._client, args=(k,)) for k in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for client in self._clients:
            client.join()

    def _client(self, k: int) -> None:
        draw = random.Random(f"{self._round}-{k}")
        call = self._call()
        n = 0
        try:
            while not self._over.is_set():
                ids = [f"{self._round}-{k}-{n + i}" for i in range(draw.randint(1, 4))]
                n += len(ids)
                early = draw.random() < 0.2  # some labels come before their predictions
                for step in (self._label, self._predict) if early else (self._predict, self._label):
                    step(call, draw, ids)
        except (HTTPException, OSError):
            pass
        finally:
            call.close()

    def _predict(self, call: Any, draw: random.Random, ids: list[str]) -> None:
        self._told.sent.update(ids)
        ask(
            call,
            self._told,
            "/v1/predict",
            {"instances": draw.choices(self._records, k=len(ids)), "ids": ids},
        )

    def _label(self, call: Any, draw: random.Random, ids: list[str]) -> None:
        labels = [{"id": id_, "label": draw.choice(CLASSES), "idempotency_key": id_} for id_ in ids]
        ask(call, self._told, "/v1/labels", {"labels": labels})


def ask(call: Any, told: Told, path: str, sent: Record) -> None:
    """Send a request and record the response, or record the request as interrupted for a retry."""
    try:
        reply = call("POST", path, sent)
    except ConnectionRefusedError:
        raise
    except (HTTPException, OSError):
        told.cut.append((path, sent))
        raise
    told.statuses[reply.status] += 1
    if reply.status == 200 and path == "/v1/predict":
        told.answers.update((each["id"], each) for each in reply.json["predictions"])
    elif reply.status == 200:
        given = {each["id"]: each["label"] for each in sent["labels"]}
        taken = [each["id"] for each in reply.json["labels"] if each["outcome"] in TAKEN]
        told.labels.update((id_, given[id_]) for id_ in taken)


def ask_again(call: Any, told: Told) -> int:
    """Retry the interrupted requests, and return their number."""
    again, told.cut = told.cut, []
    for path, sent in again:
        ask(call, told, path, sent)
    call.close()
    return len(again)


@dataclass(frozen=True)
class Logged:
    """Contents of the store."""

    answers: Mapping[str, Record]
    labels: Mapping[str, str]
    ids: Counter[str]
    labelled: Counter[str]
    whole: str


def logged(folder: Path) -> Logged:
    """Return the contents of a store."""
    with Store(folder / ".slicewatch" / "store.sqlite3") as store, store.read() as connection:
        names = {each.hash: each.names for each in queries.all_function_sets(connection)}
        ids = Counter(connection.scalars(select(predictions.c.id)))
        found = [queries.prediction(connection, "comments", id_) for id_ in ids]
        answers = {
            each.id: {
                "label": each.label,
                "slices": slices_of(each.member, names[each.set_hash]),
                "unknown_slices": slices_of(each.unknown, names[each.set_hash]),
                "version": each.version,
            }
            for each in found
            if each is not None
        }
        labelled = Counter(connection.scalars(select(label_events.c.prediction_id)))
        return Logged(
            answers,
            queries.labels(connection, "comments", ids),
            ids,
            labelled,
            str(connection.scalar(text("PRAGMA integrity_check"))),
        )


def slices_of(bitmap: bytes, names: tuple[str, ...]) -> list[str]:
    """Return the names encoded in a bitmap."""
    return list(names_of(unpack_bitmaps([bitmap], len(names)), names)[0])


def answered(told: Told) -> dict[str, Record]:
    """Return the responses, reduced to the logged fields."""
    parts = ("label", "slices", "unknown_slices", "version")
    return {id_: {part: each[part] for part in parts} for id_, each in told.answers.items()}


@pytest.mark.timeout(1800 + 60 * KILLS)
def test_what_was_acknowledged_is_there_once_after_kills(
    up: Callable[..., Any],
    caller: Callable[[int], Any],
    until: Callable[..., Any],
    project: Path,
    records: list[Record],
) -> None:
    """After kills under load, the log has every acknowledged prediction and label exactly once."""
    told, draw, again = Told(), random.Random(3), 0
    for round_ in range(KILLS):
        running = up(project)
        again += ask_again(caller(running.port), told)
        wanted = len(told.answers) + draw.randint(5, 150)
        with Load(partial(caller, running.port), records, told, round_):
            until(lambda wanted=wanted: len(told.answers) >= wanted)
            threading.Event().wait(draw.uniform(0, 0.05))  # so that the end is at no certain step of a request
            running.kill()
    found = logged(project)
    print(
        f"{KILLS} kills: {len(told.answers)} answers and {len(told.labels)} labels were acknowledged; "
        f"{again} requests were cut off and sent again, {len(told.cut)} at the end were not; "
        f"{len(found.ids) - len(told.answers)} rows are in the log without an answer"
    )
    assert found.whole == "ok"
    assert set(told.statuses) == {200}
    assert {id_: found.answers.get(id_) for id_ in told.answers} == answered(told)
    assert set(found.ids) <= told.sent
    assert set(found.ids.values()) == set(found.labelled.values()) == {1}
    assert told.labels.keys() <= found.labelled.keys()
    standing = {id_: label for id_, label in told.labels.items() if id_ in found.ids}
    assert {id_: found.labels.get(id_) for id_ in standing} == standing


def test_nothing_is_cut_off_when_it_is_asked_to_stop(
    up: Callable[..., Any],
    caller: Callable[[int], Any],
    until: Callable[..., Any],
    project: Path,
    records: list[Record],
) -> None:
    """On SIGTERM under load, accepted requests are answered and logged, and the exit code is 0."""
    told, running = Told(), up(project)
    with Load(partial(caller, running.port), records, told, 0):
        until(lambda: len(told.answers) >= 100)
        code = running.stop()
    found = logged(project)
    assert code == 0
    assert [line["rows_lost"] for line in running.lines() if line["message"] == "stopped"] == [0]
    assert told.statuses.keys() <= {200, 503}
    assert answered(told) == found.answers  # so that a request which was cut off had not been accepted
    assert told.labels.keys() == found.labelled.keys()
