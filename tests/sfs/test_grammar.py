"""Template grammar: canonical forms and errors."""

import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfs.grammar import MAX_DEPTH, MAX_TERMS, GrammarError, canonical, leaves, limits

FIELD = {"field": "text"}
NUMBERS = st.floats(-100, 100, allow_nan=False)
LEAVES = st.one_of(
    st.builds(
        lambda words, whole: {"keyword": {**FIELD, "words": words, "whole_word": whole}},
        st.lists(st.text("aBç", min_size=1), min_size=1),
        st.booleans(),
    ),
    st.builds(lambda flag: {"regex": {**FIELD, "pattern": "a.b", "ignore_case": flag}}, st.booleans()),
    st.builds(lambda bound: {"length": {**FIELD, "unit": "words", "below": bound}}, NUMBERS),
    st.builds(lambda bound: {"compare": {"field": "likes", "at_least": bound}}, NUMBERS),
    st.builds(
        lambda values: {"one_of": {**FIELD, "values": values}},
        st.lists(st.text("ab") | st.integers() | st.booleans(), min_size=1),
    ),
    st.just({"missing": FIELD}),
)
TEMPLATES = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.lists(parts, min_size=1, max_size=3).map(lambda several: {"all": several}),
        st.lists(parts, min_size=1, max_size=3).map(lambda several: {"any": several}),
        parts.map(lambda part: {"not": part}),
    ),
    max_leaves=5,
)


@given(TEMPLATES)
def test_the_canonical_form_is_its_own_canonical_form(written):
    """Canonical templates are a fixed point, so that fingerprints are stable."""
    spec = canonical(written)

    assert canonical(json.loads(json.dumps(spec))) == spec


def test_order_case_and_repetition_of_words_do_not_matter():
    """Equal sets of words give equal templates."""
    one = canonical({"keyword": {"field": "text", "words": ["PLZ", "please"]}})
    two = canonical({"keyword": {"words": ("please", "plz", "Plz"), "field": "text", "whole_word": False}})

    assert one == two


def test_listed_values_do_not_depend_on_type():
    """1, 1.0 and "1" are one value, as are True and "true"."""
    one = canonical({"one_of": {"field": "x", "values": [1, True]}})

    assert one == canonical({"one_of": {"field": "x", "values": ["1", 1.0, "true"]}})


def test_leaves_come_in_the_order_of_writing():
    """Leaves are yielded at any depth, in order."""
    spec = canonical({"all": [{"not": {"missing": {"field": "a"}}}, {"any": [{"missing": {"field": "b"}}]}]})

    assert list(leaves(spec)) == [{"missing": {"field": "a"}}, {"missing": {"field": "b"}}]


@pytest.mark.parametrize(
    ("bounds", "low", "high"),
    [({"above": 1.0}, 1.0000000000000002, float("inf")), ({"below": 5.0, "at_least": 5.0}, None, None)],
)
def test_strict_bounds_end_at_the_adjacent_float(bounds, low, high):
    """A strict bound excludes only its own value; an empty range has low above high."""
    found = limits(bounds)

    assert found == (low, high) if low is not None else found[0] > found[1]


