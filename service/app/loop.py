"""The loop, made from the settings: drift, retraining, promotions, reports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.api import errors as api_errors
from service.app.begin import begin, finished, forget, sweep
from service.jobs.column_report import job as reporting
from service.jobs.column_report.job import ColumnReports, NoReference, ReportParts, ReportRules, ReportRunning
from service.jobs.drift_detection import DriftDetection, DriftRules
from service.jobs.promotion import PromotionService
from service.jobs.retraining import GateRules, Retraining, RetrainParts, of_run
from service.monitor.drift_detector import log_threshold
from service.monitor.retrain_policy import RetrainRules
from service.store.runs import run_that_made

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

REPORTS = "reports"
"""The folder beside the store where reports keep what their pages are made of."""


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

    drift: DriftDetection
    retrain: Retraining
    report: ColumnReports
    promotions: PromotionService
    clock: Callable[[], datetime]

    async def ask_retrain(self, reason: str, actor: str) -> Run:
        """Open a run. Raises RunActive where one goes on."""
        return await asyncio.to_thread(self.retrain.request, reason, actor, self.clock())

    async def ask_promote(self, version: int, expected: int | None, reason: str, actor: str) -> AliasChange:
        """Make a version the champion. Raises as ``PromotionService.promote``."""
        return await asyncio.to_thread(self.promotions.promote, version, expected, reason, actor)

    async def ask_rollback(self, reason: str, actor: str) -> AliasChange:
        """Make the champion before this one champion again. Raises as ``PromotionService.rollback``."""
        return await asyncio.to_thread(self.promotions.rollback, reason, actor)

    async def ask_report(self) -> None:
        """Begin to make a report.

        Raises
        ------
        ReportRunning
            If one is being made.
        NotHere
            If no version of the registry answers here.
        """
        try:
            self.report.ask(self.clock())
        except ReportRunning as busy:
            raise api_errors.ReportRunning(str(busy)) from None
        except NoReference as missing:
            raise api_errors.NotAvailable(str(missing)) from None

    async def ask_page(self, report_id: int) -> Path:
        """Return the page of a report. Raises UnknownReport, NoPage, or ReportRunning while one is being made.

        A page goes on being made where nobody waits for it any more.
        """
        try:
            return await asyncio.to_thread(self.report.page, report_id)
        except reporting.ReportPageMissing as gone:
            raise api_errors.NoPage(str(gone)) from None
        except ReportRunning as busy:
            raise api_errors.ReportRunning(str(busy)) from None


def baseline_of(store: Store, model: str, version: int) -> dict[tuple[str, str], Rate]:
    """Return what is expected of a version that a run has made; nothing of others."""
    with store.read() as connection:
        return of_run(run_that_made(connection, model, version))


def loop(settings: Settings, clock: Callable[[], datetime], parts: LoopParts) -> Loop:
    """Return the loop of a project; files that a service left behind when it was killed are removed."""
    sweep(settings, parts.store)
    reporting.prune(settings.store.parent / REPORTS)
    drift = DriftDetection(
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
        zone=drift.accuracy_band,
        ended=partial(_ended, settings, parts),
    )
    rules = RetrainRules.of(
        new_labels=retrain.new_labels,
        cool_down_hours=retrain.cool_down_hours,
        runs_a_month=retrain.runs_a_month,
        wait_days=retrain.wait_days,
        max_age_days=retrain.max_age_days,
    )
    gate = GateRules(retrain.margin, retrain.minimum_rows, retrain.attempts)
    return Loop(
        drift=drift,
        retrain=Retraining(trainer, rules, gate, retrain.automatic),
        report=_report(settings, parts),
        promotions=PromotionService(parts.registry, parts.writer, settings.name, clock),
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


def _report(settings: Settings, parts: LoopParts) -> ColumnReports:
    report = settings.report
    given = ReportParts(
        store=parts.store,
        writer=parts.writer,
        current=parts.current,
        registry=parts.registry,
        folder=settings.store.parent / REPORTS,
        sources=settings.functions,
        declarations=parts.declarations,
    )
    every = timedelta(hours=report.every_hours)
    return ColumnReports(given, ReportRules(every, report.rows, report.timeout_minutes * 60))
