"""Joint evaluation of templates, against a naive reference implementation."""

import unicodedata
from decimal import Decimal
from fractions import Fraction
from operator import ge, gt, le, lt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfs.errors import UnknownName
from sfs.patterns import TextColumn
from sfs.record import Columns, text_of
from sfs.template import template
from sfs.template_plan import TemplatePlan, WordCounter, characters


def plan_of(templates):
    return TemplatePlan(each.spec for each in templates)


def twin(spec, row):
    """Evaluate one template on one mapping literally: True, False or None (unknown)."""
    kind, body = next(iter(spec.items()))
    if kind == "not":
        answer = twin(body, row)
        return None if answer is None else not answer
    if kind in ("all", "any"):
        answers = [twin(part, row) for part in body]
        decisive = kind == "any"
        return decisive if decisive in answers else None if None in answers else not decisive
    value = row.get(body["field"])
    if kind == "missing":
        return value is None
    if body["field"] not in row:
        return None
    if value is None:
        return False
    return LEAVES[kind](body, value)


def keyword(body, value):
    if not isinstance(value, str):
        return None
    text = value.lower()
    if not body["whole_word"]:
        return any(word in text for word in body["words"])
    return any(
        text.startswith(word, i) and not of_word(text[i - 1 : i]) and not of_word(text[i + len(word) :][:1])
        for word in body["words"]
        for i in range(len(text))
    )


def of_word(character):
    return bool(character) and (character == "_" or unicodedata.category(character)[0] in "LMN")


def regex(body, value):
    assert body["pattern"] == "a.b"
    if not isinstance(value, str):
        return None
    text = value.lower() if body["ignore_case"] else value
    return any(text[i] == "a" and text[i + 1] != "\n" and text[i + 2] == "b" for i in range(len(text) - 2))


def within(body, number):
    return all(holds(number, body[key]) for key, holds in HOLDS.items() if key in body)


def length(body, value):
    if not isinstance(value, str):
        return None
    return within(body, len(value.split()) if body["unit"] == "words" else len(value))


def compare(body, value):
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    return within(body, float(value))


def one_of(body, value):
    return text_of(value) in body["values"] if isinstance(value, (str, int, float)) else None


HOLDS = {"above": gt, "at_least": ge, "below": lt, "at_most": le}
LEAVES = {"keyword": keyword, "regex": regex, "length": length, "compare": compare, "one_of": one_of}

