"""Fingerprints: covered and uncovered parts, the same in every process."""

import enum
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pytest

from sfs.function import LabelingFunction, Metadata, SlicingFunction, slicing_function
from sfs.preprocess import Preprocessor, preprocessor

MODULE = '''
import re
from sfs.function import slicing_function
from sfs.preprocess import preprocessor

WORDS = frozenset({"please", "plz", "help", "pls"})
LINK = re.compile(r"https?://", re.I)
LIMIT = {"words": 5, "tags": {"a", "b", "c"}}

def has(text, words):
    def one():
        return 1
    return one() and any(word in text for word in words)

@preprocessor()
def lowered(x):
    x.low = x.text.lower()
    return x

@slicing_function(pre=[lowered], resources={"extra": ["now", "asap"]})
def asks(x, extra):
    """Asks for something."""
    # words first
    if has(x.low, WORDS) or has(x.low, extra):
        return True
    return bool(LINK.search(x.low)) and len(x.low.split()) < LIMIT["words"]
'''


def changed(old: str, new: str) -> str:
    assert old in MODULE
    return MODULE.replace(old, new)


@pytest.fixture
def asks(module_of):
    """The fingerprint of ``asks`` in a module with the given source."""
    return lambda source=MODULE: module_of(source).asks.fingerprint


def test_it_is_a_sha256() -> None:
    """A fingerprint is 64 hexadecimal digits."""
    assert re.fullmatch("[0-9a-f]{64}", SlicingFunction("f", len).fingerprint)


def test_every_process_sees_the_same(tmp_path, root) -> None:
    """A fingerprint depends neither on the process nor on its hash seed."""
    (tmp_path / "written.py").write_text(MODULE)
    code = "import written; print(written.asks.fingerprint)"
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "77")
    }
    assert len(printed) == 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# words first", "# any comment"),
        ('"""Asks for something."""', '"""Other words."""'),
        ('"""Asks for something."""', ""),
        ("has(x.low, WORDS) or has(x.low, extra)", "(has(x.low, WORDS)\n\n   or has(x.low,extra))"),
        ("def asks(x, extra):", "def asks(x: object, extra: list[str]) -> bool:"),
        ("def has(text, words):", "def has(text, words):\n    'Tell.'"),
        ("import re\n", "import re\nUNUSED = 3\n"),
        ("        return 1\n", "        'One.'\n        return 1  # one\n"),
        ('{"please", "plz", "help", "pls"}', '{"pls", "help", "plz", "please"}'),
        ('{"words": 5, "tags": {"a", "b", "c"}}', '{"tags": {"c", "b", "a"}, "words": 5}'),
        ("@slicing_function(", "@slicing_function(owner='x', severity='info', target=.5, "),
        ("has(x.low, extra)", "has(x.low, extra, )"),
    ],
)
def test_equivalent_code_has_the_same_fingerprint(asks, old, new) -> None:
    """Comments, docstrings, layout, annotations, metadata and the order of sets are not covered."""
    assert asks(changed(old, new)) == asks()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("< LIMIT", "<= LIMIT"),
        ('"help"', '"helps"'),
        ("re.I)", "0)"),
        ("https?://", "http://"),
        ('"words": 5', '"words": 6'),
        ('"words": 5', '"words": 5.0'),
        ("return one() and any(word in text", "return one() and all(word in text"),
        ("x.text.lower()", "x.text.upper()"),
        ('["now", "asap"]', '["asap", "now"]'),
        ("frozenset({", "tuple({"),
        ("def asks(", "def asked("),
    ],
)
def test_different_code_has_another_fingerprint(asks, module_of, old, new) -> None:
    """Code, name, resources, preprocessors, and referenced constants and functions are covered."""
    module = module_of(changed(old, new))
    assert getattr(module, "asks", getattr(module, "asked", None)).fingerprint != asks()


def test_metadata_and_budget_do_not_count() -> None:
    """A change of owner or budget does not change the fingerprint."""
    one = SlicingFunction("f", len)
    assert SlicingFunction("f", len, metadata=Metadata(owner="a"), budget_ms=3).fingerprint == one.fingerprint


def test_a_labelling_function_is_another_function() -> None:
    """The same code has different fingerprints as a slicing and as a labelling function."""
    assert SlicingFunction("f", len).fingerprint != LabelingFunction("f", len).fingerprint


