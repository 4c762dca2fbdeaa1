"""Functions on documents parsed by spaCy in the service: loaded from a file, isolated and metered."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from factories import PATIENT_LIMITS

from service.serving.breaker import SLOW
from service.serving.live_functions import LiveFunctions
from service.serving.shareable import may_share
from sfs.apply import apply
from sfs.errors import InvalidFunction
from sfs.metering import OUT_OF_TIME
from sfs.template import template

LiveOf = Callable[..., LiveFunctions]
RULES = """
import spacy
from sfs import nlp_labeling_function, nlp_slicing_function

nlp = spacy.blank("en")
patterns = [{"label": "ASK", "pattern": [{"LOWER": "please"}, {"LOWER": "subscribe"}]}]
nlp.add_pipe("entity_ruler").add_patterns(patterns)

@nlp_slicing_function(language=nlp, budget_ms=10_000)
def asks(x):
    return any(each.label_ == "ASK" for each in x.doc.ents)

@nlp_slicing_function(language=nlp, budget_ms=10_000)
def has_link(x):
    return any(token.like_url for token in x.doc)

@nlp_labeling_function(language=nlp, budget_ms=10_000)
def ends_with_a_question(x):
    return 1 if x.doc[-1].text == "?" else -1
"""
ROWS: list[dict[str, Any]] = [
    {"text": "Please subscribe!", "n": 0},
    {"text": "see bit.ly/x1", "n": 1},
    {"text": None, "n": 2},
    {"text": "who is it?", "n": 3},
    {"text": 5, "n": 4},
]
SHORT = template("short", length={"field": "text", "unit": "words", "below": 3})


def test_functions_of_a_file_are_applied_to_traffic(live_of: LiveOf) -> None:
    """In batches and alone, with the results of apply; rows without a text are unknown, and their reasons counted."""
    live = live_of(RULES, SHORT)
    applied = live.apply(ROWS)
    assert applied.matrix == apply(live.functions, ROWS)
    columns = {name: applied.matrix.column(name).tolist() for name in ("asks", "has_link", "ends_with_a_question")}
    assert columns["asks"] == [True, False, False, False, False]
    assert columns["has_link"] == [False, True, False, False, False]
    assert columns["ends_with_a_question"] == [False, False, False, True, False]
    unknown = {run.name: run.unknown for run in applied.stats if run.name != "short"}
    assert unknown == {name: {"TypeError": 2} for name in columns}
    for row in ROWS:
        assert live.apply([row]).matrix == apply(live.functions, [row])
    assert all(run.seconds > 0 for run in applied.stats)


def test_each_function_has_a_process_of_its_own(live_of: LiveOf) -> None:
    """A document could be changed for another function."""
    live = live_of(RULES)
    assert not any(map(may_share, live.functions))


def test_a_slow_parse_is_time_of_its_function(live_of: LiveOf) -> None:
    """The function has no result; on a machine that is busy elsewhere, it is out of time."""
    heavy = """
from spacy.language import Language

@Language.component("computes_for_ever")
def computes_for_ever(doc):
    while True:
        pass

slow = spacy.blank("en")
slow.add_pipe("computes_for_ever")

@nlp_slicing_function(language=slow, budget_ms=50)
def heavy_parse(x):
    return True
"""
    live = live_of(RULES + heavy, limits=replace(PATIENT_LIMITS, least_ms=50, hold_ms=1_000))
    applied = live.apply(ROWS[:2])
    assert applied.matrix.unknown[:, applied.matrix.names.index("heavy_parse")].all()
    reasons = {run.name: run.unknown for run in applied.stats}
    assert reasons["heavy_parse"] in ({SLOW: 2}, {OUT_OF_TIME: 2})


def test_a_file_without_its_model_is_refused_with_the_line(live_of: LiveOf) -> None:
    """The error names the file, the line, and the command that installs the model."""
    code = "from sfs import nlp_slicing_function\n\n@nlp_slicing_function(language='en_core_web_xs')\ndef f(x): pass\n"
    with pytest.raises(InvalidFunction, match=r"functions_0\.py, line \d+: .*python -m spacy download en_core_web_xs"):
        live_of(code)
