"""Constant load during a promotion and a rollback: no lost requests, and a version in every response."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from models.registry import ModelRegistry
from service.store.audit import entries
from service.store.engine import Store
from service.store.tables import predictions

RATE = 50  # requests a second
CLIENTS = 5
STEADY_REQUESTS = 60  # that are answered on each version

Record = dict[str, Any]


@dataclass
class Stream:
    """Open-loop clients: the schedule does not depend on the latency."""

    call: Callable[[], Any]
    record: Record
    statuses: dict[str, int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> "Stream":
        self._began = time.monotonic()
        self._clients = [threading.Thread(target=self._send, args=(k,)) for k in range(CLIENTS)]
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for client in self._clients:
            client.join()

    def _send(self, k: int) -> None:
        call, due, n = self.call(), self._began + k / RATE, 0
        while not self._over.wait(max(0.0, due - time.monotonic())):
            id_ = f"{k}-{n}"
            self.statuses[id_] = 0  # asked, and not answered
            reply = call("POST", "/v1/predict", {"instances": [self.record], "ids": [id_]})
            self.statuses[id_] = reply.status
            if reply.status == 200:
                (answer,) = reply.json["predictions"]
                assert answer["version"] == reply.json["model"]["version"]
                self.versions[id_] = answer["version"]
            due, n = due + CLIENTS / RATE, n + 1
        call.close()

    def last(self) -> set[int]:
        """Return the versions of the latest responses."""
        return {self.versions[each] for each in list(self.versions)[-2 * CLIENTS :]}


def test_nothing_is_lost_through_a_promotion_and_a_rollback(
    up: Callable[..., Any],
    caller: Callable[[int], Any],
    until: Callable[..., Any],
    command: Callable[..., int],
    project: Path,
    records: list[Record],
) -> None:
    """At 50 requests per second, every request is answered once, by the logged version."""
    assert command(project, "train", SLICEWATCH_LEARNER_SEED=1) == 0
    running = up(project)
    with Stream(lambda: caller(running.port), records[0]) as stream:
        for version, path in ((1, None), (2, "/v1/models/2/promote"), (1, "/v1/models/rollback")):
            if path is not None:
                assert running.ask("POST", path, {"reason": "tried under load"}).status == 200
            until(lambda version=version: stream.last() == {version})
            wanted = len(stream.versions) + STEADY_REQUESTS
            until(lambda wanted=wanted: len(stream.versions) >= wanted)
    assert running.stop() == 0

    assert set(stream.statuses.values()) == {200}
    store = Store(project / ".slicewatch/store.sqlite3")
    with store.read() as connection:
        query = select(predictions.c.id, predictions.c.version)
        logged = {row.id: row.version for row in connection.execute(query)}
        told = [(entry.action, entry.subject) for _, entry in entries(connection)]
    store.close()
    assert logged == stream.versions
    assert set(logged.values()) == {1, 2}
    assert told == [("model.rolled_back", "version 1"), ("model.promoted", "version 2")]
    history = ModelRegistry(project / ".slicewatch/registry", name="comments").history()
    assert [each.version for each in history] == [1, 2, 1]