FIELDS = st.sampled_from(["u", "v"])
VALUES = st.one_of(
    st.none(),
    st.text(alphabet=list("abA B\n_é"), max_size=8),
    st.integers(-4, 4),
    st.floats(-4, 4),
    st.sampled_from([float("inf"), float("-inf"), 2**70, Decimal("1.5"), True, False, "1", "true"]),
    st.lists(st.integers(), max_size=1),
)
ROWS = st.lists(st.fixed_dictionaries({"u": VALUES}, optional={"v": VALUES}), min_size=1, max_size=6)
BOUNDS = st.one_of(
    st.builds(
        lambda key, bound: {key: bound},
        st.sampled_from(["above", "at_least", "below", "at_most"]),
        st.integers(-3, 4),
    ),
    st.builds(lambda low: {"above": low, "at_most": low + 2}, st.integers(-3, 3)),
)
WORDS = st.lists(st.text("abé", min_size=1, max_size=2), min_size=1, max_size=3)
LEAF = st.one_of(
    st.builds(
        lambda f, w, whole: {"keyword": {"field": f, "words": w, "whole_word": whole}},
        FIELDS,
        WORDS,
        st.booleans(),
    ),
    st.builds(lambda f, i: {"regex": {"field": f, "pattern": "a.b", "ignore_case": i}}, FIELDS, st.booleans()),
    st.builds(
        lambda f, u, b: {"length": {"field": f, "unit": u, **b}},
        FIELDS,
        st.sampled_from(["words", "characters"]),
        BOUNDS,
    ),
    st.builds(lambda f, b: {"compare": {"field": f, **b}}, FIELDS, BOUNDS),
    st.builds(
        lambda f, v: {"one_of": {"field": f, "values": v}},
        FIELDS,
        st.lists(st.sampled_from([1, True, "a", 2.0]), min_size=1),
    ),
    st.builds(lambda f: {"missing": {"field": f}}, FIELDS),
)
TREE = st.recursive(
    LEAF,
    lambda part: st.one_of(
        st.lists(part, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
        st.lists(part, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        part.map(lambda one: {"not": one}),
    ),
    max_leaves=4,
)
TEMPLATES = st.lists(TREE, min_size=1, max_size=5).map(
    lambda trees: [template(f"t{i}", **tree) for i, tree in enumerate(trees)]
)


@settings(max_examples=150, deadline=None)
@given(TEMPLATES, ROWS)
def test_a_plan_equals_its_slow_twin(templates, rows):
    """Grouping, deduplication and three-valued logic change no result."""
    result = plan_of(templates).evaluate(Columns(rows))
    expected = [[twin(each.spec, row) for each in templates] for row in rows]

    assert result.member.tolist() == [[answer is True for answer in row] for row in expected]
    assert result.unknown.tolist() == [[answer is None for answer in row] for row in expected]


@settings(max_examples=40, deadline=None)
@given(TEMPLATES, ROWS)
def test_a_row_has_one_result_alone_and_in_a_batch(templates, rows):
    """The result for a row does not depend on other rows."""
    plan = plan_of(templates)
    together = plan.evaluate(Columns(rows))
    alone = [plan.evaluate(Columns([row])) for row in rows]

    assert together.member.tolist() == [one.member[0].tolist() for one in alone]
    assert together.unknown.tolist() == [one.unknown[0].tolist() for one in alone]


@settings(max_examples=40, deadline=None)
@given(TEMPLATES, ROWS)
def test_unknown_rows_are_counted_and_described(templates, rows):
    """The faults sum to the unknown rows, and the first fault names the first of them."""
    result = plan_of(templates).evaluate(Columns(rows))

    for t in range(len(templates)):
        unknown = np.flatnonzero(result.unknown[:, t])
        assert sum(result.faults[t].values()) == len(unknown)
        if len(unknown):
            assert result.first_faults[t].startswith(
                (f"row {unknown[0]}: wrong type: ", f"row {unknown[0]}: absent field: ")
            )
        else:
            assert result.first_faults[t] is None


def test_the_first_fault_has_the_expected_and_the_actual_type():
    """The message names field and type, and no content."""
    result = plan_of([template("a", compare={"field": "likes", "above": 3})]).evaluate(
        Columns([{"likes": 1}, {"likes": "secret"}])
    )

    assert result.first_faults == ("row 1: wrong type: 'likes' must be a number, got str",)
    assert result.faults == ({"wrong type": 1},)


def test_an_absent_field_is_unknown_to_all_kinds_but_missing():
    """A null is a missing value; an absent field may be a misspelled name."""
    result = plan_of(kinds()).evaluate(Columns([{"flag": True}, {"text": None, "likes": None, "flag": True}]))

    assert result.unknown.tolist() == [[True] * 5 + [False] * 3, [False] * 8]
    assert result.member.tolist() == [[False] * 5 + [True, False, True]] * 2
    assert result.faults == ({"absent field": 1},) * 5 + ({},) * 3
    assert result.first_faults[0] == ("row 0: absent field: the record has no 'text': use null for a missing value")


def test_a_number_too_large_to_convert_is_unknown_to_one_of_only():
    """Other templates and other rows are not affected."""
    plan = plan_of([template("listed", one_of={"field": "n", "values": [3]}), template("gap", missing={"field": "n"})])
    result = plan.evaluate(Columns([{"n": Fraction(10) ** 400}, {"n": 10**5000}, {"n": Fraction(3)}]))

    assert result.member.tolist() == [[False, False], [False, False], [True, False]]
    assert result.unknown.tolist() == [[True, False], [True, False], [False, False]]
    assert result.first_faults[0] == (
        "row 0: wrong type: 'n' must be text, a boolean or a number of finite size, got Fraction"
    )


def test_reasons_are_counted_by_the_first_part_that_is_unknown():
    """Every unknown row has one reason, and a decisive part leaves no row unknown."""
    either = template("either", any=[{"compare": {"field": "u", "above": 3}}, {"missing": {"field": "v"}}])
    rows = [{"v": 1}, {"u": "x", "v": 1}, {"u": "x", "v": 1}, {"u": 9, "v": 1}, {"u": "x"}]
    result = plan_of([either]).evaluate(Columns(rows))

    assert result.faults == ({"absent field": 1, "wrong type": 2},)
    assert result.member[:, 0].tolist() == [False, False, False, True, True]


def kinds():
    return [
        template("word", keyword={"field": "text", "words": ["ok"]}),
        template("pattern", regex={"field": "text", "pattern": "^o"}),
        template("long", length={"field": "text", "unit": "characters", "above": 2}),
        template("many", compare={"field": "likes", "at_least": 2}),
        template("listed", one_of={"field": "likes", "values": ["2"]}),
        template("gap", missing={"field": "likes"}),
        template("not_gap", not_={"missing": {"field": "text"}}),
        template("flagged", one_of={"field": "flag", "values": ["true"]}),
    ]


MAPPINGS = [
    {"text": "ok!", "likes": 2, "flag": True},
    {"text": None, "likes": None, "flag": None},
    {"text": "no", "likes": 7, "flag": False},
]


@pytest.mark.parametrize(
    "dtypes",
    [
        {},
        {"text": "string", "likes": "Int64", "flag": "boolean"},
        {"text": "category", "likes": "Float64", "flag": "object"},
        {"text": "string[pyarrow]", "likes": "int64[pyarrow]", "flag": "bool[pyarrow]"},
    ],
)
def test_columns_of_any_type_are_read_like_mappings(dtypes):
    """Plain, nullable, categorical and Arrow columns give the same results."""
    frame = pd.DataFrame(MAPPINGS).astype(dtypes)
    plan = plan_of(kinds())
    framed, listed = plan.evaluate(Columns(frame)), plan.evaluate(Columns(MAPPINGS))

    assert framed.member.tolist() == listed.member.tolist()
    assert not framed.unknown.any()
    assert not listed.unknown.any()
    assert listed.member[1].tolist() == [False, False, False, False, False, True, False, False]


def test_an_absent_column_is_rejected_before_any_work():
    """In a data frame a misspelled field is an error and not a missing value."""
    plan = plan_of([template("gap", missing={"field": "prise"})])

    with pytest.raises(UnknownName, match="no column 'prise'; the columns are \\['price'\\]"):
        plan.evaluate(Columns(pd.DataFrame({"price": [1.0]})))


def test_fields_are_those_of_all_templates():
    """Fields of nested templates are included."""
    assert plan_of(kinds()).fields == {"text", "likes", "flag"}


def test_time_is_divided_among_the_templates():
    """Every template has an evaluation time."""
    result = plan_of(kinds()).evaluate(Columns(MAPPINGS * 100))

    assert (result.seconds > 0).all()
    assert result.seconds.shape == (8,)


@pytest.mark.parametrize("rows", [[], pd.DataFrame({"text": [], "likes": [], "flag": []})])
def test_no_rows_give_an_empty_result(rows):
    """An empty batch is valid."""
    result = plan_of(kinds()).evaluate(Columns(rows))

    assert result.member.shape == result.unknown.shape == (0, 8)


def test_no_templates_give_an_empty_result():
    """An empty plan is valid."""
    assert plan_of([]).evaluate(Columns(MAPPINGS)).member.shape == (3, 0)


def test_a_long_text_is_counted_in_full_where_the_bound_is_large():
    """Counting stops early only if no bound is larger."""
    plan = plan_of([template("long", length={"field": "text", "unit": "words", "above": 200})])

    assert plan.evaluate(Columns([{"text": "a " * 201}, {"text": "a " * 200}])).member[:, 0].tolist() == [
        True,
        False,
    ]


def test_numbers_beyond_64_bits_and_no_numbers_at_all():
    """A huge integer is beyond every bound; Decimal's NaN has the wrong type."""
    plan = plan_of([template("high", compare={"field": "x", "above": 0})])
    values = [
        10**400,
        -(10**400),
        Decimal("1e-3"),
        Decimal("NaN"),
        Decimal("sNaN"),
        np.float32(2),
        np.int8(-1),
    ]
    result = plan.evaluate(Columns([{"x": value} for value in values]))

    assert result.member[:, 0].tolist() == [True, False, True, False, False, True, False]
    assert result.unknown[:, 0].tolist() == [False, False, False, True, True, False, False]


SPACES = [chr(code) for code in range(0x10000) if chr(code).isspace()]
SPACED_TEXTS = st.lists(st.text(alphabet=["a", "é", "\u200b", "\ud800", *SPACES], max_size=30), min_size=1, max_size=4)
LENGTH_BOUNDS = st.lists(
    st.sampled_from([-np.inf, np.inf, -1.0, 0.0, 0.5, 1.0, 2.0, 4.999, 5.0, 70.0]), min_size=1, max_size=3
)


def sides(numbers, bounds):
    return [[(number >= bound, number <= bound) for bound in bounds] for number in numbers]


@settings(max_examples=80, deadline=None)
@given(SPACED_TEXTS, LENGTH_BOUNDS, st.sampled_from([1, 128]))
def test_counts_lie_on_the_same_side_of_every_bound_as_the_words(texts, bounds, repeats):
    """Early splits, full splits and searches agree on every bound."""
    counted = WordCounter(bounds, bounds)(TextColumn(texts * repeats))
    words = [len(text.split()) for text in texts]

    assert sides(counted, bounds) == sides(words, bounds) * repeats


def test_every_space_of_every_script_separates_words():
    """The pattern's spaces are those of str.split."""
    texts = [f"a{space}b" for space in SPACES] * 10

    assert WordCounter([2.0], [np.inf])(TextColumn(texts)).tolist() == [2.0] * len(texts)


def test_characters_are_code_points():
    """Characters are counted as by len."""
    assert characters(TextColumn(["", "é", "👍🏽", "a\ud800"])).tolist() == [0, 1, 2, 2]
