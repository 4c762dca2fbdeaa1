"""Which slices truly left their zones."""

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from service.demo.truth import coverages, rows_to_tell, standings
from sfs.intervals import Rate
from sfs.registry import FunctionSet
from sfs.template import template

ZONE = {"lower": 0.017, "upper": 0.025, "threshold": 18.5}
PHASES = {
    "calm": {"links": Rate(200, 10_000), "markup": Rate(20, 1_000)},
    "campaign": {"links": Rate(800, 10_000), "markup": Rate(20, 1_000)},
    "nearly": {"links": Rate(251, 10_000), "markup": Rate(0, 0)},
}
Document = dict[str, Any]


def _left(
    served: dict[tuple[int, str], int], alarms: list[Document]
) -> dict[tuple[int, str], tuple[Any, bool]]:
    zones = {1: {"links": ZONE, "markup": ZONE}, 2: {"links": {**ZONE, "upper": 0.1}}}
    return {
        (each.version, each.slice): (each.left, each.alarmed)
        for each in standings(zones, served, PHASES, alarms)
    }


def test_a_slice_leaves_where_a_phase_lies_outside(alarm: Callable[..., Document]) -> None:
    """A slice has left under a version that saw enough rows of a phase in which it lies outside its zone."""
    found = _left({(1, "calm"): 9_000, (1, "campaign"): 9_000, (2, "campaign"): 9_000}, [alarm(1, "links")])
    assert found == {(1, "links"): (True, True), (1, "markup"): (False, False), (2, "links"): (False, False)}


def test_a_version_answers_for_the_phases_it_saw(alarm: Callable[..., Document]) -> None:
    """What came under another version, and alarms of another kind, do not count."""
    found = _left({(1, "calm"): 9_000, (2, "campaign"): 9_000}, [alarm(1, "links", kind="accuracy")])
    assert found[1, "links"] == (False, False)


def test_too_few_rows_leave_it_open(alarm: Callable[..., Document]) -> None:
    """Where no detector could tell yet, an alarm is neither demanded nor wrong; rows of several phases add up."""
    needed = rows_to_tell(0.08, ZONE)
    assert _left({(1, "campaign"): int(3 * needed)}, [])[1, "links"] == (None, False)
    assert _left({(1, "campaign"): int(3 * needed), (1, "calm"): 9_000}, [])[1, "links"] == (None, False)
    assert _left({(1, "campaign"): int(4 * needed) + 1}, [])[1, "links"] == (True, False)
    assert _left({(1, "nearly"): 9_000}, [alarm(1, "links")])[1, "links"] == (None, True)


def test_the_rows_that_it_takes_are_those_of_the_information_bound() -> None:
    """The evidence of one row is on average the divergence from the nearer edge; a literal twin."""
    for coverage, edge in ((0.08, 0.025), (0.001, 0.017), (0.0, 0.017)):
        brought = (1 - coverage) * math.log((1 - coverage) / (1 - edge))
        brought += coverage * math.log(coverage / edge) if coverage else 0.0
        assert rows_to_tell(coverage, ZONE) == pytest.approx(18.5 / brought)
    assert rows_to_tell(0.02, ZONE) == math.inf


def test_coverages_do_not_see_the_label() -> None:
    """The slices are counted on the rows without their label."""
    functions = FunctionSet([template("spam", keyword={"field": "text", "words": ["buy"]})])
    rows = pd.DataFrame({"text": ["buy", "hi", "hi", "buy"], "label": ["ham", "ham", "spam", "spam"]})
    assert dict(coverages(functions, rows, "label")) == {"spam": Rate(2, 4)}
