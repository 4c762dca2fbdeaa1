"""CPU time of the patterns of templates: attributed to the templates, and bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from queue import Empty, SimpleQueue
from time import clock_gettime, monotonic, perf_counter, pthread_getcpuclockid, thread_time
from weakref import WeakSet, finalize

OVER_BUDGET = "over budget"
OUT_OF_TIME = "out of time"

MAX_WORK = 20_000_000
"""Instructions times bytes of a match in the calling thread, which cannot be interrupted: about 0.1 s at worst."""

_FAST_PART = 0.25
"""Part of the total time after which the rest of a batch is attributed to templates."""
_MAX_ABANDONED = 4
_WALL_FACTOR = 10
"""An evaluation may take this many times its CPU time, since the machine may be busy."""


class OutOfTime(Exception):
    """A call did not end in time, after ``seconds`` of CPU time; 0 if it was not made."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"not ended after {seconds:.3f} s of CPU time")
        self.seconds = seconds


class _Helper(threading.Thread):
    """A thread for calls that release the interpreter lock, and may have to be left behind."""

    def __init__(self) -> None:
        super().__init__(name="template-patterns", daemon=True)
        self.calls: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        self.results: SimpleQueue[object] = SimpleQueue()
        self.start()

    def run(self) -> None:
        while (call := self.calls.get()) is not None:
            self.results.put(call())
            del call  # it has the text

    @property
    def cpu_seconds(self) -> float:
        return clock_gettime(pthread_getcpuclockid(self.ident or 0))


_abandoned: WeakSet[_Helper] = WeakSet()


def calls_in_progress() -> bool:
    """Return whether a call that was left behind is still running.

    The interpreter must not be torn down then: a thread in native code that returns to it ends the process with an
    error.
    """
    return any(helper.is_alive() for helper in _abandoned)