def above(limit):
    return SlicingFunction("above", lambda x: x.n > limit)


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass
class Bounds:
    low: float
    high: float


def a_function(x):
    return True


def another_function(x):
    return False


class Lexicon:
    def __init__(self, words):
        self.words = words

    def has(self, x):
        return x.text in self.words


DISTINCT = [
    1, True, 1.0, "1", b"1", None, (1,), [1], {1}, (1.0,), {"a": 1}, {"b": 1}, {1: "a"}, 0.0, -0.0,
    np.zeros((2, 3)), np.zeros((3, 2)), np.zeros((2, 3), np.float32), np.array([1, "a"], dtype=object),
    np.array([2, "a"], dtype=object), np.int64(1), re.compile("a"), re.compile("a", re.I), re.compile(b"a"),
    Colour.RED, Colour.BLUE, Colour, Bounds(0, 1), Bounds(0, 2), range(3), range(4), partial(pow, 2),
    partial(pow, 3), "a".join, "b".join, re, textwrap, a_function, another_function, Lexicon, Lexicon(["a"]),
    Lexicon(["b"]), Lexicon(["a"]).has, Lexicon(["b"]).has, {("a", 1): 2}, {("a", 2): 1}, float("nan"), ...,
    complex(1), slice(1), [[1], [1]], [[1], [2]], {"a": {"b": 1}}, len,
]  # fmt: skip


def test_values_that_differ_count_differently() -> None:
    """Closures over any two different values have different fingerprints."""
    marks = [above(value).fingerprint for value in DISTINCT]
    twice = [value for value, mark in zip(DISTINCT, marks, strict=True) if marks.count(mark) > 1]
    assert twice == []


def test_equal_values_count_equally() -> None:
    """Copies of the same data have one fingerprint, whether or not they share objects."""
    shared = ["a"]
    assert above([shared, shared]).fingerprint == above([["a"], ["a"]]).fingerprint
    assert above({("a", 1): 1, ("b", 1): 2}).fingerprint == above({("b", 1): 2, ("a", 1): 1}).fingerprint
    assert above(replace(Bounds(0, 1))).fingerprint == above(Bounds(0, 1)).fingerprint
    assert above(np.zeros((2, 3))).fingerprint == above(np.zeros((2, 3))).fingerprint


def test_cycles_are_followed_once() -> None:
    """A cycle in a resource and a recursive function have a fingerprint."""
    cycle = [1]
    cycle.append(cycle)
    assert above(cycle).fingerprint == above(cycle).fingerprint

    def down(n):
        return n <= 0 or down(n - 1)

    assert SlicingFunction("f", lambda x: down(x.n)).fingerprint != above(cycle).fingerprint


def test_a_function_without_source_counts_by_its_bytecode() -> None:
    """Code from exec has a fingerprint, which changes with the code."""

    def made(source):
        namespace = {}
        exec(source, namespace)  # noqa: S102
        return SlicingFunction("f", namespace["f"]).fingerprint

    one = made("def f(x):\n    return x.n in {1, 2, 3}")
    assert one == made("def f(x):\n    return x.n in {3, 2, 1}")
    assert one != made("def f(x):\n    return x.n in {1, 2, 4}")


def test_two_lambdas_on_one_line_differ() -> None:
    """If the source is ambiguous, the fingerprint covers the bytecode."""
    one, two = SlicingFunction("f", lambda x: x.n > 1), SlicingFunction("f", lambda x: x.n > 2)  # fmt: skip
    assert one.fingerprint != two.fingerprint


def test_defaults_count() -> None:
    """A computed default argument is covered."""

    def made(limit):
        def f(x, limit=limit):
            return x.n > limit

        return SlicingFunction("f", f).fingerprint

    assert made(1) != made(2)


def test_a_wrapped_function_counts_through_its_wrapper(module_of) -> None:
    """The function inside a functools.wraps wrapper or a cache is covered."""
    source = """
    import functools
    from sfs.function import SlicingFunction
    def twice(f):
        @functools.wraps(f)
        def wrapper(x):
            return f(x) and f(x)
        return wrapper
    @functools.lru_cache
    def limit():
        return 1
    @twice
    def f(x):
        return x.n > limit()
    made = SlicingFunction("f", f).fingerprint
    """
    marks = {
        module_of(source.replace(old, new)).made
        for old, new in [("", ""), ("x.n >", "x.n <"), ("return 1", "return 2"), ("f(x) and", "f(x) or")]
    }
    assert len(marks) == 4


