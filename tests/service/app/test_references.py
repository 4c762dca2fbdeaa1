"""The coverage that is expected of a slice."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from models.registry import ModelRegistry
from service.app.references import accuracies, references
from service.serving.breaker import BreakerLimits
from service.serving.live_functions import LiveFunctions
from sfs.intervals import Rate
from sfs.registry import FunctionSet


@pytest.fixture
def live_of(trained: Path) -> Iterator:
    """Makes live functions of the project's files after a change, and closes them."""
    made = []

    def make(python: str = "", templates: str = "") -> LiveFunctions:
        files = [trained.parent / "slices.py", trained.parent / "slices.yaml"]
        for file, more in zip(files, (python, templates), strict=True):
            file.write_text(file.read_text() + more)
        sources = [str(file) for file in files]
        live = LiveFunctions(FunctionSet.from_files(sources), BreakerLimits(faults=3), sources=sources)
        made.append(live)
        live.start()
        return live

    yield make
    for live in made:
        live.close()


@pytest.fixture
def bundle(trained: Path):
    return ModelRegistry(trained.parent / ".slicewatch/registry", name="orders").get(1)


def test_unchanged_functions_have_the_counts_of_training(bundle, live_of) -> None:
    """Coverage is that of all rows, of which some repeat a content; accuracy is that of held-out members."""
    live = live_of()
    expected = references(bundle, live)
    assert list(expected) == ["short_comment", "cheap", "no_price"]
    counts = bundle.reference["cheap"]
    assert counts.n == 240 > expected["cheap"].n > 200
    assert expected["cheap"].value == pytest.approx(counts.member / counts.n, abs=0.005)
    right = accuracies(bundle, live)
    assert set(right) == {"__all__", *expected}
    assert right["cheap"] == counts.accuracy


def test_a_new_function_is_applied_to_the_kept_rows(bundle, live_of) -> None:
    """A template and a Python function that came later are counted on the bundle's sample."""
    python = "\n\n@slicing_function()\ndef from_norway(x):\n    return x['country'] == 'no'\n"
    templates = '  - {name: not_norway, not: {one_of: {field: country, values: ["no"]}}}\n'
    live = live_of(python, templates)
    expected = references(bundle, live)
    norway = sum(row["country"] == "no" for row in bundle.sample)
    assert expected["from_norway"] == Rate(norway, len(bundle.sample))
    assert "from_norway" not in accuracies(bundle, live)
    assert expected["not_norway"] == Rate(len(bundle.sample) - norway, len(bundle.sample))


def test_a_function_that_fails_there_has_none_and_is_not_set_aside(bundle, live_of) -> None:
    """Held-out rows without the function's column say nothing of its coverage, nor of how it does on traffic."""
    live = live_of("\n\n@slicing_function()\ndef odd(x):\n    return x['no such column'] > 1\n")
    assert "odd" not in references(bundle, live)
    assert live.health()["odd"] == (False, None)
    live.apply(bundle.sample)
    assert live.health()["odd"] == (True, "faults")  # as traffic it would be
