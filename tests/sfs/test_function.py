"""Slicing and labelling functions, their metadata and their decorators."""

import math
import pickle
from fractions import Fraction
from functools import partial
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from sfs.errors import InvalidFunction, InvalidReturnValue
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


def numbers(value: int) -> list:
    """The same number as a float, a fraction, and arrays and tensors of one element."""
    arrays = np.array(value), np.array([float(value)])
    tensors = torch.tensor(value), torch.tensor([value == 1]), torch.tensor(float(value), requires_grad=True)
    return [float(value), np.float16(value), Fraction(value), *arrays, *tensors]


@pytest.mark.parametrize("answer", [True, 1, np.True_, np.int64(1), *numbers(1)], ids=repr)
def test_true_and_one_are_members(answer) -> None:
    """True and 1 of any type are membership."""
    assert SlicingFunction("f", lambda x: answer)({}) is True


@pytest.mark.parametrize("answer", [False, 0, np.False_, np.uint8(0), *numbers(0)], ids=repr)
def test_false_and_zero_are_non_members(answer) -> None:
    """False and 0 of any type are non-membership."""
    assert SlicingFunction("f", lambda x: answer)({}) is False


@pytest.mark.parametrize(
    "answer",
    [
        *(0.7, 5, -2, "True", [], [1], math.nan, -math.inf, np.ma.masked, 1 + 0j, pd.NA, torch.tensor([])),
        *(np.array(content) for content in (0.5, None, "1", [True, False])),
    ],
    ids=repr,
)
def test_an_invalid_return_value_is_an_error(answer) -> None:
    """The error names the function."""
    with pytest.raises(InvalidReturnValue, match=r"'odd' returned .*: return True or False"):
        SlicingFunction("odd", lambda x: answer)({})


def test_a_return_value_without_a_repr_is_an_error() -> None:
    """A value whose repr raises is named by its type."""

    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError

    for junk, shown in ((Mute(), "Mute"), (type("list", (), {})(), "<a list>")):
        with pytest.raises(InvalidReturnValue, match=shown):
            SlicingFunction("f", lambda x, junk=junk: junk)({})


@pytest.mark.parametrize("answer", [-1, -1.0, np.array(-1), None])
@pytest.mark.parametrize("kind", [SlicingFunction, LabelingFunction])
def test_abstentions_and_none_are_returned_by_a_direct_call(kind, answer) -> None:
    """As in Snorkel; applied to rows, both are unknown."""
    returned = kind("f", lambda x: answer)({})
    assert returned is None if answer is None else returned == -1
    assert kind("f", lambda x: answer).parse_return_value(-1) is None


def test_a_direct_call_on_a_dict_gets_a_dict_with_attributes() -> None:
    """Missing values are None, as in ``apply``."""
    f = SlicingFunction("f", lambda x: isinstance(x, dict) and x == {"a": 1, "b": None} and x.a == 1)
    assert f({"a": 1, "b": float("nan")})


@pytest.mark.parametrize(("answer", "label"), [(2, 2), (True, 1), (-1, -1), (np.int32(0), 0), (2.0, 2)])
def test_a_labelling_function_returns_an_integer(answer, label) -> None:
    """Labels are integers, and -1 abstains."""
    assert LabelingFunction("f", lambda x: answer)({}) == label


@pytest.mark.parametrize("answer", [-2, 0.5, "1"])
def test_an_invalid_label_is_an_error(answer) -> None:
    """A labelling function returns -1, 0, 1, ... only."""
    with pytest.raises(InvalidReturnValue, match="return a label"):
        LabelingFunction("f", lambda x: answer)({})


def test_resources_and_preprocessors_reach_the_function() -> None:
    """A function receives the preprocessed row, and its resources as keyword arguments."""
    assert asks({"text": "PLZ"})
    assert not asks(SimpleNamespace(text="nice"))
    assert asks(Record({"text": "Please!"}))


