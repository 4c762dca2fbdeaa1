"""Fixtures for tests of slicing functions."""

import importlib.util
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest


@pytest.fixture
def comments() -> pd.DataFrame:
    """Five comments whose index is neither sorted nor distinct, with missing text and likes."""
    return pd.DataFrame(
        {
            "text": ["Please subscribe", "Cool video!", None, "", "check this out please and thank you"],
            "likes": [1.0, None, 3.0, 0.0, 12.0],
        },
        index=[4, 7, 1, 7, 0],
    )


@pytest.fixture
def module_of(tmp_path: Path) -> Iterator[Callable[[str], ModuleType]]:
    """Function that writes source to a separate file and imports it."""
    numbers = itertools.count()
    made = []

    def write_and_import(source: str) -> ModuleType:
        name = f"written_{next(numbers)}"
        path = tmp_path / f"{name}.py"
        path.write_text(textwrap.dedent(source))
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        made.append(name)
        spec.loader.exec_module(module)
        return module

    yield write_and_import
    for name in made:
        del sys.modules[name]