def test_a_preprocessor_subclass_counts_by_its_methods_and_settings(module_of) -> None:
    """Methods, what they call, and settings are covered; the cache is not."""
    source = """
    from sfs.preprocess import Preprocessor
    class Words(Preprocessor):
        SEPARATOR = None
        def __init__(self, top, **settings):
            super().__init__("words", **settings)
            self.top = top
        def run(self, text):
            return {"words": self.cut(text)[: self.top]}
        def cut(self, text):
            return text.split(self.SEPARATOR)
    """
    plain = module_of(source).Words
    marks = {
        plain(3).fingerprint,
        plain(4).fingerprint,
        plain(3, mapped_field_names={"words": "w"}).fingerprint,
        module_of(source.replace("text.split", "text.rsplit")).Words(3).fingerprint,
        module_of(source.replace("SEPARATOR = None", "SEPARATOR = ','")).Words(3).fingerprint,
    }
    assert len(marks) == 5
    assert module_of(source).Words(3, memoize=True).fingerprint == plain(3).fingerprint


def test_an_object_can_declare_its_own_fingerprint() -> None:
    """A resource of another module's class is represented by its fingerprint attribute, else by its class."""

    class Model:
        def __init__(self, fingerprint=None):
            self.fingerprint = fingerprint

    Model.__module__ = "elsewhere"
    assert above(Model("a")).fingerprint != above(Model("b")).fingerprint
    assert above(Model()).fingerprint == above(Model()).fingerprint


def test_preprocessors_count_in_order() -> None:
    """Other preprocessors, or another order, change the fingerprint."""

    @preprocessor()
    def one(x):
        return x

    @preprocessor()
    def two(x):
        return x

    chains = [], [one], [two], [one, two], [two, one]
    marks = {SlicingFunction("f", len, pre=pre).fingerprint for pre in chains}
    assert len(marks) == 5
    assert isinstance(one, Preprocessor)


def test_a_function_that_refers_to_another_slice_counts_it(module_of) -> None:
    """The fingerprint covers referenced slices, even in a cycle."""
    source = """
    from sfs.function import slicing_function
    @slicing_function()
    def short(x):
        return len(x.text) < 5 or (x.text == "deep" and shout(x))
    @slicing_function()
    def shout(x):
        return x.text.isupper() and short(x)
    """
    one, other = module_of(source), module_of(source.replace("< 5", "< 6"))
    assert one.shout.fingerprint != other.shout.fingerprint
    assert one.shout.fingerprint == module_of(source).shout.fingerprint


def test_a_function_that_refers_to_a_template_counts_its_declaration(module_of) -> None:
    """The fingerprint covers the declarations of referenced templates."""
    source = """
    from sfs.function import slicing_function
    from sfs.template import template
    cheap = template("cheap", compare={"field": "price", "below": 5})
    @slicing_function()
    def bargain(x):
        return cheap(x) and x.text.isupper()
    """
    marks = {module_of(source.replace("5", limit)).bargain.fingerprint for limit in ("5", "6")}
    assert len(marks) == 2


def test_a_name_without_a_value_counts(module_of) -> None:
    """An unassigned closure cell and a property of a class are handled."""

    def outer():
        f = SlicingFunction("f", lambda x: later)
        empty = f.fingerprint
        later = True
        return empty, SlicingFunction("f", lambda x: later).fingerprint

    assert len(set(outer())) == 2
    source = """
    from sfs.function import SlicingFunction
    class Limit:
        @property
        def value(self):
            return 5
        @staticmethod
        def twice(n):
            return 2 * n
    made = SlicingFunction("f", lambda x: x.n > Limit.twice(Limit().value)).fingerprint
    """
    marks = {module_of(source.replace(*each)).made for each in (("5", "6"), ("2 *", "3 *"), ("", ""))}
    assert len(marks) == 3


