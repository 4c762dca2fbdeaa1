"""One served model: its deployment, request path, labels, functions and jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING

from models.registry import ModelRegistry
from service.jobs.column_report.job import ColumnReports
from service.jobs.drift_detection import DriftDetection
from service.jobs.incidents import IncidentJob
from service.jobs.model_reload import ModelReload
from service.jobs.promotion import PromotionService
from service.jobs.reference.job import ReferenceCounts
from service.jobs.retention import Retention
from service.jobs.retraining import Retraining
from service.jobs.snapshot import SnapshotJob
from service.jobs.training.process import TrainingLauncher
from service.runtime.alarms import AlarmService
from service.runtime.functions import (
    CHECKPOINT,
    FunctionAdmin,
    merge_functions,
    origins_of,
    read_added,
    within_limits,
)
from service.serving.breaker import BreakerLimits
from service.serving.deployment import Deployment
from service.serving.external_versions import ExternalVersions
from service.serving.labels import LabelIntake
from service.serving.live_functions import LiveFunctions
from service.serving.prediction_factory import PredictionFactory
from service.serving.predictions import RequestQueues
from service.serving.predictor import Predictor
from service.store.queries import checkpoint
from sfs.registry import FunctionSet
from sfs.template_limits import TemplateLimits

if TYPE_CHECKING:
    from service.metrics.gauges import MetricsPage
    from service.metrics.process import ProcessMetrics
    from service.settings.schema import Settings
    from service.store.engine import Store
    from service.store.writer import Writer

_PREVIEW_PART = 0.8
"""Part of the time of a request that a preview may take."""

_log = logging.getLogger(__name__)


class ModelRuntime:
    """Everything that serves and monitors one model.

    Parameters
    ----------
    settings
        Settings of the project.
    store, writer
        The log.
    metrics, page
        Counters of this process, and the metrics page.
    clock
        Current time, UTC.

    Attributes
    ----------
    name, registry
        Name of the model, and its versions.
    deployment
        The active version and functions.
    predictions, external_versions, labels, functions, alarms
        Requests, versions served elsewhere, labels, function administration, and handling of alarms.
    snapshots, detection, incidents, retraining, retention, reports, references, reload
        The jobs.
    promotions
        Promotion and rollback.

    Raises
    ------
    SliceError, ServiceError
        If the functions cannot be loaded.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        writer: Writer,
        metrics: ProcessMetrics,
        page: MetricsPage,
        clock: Callable[[], datetime],
    ) -> None:
        self.name, self.settings = settings.name, settings
        self.registry = registry = ModelRegistry(settings.registry, name=settings.name)
        registry.close_to_others()
        file_functions = FunctionSet.from_files(settings.functions, votes=True)
        with store.read() as connection:
            stored = checkpoint(connection, CHECKPOINT)
        caps = TemplateLimits(**settings.template_limits.given)
        added = within_limits(file_functions, read_added(None if stored is None else stored.state), caps)
        with ExitStack() as undo:
            live = LiveFunctions(
                merge_functions(file_functions, added),
                BreakerLimits(**settings.function_limits.given),
                sources=settings.functions,
            )
            undo.callback(live.close)
            live.start()
            self._live = live  # owns the processes of every later set
            self.deployment = deployment = Deployment(
                settings,
                live,
                origins_of(live.functions, file_functions),
                store=store,
                writer=writer,
                metrics=metrics,
                clock=clock,
            )
            factory = PredictionFactory(clock, settings.log.features)
            compares = "disagreement" in settings.drift.streams
            predictor = Predictor(deployment, factory, metrics, compares=compares)
            self.predictions = RequestQueues(deployment, predictor, writer, metrics, settings.serve.queue_rows)
            self.external_versions = ExternalVersions(deployment, writer, clock)
            self.labels = LabelIntake(deployment, writer, metrics)
            preview_seconds = _PREVIEW_PART * settings.serve.request_seconds
            self.functions = FunctionAdmin(file_functions, added, deployment, writer, clock, caps, preview_seconds)
            undo.callback(self.functions.close)
            self.alarms = AlarmService(self.name, writer, clock)
            self.snapshots = SnapshotJob(deployment, store, writer, page)
            self.detection = DriftDetection(deployment, store, writer, page, settings.drift)
            self.incidents = IncidentJob(deployment, store, writer, page)
            launcher = TrainingLauncher(settings, deployment, store, registry)
            launcher.delete_orphaned_runs()
            self.retraining = Retraining(
                settings.retrain, deployment, store, writer, registry, self.detection, launcher, metrics
            )
            self.retention = Retention(settings, self.detection, writer, metrics)
            self.promotions = PromotionService(registry, writer, self.name, clock)
            self.reports = ColumnReports(settings, deployment, store, writer, registry)
            self.references = ReferenceCounts(settings, deployment)
            self.reload = ModelReload(registry, deployment, metrics)
            self._activate_champion(clock())
            undo.pop_all()

    def begin_stop(self) -> None:
        """End reports, their pages and previews in progress: a client that waits for one gets an error."""
        self.reports.stop()  # the report job waits for its report
        self.references.stop()
        self.functions.stop()

    def close(self) -> None:
        """End the processes of the functions."""
        self.functions.close()
        self._live.close()

    def _activate_champion(self, now: datetime) -> None:
        """Load the champion; without it labels, pages and logged predictions work, and the job tries again."""
        if not self.reload.run() and not self.deployment.state.fault:
            if self.settings.classes:
                _log.info("no version is active here: predictions of a model served elsewhere are monitored")
            else:
                _log.warning(
                    "no version is active: run `slicewatch train`, or set `classes` to monitor a model served elsewhere"
                )
        self.deployment.follow_external_version(now, self.detection.stored_version())
