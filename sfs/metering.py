"""CPU time of the patterns of templates: attributed to the templates, and bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from queue import Empty, SimpleQueue
from time import clock_gettime, monotonic, pthread_getcpuclockid, thread_time
from weakref import WeakSet, finalize

OVER_BUDGET = "over budget"
OUT_OF_TIME = "out of time"

MAX_WORK = 20_000_000
"""Instructions times bytes of a match in the calling thread, which cannot be interrupted: about 0.1 s at worst."""

BYTE_SECONDS = 50e-9
"""CPU time that a template may take for a byte of text, in addition to its other limits."""
_SUSPECT_PART = 0.1
"""Part of the time of a template beyond which patterns that were matched together are matched one by one."""
_MAX_ABANDONED = 4
_WALL_FACTOR, _WALL_SECONDS = 20, 5.0
"""A call in another thread may take this many times its CPU time, and at least so long: the machine may be busy."""


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
        self, key: object, function: Callable[[], object], seconds: float, wall_seconds: float
    ) -> tuple[object, float]:
        """Return the result of a function that raises nothing, and its CPU time in seconds.

        Raises
        ------
        OutOfTime
            If it has not ended within ``seconds`` of CPU time, or within twice ``wall_seconds``: after a stall, such as
            a suspended machine, it is waited for once more.
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
        deadline, waits = monotonic() + wall_seconds, 2
        while True:
            try:
                left = min(seconds - (helper.cpu_seconds - began), deadline - monotonic())
                result = helper.results.get(timeout=max(left, 0.001))
            except Empty:
                spent = helper.cpu_seconds - began
                if monotonic() >= deadline:
                    deadline, waits = monotonic() + wall_seconds, waits - 1
                if spent >= seconds or not waits:
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

    Only the excess over the usual time of a search, which is in proportion to the bytes, counts: no limit depends on
    the number of rows, their length, or the number of templates. Patterns are matched and measured together; those
    that exceeded their time are matched one by one.

    Parameters
    ----------
    template_seconds, total_seconds
        Maximum excess of CPU time of one template, and of all of them; both have 50 ns more for every byte of text.
    caller
        Makes the calls that may take long.
    disabled
        Positions of templates that are not evaluated: unknown, unless their other parts determine the result.
    detailed
        Whether to measure the patterns in parts from the beginning.
    suspects
        Keys of parts whose patterns are measured one by one from the beginning.

    Attributes
    ----------
    excess_seconds
        Excess of all templates.
    seconds
        T excesses in seconds, as far as they were measured one by one; a pattern counts for every template that has
        it.
    part_seconds
        Excess of each part, by key.
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
        suspects: Collection[object] = (),
    ) -> None:
        self._template_seconds, self._total_seconds, self._caller = template_seconds, total_seconds, caller
        self._disabled, self._suspects = frozenset(disabled), set(suspects)
        self.is_detailed = detailed or bool(disabled or suspects)
        self.excess_seconds = 0.0
        self.seconds: list[float] = []
        self.part_seconds: dict[object, float] = {}
        self.stopped: set[int] = set()
        self.exhausted = False
        self.text_bytes = 0
        self._users: Sequence[Sequence[int]] = ()
        self._read_at = 0.0  # CPU time of the thread at the last reading for `note`
        self._unwanted: frozenset[int] = frozenset()

    def begin(self, users: Sequence[Sequence[int]], templates: int) -> None:
        """Start; ``users`` has the templates of each of the L leaves."""
        self._users, self.seconds, self._read_at = users, [0.0] * templates, thread_time()
        if self._disabled:
            self._find_unwanted()

    def wants(self, leaf: int) -> bool:
        """Return whether a template needs a leaf, and has time left."""
        return leaf not in self._unwanted

    def is_suspect(self, key: object, leaves: Sequence[int]) -> bool:
        """Return whether to match the leaves of a part one by one."""
        return key in self._suspects or (bool(self._unwanted) and not self._unwanted.isdisjoint(leaves))

    def reason(self, template: int) -> str:
        """Return the reason why rows of a template were not evaluated."""
        return OVER_BUDGET if template in self.stopped else OUT_OF_TIME

    def note(self, leaves: Sequence[int], seconds: float, usual_seconds: float) -> None:
        """Count a match of some leaves that took longer than usual, by the wall clock, which is cheap to read.

        The thread may have waited for a CPU: no more counts than its CPU time since the last reading.
        """
        now = thread_time()
        spent, self._read_at = min(seconds, now - self._read_at), now
        if spent > usual_seconds:
            self._charge(None, leaves, spent - usual_seconds)

    def call(
        self, key: object, leaves: Sequence[int], work: int, usual_seconds: float, function: Callable[[], object]
    ) -> object:
        """Return the result of a match of some leaves; None if they have no time left.

        ``work`` is the number of instructions times bytes at worst. Only time beyond the usual seconds counts.
        """
        if self._unwanted and self._unwanted.issuperset(leaves):
            return None
        extra = BYTE_SECONDS * self.text_bytes
        left = self._total_seconds + extra - self.excess_seconds
        if left <= 0:
            self.exhausted = True
            return None
        result: object = None
        if work <= MAX_WORK:
            began = thread_time()
            result = function()
            spent = thread_time() - began
        else:
            used = min(self.seconds[each] for leaf in leaves for each in self._users[leaf])
            try:
                seconds = usual_seconds + min(left, self._template_seconds + extra - used)
                result, spent = self._caller.call(key, function, seconds, max(_WALL_FACTOR * seconds, _WALL_SECONDS))
            except OutOfTime as error:
                spent = error.seconds
        if spent > usual_seconds:
            self._charge(key, leaves, spent - usual_seconds)
        return result

    def _charge(self, key: object, leaves: Sequence[int], excess: float) -> None:
        self.excess_seconds += excess
        templates = {each for leaf in leaves for each in self._users[leaf]}
        if len(leaves) == 1 or len(templates) == 1:
            for each in templates:
                self.seconds[each] += excess
            limit = self._template_seconds + BYTE_SECONDS * self.text_bytes
            stopped = {each for each in templates if self.seconds[each] >= limit}
            if not stopped <= self.stopped:
                self.stopped |= stopped
                self.is_detailed = True
                self._find_unwanted()
            return
        self.part_seconds[key] = self.part_seconds.get(key, 0.0) + excess
        if self.part_seconds[key] > _SUSPECT_PART * self._template_seconds:
            self._suspects.add(key)
            self.is_detailed = True

    def _find_unwanted(self) -> None:
        out = self._disabled | self.stopped
        self._unwanted = frozenset(leaf for leaf, users in enumerate(self._users) if out.issuperset(users))
