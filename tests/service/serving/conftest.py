"""A small trained model, its functions, and a clock that tests move."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event

import numpy as np
import pandas as pd
import pytest

from models.bundle import ModelBundle
from models.config import TrainConfig
from models.features import FeatureSpec
from models.learners import LearnerConfig
from models.training import train
from service.serving.breaker import Limits
from service.serving.functions import LiveFunctions
from service.serving.predictor import Loaded
from service.serving.recording import Recorder
from sfs.registry import FunctionSet
from sfs.template import template

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
WORDS = ("good", "free", "song", "click", "voice", "subscribe", "love", "money")


@dataclass
class Clock:
    """Monotonic seconds that move when told."""

    seconds: float = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    """Such a clock."""
    return Clock()


@pytest.fixture
def let_go() -> Iterator[Event]:
    """An event that functions may wait for; set at the end, so that no thread outlives its test."""
    event = Event()
    yield event
    event.set()


@pytest.fixture
def recorder() -> Recorder:
    """Stamps one time, and random bytes that count."""
    return Recorder(lambda: AT, draw=lambda count: bytes(k % 256 for k in range(count)))


def comments(rows: int = 240, seed: int = 0) -> pd.DataFrame:
    """Return comments of a few words; those about money are spam, but not the short ones."""
    draw = np.random.default_rng(seed)
    texts = [" ".join(draw.choice(WORDS, draw.integers(1, 8))) for _ in range(rows)]
    spam = [("free" in text or "money" in text) and len(text.split()) > 2 for text in texts]
    return pd.DataFrame({"text": texts, "likes": draw.integers(0, 9, rows), "spam": spam})


def functions() -> FunctionSet:
    """Return two templates."""
    short = template("short", length={"field": "text", "unit": "words", "below": 3})
    clicks = template("clicks", keyword={"field": "text", "words": ["click", "subscribe"]})
    return FunctionSet([short, clicks])


@pytest.fixture(scope="session")
def bundle() -> ModelBundle:
    """A model of the comments, trained for a moment."""
    features = (FeatureSpec("text", "text"), FeatureSpec("likes", "number"))
    learner = LearnerConfig(n_epochs=2, widths=(8,))
    return train(TrainConfig("spam", features, functions(), learner, name="comments"), comments())


@pytest.fixture
def live_of() -> Callable[..., LiveFunctions]:
    """Makes live functions that have time, however busy the machine is."""
    limits = Limits(least_ms=20_000, hold_ms=20_000)
    return lambda *live: LiveFunctions(FunctionSet(live), limits)


@pytest.fixture
def loaded(bundle: ModelBundle) -> Loaded:
    """The model as version 1, with the functions of its training."""
    return Loaded(bundle, 1, LiveFunctions(functions()))


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Repeats an action until it tells that it has come true; a test that it never does fails after 20 s."""

    def wait(come_true: Callable[[], bool]) -> None:
        pause = Event()
        for _ in range(10_000):
            if come_true():
                return
            pause.wait(0.002)
        raise AssertionError("it never came true")

    return wait
