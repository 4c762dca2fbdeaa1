"""A small trained model, its functions and deployments, and a clock set by tests."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent
from threading import Event
from time import monotonic
from typing import Any

import numpy as np
import pandas as pd
import pytest
from factories import PATIENT_LIMITS, make_deployment, make_metrics, make_settings, open_log

from models.bundle.model_bundle import ModelBundle
from models.config import LearnerConfig, TrainConfig
from models.features import FeatureSpec
from models.training import train
from service.metrics.process import ProcessMetrics
from service.serving.breaker import BreakerLimits
from service.serving.deployment import ActiveModel, Deployment
from service.serving.isolation import Isolation
from service.serving.live_functions import LiveFunctions
from service.serving.prediction_factory import PredictionFactory
from service.settings.schema import Settings
from service.store.engine import Store
from service.store.writer import Writer
from sfs.registry import FunctionSet
from sfs.template import Template, template

AT = datetime(2026, 5, 1, 12, tzinfo=UTC)
CODE_BEGINS = """
import functools, os, re, signal, sys, threading, time
from pathlib import Path
from sfs.function import labeling_function, slicing_function
from sfs.preprocess import preprocessor

"""
MIXED = """
@slicing_function(budget_ms=10_000)
def odd(x):
    return x.n % 2 == 1

@slicing_function(budget_ms=10_000)
def quotes(x):
    return int(x.email) > 4

@slicing_function(budget_ms=10_000)
def lacks(x):
    return {}[x.email]

@preprocessor()
def parsed(x):
    x.amount = float(x.email)
    return x

@slicing_function(pre=[parsed], budget_ms=10_000)
def prepared(x):
    return x.amount > 1

@slicing_function(budget_ms=10_000)
def returns(x):
    return x.email

@slicing_function(budget_ms=10_000)
def raises(x):
    raise ValueError("no")

@slicing_function(budget_ms=10_000)
def junk(x):
    return "junk"

@slicing_function(budget_ms=10_000)
def exits(x):
    exit()

@slicing_function(budget_ms=10_000)
def shy(x):
    return -1

@slicing_function(budget_ms=10_000)
def prints(x):
    print("a line of output")
    return True

@slicing_function(budget_ms=10_000)
def dies(x):
    os._exit(3)

@slicing_function(budget_ms=10_000)
def interrupted(x):
    raise KeyboardInterrupt

@slicing_function(budget_ms=10_000)
def dies_of_two(x):
    return os.abort() if x.n == 2 else True

@slicing_function()
def sleeps(x):
    time.sleep(60)

@slicing_function()
def endless(x):
    while True:
        try:
            note(x)
            while True:
                pass
        except BaseException:
            pass

@slicing_function()
def backtracks(x):
    return re.match("(a+)+$", "a" * 64 + "b") is not None

@slicing_function(budget_ms=10_000)
def notes(x):
    return note(x)

@slicing_function(budget_ms=10_000)
def grows(x):
    return len(bytearray(2**31)) > 0

@slicing_function(budget_ms=10_000)
def moody(x):
    return mood(x)

@slicing_function()
def rash(x):
    return mood(x)

@slicing_function()
def lazy(x):
    return mood(x) and table() and note(x)

@slicing_function()
def leaves_a_thread(x):
    if threading.active_count() == 1:
        threading.Thread(target=spins, args=(x,), daemon=True).start()
    return True

@slicing_function()
def lies(x):
    server = sys.modules["service.serving.fork_server"]
    if "seconds" in x:
        server.process_time = lambda: float(x.seconds)
        return True
    server.format_fault = lambda *_: x.length * "x"
    raise ValueError

@slicing_function()
def dawdles(x):
    return compute(0.002)

@slicing_function(budget_ms=10_000)
def may_dawdle(x):
    return compute(0.002)

@slicing_function()
def naps(x):
    time.sleep(x.seconds)
    return True

@slicing_function(budget_ms=10_000)
def heavy(x):
    return compute(60)

@slicing_function(budget_ms=1_000_000)
def light(x):
    return compute(60)

@slicing_function()
def spins(x):
    while True:
        pass

@slicing_function()
def recurs(x):
    try:
        return recurs(x)
    except Exception:
        return False

@slicing_function(budget_ms=10_000)
def stops_itself(x):
    if x.n == 2:
        os.kill(os.getpid(), signal.SIGSTOP)
    return True

