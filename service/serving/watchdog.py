"""Plain functions run in a thread of their own, which can be left behind when one of them does not return.

A thread that is left behind is told to stop by an exception raised inside it. That ends loops written in
Python; it cannot end a call into C, such as a search of ``re``, which may also keep every other thread waiting.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from contextlib import suppress
from queue import SimpleQueue
from time import monotonic
from typing import Any

from service.serving.breaker import Seconds
from sfs.function import SlicingFunction
from sfs.rowwise import RowFunctions


class _LeftBehind(
    BaseException
):  # no Exception: a function's own handlers and our notes of faults let it pass
    """Raised in a thread that nobody waits for any more."""


class Job:
    """Some functions to be asked about some rows, one function after another.

    Parameters
    ----------
    functions
        K plain functions.
    records
        N rows as functions see them.

    Attributes
    ----------
    answered
        What the functions answered that have returned: the first of the K, in order.
    done
        Set when the thread has nothing left to do with the job.
    """

    def __init__(self, functions: Sequence[SlicingFunction], records: list[Any]) -> None:
        self.functions = functions
        self.records = records
        self.answered: list[RowFunctions] = []
        self.done = threading.Event()
        self.running: tuple[int, Seconds] = (0, monotonic())  # position of the function, and since when
        self._ending = threading.Lock()
        self._thread: int | None = None
        self._left_behind = False

    def run(self) -> None:
        """Ask the functions; for the thread of a worker."""
        with suppress(_LeftBehind):
            self._thread = threading.get_ident()
            self._ask()
        while self._thread is not None:  # until nothing more can be raised here
            with suppress(_LeftBehind):
                with self._ending:
                    self._thread = None
                _deliver()
        self.done.set()

    def _ask(self) -> None:
        for k, function in enumerate(self.functions):
            if self._left_behind:  # a function caught what it was told
                return
            self.running = (k, monotonic())
            asked = RowFunctions((function,), len(self.records))
            asked.ask(0, self.records)
            self.answered.append(asked)

    def wait(self, allowances: Sequence[Seconds], hold_seconds: Seconds) -> bool:
        """Return True when all functions have returned, False when one is over its time or all are over theirs."""
        end, least = monotonic() + hold_seconds, min(allowances)
        while True:
            k, since = self.running
            until = min(end, since + allowances[k])
            pause = min(until - monotonic(), least)  # or the next one's time might be up unnoticed
            if self.done.wait(max(0.0, pause)):
                return len(self.answered) == len(self.functions)
            now = monotonic()
            if now >= end or (now >= until and self.running[0] == k):
                return False

    def leave_behind(self) -> None:
        """Tell the thread to stop; may be repeated, as a function can catch what it is told."""
        with self._ending:
            self._left_behind = True
            if self._thread is not None:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(self._thread), ctypes.py_object(_LeftBehind)
                )


def _deliver() -> None:
    """Give the interpreter a call at which it raises what was raised for this thread."""


class Worker:
    """A daemon thread that runs jobs one after another, until it is told to end."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._loop, name="slicing-functions", daemon=True)
        self.thread.start()

    def submit(self, job: Job) -> None:
        """Run a job when the earlier ones have returned."""
        self._jobs.put(job)

    def end(self) -> None:
        """Let the thread end after what it was given."""
        self._jobs.put(None)

    def _loop(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
