"""What becomes known of the comments: late, some twice, some wrong at first, a few too early."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from models.comments.generate import CLASSES
from service.client.answers import LabelItem
from service.demo.script import Labelling


@dataclass(frozen=True, slots=True)
class Statement:
    """One label, as it is sent.

    Parameters
    ----------
    id, label
        Of which prediction, and what is said of it.
    observed, sent
        How long after the prediction it was observed and is sent; before it where they are negative.
    key
        The same for a statement that is sent again.
    """

    id: str
    label: str
    observed: timedelta
    sent: timedelta
    key: str


def statements(
    seed: int, start: int, ids: Sequence[str], labels: Sequence[str], how: Labelling
) -> list[Statement]:
    """Return what will be said of the rows from a position on; the same each time.

    Parameters
    ----------
    seed, start
        Of the traffic, and the position of the first row.
    ids, labels
        Of N rows.
    how
        How labels come.
    """
    draws = np.random.default_rng((seed, start)).random((len(ids), 4))
    found: list[Statement] = []
    for id_, label, (is_labelled, kind, first, second) in zip(ids, labels, draws.tolist(), strict=True):
        if is_labelled < how.share:
            late = _minutes(first, how), _minutes(first, how) + _minutes(second, how)
            found += _said(id_, label, kind, late, how)
    return found


def _said(
    id_: str, label: str, kind: float, late: tuple[timedelta, timedelta], how: Labelling
) -> list[Statement]:
    once, again = late
    if kind < how.early:
        return [Statement(id_, label, -timedelta(minutes=1), -timedelta(minutes=1), f"{id_}-1")]
    first = Statement(id_, label, once, once, f"{id_}-1")
    if kind < how.early + how.twice:
        return [first, Statement(id_, label, once, again, f"{id_}-1")]
    if kind < how.early + how.twice + how.corrected:
        wrong = next(each for each in CLASSES if each != label)
        return [
            Statement(id_, wrong, once, once, f"{id_}-1"),
            Statement(id_, label, again, again, f"{id_}-2"),
        ]
    return [first]


def _minutes(share: float, how: Labelling) -> timedelta:
    return timedelta(minutes=how.first_minutes * (how.last_minutes / how.first_minutes) ** share)


@dataclass(slots=True)
class Mailbox:
    """Labels that wait until it is their time, the next one first."""

    _waiting: list[tuple[datetime, int, LabelItem]] = field(default_factory=list)
    _posted: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def post(self, said: Iterable[Statement], predicted_at: datetime) -> None:
        """Put in what will be said of predictions made at a time."""
        for each in said:
            item = LabelItem(
                id=each.id,
                label=each.label,
                observed_at=predicted_at + each.observed,
                labeller="moderator",
                idempotency_key=each.key,
            )
            self._posted += 1
            heapq.heappush(self._waiting, (predicted_at + each.sent, self._posted, item))

    def due(self, now: datetime, most: int) -> list[LabelItem]:
        """Take out what is to be sent by now, at most so many."""
        found: list[LabelItem] = []
        while self._waiting and self._waiting[0][0] <= now and len(found) < most:
            found.append(heapq.heappop(self._waiting)[2])
        return found
