"""A tiny table, a project around it, and the command line in process."""

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from factories import serving_process

from service.__main__ import main

ROWS = 240
START = datetime(2026, 5, 1, tzinfo=UTC)
WORDS = ("good", "bad", "slow", "late", "fast", "fine", "broken", "again", "thanks", "refund")


@dataclass(frozen=True)
class Answer:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


Cli = Callable[..., Answer]


def orders(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Return orders with numbers, categories, text, missing values, three classes and a difficult header."""
    draw = np.random.default_rng(seed)
    labels = draw.choice(["kept", "returned", "lost"], rows, p=[0.5, 0.3, 0.2])
    price = np.round(draw.gamma(3, 20, rows) + 40 * (labels == "returned"), 2)
    price[draw.random(rows) < 0.1] = np.nan
    country = draw.choice(["no", "se", "dk"], rows, p=[0.6, 0.3, 0.1])
    comments = [" ".join(draw.choice(WORDS, draw.integers(2, 9))) + "!" * int(c == "lost") for c in labels]
    columns = {
        "order id": np.arange(rows) + 1000,
        "Price [eur]": price,
        "country": country,
        "Customer's comment: (raw)": np.where(draw.random(rows) < 0.05, None, comments),
        "placed on": [f"2026-03-{1 + i % 28:02d}" for i in range(rows)],
        "shop": ["north"] * rows,
        "class": labels,
    }
    return pd.DataFrame(columns)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command in process, with a clock and variables of its own."""

    def run(*argv: object, **environ: str) -> Answer:
        capsys.readouterr()
        times = (START + timedelta(seconds=n) for n in range(1000))
        code = main([str(part) for part in argv], now=lambda: next(times), environ=environ)
        said = capsys.readouterr()
        return Answer(code, said.out, said.err)

    return run


@pytest.fixture
def table_file(tmp_path: Path) -> Path:
    """The orders as CSV."""
    path = tmp_path / "orders.csv"
    orders().to_csv(path, index=False)
    return path


def write_project(folder: Path) -> Path:
    """Write settings that suit the orders, with small functions of both kinds, and return the file."""
    (folder / "slices.py").write_text(PYTHON)
    (folder / "slices.yaml").write_text(TEMPLATES)
    file = folder / "slicewatch.yaml"
    file.write_text(SETTINGS)
    return file


@pytest.fixture
def project(tmp_path: Path, table_file: Path) -> Path:
    """A project that is ready to train; its settings file."""
    assert table_file.parent == tmp_path
    return write_project(tmp_path)


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a project that was trained once, not to be changed."""
    folder = tmp_path_factory.mktemp("trained")
    orders().to_csv(folder / "orders.csv", index=False)
    file = write_project(folder)
    with redirect_stdout(StringIO()):
        assert main(["train", "--config", str(file)], now=lambda: START, environ={}) == 0
    return folder


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """A copy of the trained project; its settings file."""
    return shutil.copytree(trained_once, tmp_path / "copy") / "slicewatch.yaml"


@pytest.fixture(scope="session")
def running(trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The trained project's service at work in a process: the settings file, and the address."""
    file = shutil.copytree(trained_once, tmp_path_factory.mktemp("running") / "orders") / "slicewatch.yaml"
    with serving_process(file, START) as address:
        yield file, address


PYTHON = '''
from sfs import slicing_function


@slicing_function(owner="shop", protected=True, target=0.9)
def short_comment(x):
    """Fewer than four words."""
    value = x["Customer's comment: (raw)"]
    return isinstance(value, str) and len(value.split()) < 4
'''

TEMPLATES = """
slices:
  - {name: cheap, compare: {field: "Price [eur]", below: 40}, owner: shop}
  - {name: no_price, missing: {field: "Price [eur]"}}
"""

SETTINGS = """\
name: orders
data: orders.csv
label: class
features:
  "Price [eur]": number
  country: category
  "Customer's comment: (raw)": text
functions: [slices.py, slices.yaml]
learner: {kind: erm, epochs: 2, hidden: [8]}
"""


@pytest.fixture
def stream() -> Iterator[StringIO]:
    """A stream for the log; afterwards logging is reset."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