REFUSED = [
    ([], (), "expected one kind of keyword"),
    ({}, (), "exactly one kind of"),
    ({"missing": FIELD, "keyword": FIELD}, (), "got missing, keyword; combine several with all or any"),
    ({"keywrod": FIELD}, ("keywrod",), "unknown key 'keywrod'; did you mean 'keyword'?"),
    ({"missing": {"feild": "x"}}, ("missing", "feild"), "did you mean 'field'?"),
    ({"missing": {}}, ("missing",), "missing requires 'field'"),
    ({"missing": "price"}, ("missing",), "missing takes a mapping with field, got 'price'"),
    ({"missing": {"field": 3}}, ("missing", "field"), "field must be a column name, got 3"),
    ({"missing": {"field": ""}}, ("missing", "field"), "got ''"),
    ({"keyword": {**FIELD, "words": "please"}}, ("keyword", "words"), "words must be a non-empty list"),
    ({"keyword": {**FIELD, "words": []}}, ("keyword", "words"), "words must be a non-empty list"),
    ({"keyword": {**FIELD, "words": [""]}}, ("keyword", "words", 0), "a word must be non-empty text, got ''"),
    ({"keyword": {**FIELD, "words": ["a", True]}}, ("keyword", "words", 1), "got true: write it in quotes"),
    ({"keyword": {**FIELD, "words": ["a" * 1001]}}, ("keyword", "words", 0), "exceeds the limit of 1000"),
    ({"keyword": {**FIELD, "words": ["a"] * 10_001}}, ("keyword", "words"), "10001 words"),
    (
        {"keyword": {**FIELD, "words": [f"{i:0500d}é" for i in range(2_000)]}},
        ("keyword", "words"),
        "1,000,000 bytes",
    ),
    ({"keyword": {**FIELD, "words": ["\ud800"]}}, ("keyword", "words", 0), "lone surrogate"),
    (
        {"keyword": {**FIELD, "words": ["a"], "whole_word": 1}},
        ("keyword", "whole_word"),
        "true or false, got 1",
    ),
    ({"regex": {**FIELD, "pattern": ""}}, ("regex", "pattern"), "a pattern must be non-empty text"),
    ({"regex": {**FIELD, "pattern": None}}, ("regex", "pattern"), "got nothing"),
    (
        {"regex": {**FIELD, "pattern": "a(?=b)"}},
        ("regex", "pattern"),
        "'a(?=b)' is rejected by RE2: invalid perl",
    ),
    (
        {"regex": {**FIELD, "pattern": "a" * 1001}},
        ("regex", "pattern"),
        "1001 characters exceed the limit of 1000",
    ),
    ({"regex": {**FIELD, "pattern": "\ud800"}}, ("regex", "pattern"), "lone surrogate"),
    (
        {"length": {**FIELD, "unit": "lines", "below": 3}},
        ("length", "unit"),
        "words or characters, got 'lines'",
    ),
    ({"length": {**FIELD}}, ("length",), "requires at least one of above, at_least, below, at_most"),
    ({"compare": {**FIELD, "above": "5"}}, ("compare", "above"), "above must be a number, got '5'"),
    ({"compare": {**FIELD, "above": True}}, ("compare", "above"), "above must be a number, got true"),
    ({"compare": {**FIELD, "above": float("nan")}}, ("compare", "above"), "a finite number, got nan"),
    ({"compare": {**FIELD, "above": 10**400}}, ("compare", "above"), "a finite number"),
    (
        {"compare": {**FIELD, "above": 1, "at_least": 1}},
        ("compare", "at_least"),
        "above or at_least, not both",
    ),
    ({"compare": {**FIELD, "above": 5, "below": 5}}, ("compare",), "no number is within the bounds"),
    ({"one_of": {**FIELD, "values": [None]}}, ("one_of", "values", 0), "use missing for a missing value"),
    ({"one_of": {**FIELD, "values": "no"}}, ("one_of", "values"), "values must be a non-empty list"),
    ({"all": []}, ("all",), "all must be a non-empty list"),
    ({"any": [{"missing": FIELD}, {"mising": FIELD}]}, ("any", 1, "mising"), "did you mean 'missing'?"),
    ({"not": [{"missing": FIELD}]}, ("not",), "expected one kind of"),
]


@pytest.mark.parametrize(("written", "path", "message"), REFUSED)
def test_an_invalid_template_is_rejected_with_its_path(written, path, message):
    """Every error has the problem, the value and the path."""
    with pytest.raises(GrammarError) as caught:
        canonical(written)

    assert message in str(caught.value)
    assert caught.value.path == path


def test_nesting_has_a_limit():
    """A template from a request cannot exhaust the stack."""
    written = {"missing": FIELD}
    for _ in range(MAX_DEPTH + 1):
        written = {"not": written}

    with pytest.raises(GrammarError, match="exceed the limit of 16 nested levels"):
        canonical(written)


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ({"any": [{"missing": FIELD}] * (MAX_TERMS + 1)}, ("any",)),
        ({"not": {"all": [{"missing": FIELD}] * (MAX_TERMS + 1)}}, ("not", "all")),
        ({"all": [{"missing": FIELD}, {"any": [{"missing": FIELD}] * MAX_TERMS}]}, ("all",)),
    ],
)
def test_terms_have_a_limit(written, path):
    """A template from a request cannot slow every prediction, however its terms are nested."""
    with pytest.raises(GrammarError, match="201 terms exceed the limit of 200") as fault:
        canonical(written)
    assert fault.value.path == path


def test_the_maximum_number_of_terms_is_accepted():
    """The limit counts leaves, not combinations."""
    parts = [{"not": {"missing": FIELD}}] * (MAX_TERMS // 2)
    assert len(list(leaves(canonical({"all": [{"any": parts}, {"any": parts}]})))) == MAX_TERMS


def test_an_error_keeps_its_path_in_a_copy():
    """GrammarError is copied and pickled with its path."""
    fault = copy.copy(GrammarError(("a", 1), "wrong"))

    assert (fault.path, str(fault)) == (("a", 1), "wrong")
