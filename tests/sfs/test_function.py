"""Slicing and labelling functions, their metadata and their decorators."""

import pickle
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from sfs.errors import InvalidAnswer, InvalidFunction
from sfs.function import LabelingFunction, Metadata, SlicingFunction, labeling_function, slicing_function
from sfs.preprocess import preprocessor
from sfs.record import Record


@preprocessor()
def lowered(x):
    x.text = x.text.lower()
    return x


@slicing_function(pre=[lowered], resources={"words": ("please", "plz")}, owner="trust", target=0.9)
def asks(x, words):
    """Asks
    for something.

    Not shown.
    """
    return any(word in x.text for word in words)


def is_short(x):
    return len(x.text) < 5


@pytest.mark.parametrize("answer", [True, 1, np.True_, np.int64(1)])
def test_a_member_however_spelled_is_true(answer) -> None:
    """True and 1 of any kind are membership."""
    assert SlicingFunction("f", lambda x: answer)({}) is True


@pytest.mark.parametrize("answer", [False, 0, np.False_, np.uint8(0)])
def test_a_non_member_however_spelled_is_false(answer) -> None:
    """False and 0 of any kind are non-membership."""
    assert SlicingFunction("f", lambda x: answer)({}) is False


@pytest.mark.parametrize("answer", [None, 0.0, 0.7, 5, -2, "True", [], np.array([True]), 1.0])
def test_junk_is_refused_by_name(answer) -> None:
    """An answer that is neither true nor false is an error that names the function."""
    with pytest.raises(InvalidAnswer, match=r"'odd' answered .*: answer True or False"):
        SlicingFunction("odd", lambda x: answer)({})


def test_an_answer_that_cannot_be_printed_is_refused_too() -> None:
    """Junk whose repr raises, or that only looks like a list, is named by its type."""

    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError

    for junk, shown in ((Mute(), "Mute"), (type("list", (), {})(), "<a list>")):
        with pytest.raises(InvalidAnswer, match=shown):
            SlicingFunction("f", lambda x, junk=junk: junk)({})


def test_abstaining_has_no_truth_value() -> None:
    """-1 is neither membership nor non-membership."""
    with pytest.raises(InvalidAnswer, match="abstained"):
        SlicingFunction("f", lambda x: -1)({})


@pytest.mark.parametrize(("answer", "label"), [(2, 2), (True, 1), (-1, -1), (np.int32(0), 0)])
def test_a_labelling_function_answers_an_integer(answer, label) -> None:
    """Labels are whole numbers, and -1 abstains."""
    assert LabelingFunction("f", lambda x: answer)({}) == label


@pytest.mark.parametrize("answer", [-2, 0.5, None, "1"])
def test_a_label_that_is_none_is_refused(answer) -> None:
    """A labelling function answers -1, 0, 1, ... and nothing else."""
    with pytest.raises(InvalidAnswer, match="answer a label"):
        LabelingFunction("f", lambda x: answer)({})


def test_resources_and_preprocessors_reach_the_function() -> None:
    """A function gets the preprocessed row, and its resources by keyword."""
    assert asks({"text": "PLZ"})
    assert not asks(SimpleNamespace(text="nice"))
    assert asks(Record({"text": "Please!"}))


def test_exceptions_of_the_function_propagate() -> None:
    """Calling a function directly shows what it raises."""
    with pytest.raises(ZeroDivisionError):
        SlicingFunction("f", lambda x: 1 // 0)({})


def test_the_docstring_is_the_description() -> None:
    """The first paragraph of the docstring describes the slice unless a description is given."""
    assert asks.metadata.description == "Asks for something."
    assert slicing_function(description="own")(is_short).metadata.description == "own"


def test_metadata_comes_from_the_decorator() -> None:
    """Owner, severity, target, protected and family are kept."""
    about = {"owner": "a", "severity": "critical", "target": 0.5, "protected": True, "family": "b"}
    assert slicing_function(description="d", **about)(is_short).metadata == Metadata("d", **about)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"severity": "bad"}, "severity is one of info, warning, critical, got 'bad'"),
        ({"target": 0}, "target is an accuracy"),
        ({"target": 1.01}, "target is an accuracy"),
        ({"target": True}, "target is an accuracy"),
        ({"target": "0.9"}, "target is an accuracy"),
        ({"target": float("nan")}, "target is an accuracy"),
        ({"protected": 1}, "protected is True or False"),
        ({"owner": None}, "owner is text"),
        ({"budget_ms": 0}, "budget_ms of 'is_short' is a positive number"),
        ({"budget_ms": float("inf")}, "budget_ms of 'is_short' is a positive number"),
        ({"ownr": "x"}, "a decorator takes description, owner, .*not 'ownr'"),
    ],
)
def test_wrong_metadata_is_refused(about, message) -> None:
    """What a decorator is given is checked when it is used."""
    with pytest.raises(InvalidFunction, match=message):
        slicing_function(**about)(is_short)