@labeling_function()
def loud(x):
    return 1 if x.text.isupper() else -1

@functools.cache
def table():
    return compute(0.1)

def compute(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return True

def note(x):
    if "note" in x:
        Path(x.note).write_text(f"{os.getpid()} {os.getppid()}")
    return True

def mood(x):
    while (state := Path(x.mood).read_text()) == "hangs":
        time.sleep(0.01)
    if state == "dies":
        os._exit(3)
    if state == "fails":
        raise ValueError("no")
    return True
"""
WORDS = ("good", "free", "song", "click", "voice", "subscribe", "love", "money")


@dataclass
class Clock:
    """Monotonic seconds, set by tests."""

    seconds: float = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def factory() -> PredictionFactory:
    """Predictions of one time, with random bytes that count."""
    return PredictionFactory(lambda: AT, random_bytes=lambda count: bytes(k % 256 for k in range(count)))


def comments(rows: int = 240, seed: int = 0) -> pd.DataFrame:
    """Return comments of a few words; those about money are spam, except short ones."""
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
    learner = LearnerConfig("slice_residual", n_epochs=2, widths=(8,))
    return train(TrainConfig("spam", features, functions(), learner, name="comments"), comments())


@pytest.fixture
def active(bundle: ModelBundle) -> ActiveModel:
    """The model as version 1, with the functions of its training."""
    return ActiveModel(bundle, 1, LiveFunctions(functions()))


@pytest.fixture(scope="session")
def shared_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Writer]]:
    """A log without predictions, for tests that write none."""
    with open_log(tmp_path_factory.mktemp("log") / "store.sqlite3") as log:
        yield log


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of the comments."""
    return make_settings(tmp_path, name="comments", label="spam", classes=("false", "true"))


@pytest.fixture
def metrics() -> ProcessMetrics:
    """Counters of the comments."""
    return make_metrics("comments")


@pytest.fixture
def deploy(settings: Settings, metrics: ProcessMetrics, shared_log: tuple[Store, Writer]) -> Callable[..., Deployment]:
    """Deploys functions, and a model if there is one."""

    def make(live: LiveFunctions, bundle: ModelBundle | None = None, version: int = 1) -> Deployment:
        deployment = make_deployment(*shared_log, settings, live=live, metrics=metrics)
        if bundle is not None:
            deployment.activate_version(ActiveModel(bundle, version, live), ())
        return deployment

    return make


@pytest.fixture
def live_of(tmp_path: Path) -> Iterator[Callable[..., LiveFunctions]]:
    """Makes live functions of Python code, after templates; their limits suit any busy machine."""
    created: list[LiveFunctions] = []

    def make(code: str, *templates: Template, limits: BreakerLimits = PATIENT_LIMITS, **options: Any) -> LiveFunctions:
        file = tmp_path / f"functions_{len(created)}.py"
        file.write_text(CODE_BEGINS + dedent(code))
        functions = FunctionSet([*templates, *FunctionSet.from_files([file], votes=True)])
        created.append(LiveFunctions(functions, limits, sources=[file], **options))
        created[-1].start()
        return created[-1]

    yield make
    for each in created:
        each.close()


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of good and bad functions."""
    path = tmp_path_factory.mktemp("functions") / "functions.py"
    path.write_text(CODE_BEGINS + dedent(MIXED))
    return path


@pytest.fixture(scope="session")
def mixed(file: Path) -> FunctionSet:
    """The functions of that file, with the votes of its labelling function."""
    return FunctionSet.from_files([file], votes=True)


@pytest.fixture(scope="session")
def isolation(file: Path) -> Iterator[Isolation]:
    """Processes of that file, shared by tests."""
    shared = Isolation([str(file)], BreakerLimits(), monotonic)
    shared.start()
    yield shared
    shared.close()


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Returns whether a process runs; a zombie does not."""

    def runs(process_id: int) -> bool:
        try:
            stat = Path(f"/proc/{process_id}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        fields = stat.rpartition(")")[2].split()
        return fields[0] not in "ZX" or int(fields[17]) > 1  # its first thread may end before others

    return runs


@pytest.fixture
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Polls a condition, more rarely the longer it takes; fails the test after some minutes."""

    def wait(condition: Callable[[], bool]) -> None:
        pause = Event()
        for n in range(5_000):
            if condition():
                return
            pause.wait(min(0.002 + n / 50_000, 0.05))
        raise AssertionError("the condition never became true")

    return wait
