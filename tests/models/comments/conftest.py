"""Calm traffic, and literal twins of the functions that find the planted slices."""

import re
from collections.abc import Callable, Mapping

import pandas as pd
import pytest

from models.comments.generate import generate, truth
from models.comments.profile import PATTERNS

N_CALM = 12_000

DETECTORS: Mapping[str, Callable[[str], bool]] = {
    "short_comment": lambda text: len(text.split()) < 5,
    "keyword_please": lambda text: any(word in text.lower() for word in ("please", "plz")),
    "keyword_subscribe": lambda text: "subscribe" in text.lower(),
    "regex_check_out": lambda text: re.search("check.*out", text, re.IGNORECASE) is not None,
    "short_link": lambda text: re.search(r"\w+\.ly", text) is not None,
    "has_url": lambda text: re.search(r"https?://|www\.|\.com", text) is not None,
    "html_markup": lambda text: re.search(r"<br|&#?\w+;", text) is not None,
    **{name: re.compile(pattern).search for name, pattern in PATTERNS.items()},
}


@pytest.fixture(scope="session")
def detectors() -> Mapping[str, Callable[[str], bool]]:
    """For each planted slice, a test of membership by the text alone."""
    return {name: lambda text, found=found: bool(found(text)) for name, found in DETECTORS.items()}


@pytest.fixture(scope="session")
def calm() -> pd.DataFrame:
    """Rows of calm traffic."""
    return generate(N_CALM, seed=1)


@pytest.fixture(scope="session")
def calm_truth() -> pd.DataFrame:
    """The hidden facts of calm traffic."""
    return truth(N_CALM, seed=1)
