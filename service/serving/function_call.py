"""One batch put to plain functions: what each said of it, or why it did not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeAlias

from service.serving.breaker import SLOW, Seconds
from service.serving.channel import ConnectionClosed
from service.serving.isolation import Isolation
from service.serving.processes import FunctionResult, Unreadable, Worker
from sfs.record import Columns, Record, Rows, is_dataframe

OUT_OF_TIME = "out of time"
DIED = "process died"
NOT_JSON = "not JSON"
STARTING = "isolation starting"


@dataclass(frozen=True, slots=True)
class Records:
    """N records as a worker gets them.

    Parameters
    ----------
    text
        Those of them that can be JSON, as a JSON array.
    positions
        Which these are; None for all.
    rows
        N.
    """

    text: bytes
    positions: tuple[int, ...] | None
    rows: int

    @property
    def readable(self) -> int:
        """How many can be JSON."""
        return self.rows if self.positions is None else len(self.positions)


@dataclass(frozen=True, slots=True)
class NoResult:
    """Why a function said nothing, and how long it was waited for."""

    reason: str
    seconds: Seconds = 0.0


Outcome: TypeAlias = FunctionResult | NoResult


@dataclass(frozen=True, slots=True)
class CallResult:
    """What came of a batch.

    Parameters
    ----------
    outcomes
        Of the K functions.
    heaviest
        The position of the function that took the largest part of what it may, if the batch ran out of time.
    """

    outcomes: tuple[Outcome, ...]
    heaviest: int | None


class FunctionCall:
    """Some functions to be asked about some records.

    Parameters
    ----------
    names, allowances
        Of K functions.
    records
        N records.
    end
        When the time for all of them is up (monotonic).
    """

    def __init__(
        self, names: Sequence[str], allowances: Sequence[Seconds], records: Records, end: Seconds
    ) -> None:
        self._names, self._allowances, self._records, self._end = names, allowances, records, end
        self._outcomes: list[Outcome] = []
        self._heaviest: int | None = None

    def put(self, isolation: Isolation) -> CallResult:
        """Ask all of them; after one that does not return, or ends the process, another worker goes on."""
        while left := len(self._names) - len(self._outcomes):
            if monotonic() >= self._end:
                self._outcomes += [NoResult(OUT_OF_TIME)] * left
            elif (worker := isolation.worker(self._end)) is None:
                self._outcomes += [NoResult(STARTING)] * left
            elif not (self._sent(worker) and self._answered(worker)):
                isolation.replace()
        return CallResult(tuple(self._outcomes), self._heaviest)

    def put_once(self, worker: Worker) -> Outcome | None:
        """Ask the first of them only, of a worker of its own; None if that did not come to be asked."""
        try:
            worker.wait_ready(self._end)
        except (ConnectionClosed, TimeoutError):
            return None
        if not self._sent(worker):
            return None
        self._answered(worker)
        return self._outcomes[0]

    def _sent(self, worker: Worker) -> bool:
        """Tell whether the worker has got what is left to be asked."""
        try:
            worker.ask(
                self._names[len(self._outcomes) :], self._records.text, self._records.positions, self._end
            )
        except (ConnectionClosed, TimeoutError):  # it was lost while it had nothing to do
            return False
        return True

    def _answered(self, worker: Worker) -> bool:
        """Take in what functions say, and tell whether all did."""
        since, least = monotonic(), min(self._allowances)
        while (k := len(self._outcomes)) < len(self._names):
            until = min(since + self._allowances[k], self._end)
            look = monotonic() + least  # no bell rings before the last one, so that the next may be over time
            try:
                said = worker.said(self._records.readable, min(until, look))
                self._outcomes.append(said)
                since = said.at
            except Unreadable:
                self._outcomes += [NoResult(NOT_JSON)] * (len(self._names) - k)
            except ConnectionClosed:
                self._outcomes.append(NoResult(DIED, monotonic() - since))
                return False
            except TimeoutError:
                if (now := monotonic()) < until:
                    continue
                self._outcomes.append(NoResult(SLOW, now - since))
                if until == self._end:
                    self._blame_heaviest()
                return False
        return True

    def _blame_heaviest(self) -> None:
        """The last function was interrupted for what all took together."""
        spent = [each.seconds / may for each, may in zip(self._outcomes, self._allowances, strict=False)]
        self._heaviest = spent.index(max(spent))
        if self._heaviest != len(spent) - 1:
            self._outcomes[-1] = NoResult(OUT_OF_TIME, self._outcomes[-1].seconds)


def records_of(rows: Rows) -> Records:
    """Return N rows as a worker gets them; those that cannot be JSON are left out.

    Examples
    --------
    >>> records_of([{"a": 1}, {"a": {2}}, {"a": None}])
    Records(text=b'[{"a":1},{"a":null}]', positions=(0, 2), rows=3)
    """
    given = Columns(rows).records if is_dataframe(rows) else list(rows)
    try:
        return Records(_to_json(given).encode(), None, len(given))
    except _NOT_JSON:
        texts = [_text_or_none(row) for row in given]
    kept = tuple(row for row, text in enumerate(texts) if text is not None)
    return Records(f"[{','.join(filter(None, texts))}]".encode(), kept, len(given))


def _text_or_none(row: Any) -> str | None:
    try:
        return _to_json(row)
    except _NOT_JSON:
        return None


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, Record):
        return value.__dict__
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")


_NOT_JSON = (TypeError, ValueError, RecursionError)
_to_json = json.JSONEncoder(separators=(",", ":"), default=_fields).encode
