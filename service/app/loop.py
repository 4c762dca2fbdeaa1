"""The loop, made from the settings: drift, retraining, promotions, reports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.api.refusals import NoPage, ReportRunning
from service.app.begin import begin, finished, forget
from service.jobs import reporting
from service.jobs.baselines import of_run
from service.jobs.drifting import DriftJob, DriftRules
from service.jobs.promoting import Promotions
from service.jobs.report_job import ReportBusy, ReportJob, ReportParts, ReportRules
from service.jobs.retraining import RetrainJob
from service.jobs.run_parts import GateRules, RetrainParts
from service.monitor.drift import log_threshold
from service.monitor.policy import Rules
from service.store.runs import runs

if TYPE_CHECKING:
    from models.registry import AliasChange, ModelRegistry
    from service.decisions import Run
    from service.metrics.page import MetricsPage
    from service.metrics.process import ProcessMetrics
    from service.settings.project import Settings
    from service.settings.sections import DriftSettings
    from service.store.engine import Store
    from service.store.writer import Writer
    from service.views.current import Current
    from sfs.intervals import Rate

REASON = "asked for by hand"


@dataclass(frozen=True, slots=True)
class LoopParts:
    """What the loop speaks to; ``declarations`` returns the functions that were added by HTTP."""

    store: Store
    writer: Writer
    current: Current
    page: MetricsPage
    metrics: ProcessMetrics
    registry: ModelRegistry
    declarations: Callable[[], Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Loop:
    """The jobs of the loop, and what people may ask of them; whoever asks is named."""

    drift: DriftJob
    retrain: RetrainJob
    report: ReportJob
    promotions: Promotions
    clock: Callable[[], datetime]

    async def ask_retrain(self, reason: str, actor: str) -> Run:
        """Open a run. Raises RunActive where one goes on."""
        return await asyncio.to_thread(self.retrain.request, reason, actor, self.clock())

    async def ask_promote(self, version: int, expected: int | None, reason: str, actor: str) -> AliasChange:
        """Make a version the champion. Raises as ``Promotions.promote``."""
        return await asyncio.to_thread(self.promotions.promote, version, expected, reason, actor)

    async def ask_rollback(self, reason: str, actor: str) -> AliasChange:
        """Make the champion before this one champion again. Raises as ``Promotions.rollback``."""
        return await asyncio.to_thread(self.promotions.rollback, reason, actor)

    async def ask_report(self) -> None:
        """Begin to make a report. Raises ReportRunning where one is being made."""
        try:
            self.report.ask(self.clock())
        except ReportBusy as busy:
            raise ReportRunning(str(busy)) from None

    async def ask_page(self, report_id: int) -> Path:
        """Return the page of a report. Raises UnknownReport, or NoPage."""
        try:
            return await asyncio.to_thread(self.report.page, report_id)
        except reporting.NoPage as gone:
            raise NoPage(str(gone)) from None


def baseline_of(store: Store, model: str, version: int) -> dict[tuple[str, str], Rate]:
    """Return what is expected of a version that a run has made; nothing of others."""
    with store.read() as connection:
        made = (run for run in runs(connection, model, limit=1000) if run.candidate == version)
        return of_run(next(made, None))


def loop(settings: Settings, clock: Callable[[], datetime], parts: LoopParts) -> Loop:
    """Return the loop of a project."""
    drift = DriftJob(
        parts.store, parts.writer, parts.current, drift_rules(settings.drift), parts.page.show_drift
    )
    retrain = settings.retrain
    trainer = RetrainParts(
        store=parts.store,
        writer=parts.writer,
        current=parts.current,
        registry=parts.registry,
        begin=partial(begin, settings, parts),
        finished=partial(finished, settings),
        zone=drift.accuracy_zone,
        ended=partial(_ended, settings, parts),
    )
    rules = Rules.of(
        new_labels=retrain.new_labels,
        cool_down_hours=retrain.cool_down_hours,
        runs_a_month=retrain.runs_a_month,
        wait_days=retrain.wait_days,
        max_age_days=retrain.max_age_days,
    )
    gate = GateRules(retrain.margin, retrain.minimum_rows, retrain.attempts)
    return Loop(
        drift=drift,
        retrain=RetrainJob(trainer, rules, gate, retrain.automatic),
        report=_report(settings, parts),
        promotions=Promotions(parts.registry, parts.writer, settings.name, clock),
        clock=clock,
    )


def _ended(settings: Settings, parts: LoopParts, run: Run) -> None:
    """Count a run that has ended, and remove its files: the candidate is in the registry."""
    parts.metrics.retrained(run.state)
    forget(settings, run)


def drift_rules(settings: DriftSettings) -> DriftRules:
    """Return when a slice counts as moved."""
    threshold = log_threshold(settings.max_slices, settings.false_alarms_a_month)
    return DriftRules(settings.tolerance, settings.accuracy_tolerance, settings.max_slices, threshold)


def _report(settings: Settings, parts: LoopParts) -> ReportJob:
    report = settings.report
    given = ReportParts(
        store=parts.store,
        writer=parts.writer,
        current=parts.current,
        registry=parts.registry,
        folder=settings.store.parent / "reports",
        sources=settings.functions,
        declarations=parts.declarations,
    )
    every = timedelta(hours=report.every_hours)
    return ReportJob(given, ReportRules(every, report.rows, report.timeout_minutes * 60))
