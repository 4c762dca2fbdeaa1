"""Words with their n-grams, remembered by number, so that a request looks up the sum over a known word."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Columns = NDArray[np.int32]
Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]
Hashes = NDArray[np.uint64]

_MOST_WORDS, _MOST_CHARACTERS = 30_000, 24
_PASSING = 1 << 31
"""First number of the words that are not kept."""


class NgramWord(NamedTuple):
    """Part of a text without blanks: hashes of its words, its n-grams but bigrams, and their weights."""

    hashes: Hashes
    columns: Columns
    weights: Floats


class _KeptWords:
    """Words in the order of their numbers, with arrays of their values."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.words: list[NgramWord] = []
        self.squares = np.zeros(256, np.float32)
        self.starts, self.counts = np.zeros((2, 256), np.int64)  # of the hashes of a word
        self.hashes = np.zeros(256, np.uint64)
        self._n_hashes = 0
        self._lock = Lock()
        self._products: tuple[Floats, Floats] | None = None  # weights, and the products float32[capacity, H]
        self._n_products = 0

    def add(self, names: Sequence[str], words: Sequence[NgramWord]) -> None:
        """Keep new words."""
        with self._lock:
            for name, word in zip(names, words, strict=True):
                if name in self.numbers:  # by another thread
                    continue
                number = len(self.words)
                if number == len(self.squares):
                    self.squares, self.starts, self.counts = map(_doubled, (self.squares, self.starts, self.counts))
                start, stop = self._n_hashes, self._n_hashes + len(word.hashes)
                while stop > len(self.hashes):
                    self.hashes = _doubled(self.hashes)
                self.squares[number] = word.weights @ word.weights
                self.hashes[start:stop] = word.hashes
                self.starts[number], self.counts[number], self._n_hashes = start, len(word.hashes), stop
                self.words.append(word)
                self.numbers[name] = number  # last: a number that is read has its values

    def products(self, weight: Floats, start: int) -> Floats:
        """Return float32[M or more, H], the words times the rows of a weight; those of the last weight are kept."""
        with self._lock:
            if self._products is None or self._products[0] is not weight:
                self._products, self._n_products = (
                    (weight, np.zeros((len(self.squares), weight.shape[1]), np.float32)),
                    0,
                )
            products = self._products[1]
            if len(products) < len(self.words):
                grown = np.zeros((len(self.squares), weight.shape[1]), np.float32)
                grown[: len(products)] = products
                self._products, products = (weight, grown), grown
            for number in range(self._n_products, len(self.words)):
                word = self.words[number]
                products[number] = word.weights @ weight[word.columns + start]
            self._n_products = len(self.words)
            return products


@dataclass(frozen=True, slots=True)
class NumberedWords:
    """Words of some texts by their numbers; those that are too long or too many to be kept are ``passing``."""

    kept: _KeptWords
    passing: Sequence[NgramWord]

    def hashes(self, numbers: Numbers) -> tuple[Hashes, Numbers]:
        """Return the hashes of words, one after another, uint64[W], and the places in ``numbers`` of their words."""
        starts, counts, hashes = self.kept.starts, self.kept.counts, self.kept.hashes
        if self.passing:
            passing = [word.hashes for word in self.passing]
            sizes = np.array([len(each) for each in passing])
            behind = np.cumsum(sizes) - sizes + len(hashes)
            starts, counts = self._of_both(numbers, starts, behind), self._of_both(numbers, counts, sizes)
            hashes = np.concatenate([hashes, *passing])
        else:
            starts, counts = starts[numbers], counts[numbers]
        of_word = np.repeat(np.arange(len(numbers)), counts)
        return hashes[(starts - np.cumsum(counts) + counts)[of_word] + np.arange(len(of_word))], of_word

    def squares(self, numbers: Numbers) -> Floats:
        """Return float32[M], the sums of the squared weights."""
        if not self.passing:
            return self.kept.squares[numbers]
        of_passing = np.array([word.weights @ word.weights for word in self.passing], np.float32)
        out: Floats = self._of_both(numbers, self.kept.squares, of_passing)
        return out

    def products(self, numbers: Numbers, weight: Floats, start: int) -> Floats:
        """Return float32[M, H], the words times the rows of weight float32[D, H] from ``start`` on."""
        products = self.kept.products(weight, start)
        if not self.passing:
            return products[numbers]
        of_passing = np.stack([word.weights @ weight[word.columns + start] for word in self.passing])
        out: Floats = self._of_both(numbers, products, of_passing)
        return out

    def __getitem__(self, number: int) -> NgramWord:
        return self.kept.words[number] if number < _PASSING else self.passing[number - _PASSING]

    def _of_both(self, numbers: Numbers, kept: Any, passing: Any) -> Any:
        """Return values of kept and of passing words by number."""
        out = kept[np.where(numbers < _PASSING, numbers, 0)]
        places = np.flatnonzero(numbers >= _PASSING)
        out[places] = passing[numbers[places] - _PASSING]
        return out


def _doubled(values: Any) -> Any:
    return np.concatenate([values, np.zeros_like(values)])


class NgramWords:
    """Memo of words: up to 30,000 of up to 24 characters, after which it starts again.

    Parameters
    ----------
    compute
        Returns the n-grams of new words, together.
    """

    def __init__(self, compute: Callable[[Sequence[str]], Sequence[NgramWord]]) -> None:
        self._compute = compute
        self._kept = _KeptWords()

    def number(self, names: Sequence[str]) -> tuple[Numbers, NumberedWords]:
        """Return the number of each word, equal for equal ones, and the words by number."""
        kept = self._kept
        numbers = [kept.numbers.get(name, -1) for name in names]
        if -1 not in numbers:
            return np.array(numbers, np.int64), NumberedWords(kept, ())
        missing = [place for place, number in enumerate(numbers) if number < 0]
        new = list(dict.fromkeys(names[place] for place in missing))
        words = self._compute(new)
        if len(kept.words) + len(new) > _MOST_WORDS:
            self._kept = _KeptWords()  # these rows are still numbered by the former
        else:
            short = [k for k, name in enumerate(new) if len(name) <= _MOST_CHARACTERS]
            kept.add([new[k] for k in short], [words[k] for k in short])
        passing = [k for k, name in enumerate(new) if name not in kept.numbers]
        places = {new[k]: _PASSING + place for place, k in enumerate(passing)}
        for place in missing:
            name = names[place]
            numbers[place] = places[name] if name in places else kept.numbers[name]
        return np.array(numbers, np.int64), NumberedWords(kept, [words[k] for k in passing])
