"""Writer thread of a store; requests that arrive during a commit share the next one."""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import groupby, islice
from time import monotonic
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from service.events import FunctionSetVersion, Label, Prediction
from service.store.block_store import roll_up
from service.store.engine import Store, driver_of, insert_into
from service.store.errors import StoreError, StoreFull, StoreStopped, StoreUnusable
from service.store.labels import LabelResult, LabelRules, settle_pending, take_labels
from service.store.prediction_log import LogResult, add_predictions, record_set
from service.store.tables import checkpoints, to_us

T = TypeVar("T")

ROW_BYTES = 300  # memory of a row without its features
SLOW_SECONDS = 0.005
"""Time of a commit after which the next ones are left to the writer thread, which commits several requests together."""


@dataclass(frozen=True, slots=True)
class WriterLimits:
    """Maximum size of the write queue, with the requests being written, and approximate rows of a transaction."""

    queue_rows: int = 100_000
    queue_bytes: int = 256 * 2**20
    group_rows: int = 5_000


@dataclass(slots=True)
class _Request:
    """Request for the writer; neighbours of one kind are passed together to one call of ``work``."""

    kind: Hashable
    work: Callable[[Connection, list[Any]], Sequence[Any]]
    values: list[Any]
    size_bytes: int = 0
    unwrap: bool = False  # answer with the single result instead of a list
    future: Future[Any] = field(default_factory=Future)


