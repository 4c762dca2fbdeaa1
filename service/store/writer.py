"""The one thread that writes: what piled up while it was busy is committed together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import groupby, islice
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from service.events import FunctionSetVersion, Label, Prediction
from service.store.block_store import read_dirty, replace_blocks, roll_up
from service.store.engine import Store, insert_into
from service.store.errors import StoreError, StoreFull, StoreStopped
from service.store.function_sets import record_set
from service.store.labels import LabelResult, LabelRules, take_labels
from service.store.prediction_log import LogResult, add_predictions
from service.store.tables import checkpoints, to_us

T = TypeVar("T")

ROW_BYTES = 300  # what a row takes in memory beside its features


@dataclass(frozen=True, slots=True)
class WriterLimits:
    """How much may wait, and how much is committed at once.

    Parameters
    ----------
    queue_rows, queue_bytes
        What may wait or be in work; beyond it, requests are refused at once.
    group_rows
        Rows in one transaction, about.
    """

    queue_rows: int = 100_000
    queue_bytes: int = 256 * 2**20
    group_rows: int = 5_000


@dataclass(frozen=True, slots=True)
class _Request:
    """Work for the writer; neighbours of one kind are done in one call of ``work``, on all their values."""

    kind: Hashable
    work: Callable[[Connection, list[Any]], Sequence[Any]]
    values: list[Any]
    size_bytes: int
    answer: Callable[[Sequence[Any]], Any] = list
    future: Future[Any] = field(default_factory=Future)


class Writer:
    """Writes to a store from one thread, in order; every answer comes after its commit.

    A request that fails is undone alone, and the thread goes on with the next. A request that failed can be
    sent again whatever became of it: what is in the store already is only answered.

    Parameters
    ----------
    store
        Closed by its owner, after ``stop``.
    limits, rules
        How much may wait, and which labels count; None takes the defaults.
    """

    def __init__(
        self, store: Store, *, limits: WriterLimits | None = None, rules: LabelRules | None = None
    ) -> None:
        self._store, self._limits, self._rules = store, limits or WriterLimits(), rules or LabelRules()
        self._queue: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._rows = self._bytes = 0
        self._stopping = False
        self._refusal: str | None = None
        self._thread = threading.Thread(target=self._serve, name="store-writer", daemon=True)
        self._thread.start()

    @property
    def backlog_rows(self) -> int:
        """Rows that wait to be committed, those in work included."""
        return self._rows

    @property
    def refusal(self) -> str | None:
        """Why the database refused what was written last; None where it was taken."""
        return self._refusal

    def has_room(self, rows: int = 1) -> bool:
        """Tell whether so many rows, without counting their bytes, would be taken."""
        return not self._stopping and self._rows + rows <= self._limits.queue_rows

    def append(self, predictions: Sequence[Prediction]) -> Future[list[LogResult]]:
        """Log predictions; the answer says of each what stands in the log under its id.

        Raises
        ------
        StoreFull
            If too much waits already.
        StoreStopped
            If the writer was stopped.
        """
        size = sum(len(p.features or "") + len(p.member) + len(p.unknown) for p in predictions)
        work = partial(_append, rules=self._rules)
        return self._put(_Request("append", work, list(predictions), size))

    def label(self, model: str, labels: Sequence[Label]) -> Future[list[LabelResult]]:
        """Take in labels of a model's predictions; the answer says what became of each. Raises as ``append``."""
        work = partial(_label, model=model, rules=self._rules)
        return self._put(_Request(("label", model), work, list(labels), 0))

    def record_functions(self, functions: FunctionSetVersion) -> Future[None]:
        """Keep what a set hash stands for, see ``sets.record_set``. Raises as ``append``."""
        return self.submit(partial(record_set, functions=functions))

    def save_checkpoint(self, name: str, at: datetime, state: bytes) -> Future[None]:
        """Keep a state under a name, in place of the one before. Raises as ``append``."""
        return self.submit(partial(save_checkpoint, name=name, at=at, state=state))

    def recount(self, limit: int = 256) -> int:
        """Count dirty blocks again from their rows, and return how many were replaced.

        The rows are read and counted here, in the caller's thread, while the writer goes on; a block that
        has changed meanwhile stays dirty. Nothing is dirty any more when no rows or labels come and this
        has returned 0.

        Parameters
        ----------
        limit
            Blocks to count in this call.
        """
        with self._store.read() as connection:
            counted = read_dirty(connection, limit)
        return len(self.submit(partial(replace_blocks, recounts=counted)).result()) if counted else 0

    def roll_up(self, before: datetime, seconds: int, limit: int = 512) -> Future[int]:
        """Merge old blocks into longer ones; see ``counts.roll_up``. Raises as ``append``."""
        return self.submit(partial(roll_up, before=before, seconds=seconds, limit=limit))

    def submit(self, work: Callable[[Connection], T]) -> Future[T]:
        """Do some other work in the writer's transaction. Raises as ``append``."""
        request = _Request(
            object(), lambda connection, _: [work(connection)], [None], 0, lambda answers: answers[0]
        )
        return self._put(request)

    def stop(self, timeout_seconds: float | None = None) -> int:
        """Take nothing more, write what waits, and return how many rows were left unwritten at the deadline."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_seconds)
        return self._rows

    def _put(self, request: _Request) -> Future[Any]:
        rows, size = len(request.values), request.size_bytes + ROW_BYTES * len(request.values)
        with self._changed:
            if self._stopping:
                raise StoreStopped(
                    "the store is closing and takes nothing more; send it again when it is back"
                )
            if self._rows + rows > self._limits.queue_rows or self._bytes + size > self._limits.queue_bytes:
                raise StoreFull(
                    f"{self._rows} rows wait to be written, and {rows} more are more than may wait; "
                    "try again in a moment, with fewer at once"
                )
            self._rows, self._bytes = self._rows + rows, self._bytes + size
            self._queue.append(request)
            self._changed.notify_all()
        return request.future

    def _serve(self) -> None:
        while group := self._next_group():
            wanted = [each for each in group if each.future.set_running_or_notify_cancel()]
            self._write(wanted)
            with self._changed:
                self._rows -= sum(len(each.values) for each in group)
                self._bytes -= sum(each.size_bytes + ROW_BYTES * len(each.values) for each in group)

    def _next_group(self) -> list[_Request]:
        """Return what waits, up to a transaction's worth; nothing once the writer is to stop and all is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._stopping)
            group, rows = [], 0
            while self._queue and rows < self._limits.group_rows:
                group.append(self._queue.popleft())
                rows += len(group[-1].values)
            return group

    def _write(self, group: Sequence[_Request]) -> None:
        """Commit the requests together; where one of them fails, each in a transaction of its own."""
        try:
            with self._store.writing.begin() as connection:
                answers = [
                    answer
                    for _, neighbours in groupby(group, key=lambda each: each.kind)
                    for answer in _run_together(connection, list(neighbours))
                ]
        except Exception as error:  # whatever the database says, the thread lives
            if len(group) == 1:
                said = _store_error(error)
                self._refusal = str(said) if isinstance(said, StoreError) else self._refusal
                group[0].future.set_exception(said)
            else:
                for each in group:
                    self._write([each])
            return
        self._refusal = None
        for request, answer in zip(group, answers, strict=True):
            request.future.set_result(answer)


