"""Labels of one model: checked against its classes, written, counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future

from service.events import Label
from service.metrics.process import ProcessMetrics
from service.serving.deployment import Deployment
from service.store.labels import LabelResult, all_results, as_classes
from service.store.writer import Writer


class LabelIntake:
    """Takes labels for predictions; they may be late, early, repeated or corrected."""

    def __init__(self, deployment: Deployment, writer: Writer, metrics: ProcessMetrics) -> None:
        self._deployment, self._writer, self._metrics = deployment, writer, metrics

    async def add(self, labels: Sequence[Label]) -> list[LabelResult]:
        """Return the outcome of each label, in order; a label that is not a class of the model is rejected.

        Raises
        ------
        StoreError
            If the others cannot be written now.
        """
        classes = self._deployment.state.classes
        labels = as_classes(labels, classes)
        valid = [label for label in labels if label.label in classes]
        results: list[LabelResult] = []
        if valid:
            future = self._writer.label(self._deployment.state.model, valid)
            future.add_done_callback(self._count)  # also after a disconnect
            results = await asyncio.wrap_future(future)
        self._metrics.count_labels("rejected", len(labels) - len(valid))  # a refused request may come again
        return all_results(labels, classes, results)

    def _count(self, future: Future[list[LabelResult]]) -> None:
        if not future.cancelled() and future.exception() is None:
            for outcome, count in Counter(result.outcome for result in future.result()).items():
                self._metrics.count_labels(outcome, count)