class Writer:
    """Writer with a thread; requests are written one after another in order, and answered after their commit.

    A request that fails is rolled back alone, and the thread continues with the next. Failed requests can be
    sent again: rows that are in the store already are recognised.

    Parameters
    ----------
    store
        Closed by its owner, after ``stop``.
    limits, rules
        Limits of the queue, and of the times of labels; None for the defaults.
    """

    def __init__(self, store: Store, *, limits: WriterLimits | None = None, rules: LabelRules | None = None) -> None:
        self._store, self._limits, self._rules = store, limits or WriterLimits(), rules or LabelRules()
        self._queue: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._rows = self._bytes = 0
        self._stopping = False
        self._refusal: str | None = None
        self._connection: Connection | None = None  # kept, since taking it from the pool takes 30 us
        self._turn = threading.Lock()  # held by the thread that writes
        self._slow = False
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def backlog_rows(self) -> int:
        """Rows that are not yet committed."""
        return self._rows

    @property
    def refusal(self) -> str | None:
        """Error of the last write; None if it succeeded."""
        return self._refusal

    def has_room(self, rows: int = 1) -> bool:
        """Return True if the queue would accept this many rows, regardless of their bytes."""
        return not self._stopping and self._rows + rows <= self._limits.queue_rows

    def append(self, predictions: Sequence[Prediction], *, here: bool = False) -> Future[list[LogResult]]:
        """Log predictions, and return their outcomes.

        With ``here`` an idle writer commits them in the calling thread, unless commits are slow: two changes of
        thread take as long as a commit of a few rows.

        Raises
        ------
        StoreFull
            If the queue is full.
        StoreStopped
            If the writer was stopped.
        """

        request = _Request("append", self._append, list(predictions))
        if not (here and self._write_here(request)):
            sizes = (len(row.features or "") + len(row.member) + len(row.unknown) for row in predictions)
            request.size_bytes = sum(sizes)
            self._put(request)
        return request.future

    def _append(self, connection: Connection, rows: list[Prediction]) -> list[LogResult]:
        results = add_predictions(connection, rows)
        stored = ((r.prediction.model, r.prediction.id) for r in results if r.outcome == "stored")
        settle_pending(connection, stored, self._rules)
        return results

    def label(self, model: str, labels: Sequence[Label]) -> Future[list[LabelResult]]:
        """Take labels of a model's predictions, and return their outcomes. Raises as ``append``."""

        def work(connection: Connection, values: list[Label]) -> list[LabelResult]:
            return take_labels(connection, model, values, self._rules)

        return self._put(_Request(("label", model), work, list(labels)))

    def record_functions(self, functions: FunctionSetVersion) -> Future[None]:
        """Record a function set; see ``prediction_log.record_set``. Raises as ``append``."""
        return self.submit(partial(record_set, functions=functions))

    def save_checkpoint(self, name: str, at: datetime, state: bytes) -> Future[None]:
        """Save a state under a name, replacing the previous one. Raises as ``append``."""
        return self.submit(partial(save_checkpoint, name=name, at=at, state=state))

    def roll_up(self, before: datetime, seconds: int, limit: int = 512) -> Future[int]:
        """Merge old blocks into longer ones; see ``block_store.roll_up``. Raises as ``append``."""
        return self.submit(partial(roll_up, before=before, seconds=seconds, limit=limit))

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """Run other work in the writer's transaction, and return its result. Raises as ``append``."""
        return self._put(_Request(object(), lambda connection, _: [work(connection)], [None], unwrap=True))

    def stop(self, timeout_seconds: float | None = None) -> int:
        """Refuse new requests, write the queue, and return the number of rows unwritten at the deadline."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_seconds)
        return self._rows

    def _write_here(self, request: _Request) -> bool:
        """Return whether a request was written by this thread, because nothing else is waiting or being written."""
        if self._slow or not self._turn.acquire(blocking=False):
            return False
        try:
            with self._changed:
                if self._stopping or self._rows:  # rows taken from the queue are written first, too
                    return False
                self._rows += len(request.values)
            request.future.set_running_or_notify_cancel()
            self._write([request])
            with self._changed:
                self._rows -= len(request.values)
        finally:
            self._turn.release()
        return True

    def _put(self, request: _Request) -> Future[Any]:
        rows, size = len(request.values), request.size_bytes + ROW_BYTES * len(request.values)
        with self._changed:
            if self._stopping:
                raise StoreStopped("the store is shutting down: send the request again after the restart")
            if self._rows + rows > self._limits.queue_rows or self._bytes + size > self._limits.queue_bytes:
                raise StoreFull(
                    f"the write queue is full: {self._rows} rows are waiting, and {rows} more do not fit; "
                    "try again in a moment, or send fewer rows at once"
                )
            self._rows, self._bytes = self._rows + rows, self._bytes + size
            self._queue.append(request)
            self._changed.notify_all()
        return request.future

    def _serve(self) -> None:
        try:
            self._write_until_stopped()
        finally:
            with self._turn:
                self._disconnect()

    def _write_until_stopped(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._stopping)
                group, rows = [], 0
                while self._queue and rows < self._limits.group_rows:
                    group.append(self._queue.popleft())
                    rows += len(group[-1].values)
            if not group:
                return
            with self._turn:
                self._write([request for request in group if request.future.set_running_or_notify_cancel()])
            with self._changed:
                self._rows -= rows
                self._bytes -= sum(request.size_bytes + ROW_BYTES * len(request.values) for request in group)

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None

    def _write(self, group: Sequence[_Request]) -> None:
        """Commit requests together, or each in a transaction of its own if one of them fails."""
        results: list[Any] = []
        began = monotonic()
        try:
            self._store.require_usable()
            if self._connection is None:
                self._connection = self._store.writing.connect()
            connection = self._connection
            with connection.begin():
                database = driver_of(connection)
                changes = database.total_changes
                for _, neighbours in groupby(group, key=lambda request: request.kind):
                    requests = list(neighbours)
                    values = [value for request in requests for value in request.values]
                    answers = iter(requests[0].work(connection, values))
                    results += [list(islice(answers, len(request.values))) for request in requests]
                wrote = database.total_changes > changes  # one that changes nothing succeeds on a full disk, too
            self._store.require_usable()  # or a row would be acknowledged that no later process finds
        except Exception as error:  # the thread survives any error of the database
            self._slow = monotonic() - began > SLOW_SECONDS  # such as of another process that holds a lock
            self._disconnect()
            if len(group) == 1:
                failure = _store_error(error)
                self._store.note(_driver_error(failure.__cause__))
                if isinstance(failure, StoreError) and not isinstance(
                    failure, StoreUnusable
                ):  # the store names its own
                    self._refusal = str(failure)
                group[0].future.set_exception(failure)
            else:
                for request in group:
                    self._write([request])
            return
        if wrote:
            self._refusal = None
        self._slow = monotonic() - began > SLOW_SECONDS
        for request, result in zip(group, results, strict=True):
            request.future.set_result(result[0] if request.unwrap else result)


def _driver_error(error: BaseException | None) -> BaseException | None:
    """Return the error of the driver behind one of SQLAlchemy; others unchanged."""
    return getattr(error, "orig", None) or error


def _store_error(error: Exception) -> Exception:
    """Return an error of the database as a StoreError, and any other error unchanged."""
    if not isinstance(error, SQLAlchemyError | sqlite3.Error):
        return error
    first: BaseException = error
    context = error.__context__
    while context is not None:
        # The rollback may fail as well; the first error is the cause.
        first = context if isinstance(context, SQLAlchemyError | sqlite3.Error) else first
        context = context.__context__
    failure = StoreError(f"the store could not write: {_driver_error(first)}; the request was rolled back")
    failure.__cause__ = error
    return failure


def save_checkpoint(connection: Connection, name: str, at: datetime, state: bytes) -> None:
    """Save a state under a name, replacing the previous one, in the caller's transaction."""
    insert = insert_into(connection, checkpoints)
    upsert = insert.on_conflict_do_update(
        index_elements=[checkpoints.c.name],
        set_={"at_us": insert.excluded.at_us, "state": insert.excluded.state},
    )
    connection.execute(upsert, {"name": name, "at_us": to_us(at), "state": state})
