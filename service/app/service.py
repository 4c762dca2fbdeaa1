"""The running service: what starts first, and what stops last."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic
from typing import TYPE_CHECKING

from service.api.parts import STOPPING
from service.serving.batcher import Batcher, Failed
from service.serving.errors import NoModel
from service.serving.prediction_factory import ExternalPrediction, PredictionRequest, PredictionResult

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from service.app.loop import Loop
    from service.app.switchboard import Switchboard
    from service.jobs.scheduler import Schedule
    from service.jobs.snapshot import SnapshotJob
    from service.serving.predictor import Predictor
    from service.store.engine import Store
    from service.store.writer import Writer

_log = logging.getLogger(__name__)


class Lines:
    """The two queues: records for the model, and records that another server has predicted.

    Parameters
    ----------
    switchboard
        Who answers.
    queue_rows
        Rows that may wait in each.
    """

    def __init__(self, switchboard: Switchboard, queue_rows: int) -> None:
        self._switchboard = switchboard
        self._live: Batcher[PredictionRequest, PredictionResult] = Batcher(
            self._predict, max_queue_rows=queue_rows
        )
        self._logged: Batcher[ExternalPrediction, PredictionResult] = Batcher(
            self._observe, max_queue_rows=queue_rows
        )

    async def predict(
        self, requests: Sequence[PredictionRequest], within_seconds: float
    ) -> list[PredictionResult | Failed]:
        """Return the answers to N requests. Raises NoModel, and as ``Batcher.submit``."""
        self._predictor()  # before anything is queued
        return await self._live.submit(requests, within_seconds)

    async def observe(self, logged: Sequence[ExternalPrediction]) -> list[PredictionResult]:
        """Return the slices of N records that were predicted elsewhere. Raises what the first at fault raised."""
        answers = []
        for outcome in await self._logged.submit(logged):
            if isinstance(outcome, Failed):
                raise outcome.error
            answers.append(outcome)
        if answers and self._switchboard.current.in_force.version is None:
            first = answers[0].prediction  # from now on the tick looks for the version that is logged most
            await asyncio.to_thread(self._switchboard.put_observed, first.version, first.at)
        return answers

    def has_room(self, rows: int) -> bool:
        """Tell whether both queues would take so many rows."""
        return self._live.has_room(rows) and self._logged.has_room(rows)

    async def stop(self) -> None:
        """Answer what waits, and take nothing more."""
        await asyncio.gather(self._live.stop(), self._logged.stop())

    def _predictor(self) -> Predictor:
        predictor = self._switchboard.predictor
        if predictor is None:
            raise NoModel("no version is in force yet: train one with `slicewatch train`, or promote one")
        return predictor

    def _predict(self, requests: Sequence[PredictionRequest]) -> Sequence[PredictionResult]:
        return self._predictor().predict(requests)

    def _observe(self, logged: Sequence[ExternalPrediction]) -> Sequence[PredictionResult]:
        return self._switchboard.observer.observe(logged)


class Service:
    """Everything that runs, and the order in which it starts and stops.

    Parameters
    ----------
    schedule, monitor, loop
        The jobs.
    lines, switchboard
        The request path.
    writer, store
        The log.

    Attributes
    ----------
    asgi
        What the server calls; given once the routes are made.
    """

    asgi: ASGIApp

    def __init__(
        self,
        schedule: Schedule,
        monitor: SnapshotJob,
        loop: Loop,
        lines: Lines,
        switchboard: Switchboard,
        writer: Writer,
        store: Store,
    ) -> None:
        self._schedule, self._monitor, self._loop = schedule, monitor, loop
        self._lines, self.switchboard = lines, switchboard
        self._writer, self._store = writer, store
        self._stopping = False

    def problems(self) -> dict[str, str]:
        """Return why requests should not come here now, by name; nothing when they may."""
        found = {}
        if self._stopping:
            found[STOPPING] = "the service stops"
        in_force = self.switchboard.current.in_force
        if self.switchboard.predictor is None and not in_force.classes:
            found["model"] = "no version is in force: train one with `slicewatch train`, or promote one"
        if not self._lines.has_room(1):
            found["queue"] = "as many records wait for the model as may wait"
        if not self._writer.has_room(1):
            found["log"] = "as many rows wait for the log as may wait"
        if refusal := self._writer.refusal:
            found["store"] = refusal
        return found

    def start(self) -> None:
        """Show what was last known, and begin to watch."""
        self._monitor.restore()
        self._schedule.start()

    async def stop(self, within_seconds: float) -> int:
        """Finish what is in hand, close everything, and return how many rows were left unwritten.

        Safe to call however far the start came.
        """
        self._stopping = True
        end = monotonic() + within_seconds
        self._loop.report.stop()  # a job that makes one waits for it
        await asyncio.to_thread(self._schedule.stop)
        await asyncio.to_thread(self._loop.retrain.stop, self._loop.clock())
        try:
            async with asyncio.timeout(within_seconds):
                await self._lines.stop()
        except TimeoutError:
            _log.error("some requests were not answered within %g s", within_seconds)
        left = await asyncio.to_thread(self._writer.stop, max(1.0, end - monotonic()))
        if left:
            _log.error("rows were not written before the end", extra={"rows": left})
        await asyncio.to_thread(self.switchboard.live.close)
        await asyncio.to_thread(self._store.close)
        return left