@pytest.mark.parametrize("decorator", [slicing_function, labeling_function, preprocessor])
def test_missing_parentheses_are_noticed(decorator) -> None:
    """A decorator used bare says so."""
    with pytest.raises(ValueError, match="missing parentheses"):
        decorator(is_short)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x00", None, 3])
def test_a_name_is_text_without_control_characters(name) -> None:
    """Names that could break a log line or a file are refused."""
    with pytest.raises(InvalidFunction, match="name"):
        SlicingFunction(name, is_short)


@pytest.mark.parametrize("name", ["base", "short_link", "короткий", "a/b.c", "with space", "T", "shape"])
def test_any_readable_name_will_do(name) -> None:
    """No name of Snorkel's own parts is reserved."""
    assert SlicingFunction(name, is_short).name == name


@pytest.mark.parametrize("name", ["__all__", "__none__"])
def test_only_the_names_of_all_rows_and_of_none_are_reserved(name: str) -> None:
    """A slice cannot be called what reports call the whole traffic, or the rows of no slice."""
    with pytest.raises(InvalidFunction, match="give the slice another name"):
        SlicingFunction(name, is_short)


@pytest.mark.parametrize(
    ("f", "resources", "pre"),
    [
        ("no function", None, None),
        (is_short, ["no mapping"], None),
        (is_short, {1: "no name"}, None),
        (is_short, None, [is_short]),
        (is_short, None, lowered),
    ],
)
def test_a_wrong_declaration_is_refused(f, resources, pre) -> None:
    """What a function is made of is checked when it is made."""
    with pytest.raises(InvalidFunction):
        SlicingFunction("f", f, resources, pre)


def test_coroutines_and_generators_are_refused() -> None:
    """A function that would answer a coroutine or a generator is refused when it is made."""

    async def later(x):
        return True

    def piecewise(x):
        yield True

    for f in (later, piecewise):
        with pytest.raises(InvalidFunction, match="plain function"):
            SlicingFunction("f", f)


def test_a_slicing_function_is_a_labelling_function() -> None:
    """As in Snorkel, every slicing function is a labelling function, and not the reverse."""
    assert isinstance(asks, LabelingFunction)
    assert not isinstance(labeling_function()(is_short), SlicingFunction)


def test_the_repr_names_function_and_preprocessors() -> None:
    """A function prints as Snorkel's does."""
    assert repr(asks) == "SlicingFunction asks, Preprocessors: [LambdaPreprocessor lowered, Pre: []]"


def test_a_decorated_function_is_pickled_by_name() -> None:
    """The function under a decorator cannot be imported, so that what took its place is named."""
    assert pickle.loads(pickle.dumps(asks)) is asks  # noqa: S301  # our own bytes


def test_a_function_of_an_importable_one_is_pickled_whole() -> None:
    """A function made without a decorator arrives with name, resources, metadata and fingerprint."""
    made = SlicingFunction("short", is_short, metadata=Metadata(owner="a"))
    again = pickle.loads(pickle.dumps(made))  # noqa: S301  # our own bytes
    assert (again.name, again.metadata, again.fingerprint) == ("short", made.metadata, made.fingerprint)
    assert again({"text": "abc"})


def test_a_function_without_a_name_of_its_own_can_be_pickled() -> None:
    """A partial, or a method of an importable class, arrives whole."""
    for f in (partial(is_short), str.isupper):
        made = SlicingFunction("made", f)
        again = pickle.loads(pickle.dumps(made))  # noqa: S301  # our own bytes
        assert (again.name, again.fingerprint) == ("made", made.fingerprint)


def test_a_local_function_cannot_be_pickled() -> None:
    """Where nothing can be imported, pickle says so itself."""
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(SlicingFunction("f", lambda x: True))


def test_resources_given_are_copied() -> None:
    """Adding a resource to the dict that was given does not change the function."""
    resources = {"words": ("a",)}
    made = SlicingFunction("f", lambda x, words: x.text in words, resources)
    resources["other"] = 1
    assert made({"text": "a"})
