"""First labels of rates without an expected accuracy: they set it, and are no evidence of drift."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from service.decisions import RateKey
from service.monitor.accuracy_detector import Pairs
from sfs.intervals import Rate, effective_n

MINIMUM_CONTENTS = 30
"""Effective n of the labelled rows of a slice from which its accuracy is expected."""

_MOST = 5  # times the number of labels, after which a rate whose contents do not suffice begins again


@dataclass(slots=True)
class ReferencePeriod:
    """Labels gathered so far, by rate; the period of a rate ends after a fixed number of its own labels.

    If their effective n is below ``MINIMUM_CONTENTS``, as many again are gathered, at most five times, after which
    the rate begins again. The end depends on the contents alone, so that the correct ones are binomial.

    Parameters
    ----------
    labels
        Labels that set an expected accuracy.
    confusion, contents, needed
        Labels by true and predicted class, the content of every labelled record, and the number of labels to gather, by
        rate.

    Examples
    --------
    >>> key = RateKey("short", "f1", "accuracy")
    >>> period = ReferencePeriod(40)
    >>> period.begin([key])
    >>> period.take(key, range(50), 2 * [("ham", "spam")] + 48 * [("ham", "ham")])
    40
    >>> period.end()[key], period.contents
    ((Rate(count=38, n=40), (('ham', 'ham', 38), ('ham', 'spam', 2))), {})
    """

    labels: int
    confusion: dict[RateKey, Counter[tuple[str, str]]] = field(default_factory=dict)
    contents: dict[RateKey, list[int]] = field(default_factory=dict)
    needed: dict[RateKey, int] = field(default_factory=dict)

    def begin(self, keys: Collection[RateKey]) -> None:
        """Gather labels of these rates, and forget those of all others."""
        self.contents = {key: self.contents.get(key, []) for key in keys}
        self.confusion = {key: self.confusion.get(key, Counter()) for key in keys}
        self.needed = {key: self.labels * (len(rows) // self.labels + 1) for key, rows in self.contents.items()}

    def lacks(self, key: RateKey) -> int:
        """Return the number of labels that a rate whose labels are gathered still lacks."""
        return self.needed[key] - len(self.contents[key])

    def take(self, key: RateKey, contents: Sequence[int], pairs: Sequence[tuple[str, str]]) -> int:
        """Take the first of N labels, as many as the rate lacks, and return their number.

        Parameters
        ----------
        key
            A rate whose labels are gathered.
        contents, pairs
            Contents of the N labelled records, and their true and predicted classes.
        """
        taken = min(self.lacks(key), len(contents))
        self.contents[key] += contents[:taken]
        self.confusion[key].update(pairs[:taken])
        if not self.lacks(key) and effective_n(self.contents[key]) < MINIMUM_CONTENTS:
            if self.needed[key] >= _MOST * self.labels:
                self.confusion[key], self.contents[key], self.needed[key] = Counter(), [], 0
            self.needed[key] += self.labels
        return taken

    def end(self) -> dict[RateKey, tuple[Rate, Pairs]]:
        """Return the expected accuracy of the rates that have their labels, also by class, and end their periods.

        The effective n is that of their contents.
        """
        ended = {}
        for key in [key for key in self.contents if not self.lacks(key)]:
            contents, confusion = self.contents.pop(key), self.confusion.pop(key)
            correct = sum(number for (true, predicted), number in confusion.items() if true == predicted)
            pairs = tuple((*pair, number) for pair, number in sorted(confusion.items()))
            ended[key] = Rate(correct, len(contents), effective_n(contents)), pairs
            del self.needed[key]
        return ended
