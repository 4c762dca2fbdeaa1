"""The request path of one model: queue, predict, log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from time import perf_counter
from typing import NamedTuple, TypeAlias

from service.errors import RowsFailed
from service.metrics.process import ProcessMetrics
from service.serving.batcher import Batcher
from service.serving.deployment import Deployment
from service.serving.prediction_factory import ExternalPrediction, PredictionRequest, PredictionResult
from service.serving.predictor import Predictor
from service.store.prediction_log import LogResult
from service.store.writer import Writer


class LoggedResult(NamedTuple):
    """A prediction with its slices, and its outcome in the log."""

    result: PredictionResult
    entry: LogResult


_Outcome: TypeAlias = list[LoggedResult] | Exception


class RequestQueues:
    """Two queues of equal capacity, for requests and external predictions, a predictor, and the log behind.

    The requests of a batch are committed to the log together, and answered after the commit.
    """

    def __init__(
        self,
        deployment: Deployment,
        predictor: Predictor,
        writer: Writer,
        metrics: ProcessMetrics,
        queue_rows: int,
    ) -> None:
        self._deployment, self._writer, self._metrics = deployment, writer, metrics
        self._live: Batcher[PredictionRequest, PredictionResult, LoggedResult] = Batcher(
            predictor.predict, self._log, max_queue_rows=queue_rows
        )
        self._external: Batcher[ExternalPrediction, PredictionResult, LoggedResult] = Batcher(
            predictor.slice_external, self._log_external, max_queue_rows=queue_rows
        )

    def has_room(self, rows: int) -> bool:
        """Return whether both queues have room for that many rows."""
        return self._live.has_room(rows) and self._external.has_room(rows)

    async def predict(self, requests: Sequence[PredictionRequest], within_seconds: float) -> list[LoggedResult]:
        """Return the logged results of N requests. Raises NoModel, StoreError, and as `Batcher.submit`."""
        self._deployment.require_active()  # before anything is queued
        return await self._live.submit(requests, within_seconds)

    async def slice_external(self, rows: Sequence[ExternalPrediction]) -> list[LoggedResult]:
        """Return N logged external predictions with their slices.

        Raises StoreError, or the error of the first row that failed.
        """
        try:
            return await self._external.submit(rows)
        except RowsFailed as failed:
            raise failed.errors[min(failed.errors)] from None

    async def stop(self) -> None:
        """Answer the waiting requests, and refuse new ones."""
        await asyncio.gather(self._live.stop(), self._external.stop())

    def _log_external(self, requests: list[list[PredictionResult]]) -> Future[list[_Outcome]]:
        if self._deployment.state.version is None:
            first = requests[0][0].prediction  # from now on the snapshot job looks for the most-logged version
            self._deployment.activate_external(first.version, first.at)
        return self._log(requests)

    def _log(self, requests: list[list[PredictionResult]]) -> Future[list[_Outcome]]:
        """Write the results of requests to the log in one commit; if it fails, each request in one of its own."""
        answers: Future[list[_Outcome]] = Future()
        answers.set_running_or_notify_cancel()  # nobody can cancel it while it is written
        began = perf_counter()
        try:
            rows = [result.prediction for results in requests for result in results]
            future = self._writer.append(rows, here=True)
        except Exception as error:
            self._take_error(error, requests, answers)
            return answers

        def take(done: Future[list[LogResult]]) -> None:
            if (error := done.exception()) is not None:
                if len(requests) == 1:
                    self._metrics.count_lost_rows(len(rows))
                self._take_error(error, requests, answers)
                return
            entries = iter(done.result())
            logged: list[_Outcome] = [[LoggedResult(one, next(entries)) for one in results] for results in requests]
            try:
                ended = perf_counter()
                self._metrics.observe_stage("log", ended - began)
                for results in requests:
                    if (timer := results[0].timer) is not None and len(rows) >= timer.rows:  # in one commit
                        timer.committed = (("log", began, ended),)
                self._metrics.count_predictions(
                    entry.prediction for entry in done.result() if entry.outcome == "stored"
                )
            finally:  # what is committed is answered
                answers.set_result(logged)

        future.add_done_callback(take)
        return answers

    def _take_error(
        self, error: BaseException, requests: list[list[PredictionResult]], answers: Future[list[_Outcome]]
    ) -> None:
        """Answer a request with the error of its commit, and write several requests one after another."""
        outcomes: list[_Outcome] = []

        def write_next(done: Future[list[_Outcome]] | None = None) -> None:
            outcomes.extend([] if done is None else done.result())
            if len(outcomes) == len(requests):
                answers.set_result(outcomes)
            else:
                self._log([requests[len(outcomes)]]).add_done_callback(write_next)

        if len(requests) == 1:
            answers.set_result([error if isinstance(error, Exception) else RuntimeError(repr(error))])
        else:
            write_next()
