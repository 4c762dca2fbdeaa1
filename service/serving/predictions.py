"""The request path of one model: queue, predict, log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from time import perf_counter

from service.errors import RowsFailed
from service.metrics.process import ProcessMetrics
from service.serving.batcher import Batcher
from service.serving.deployment import Deployment
from service.serving.prediction_factory import ExternalPrediction, PredictionRequest, PredictionResult
from service.serving.predictor import Predictor
from service.store.prediction_log import LogResult
from service.store.writer import Writer


class RequestQueues:
    """Two queues of equal capacity, for requests and external predictions, a predictor, and the log behind."""

    def __init__(
        self,
        deployment: Deployment,
        predictor: Predictor,
        writer: Writer,
        metrics: ProcessMetrics,
        queue_rows: int,
    ) -> None:
        self._deployment, self._writer, self._metrics = deployment, writer, metrics
        self._live: Batcher[PredictionRequest, PredictionResult] = Batcher(predictor.predict, max_queue_rows=queue_rows)
        self._external: Batcher[ExternalPrediction, PredictionResult] = Batcher(
            predictor.slice_external, max_queue_rows=queue_rows
        )

    def has_room(self, rows: int) -> bool:
        """Return whether both queues have room for that many rows."""
        return self._live.has_room(rows) and self._external.has_room(rows)

    async def predict(self, requests: Sequence[PredictionRequest], within_seconds: float) -> list[PredictionResult]:
        """Return the results of N requests. Raises NoModel, and as `Batcher.submit`."""
        self._deployment.require_active()  # before anything is queued
        return await self._live.submit(requests, within_seconds)

    async def slice_external(self, rows: Sequence[ExternalPrediction]) -> list[PredictionResult]:
        """Return N external predictions with their slices. Raises the error of the first row that failed."""
        try:
            results = await self._external.submit(rows)
        except RowsFailed as failed:
            raise failed.errors[min(failed.errors)] from None
        if results and self._deployment.state.version is None:
            first = results[0].prediction  # from now on the snapshot job looks for the most-logged version
            await asyncio.to_thread(self._deployment.activate_external, first.version, first.at)
        return results

    async def log(self, results: Sequence[PredictionResult]) -> list[LogResult]:
        """Write results to the log, and return the outcome of each once they are committed.

        Raises
        ------
        StoreError
            If they cannot be written now.
        """
        began = perf_counter()
        future = self._writer.append([result.prediction for result in results])
        future.add_done_callback(lambda done: self._count(done, len(results)))  # also after a disconnect
        logged = await asyncio.wrap_future(future)
        self._metrics.observe_stage("log", perf_counter() - began)
        return logged

    async def stop(self) -> None:
        """Answer the waiting requests, and refuse new ones."""
        await asyncio.gather(self._live.stop(), self._external.stop())

    def _count(self, future: Future[list[LogResult]], rows: int) -> None:
        if future.cancelled() or future.exception() is not None:
            self._metrics.count_lost_rows(rows)
        else:
            self._metrics.count_predictions(
                result.prediction for result in future.result() if result.outcome == "stored"
            )
