"""A single template: declaration, calls, and pickling."""

import multiprocessing
from types import SimpleNamespace

import pytest

from sfs.errors import InvalidFunction, InvalidReturnValue
from sfs.record import Record
from sfs.template import template


def asks(**about):
    return template("asks", keyword={"field": "text", "words": ["please", "plz"]}, **about)


@pytest.mark.parametrize("make", [dict, Record, lambda fields: SimpleNamespace(**fields)])
def test_a_template_can_be_called_on_one_row_of_any_kind(make):
    """Mappings, records and objects are rows."""
    assert asks()(make({"text": "PLZ subscribe"})) is True
    assert asks()(make({"text": "nice"})) is False


def test_a_missing_value_is_no_member():
    """None and NaN are known non-members."""
    assert [asks()(row) for row in ({"text": None}, {"text": float("nan")})] == [False, False]


@pytest.mark.parametrize("row", [{}, Record({}), SimpleNamespace()])
def test_a_row_without_the_field_is_an_error(row):
    """An absent field is an error, except in ``missing``."""
    with pytest.raises(InvalidReturnValue, match="absent field: the record has no 'text'"):
        asks()(row)
    assert template("gap", missing={"field": "text"})(row) is True


def test_a_value_of_the_wrong_type_is_an_error():
    """The error names template, field and type."""
    with pytest.raises(InvalidReturnValue, match=r"'asks' cannot read this row: .*'text' must be text, got int"):
        asks()({"text": 3})


def test_metadata_travels_with_the_template():
    """Metadata is given as for any other slicing function."""
    made = asks(description="begs", owner="trust", severity="critical", target=0.9, protected=True)

    assert made.metadata.owner == "trust"
    assert made.metadata.description == "begs"
    assert (made.metadata.severity, made.metadata.target, made.metadata.protected) == ("critical", 0.9, True)


def test_the_fingerprint_is_of_the_name_and_the_meaning():
    """Name and meaning change the fingerprint; metadata and spelling do not."""
    respelled = template("asks", keyword={"words": ["PLZ", "please"], "field": "text"}, owner="someone else")
    renamed = template("begs", keyword={"field": "text", "words": ["please", "plz"]})
    changed = template("asks", keyword={"field": "text", "words": ["please"]})

    assert asks().fingerprint == respelled.fingerprint
    assert len({asks().fingerprint, renamed.fingerprint, changed.fingerprint}) == 3


def test_the_fingerprint_is_the_same_for_ever():
    """Stored fingerprints must match those of later releases."""
    assert asks().fingerprint == FINGERPRINT


FINGERPRINT = "88cb1a0dc74829d735ee17f23a852a3deda15d1d42e3acaf360ab501cc2a18f0"


def answer(function, row):
    return function.name, function.metadata.owner, function(row)


def test_a_template_reaches_another_process():
    """A template is pickled as its declaration."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        got = pool.apply(answer, (asks(owner="trust"), {"text": "please"}))

    assert got == ("asks", "trust", True)


def test_not_has_a_python_spelling():
    """``not_`` stands for the keyword ``not``."""
    has_price = template("has_price", not_={"missing": {"field": "price"}})

    assert has_price.spec == {"not": {"missing": {"field": "price"}}}
    assert has_price({"price": 3.0}) is True


def test_fields_are_those_that_the_template_reads():
    """Fields of nested kinds are included."""
    both = template("both", all=[{"missing": {"field": "a"}}, {"not": {"missing": {"field": "b"}}}])

    assert both.fields == {"a", "b"}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({}, "template 'broken': exactly one kind"),
        ({"keywrod": {}}, "template 'broken', keywrod: unknown key 'keywrod'; did you mean 'keyword'"),
        (
            {"any": [{"regex": {"field": "text", "pattern": "a(?=b)"}}]},
            r"template 'broken', any > 0 > regex > pattern: pattern 'a\(\?=b\)' is rejected by RE2",
        ),
        ({"missing": {"field": "x"}, "target": 3}, "target must be an accuracy"),
    ],
)
def test_errors_name_the_template_the_path_and_the_value(kind, message):
    """The message has the problem, the value, and the remedy."""
    with pytest.raises(InvalidFunction, match=message):
        template("broken", **kind)


def test_a_template_shows_its_declaration():
    """The repr contains the declaration."""
    assert repr(template("gap", missing={"field": "x"})) == "Template('gap', {'missing': {'field': 'x'}})"
