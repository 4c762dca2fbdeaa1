"""Templates on the request path: bounded CPU time per batch, and a breaker for each."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from service.events import BREAKER_OPEN
from service.serving.breaker import SLOW, Breaker, BreakerLimits
from service.serving.isolation import start_thread
from sfs.apply import ApplyResult, FunctionStats, apply_with_stats
from sfs.matrix import SliceMatrix
from sfs.metering import BYTE_SECONDS, BoundedCaller, Meter
from sfs.record import Columns, Rows
from sfs.registry import FunctionSet

_SUSPECT_PART = 0.1
"""Part of a budget beyond which patterns that were matched together are matched one by one in the next batch."""
_MAX_BREAKERS = 2_000  # also of templates that were removed
_PATIENCE = 5
"""Factor of the limits for rows that are not traffic."""

_log = logging.getLogger(__name__)


class MeteredTemplates:
    """Applies templates within the limits of Python functions, in CPU time of the calling thread.

    A template that uses up its time in a batch, or exceeds its budget in consecutive batches, is unknown until a
    later try, off the request path, is in time. Breakers belong to fingerprints, so that sets can share them.

    Parameters
    ----------
    limits
        Limits per template and batch, and of all templates in a batch.
    clock
        Monotonic seconds, for breakers.
    """

    def __init__(self, limits: BreakerLimits, clock: Callable[[], float]) -> None:
        self._limits, self._clock = limits, clock
        self._breakers: Mapping[str, Breaker] = {}  # replaced as a whole
        self._probing: set[str] = set()
        self._lock = threading.Lock()
        self._caller = BoundedCaller()
        self._is_costly = False  # whether the last batch was over the budget of a template
        self._suspects: frozenset[object] = frozenset()  # parts of the patterns that were

    def close(self) -> None:
        """End the threads of searches."""
        self._caller.close()

    def disabled_reasons(self, templates: FunctionSet) -> dict[str, str | None]:
        """Return the reason why a template is disabled, by name, for disabled templates."""
        if not self._breakers:
            return {}
        reasons = {each.name: self._breakers.get(each.fingerprint, Breaker()).reason for each in templates}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    def apply(self, templates: FunctionSet, rows: Rows, *, update_breakers: bool = True) -> ApplyResult:
        """Return the memberships of N rows; ``update_breakers=False`` is for rows that are not traffic."""
        limits, breakers = self._limits, self._breakers
        disabled = {}
        if breakers:
            functions = enumerate(templates)
            disabled = {t: each for t, each in functions if breakers.get(each.fingerprint, Breaker()).is_open}
        patience = 1 if update_breakers else _PATIENCE
        allowance, hold = limits.allowance(None, len(rows)), limits.hold_ms / 1000
        meter = Meter(
            patience * allowance,
            patience * hold,
            self._caller,
            disabled=disabled,
            detailed=self._is_costly,
            suspects=self._suspects,
        )
        applied = apply_with_stats(templates, rows, meter=meter)
        if update_breakers:
            self._update_breakers(templates, meter, len(rows))
            for t in disabled:
                self._probe_if_due(templates, t, rows)
        return _without(applied, disabled, len(rows)) if disabled else applied

    def _update_breakers(self, templates: FunctionSet, meter: Meter, rows: int) -> None:
        budget = rows * self._limits.budget_ms / 1000 + meter.text_bytes * BYTE_SECONDS
        was_costly, self._is_costly = self._is_costly, meter.excess_seconds > budget
        if not (self._is_costly or was_costly or self._breakers or meter.stopped or meter.exhausted):
            return
        parts = meter.part_seconds.items() if self._is_costly else ()
        self._suspects = frozenset(key for key, seconds in parts if seconds > _SUSPECT_PART * budget) | (
            self._suspects if self._is_costly else frozenset()
        )
        with self._lock:
            breakers, now = dict(self._breakers), self._clock()
            stopped = meter.stopped
            if meter.exhausted and max(meter.seconds) > (0.0 if was_costly else budget):
                stopped = stopped | {int(np.argmax(meter.seconds))}
            for t, template in enumerate(templates):
                before = breakers.get(template.fingerprint, Breaker())
                if before.is_open:
                    continue
                if t in stopped:
                    after = before.trip(SLOW, self._limits, now)
                else:
                    after = before.add_batch(meter.seconds[t] > budget, self._limits, now)
                if after is not before:
                    breakers[template.fingerprint] = after
                if after.is_open:
                    _log.warning(
                        "breaker of template %r opened, %s: %.0f ms for %d rows",
                        template.name,
                        after.reason,
                        1000 * meter.seconds[t],
                        rows,
                    )
            kept = [(key, breaker) for key, breaker in breakers.items() if breaker != Breaker()]
            self._breakers = dict(kept[-_MAX_BREAKERS:])

    def _probe_if_due(self, templates: FunctionSet, t: int, rows: Rows) -> None:
        """Try a disabled template again, in a thread of its own, if its back-off is over."""
        fingerprint = [*templates][t].fingerprint
        with self._lock:
            if fingerprint in self._probing or not self._breakers.get(fingerprint, Breaker()).is_due(self._clock()):
                return
            self._probing.add(fingerprint)
        if start_thread(partial(self._probe, templates, t, rows[: self._limits.probe_rows])) is None:
            self._probing.discard(fingerprint)

    def _probe(self, templates: FunctionSet, t: int, rows: Rows) -> None:
        fingerprint, limits = [*templates][t].fingerprint, self._limits
        others = [each for each in range(len(templates)) if each != t]
        allowance = limits.allowance(None, len(rows))
        meter = Meter(allowance, allowance, self._caller, disabled=others, detailed=True)
        is_in_time = False
        try:
            templates.plan.evaluate(Columns(rows), meter)
            budget = len(rows) * limits.budget_ms / 1000 + meter.text_bytes * BYTE_SECONDS
            is_in_time = not (meter.stopped or meter.exhausted) and meter.seconds[t] <= budget
        finally:
            with self._lock:
                before, now = self._breakers.get(fingerprint, Breaker()), self._clock()
                after = before.close(now) if is_in_time else before.trip(SLOW, limits, now)
                self._breakers = {**self._breakers, fingerprint: after}
                self._probing.discard(fingerprint)


def _without(applied: ApplyResult, disabled: Mapping[int, object], rows: int) -> ApplyResult:
    """Return a result in which the disabled templates are unknown on all N rows."""
    at, matrix, stats = [*disabled], applied.matrix, [*applied.stats]
    member, unknown = matrix.member.copy(), matrix.unknown.copy()
    member[:, at], unknown[:, at] = False, True
    for t in at:
        stats[t] = FunctionStats(stats[t].name, stats[t].seconds, {BREAKER_OPEN: rows} if rows else {}, None)
    return ApplyResult(SliceMatrix(matrix.names, member, unknown), tuple(stats))