class BoundedCaller:
    """Makes calls with a limit on their CPU time; thread-safe.

    A call that does not end in time goes on in a thread that is left behind: nothing waits for it. There are at
    most four such threads, and no call with the key of one of them is made.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Helper] = []
        self._abandoned: dict[object, _Helper] = {}
        self._end = finalize(self, _end_idle, self._idle)

    def call(
        self, key: object, function: Callable[[], object], seconds: float, deadline: float
    ) -> tuple[object, float]:
        """Return the result of a function that raises nothing, and its CPU time in seconds.

        Raises
        ------
        OutOfTime
            If it has not ended within ``seconds`` of CPU time, or by the deadline in monotonic seconds.
        """
        with self._lock:
            self._abandoned = {each: helper for each, helper in self._abandoned.items() if helper.is_alive()}
            if key in self._abandoned:
                raise OutOfTime(seconds)  # it is still running, and would take as long again
            if len(self._abandoned) >= _MAX_ABANDONED:
                raise OutOfTime(0.0)
            try:
                helper = self._idle.pop() if self._idle else _Helper()
            except RuntimeError:  # no more threads can be started
                raise OutOfTime(0.0) from None
        began = helper.cpu_seconds
        helper.calls.put(function)
        while True:
            try:
                left = min(seconds - (helper.cpu_seconds - began), deadline - monotonic())
                result = helper.results.get(timeout=max(left, 0.001))
            except Empty:
                spent = helper.cpu_seconds - began
                if spent >= seconds or monotonic() >= deadline:
                    helper.calls.put(None)
                    with self._lock:
                        self._abandoned[key] = helper
                    _abandoned.add(helper)
                    raise OutOfTime(spent) from None
                continue
            spent = helper.cpu_seconds - began
            with self._lock:
                self._idle.append(helper)
            return result, spent

    def close(self) -> None:
        """End the threads that wait for calls."""
        self._end()


def _end_idle(idle: list[_Helper]) -> None:
    while idle:
        idle.pop().calls.put(None)


class Meter:
    """CPU time of T templates in one evaluation; a template that uses up its time is stopped.

    As long as the whole is cheap, only the whole is measured. The time of each template is measured if
    ``detailed`` is set, a template is disabled, or the evaluation is about to take long.

    Parameters
    ----------
    template_seconds, total_seconds
        Maximum CPU time of one template, and of all of them.
    caller
        Makes the calls that may take long.
    disabled
        Positions of templates that are not evaluated: unknown, unless their other parts determine the result.
    detailed
        Whether to measure the time of each template.

    Attributes
    ----------
    cpu_seconds
        CPU time of all templates.
    seconds
        T CPU times in seconds, complete if ``is_detailed``; a pattern counts for every template that has it.
    stopped
        Templates that used up their own time.
    exhausted
        Whether the total time was used up before all was matched.
    text_bytes
        Bytes of the texts that were read, once per field and letter case.
    """

    def __init__(
        self,
        template_seconds: float,
        total_seconds: float,
        caller: BoundedCaller,
        *,
        disabled: Collection[int] = (),
        detailed: bool = False,
    ) -> None:
        self._template_seconds, self._total_seconds, self._caller = template_seconds, total_seconds, caller
        self._disabled = frozenset(disabled)
        self.is_detailed = detailed or bool(disabled)
        self.cpu_seconds = 0.0
        self.seconds: list[float] = []
        self.stopped: set[int] = set()
        self.exhausted = self._out = False
        self.text_bytes = 0
        self._users: Sequence[Sequence[int]] = ()
        self._elsewhere = 0.0  # CPU seconds in other threads
        self._began = self._fast_until = self._deadline = 0.0

    def begin(self, users: Sequence[Sequence[int]], templates: int) -> None:
        """Start; ``users`` has the templates of each of the L leaves."""
        self._users, self.seconds = users, [0.0] * templates
        self._fast_until = perf_counter() + _FAST_PART * self._total_seconds
        self._deadline = monotonic() + _WALL_FACTOR * self._total_seconds
        self._began = thread_time()

    def end(self) -> None:
        """Stop, and compute ``cpu_seconds``."""
        self.cpu_seconds = self._spent()
        self.exhausted = self._out and self.cpu_seconds >= self._total_seconds

    def is_fast(self, work: int) -> bool:
        """Return whether to make matches of this much work without attributing them; else details are measured."""
        if not self.is_detailed and (work > MAX_WORK or perf_counter() > self._fast_until):
            self.is_detailed = True
        return not self.is_detailed

    def wants(self, leaf: int) -> bool:
        """Return whether a template needs a leaf, and has time left."""
        return any(each not in self._disabled and each not in self.stopped for each in self._users[leaf])

    def reason(self, template: int) -> str:
        """Return the reason why rows of a template were not evaluated."""
        return OVER_BUDGET if template in self.stopped else OUT_OF_TIME

    def call(self, key: object, leaves: Sequence[int], work: int, function: Callable[[], object]) -> object:
        """Return the result of a match for some leaves, and attribute its time; None if they have no time left."""
        wanted = [leaf for leaf in leaves if self.wants(leaf)]
        left = self._total_seconds - self._spent()
        if wanted and (left <= 0 or monotonic() > self._deadline):
            self._out = True
        if not wanted or self._out:
            return None
        result: object = None
        if work <= MAX_WORK:
            began = thread_time()
            result = function()
            spent = thread_time() - began
        else:
            own = max(self._template_seconds - self.seconds[each] for leaf in wanted for each in self._users[leaf])
            seconds = min(left, own)
            try:
                result, spent = self._caller.call(key, function, seconds, self._deadline)
            except OutOfTime as error:
                spent = error.seconds
            self._elsewhere += spent
        for leaf in wanted:
            for each in self._users[leaf]:
                self.seconds[each] += spent / len(wanted)
                if self.seconds[each] >= self._template_seconds:
                    self.stopped.add(each)
        return result

    def _spent(self) -> float:
        return thread_time() - self._began + self._elsewhere
