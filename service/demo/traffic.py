"""Traffic: comments and labels on their way to the service, and a ledger of the acknowledged ones."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from models.comments.generate import CLASSES
from service.client import LabelItem, Predictions
from service.demo.checks import Ledger, RecordedPrediction
from service.demo.client import RetryingClient
from service.demo.scenario import Labelling, Scenario

LABEL = "label"
MAX_LABELS = 1_000
"""Labels in one request."""


@dataclass(frozen=True, slots=True)
class PlannedLabel:
    """Label of a prediction; ``observed`` and ``sent`` are times after the prediction, negative if before it."""

    id: str
    label: str
    observed: timedelta
    sent: timedelta
    key: str


def plan_labels(
    seed: int, start: int, ids: Sequence[str], labels: Sequence[str], labelling: Labelling
) -> list[PlannedLabel]:
    """Return the labels of N rows from position ``start``, determined by the seed and the position."""
    draws = np.random.default_rng((seed, start)).random((len(ids), 4))
    first, ratio = labelling.first_minutes, labelling.last_minutes / labelling.first_minutes
    planned: list[PlannedLabel] = []
    for id_, label, (is_labelled, kind, delay, more) in zip(ids, labels, draws.tolist(), strict=True):
        if is_labelled >= labelling.share:
            continue
        once = timedelta(minutes=first * ratio**delay)
        again = once + timedelta(minutes=first * ratio**more)
        if kind < labelling.early:
            early = timedelta(minutes=-1)
            planned.append(PlannedLabel(id_, label, early, early, f"{id_}-1"))
        elif kind < labelling.early + labelling.twice:
            planned.append(PlannedLabel(id_, label, once, once, f"{id_}-1"))
            planned.append(PlannedLabel(id_, label, once, again, f"{id_}-1"))
        elif kind < labelling.early + labelling.twice + labelling.corrected:
            wrong = next(name for name in CLASSES if name != label)
            planned.append(PlannedLabel(id_, wrong, once, once, f"{id_}-1"))
            planned.append(PlannedLabel(id_, label, again, again, f"{id_}-2"))
        else:
            planned.append(PlannedLabel(id_, label, once, once, f"{id_}-1"))
    return planned


@dataclass(slots=True)
class LabelQueue:
    """Labels that wait for their time, the earliest first."""

    _waiting: list[tuple[datetime, int, LabelItem]] = field(default_factory=list)
    _added: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, planned: Iterable[PlannedLabel], predicted_at: datetime) -> None:
        """Add labels of predictions that were made at a time."""
        for label in planned:
            item = LabelItem(
                id=label.id,
                label=label.label,
                observed_at=predicted_at + label.observed,
                labeller="moderator",
                idempotency_key=label.key,
            )
            self._added += 1
            heapq.heappush(self._waiting, (predicted_at + label.sent, self._added, item))

    def pop_due(self, now: datetime, limit: int) -> list[LabelItem]:
        """Remove and return the labels that are due, at most ``limit``."""
        due: list[LabelItem] = []
        while self._waiting and self._waiting[0][0] <= now and len(due) < limit:
            due.append(heapq.heappop(self._waiting)[2])
        return due


class Traffic:
    """Stream of a scenario to the service; ``position`` is the next row, and the seed determines the labels."""

    def __init__(self, scenario: Scenario, seed: int, client: RetryingClient, now: Callable[[], datetime]) -> None:
        self._scenario, self._seed, self._client, self._now = scenario, seed, client, now
        self._queue = LabelQueue()
        self._pending_rows, self._pending_labels = 0, list[LabelItem]()
        self.position, self.ledger = 0, Ledger()

    @property
    def waiting(self) -> int:
        """Number of labels that have not been sent yet."""
        return len(self._queue) + len(self._pending_labels)

    def send(self, n: int) -> Predictions:
        """Send the next rows, after the labels that precede them, and return the predictions."""
        rows = self._scenario.rows(self.position, n)
        ids = [f"d{position:08d}" for position in range(self.position, self.position + n)]
        if not self._pending_rows:
            labels = rows[LABEL].tolist()
            planned = plan_labels(self._seed, self.position, ids, labels, self._scenario.labelling)
            self._queue.add(planned, self._now())
            self._pending_rows = n
        self.send_labels()
        instances = [
            {str(name): None if pd.isna(value) else value for name, value in row.items()}
            for row in rows.drop(columns=LABEL).astype(object).to_dict("records")
        ]
        predictions = self._client.call(lambda client: client.predict(instances, ids))
        for prediction in predictions.predictions:
            recorded = RecordedPrediction(prediction.label, prediction.version, prediction.slices)
            self.ledger.predictions[prediction.id] = recorded
        self.position += n
        self._pending_rows = 0
        return predictions

    def send_labels(self) -> int:
        """Send the labels that are due, and return their number."""
        items = self._pending_labels = self._pending_labels or self._queue.pop_due(self._now(), MAX_LABELS)
        if items:
            responses = self._client.call(lambda client: client.label(items))
            for item, response in zip(items, responses, strict=True):
                self.ledger.add_label(item["id"], item["label"], response.outcome)
        self._pending_labels = []
        return len(items)

    def finish(self) -> None:
        """Repeat an interrupted request, so that it is acknowledged too."""
        if self._pending_labels:
            self.send_labels()
        if self._pending_rows:
            self.send(self._pending_rows)
