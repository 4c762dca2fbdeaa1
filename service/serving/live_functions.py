"""The live functions on the request path: templates at once, plain functions isolated and behind breakers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from pathlib import Path
from time import monotonic

import numpy as np

from service.serving.breaker import Breaker, BreakerLimits, Seconds
from service.serving.isolation import Isolation
from service.serving.python_functions import FunctionColumn, PythonFunctions
from sfs.apply import ApplyResult, apply_with_stats
from sfs.matrix import SliceMatrix
from sfs.record import Rows
from sfs.registry import FunctionSet
from sfs.template import Template


class LiveFunctions:
    """A set of functions as it is applied to traffic: whatever a plain function does, the others have their say.

    Parameters
    ----------
    functions
        K functions.
    limits
        What plain ones may do.
    sources
        The files and modules that the plain ones come from, as `FunctionSet.from_files` takes them: they are
        loaded again in a process of their own. One that is not there, or computes something else, is unknown.
    clock
        Monotonic seconds, for breakers.
    """

    def __init__(
        self,
        functions: FunctionSet,
        limits: BreakerLimits | None = None,
        *,
        sources: Iterable[str | Path] = (),
        clock: Callable[[], Seconds] = monotonic,
    ) -> None:
        limits = limits or BreakerLimits()
        isolation = Isolation([str(each) for each in sources], limits, clock)
        self._isolated = PythonFunctions(isolation, limits, clock)
        self._choose(functions)

    def _choose(self, functions: FunctionSet) -> None:
        self.functions = functions
        self.templates = FunctionSet(each for each in functions if isinstance(each, Template))
        self.plain = tuple(each for each in functions if not isinstance(each, Template))

    @property
    def breakers(self) -> dict[str, Breaker]:
        """The state of every plain function's breaker, by name; a copy."""
        return {each.name: self._isolated.breaker(each) for each in self.plain}

    def health(self) -> Mapping[str, tuple[bool, str | None]]:
        """Return for each plain function, by name, whether it is kept from the request path, and why."""
        reasons = {each.name: self._isolated.why_out(each) for each in self.plain}
        return {name: (reason is not None, reason) for name, reason in reasons.items()}

    def start(self) -> None:
        """Load the plain functions in their process, and return when they are; without any, none is started.

        Where this was not called, the first batches start it, and plain functions are unknown meanwhile.

        Raises
        ------
        ServiceError
            If they cannot be loaded.
        """
        if self.plain:
            self._isolated.start()

    def with_functions(self, functions: FunctionSet) -> LiveFunctions:
        """Return another set whose plain functions come from the same sources.

        Processes and limits are those of this one, and functions that are in both keep their breakers.
        """
        other = copy(self)
        other._choose(functions)
        return other

    def apply(self, rows: Rows, *, judge: bool = True) -> ApplyResult:
        """Return the memberships of N rows, and how each function fared; raises nothing that a function raises.

        A membership is unknown where its function faulted, was over its time, or is kept out by its breaker;
        the reason is in the function's run.
        """
        if not self.plain:
            return apply_with_stats(self.templates, rows)
        columns = self._isolated.columns(self.plain, rows, judge=judge)
        if len(self.templates):
            of_templates = apply_with_stats(self.templates, rows)
            matrix = of_templates.matrix
            for k, each in enumerate(of_templates.stats):
                columns[each.name] = FunctionColumn(matrix.member[:, k], matrix.unknown[:, k], each)
        return _side_by_side([columns[name] for name in self.functions.names])

    def close(self) -> None:
        """End all processes, also of sets that were made of this one."""
        self._isolated.close()


def _side_by_side(columns: Sequence[FunctionColumn]) -> ApplyResult:
    member = np.empty((len(columns[0].member), len(columns)), dtype=bool)  # [N, K]
    unknown = np.empty_like(member)
    for k, column in enumerate(columns):
        member[:, k], unknown[:, k] = column.member, column.unknown
    runs = tuple(column.run for column in columns)
    return ApplyResult(SliceMatrix([each.name for each in runs], member, unknown), runs)