def _run_together(connection: Connection, requests: Sequence[_Request]) -> list[Any]:
    """Do requests of one kind in one call, and return the answer of each."""
    answers = iter(requests[0].work(connection, [value for each in requests for value in each.values]))
    return [each.answer(list(islice(answers, len(each.values)))) for each in requests]


def _store_error(error: Exception) -> Exception:
    """Return a refusal of the database as an error of the store, and any other error as it is."""
    if not isinstance(error, SQLAlchemyError):
        return error
    first: SQLAlchemyError = error
    context = error.__context__
    while context is not None:
        # Undoing what failed may fail as well, which says nothing about why: the first refusal does.
        first = context if isinstance(context, SQLAlchemyError) else first
        context = context.__context__
    cause = getattr(first, "orig", None) or first
    said = StoreError(f"the store could not write: {cause}; nothing of the request was kept")
    said.__cause__ = error
    return said


def _append(connection: Connection, values: list[Prediction], rules: LabelRules) -> list[LogResult]:
    return add_predictions(connection, values, rules)


def _label(connection: Connection, values: list[Label], model: str, rules: LabelRules) -> list[LabelResult]:
    return take_labels(connection, model, values, rules)


def save_checkpoint(connection: Connection, name: str, at: datetime, state: bytes) -> None:
    """Keep a state under a name, in place of the one before, in the caller's transaction."""
    insert = insert_into(connection, checkpoints)
    upsert = insert.on_conflict_do_update(
        index_elements=[checkpoints.c.name],
        set_={"at_us": insert.excluded.at_us, "state": insert.excluded.state},
    )
    connection.execute(upsert, {"name": name, "at_us": to_us(at), "state": state})
