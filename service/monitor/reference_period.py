"""First labels of rates without an expected accuracy: they set it, and are no evidence of drift."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from service.monitor.drift_detector import RateKey
from sfs.intervals import Rate, effective_n


@dataclass(slots=True)
class ReferencePeriod:
    """Labels gathered so far, by rate; the period of a rate ends after a fixed number of its own labels.

    The end depends on the number of labels alone, so that the correct ones among them are binomial.

    Parameters
    ----------
    labels
        Labels that set an expected accuracy.
    correct, contents
        Correct predictions, and the content of every labelled record, by rate.

    Examples
    --------
    >>> key = RateKey("short", "f1", "accuracy")
    >>> period = ReferencePeriod(3)
    >>> period.begin([key])
    >>> period.take(key, np.array([7, 8, 9, 9]), np.array([True, False, True, True]))
    3
    >>> period.end()[key], period.contents
    (Rate(count=2, n=3), {})
    """

    labels: int
    correct: dict[RateKey, int] = field(default_factory=dict)
    contents: dict[RateKey, list[int]] = field(default_factory=dict)

    def begin(self, keys: Collection[RateKey]) -> None:
        """Gather labels of these rates, and forget those of all others."""
        self.contents = {key: self.contents.get(key, []) for key in keys}
        self.correct = {key: self.correct.get(key, 0) for key in keys}

    def lacks(self, key: RateKey) -> int:
        """Return the number of labels that a rate whose labels are gathered still lacks."""
        return self.labels - len(self.contents[key])

    def take(self, key: RateKey, contents: NDArray[np.int64], correct: NDArray[np.bool_]) -> int:
        """Take the first of N labels, as many as the rate lacks, and return their number.

        Parameters
        ----------
        key
            A rate whose labels are gathered.
        contents, correct : int64[N], bool[N]
            Contents of the labelled records, and whether their predictions are correct.
        """
        taken = min(self.lacks(key), len(contents))
        self.contents[key] += contents[:taken].tolist()
        self.correct[key] += int(correct[:taken].sum())
        return taken

    def end(self) -> dict[RateKey, Rate]:
        """Return the expected accuracy of the rates that have their labels, and end their periods.

        The effective n is that of their contents. Labels of one content say nothing about others: such a period
        begins again.
        """
        rates = {}
        for key in [key for key, contents in self.contents.items() if len(contents) >= self.labels]:
            rate = Rate(self.correct[key], self.labels, effective_n(self.contents[key]))
            if rate.is_informative:
                rates[key] = rate
                del self.correct[key], self.contents[key]
            else:
                self.correct[key], self.contents[key] = 0, []
        return rates