def test_exceptions_of_the_function_propagate() -> None:
    """A direct call raises the function's exception."""
    with pytest.raises(ZeroDivisionError):
        SlicingFunction("f", lambda x: 1 // 0)({})


def test_the_docstring_is_the_description() -> None:
    """The first paragraph of the docstring describes the slice unless a description is given."""
    assert asks.metadata.description == "Asks for something."
    assert slicing_function(description="own")(is_short).metadata.description == "own"


def test_metadata_comes_from_the_decorator() -> None:
    """Owner, severity, target, protected and family are stored."""
    about = {"owner": "a", "severity": "critical", "target": 0.5, "protected": True, "family": "b"}
    assert slicing_function(description="d", **about)(is_short).metadata == Metadata("d", **about)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"severity": "bad"}, "severity must be one of info, warning, critical, got 'bad'"),
        ({"owner": "a\ud800"}, r"owner must be Unicode text, got 'a\\ud800'"),
        ({"target": 0}, "target must be an accuracy"),
        ({"target": 1.01}, "target must be an accuracy"),
        ({"target": True}, "target must be an accuracy"),
        ({"target": "0.9"}, "target must be an accuracy"),
        ({"target": float("nan")}, "target must be an accuracy"),
        ({"protected": 1}, "protected must be True or False"),
        ({"owner": None}, "owner must be Unicode text"),
        ({"budget_ms": 0}, "budget_ms of 'is_short' must be a positive number"),
        ({"budget_ms": float("inf")}, "budget_ms of 'is_short' must be a positive number"),
        ({"ownr": "x"}, "unknown decorator argument 'ownr': use description, owner, "),
    ],
)
def test_invalid_metadata_is_rejected(about, message) -> None:
    """A decorator validates its arguments."""
    with pytest.raises(InvalidFunction, match=message):
        slicing_function(**about)(is_short)


@pytest.mark.parametrize("decorator", [slicing_function, labeling_function, preprocessor])
def test_missing_parentheses_are_an_error(decorator) -> None:
    """A decorator without parentheses is an error."""
    with pytest.raises(ValueError, match="missing parentheses"):
        decorator(is_short)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\x00", None, 3])
def test_a_name_is_text_without_control_characters(name) -> None:
    """Names that could break a log line or a file are rejected."""
    with pytest.raises(InvalidFunction, match="name"):
        SlicingFunction(name, is_short)


@pytest.mark.parametrize("name", ["base", "short_link", "короткий", "a/b.c", "with space", "T", "shape"])
def test_any_printable_name_is_valid(name) -> None:
    """Names of Snorkel's own parts are not reserved."""
    assert SlicingFunction(name, is_short).name == name


@pytest.mark.parametrize("name", ["__all__", "__none__"])
def test_only_the_names_of_all_rows_and_of_none_are_reserved(name: str) -> None:
    """The names of the whole traffic and of no slice are reserved."""
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
def test_an_invalid_declaration_is_rejected(f, resources, pre) -> None:
    """A function validates its parts at construction."""
    with pytest.raises(InvalidFunction):
        SlicingFunction("f", f, resources, pre)


def test_coroutines_and_generators_are_rejected() -> None:
    """Coroutine and generator functions are not functions of one row."""

    async def later(x):
        return True

    def piecewise(x):
        yield True

    for f in (later, piecewise):
        with pytest.raises(InvalidFunction, match="plain function"):
            SlicingFunction("f", f)


def test_a_slicing_function_is_a_labelling_function() -> None:
    """As in Snorkel, every slicing function is a labelling function, but not the reverse."""
    assert isinstance(asks, LabelingFunction)
    assert not isinstance(labeling_function()(is_short), SlicingFunction)


def test_the_repr_names_function_and_preprocessors() -> None:
    """A function prints as Snorkel's does."""
    assert repr(asks) == "SlicingFunction asks, Preprocessors: [LambdaPreprocessor lowered, Pre: []]"


def test_a_decorated_function_is_pickled_by_name() -> None:
    """A decorated function is pickled by the name of its wrapper."""
    assert pickle.loads(pickle.dumps(asks)) is asks  # noqa: S301  # our own bytes


def test_a_function_of_an_importable_one_is_pickled_whole() -> None:
    """A function made without a decorator keeps name, resources, metadata and fingerprint."""
    made = SlicingFunction("short", is_short, metadata=Metadata(owner="a"))
    again = pickle.loads(pickle.dumps(made))  # noqa: S301  # our own bytes
    assert (again.name, again.metadata, again.fingerprint) == ("short", made.metadata, made.fingerprint)
    assert again({"text": "abc"})


def test_a_function_without_a_name_of_its_own_can_be_pickled() -> None:
    """A function of a partial or of a method can be pickled."""
    for f in (partial(is_short), str.isupper):
        made = SlicingFunction("made", f)
        again = pickle.loads(pickle.dumps(made))  # noqa: S301  # our own bytes
        assert (again.name, again.fingerprint) == ("made", made.fingerprint)


def test_a_local_function_cannot_be_pickled() -> None:
    """The error is pickle's own."""
    with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
        pickle.dumps(SlicingFunction("f", lambda x: True))


def test_resources_are_copied() -> None:
    """A change of the given dict does not change the function."""
    resources = {"words": ("a",)}
    made = SlicingFunction("f", lambda x, words: x.text in words, resources)
    resources["other"] = 1
    assert made({"text": "a"})
