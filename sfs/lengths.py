"""Lengths of texts in characters and in words, as ``len`` and ``str.split`` count them."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sfs.patterns import ARROW_ROWS, Texts

FloatArray = NDArray[np.float64]

_MOST_COUNTED = 64
"""Counting stops early, and large batches are searched, where no bound lies beyond so many words."""
_MOST_SEARCHES = 3

_SPACE = "".join(rf"\x{{{code:x}}}" for code in range(0x3001) if chr(code).isspace())
_AT_LEAST = rf"(?:[^{_SPACE}]+[{_SPACE}]+){{%d}}[^{_SPACE}]"
"""RE2's pattern of a text of more than so many words; the spaces are those of ``str.split``, none beyond U+3000."""


def characters(texts: Texts) -> FloatArray:
    """Return float64[N], the number of characters of each text."""
    return np.array([len(text) for text in texts.values], dtype=np.float64)


class WordCounter:
    """Counts words, exactly enough to tell on which side of some bounds a text lies.

    Parameters
    ----------
    lows, highs
        Least and greatest counts that matter; infinite ones do not.
    """

    def __init__(self, lows: Iterable[float], highs: Iterable[float]) -> None:
        least = {math.ceil(low) for low in lows if math.isfinite(low)}
        beyond = {math.floor(high) + 1 for high in highs if math.isfinite(high)}
        self._steps = sorted(step for step in least | beyond if step > 0)
        most = self._steps[-1] if self._steps else 0
        self._splits = most - 1 if 0 < most <= _MOST_COUNTED else -1
        self._searches = self._splits >= 0 and len(self._steps) <= _MOST_SEARCHES

    def __call__(self, texts: Texts) -> FloatArray:
        """Return float64[N], numbers on the same side of every bound as the numbers of words."""
        if self._searches and len(texts) >= ARROW_ROWS:
            return self._searched(texts)
        return np.array([len(text.split(None, self._splits)) for text in texts.values], dtype=np.float64)

    def _searched(self, texts: Texts) -> FloatArray:
        """Return the greatest step that each text reaches, 0 if none."""
        column, reached = texts.column(lowered=False), np.zeros(len(texts))
        for step in self._steps:
            found = pc.match_substring_regex(column, _AT_LEAST % (step - 1)).to_numpy(zero_copy_only=False)
            reached[found] = step
        return reached
