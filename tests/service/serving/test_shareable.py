"""Functions whose code can change nothing that another function sees."""

import builtins
from pathlib import Path

import pytest

from service.serving.shareable import may_change_its_record, may_share
from sfs.function import LabelingFunction, LabelingFunctionSlice, SlicingFunction
from sfs.registry import FunctionSet

CODE = """
import builtins, functools, math, os, re, string, sys
from re import search
from sfs.function import labeling_function, slicing_function
from sfs.preprocess import preprocessor

WORDS = ["free", "click"]
COUNTS = {}
PATTERN = re.compile("cl[i1]ck")
LIMIT, _PAIR = 5, ("a", frozenset({1}))
_state = object()

def _clean(text, sign="!"):
    return text.lower().strip(sign)

def even(n):
    return n == 0 or odd_number(n - 1)

def odd_number(n):
    return n != 0 and even(n - 1)

def words():
    return WORDS

def add(where, value):
    where.append(value)

def remembers(x):
    COUNTS[x.text] = 1
    return True

@preprocessor()
def lower(x):
    x.lowered = x.text.lower()
    return x
"""
HARMLESS = (
    "len(x.text.split()) < LIMIT",
    "'free' in x['text'].lower()",
    "x.get('likes', 0) > 3 and math.sqrt(x.likes) < _PAIR[0].count('a')",
    "re.search('song', x.text, re.IGNORECASE) is not None",
    "PATTERN.search(x.text) is not None or search('a', x.text)",
    "any(word in _clean(x.text) for word in WORDS)",
    "sum(each in string.punctuation for each in x.text) > 2",
    "sorted(x.tags, key=lambda tag: -len(tag))[0] == 'a'",
    "even(len(x.text))",
    "[1].append(2) is None",
    "x.text.no_such_method()",
)
HARMFUL = (
    "setattr(x, 'text', '')",
    "x.__dict__.update(text='')",
    "vars(x)",
    "object.__setattr__(x, 'text', '')",
    "exec('1')",
    "remembers(x)",
    "COUNTS.update(a=1)",
    "WORDS.append(x.text)",
    "words().append(x.text)",
    "add(WORDS, x.text)",
    "'{0.__globals__[_state]!r}'.format(even)",
    "'{even.budget}'.format_map(x)",
    "re.sys.modules.clear()",
    "[re][0].functools",
    "math.no_such_function()",
    "os.fork()",
    "sys.stdout",
    "len.__self__",
    "builtins.len",
    "even.__code__",
    "(each for each in x).gi_frame.f_globals",
    "type(x)",
    "open(x.text)",
    "_state",
    "functools.reduce(max, x.tags)",
    "no_such_name",
    "getattr(x, 'text')",
)
STATEMENTS = (
    "global LIMIT; LIMIT = 0",
    "import os",
    "even.budget = 1",
    "words = WORDS; words += ['a']",
    "WORDS[0] = 'a'",
    "del COUNTS['a']",
    "class A: pass",
    "try:\n        re.nothing\n    except AttributeError as error:\n        return error.obj",
    "match x.text:\n        case str(__class__=kind): return kind",
)


def functions(tmp_path: Path, *bodies: str) -> list[bool]:
    """Return whether each function may share a process."""
    parts = [f"@slicing_function()\ndef f{k}(x):\n    {body}\n" for k, body in enumerate(bodies)]
    path = tmp_path / "functions.py"
    path.write_text(CODE + "".join(parts))
    return [may_share(function) for function in FunctionSet.from_file(path) if function.name.startswith("f")]


def test_functions_that_only_read_may_share(tmp_path: Path) -> None:
    """Their record, constants, and functions that only read."""
    shared = functions(tmp_path, *(f"return {code}" for code in HARMLESS))
    assert dict(zip(HARMLESS, shared, strict=True)) == dict.fromkeys(HARMLESS, True)


def test_a_function_may_count(tmp_path: Path) -> None:
    """A number is not changed in place; a list may be."""
    body = "n = 0\n    for word in WORDS:\n        n {} 1\n    return n > 1"
    assert functions(tmp_path, body.format("+="), body.format("*=")) == [True, False]


def test_what_replaces_a_builtin_may_do_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions and errors."""
    rounds = SlicingFunction("rounds", lambda x: round(x.n) == 1)
    catches = SlicingFunction("catches", lambda x: OverflowError() is None)
    assert may_share(rounds)
    assert may_share(catches)
    monkeypatch.setattr(builtins, "round", lambda n: n)
    monkeypatch.setattr(builtins, "OverflowError", type("OverflowError", (Exception,), {}))
    assert not may_share(rounds)
    assert not may_share(catches)


def test_a_function_of_another_class_may_keep_state() -> None:
    """Its call is not that of its code."""

    class Remembers(LabelingFunction):
        pass

    assert may_share(LabelingFunctionSlice(LabelingFunction("plain", lambda x: 1)))
    assert not may_share(LabelingFunctionSlice(Remembers("other", lambda x: 1)))


def test_functions_that_change_containers_of_their_record_are_known() -> None:
    """They may share a process, with copies."""
    sorts = SlicingFunction("sorts", lambda x: x.tags.sort() is None)
    reads = SlicingFunction("reads", lambda x: sorted(x.tags)[0] == "a")
    assert (may_share(sorts), may_share(reads)) == (True, True)
    assert (may_change_its_record(sorts), may_change_its_record(reads)) == (True, False)


def test_functions_that_could_change_something_may_not_share(tmp_path: Path) -> None:
    """State of the file, builtins, modules, the record, and whatever is not known to be harmless."""
    codes = (*HARMFUL, *STATEMENTS)
    bodies = (*(f"return {code}" for code in HARMFUL), *(f"{code}\n    return True" for code in STATEMENTS))
    assert dict(zip(codes, functions(tmp_path, *bodies), strict=True)) == dict.fromkeys(codes, False)


@pytest.mark.parametrize(
    ("code", "shared"),
    [
        ("@slicing_function(pre=[lower])\ndef f(x): return True", False),
        ("@slicing_function(resources={'seen': []})\ndef f(x, seen): return True", False),
        ("@slicing_function()\ndef f(x, seen=[]): return True", False),
        ("@labeling_function()\ndef f(x): return 1 if x.n > 0 else -1", True),
    ],
)
def test_what_is_called_beside_the_function_counts(code: str, shared: bool, tmp_path: Path) -> None:
    """Preprocessors, resources and default values may keep state; a vote is a membership."""
    path = tmp_path / "functions.py"
    path.write_text(f"{CODE}\n{code}\n")
    assert [may_share(function) for function in FunctionSet.from_files([path], votes=True)] == [shared]