def test_it_is_computed_once() -> None:
    """The fingerprint does not change after the first access."""
    words = ["a"]

    @slicing_function(resources={"words": words})
    def f(x, words):
        return x.text in words

    first = f.fingerprint
    words.append("b")
    assert f.fingerprint == first


HELD = """
import enum
from collections import namedtuple
from dataclasses import dataclass
from typing import NamedTuple
from sfs.function import SlicingFunction

@dataclass
class Data:
    limit: int = 5
    def above(self, n):
        return n > self.limit

class Named(NamedTuple):
    limit: int = 5
    def above(self, n):
        return n > self.limit

class Kind(str, enum.Enum):
    HIGH = "high"
    LOW = "low"
    def above(self, n):
        return n > 5
    @classmethod
    def _missing_(cls, value):
        return cls.LOW

class Words(dict):
    def above(self, n):
        return n > self["limit"]

class Slotted:
    __slots__ = ("__limit", "unset")
    def __init__(self, limit):
        self.__limit = limit
    def above(self, n):
        return n > self.__limit

class Number(int):
    def above(self, n):
        return n > self

held = {"data": Data(), "named": Named(), "kind": Kind.HIGH, "words": Words(limit=5), "slots": Slotted(5),
        "number": Number(5)}[NAME]
made = SlicingFunction("f", lambda x: held.above(x.n)).fingerprint
"""


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("data", [("n > self.limit", "n >= self.limit"), ("limit: int = 5", "limit: int = 6")]),
        ("named", [("n > self.limit", "n >= self.limit"), ("limit: int = 5", "limit: int = 6")]),
        (
            "kind",
            [("n > 5", "n >= 5"), ('"high"', '"higher"'), ("Kind.HIGH", "Kind.LOW"), ("cls.LOW", "None")],
        ),
        ("words", [('n > self["', 'n >= self["'), ("limit=5", "limit=6")]),
        ("slots", [("n > self.__", "n >= self.__"), ("Slotted(5)", "Slotted(6)")]),
        ("number", [("n > self\n", "n >= self\n"), ("Number(5)", "Number(6)")]),
    ],
)
def test_an_instance_counts_by_its_class_and_its_state(module_of, name, changes) -> None:
    """Methods, fields, values and slots of every kind of class in the function's module are covered."""
    source = HELD.replace("NAME", repr(name))
    assert all(old in source for old, _ in changes)
    marks = {module_of(source.replace(old, new)).made for old, new in [("", ""), *changes]}
    assert len(marks) == 1 + len(changes)
    assert module_of(source).made in marks


def test_functions_registered_for_a_type_count(module_of) -> None:
    """Implementations registered with singledispatch are covered, methods too."""
    source = """
    from functools import singledispatch, singledispatchmethod
    from sfs.function import SlicingFunction
    @singledispatch
    def size(value):
        return 1
    @size.register
    def _(value: str):
        return 2
    class Sizes:
        @singledispatchmethod
        def size(self, value):
            return 3
        @size.register
        def _(self, value: str):
            return 4
    made = SlicingFunction("f", lambda x: size(x.n) > Sizes().size(x.n)).fingerprint
    """
    marks = {module_of(source.replace(f"return {n}", "return 9")).made for n in range(5)}
    assert len(marks) == 5


def test_the_order_of_a_set_does_not_count(module_of) -> None:
    """Classes, functions and instances in a set or as keys are unordered, whatever their hashes."""
    source = """
    from sfs.function import SlicingFunction
    class Hashed(type):
        def __hash__(cls):
            return ORDER.index(cls.__name__) if cls.__name__ in ORDER else 9
    class A(metaclass=Hashed):
        def other(self):
            return B, SETS
    class B(metaclass=Hashed):
        def other(self):
            return A
    class C(B):
        pass
    SETS = {A, B, C}, {A: 1, B: 2, C: 3}, frozenset({B(), A()})
    made = SlicingFunction("f", lambda x: x.kind in SETS).fingerprint
    """
    source = textwrap.dedent(source).replace("    made", "made")
    orders = [module_of(f"ORDER = [*{names!r}]\n{source}") for names in ("ABC", "CBA", "BCA")]
    assert [len({tuple(map(str, each.SETS[0])) for each in orders}), len({each.made for each in orders})] == [
        3,
        1,
    ]
