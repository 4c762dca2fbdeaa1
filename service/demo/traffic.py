"""Sends comments and labels, each until it is acknowledged, and keeps what was acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import pandas as pd

from service.client.answers import LabelItem, Predictions
from service.demo.deliver import Delivery
from service.demo.labels import Mailbox, statements
from service.demo.ledger import Answer, Ledger
from service.demo.script import Script

LABEL = "label"
_MOST_LABELS = 1_000


class Traffic:
    """The stream of a script on its way to the service.

    Parameters
    ----------
    script, seed
        What is sent; the seed decides which of it is labelled, and when.
    delivery
        How it is sent.
    now
        The time of the service's clock.

    Attributes
    ----------
    position
        The row that comes next.
    ledger
        What was acknowledged.
    """

    def __init__(self, script: Script, seed: int, delivery: Delivery, now: Callable[[], datetime]) -> None:
        self._script, self._seed, self._delivery, self._now = script, seed, delivery, now
        self._mailbox = Mailbox()
        self._rows_in_hand, self._labels_in_hand = 0, list[LabelItem]()
        self.position, self.ledger = 0, Ledger()

    @property
    def waiting(self) -> int:
        """How many labels have not been sent yet."""
        return len(self._mailbox) + len(self._labels_in_hand)

    def send(self, n: int) -> Predictions:
        """Send the next rows, after the labels that come too early, and return what was answered."""
        rows = self._script.rows(self.position, n)
        ids = [f"d{position:08d}" for position in range(self.position, self.position + n)]
        if not self._rows_in_hand:
            said = statements(self._seed, self.position, ids, rows[LABEL].tolist(), self._script.labelling)
            self._mailbox.post(said, self._now())
            self._rows_in_hand = n
        self.send_labels()
        records = _records(rows)
        answered = self._delivery.ask(lambda client: client.predict(records, ids))
        for each in answered.predictions:
            self.ledger.answered(each.id, Answer(each.label, each.version, each.slices))
        self.position += n
        self._rows_in_hand = 0
        return answered

    def send_labels(self) -> int:
        """Send the labels whose time has come, and return how many there were."""
        items = self._labels_in_hand = self._labels_in_hand or self._mailbox.due(self._now(), _MOST_LABELS)
        if items:
            answers = self._delivery.ask(lambda client: client.label(items))
            for item, answer in zip(items, answers, strict=True):
                self.ledger.labelled(item["id"], item["label"], answer.outcome)
        self._labels_in_hand = []
        return len(items)

    def finish(self) -> None:
        """Send again what was interrupted, so that it is acknowledged too."""
        if self._labels_in_hand:
            self.send_labels()
        if self._rows_in_hand:
            self.send(self._rows_in_hand)


def _records(rows: pd.DataFrame) -> Sequence[Mapping[str, Any]]:
    """Return rows as a client has them: without their label, and None where a value is missing."""
    columns = {str(name): rows[name].astype(object).tolist() for name in rows if name != LABEL}
    present = {str(name): rows[name].notna().tolist() for name in rows if name != LABEL}
    return [
        {name: values[k] if present[name][k] else None for name, values in columns.items()}
        for k in range(len(rows))
    ]
