"""Labeling functions for the two public text collections, one word list or form each; 1 is spam, 0 is ham."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

HAM, SPAM = 0, 1

Rule = tuple[int, Callable[[str], object]]


def has(pattern: str, flags: int = re.IGNORECASE) -> Callable[[str], object]:
    """Return the search for a pattern in a text."""
    return re.compile(pattern, flags).search


def words_below(n: int) -> Callable[[str], object]:
    """Return whether a text has fewer than n words."""
    return lambda text: len(text.split()) < n


YOUTUBE: Sequence[Rule] = (
    (SPAM, has(r"\bsubscri|\bsubs?\b")),
    (SPAM, has(r"check (it |this |us |me |my |our )?.{0,12}out|visit ")),
    (SPAM, has(r"https?:|www\.|\.com\b|\.ly/")),
    (SPAM, has(r"\bmy (channel|videos?|songs?|music|page|covers?)\b")),
    (SPAM, has(r"\bpl(ea)?[sz]e?\b")),
    (SPAM, has(r"\$|\bmoney\b|\bcash\b|\bfree\b|\bwin\b|\bearn")),
    (SPAM, has(r"facebook|twitter|instagram|\bvote\b|\blikes?\b.{0,20}\bfollow")),
    (HAM, has(r"\b(views|million|billion|years?|20\d\d)\b")),
    (HAM, has(r"\b(love|best|amazing|awesome|beautiful|favou?rite|perfect|great)\b")),
    (HAM, has(r"\b(she|he|her|his|katy|eminem|shakira|psy|rihanna|lmfao)\b")),
    (HAM, words_below(6)),
    (HAM, has(r"\b(lol|haha+|omg|wtf|still|anyone)\b|<3|:\)")),
)

SMS: Sequence[Rule] = (
    (SPAM, has(r"\b(free|win|won|winner|prizes?|claim|awarded|bonus|guaranteed)\b")),
    (SPAM, has(r"https?:|www\.|\.com\b|\.co\.uk\b")),
    (SPAM, has(r"£|\bcash\b|\bpounds?\b|\b\d+p\b")),
    (SPAM, has(r"\b(0|\+44)?\d{10}\b|\b[0-9]{5}\b")),
    (SPAM, has(r"\b(text|txt|reply|send|call)\b.{0,25}\b(to|now|stop|\d{5})\b")),
    (SPAM, has(r"\b(urgent|offer|service|customer|mobile|ringtones?|tones?|dating|xxx|nokia)\b")),
    (SPAM, has(r"(\b[A-Z]{3,}\b.*){3}", 0)),
    (HAM, has(r"\b(lol|haha|ok|okay|yeah|yup|hey|hmm|dear|da|lor|wat)\b")),
    (HAM, has(r"\b(sorry|love|home|later|dinner|lunch|class|sleep|miss|tomorrow|tonight)\b")),
    (HAM, has(r"\b(i'?m|i'?ll|i've|dont|didn'?t|can'?t|gonna|she|he|him|her)\b")),
    (HAM, words_below(8)),
    (HAM, has(r"^[a-z]", 0)),
)


def votes(rules: Sequence[Rule], texts: pd.Series[str]) -> NDArray[np.int64]:
    """Return the votes of functions on N texts, int64[N, M]; -1 where a function abstains."""
    return np.array([[label if found(text) else -1 for label, found in rules] for text in texts], np.int64)
