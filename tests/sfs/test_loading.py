"""Python files of functions: loaded in isolation, under unique names, with errors by file and line."""

import inspect
import os
import pickle
import subprocess
import sys
import traceback
from multiprocessing.reduction import ForkingPickler

import pytest

from sfs.errors import InvalidFunction, UnreadableFile
from sfs.loading import load_file
from sfs.registry import FunctionSet

TWO = """\
from sfs import slicing_function

@slicing_function()
def second(x):
    return x.likes > 3

@slicing_function()
def first(x):
    return x.likes < 3

alias = second
"""


def functions_of(where):
    return list(FunctionSet.from_module(where))


@pytest.fixture
def write(tmp_path):
    def write(text, name="slices.py"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_every_function_of_a_file_counts_in_the_order_of_definition(write):
    """A function with two names is included once."""
    assert [each.name for each in functions_of(write(TWO))] == ["second", "first"]


def test_slices_names_the_functions_and_their_order(write):
    """SLICES selects and orders the functions of a file."""
    assert [each.name for each in functions_of(write(f"{TWO}\nSLICES = (first,)\n"))] == ["first"]


def test_an_installed_module_is_loaded_by_its_dotted_name():
    """The library is loaded like a user's file."""
    assert functions_of("sfs.library.spam")[0].name == "short_comment"


def test_functions_of_a_file_reach_a_copy_by_name(write):
    """Functions of a loaded file are pickled by name."""
    second, _ = functions_of(write(TWO))

    assert ForkingPickler.loads(ForkingPickler.dumps(second)) is second


def test_an_unchanged_file_is_imported_once(write):
    """Loading twice gives the same module; a change gives a new one."""
    path = write(TWO)
    once = load_file(path)

    assert load_file(path) is once
    assert load_file(write(f"{TWO}\n")) is not once


def test_files_of_one_name_in_two_folders_are_distinct(write):
    """The module name depends on the whole path."""
    assert load_file(write(TWO, "a/slices.py")).__name__ != load_file(write(TWO, "b/slices.py")).__name__


def test_a_users_folders_cannot_shadow_ours(write):
    """Folders named like the project's packages affect no import, and the search path is unchanged."""
    before = list(sys.path)
    write("raise RuntimeError('shadow')", "models/__init__.py")
    write("raise RuntimeError('shadow')", "sfs.py")
    module = load_file(write(f"import models.batches\n{TWO}"))

    assert module.models.__name__ == "models"
    assert "slices" not in sys.modules
    assert sys.path == before


def test_a_file_beside_cannot_be_imported(write):
    """The advice is to move the code or to install it."""
    write("X = 1", "own_words.py")

    with pytest.raises(
        InvalidFunction,
        match=r"line 1: ModuleNotFoundError: .*own_words.*; a functions file cannot import from its own",
    ):
        functions_of(write("import own_words\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ny = 1 / 0\n", "slices.py, line 2: ZeroDivisionError: division by zero"),
        ("def f(:\n", "slices.py, line 1: SyntaxError"),
        ("import sys\n\nsys.exit(3)\n", "slices.py, line 3: SystemExit: 3"),
        ("import no_such_module\n", "line 1: ModuleNotFoundError: No module named 'no_such_module'$"),
        ("import json\n\njson.loads('')\n", "slices.py, line 3: JSONDecodeError"),
        (
            "from sfs import slicing_function\n@slicing_function\ndef f(x): return True\n",
            "line 2: .*missing parentheses",
        ),
        ("x = 1\n", "no slicing functions: decorate a function with @slicing_function"),
        ("SLICES = 3\n", "SLICES must be a tuple of slicing functions, got 3"),
        ("SLICES = (print,)\n", "SLICES must be a tuple of slicing functions"),
    ],
)
def test_an_import_error_has_file_line_and_error(write, text, message):
    """The message has one line, with the position in the user's file."""
    with pytest.raises(InvalidFunction, match=message):
        functions_of(write(text))


def test_a_file_that_failed_leaves_no_module_behind(write):
    """A failed import leaves no module."""
    before = set(sys.modules)
    with pytest.raises(InvalidFunction):
        functions_of(write("raise ValueError"))

    assert not {name for name in set(sys.modules) - before if name.startswith("slicewatch_user")}


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ("no/such/file.py", UnreadableFile, "no/such/file.py: cannot be read: No such file"),
        ("no_such_module.at_all", InvalidFunction, "no module 'no_such_module.at_all'"),
        ("sfs.no_such_room", InvalidFunction, "no module 'sfs.no_such_room'"),
    ],
)
def test_an_absent_file_or_module_is_named(where, error, message):
    """A path and a dotted name have different messages."""
    with pytest.raises(error, match=message):
        functions_of(where)


def test_another_suffix_is_rejected(write):
    """Only supported suffixes are loaded."""
    with pytest.raises(UnreadableFile, match="its name must end in"):
        load_file(write(TWO, "slices.txt"))


def test_an_installed_module_that_fails_is_named(tmp_path, monkeypatch):
    """The message has the error, or the absent module."""
    (tmp_path / "broken_functions.py").write_text("raise ValueError('no')")
    (tmp_path / "needy_functions.py").write_text("import no_such_module")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(InvalidFunction, match="broken_functions cannot be imported: ValueError: no"):
        functions_of("broken_functions")
    with pytest.raises(InvalidFunction, match="needy_functions cannot be imported: No module named 'no_such_module'"):
        functions_of("needy_functions")


def test_an_edit_after_loading_has_no_effect(write):
    """Source, traceback, fingerprint and results are those of the loaded content."""
    path = write(TWO)
    expected = [each.fingerprint for each in functions_of(write(TWO, "other/slices.py"))]
    second, first = functions_of(path)
    write(TWO.replace("3", "7").replace("x.likes", "\n\n\n x.likes"))

    assert inspect.getsource(second.f).endswith("return x.likes > 3\n")
    assert [second.fingerprint, first.fingerprint] == expected
    with pytest.raises(AttributeError) as caught:
        second({})
    assert "return x.likes > 3" in "".join(traceback.format_exception(caught.value))


def test_two_versions_of_a_file_keep_their_own_source(write):
    """Neither version uses the other's lines or bytecode."""
    old, new = functions_of(write(TWO))[0], functions_of(write(TWO.replace("> 3", "> 7")))[0]

    assert (old({"likes": 5}), new({"likes": 5})) == (True, False)
    assert inspect.getsource(old.f).endswith("> 3\n")
    assert inspect.getsource(new.f).endswith("> 7\n")
    assert old.fingerprint != new.fingerprint


def test_nothing_is_written_beside_a_file(write):
    """The user's folder is unchanged."""
    path = write(TWO)
    load_file(path)

    assert [each.name for each in path.parent.iterdir()] == ["slices.py"]


MANY = f"""{TWO}
from functools import partial
from sfs import SlicingFunction
from sfs.preprocess import LambdaPreprocessor, Preprocessor

class Doubled(Preprocessor):
    def run(self, likes):
        return {{"likes": 2 * likes}}

def above(x, limit):
    return x.likes > limit

def halved(x):
    x.likes = x.likes / 2
    return x

third = SlicingFunction("third", lambda x: x.likes == 3)
SLICES = (
    first, second, third,
    *(SlicingFunction(f"above{{n}}", partial(above, limit=n), pre=[Doubled("doubled")]) for n in (4, 6)),
    SlicingFunction("half", above, {{"limit": 2}}, [LambdaPreprocessor("halved", halved)]),
)
"""


@pytest.fixture
def answers_elsewhere(tmp_path, root):
    """Return the results of pickled functions in a new process, or its last error line."""

    def ask(functions, row):
        (tmp_path / "sent").write_bytes(ForkingPickler.dumps(functions))
        code = f"import pickle; print([f({row}) for f in pickle.load(open({str(tmp_path / 'sent')!r}, 'rb'))])"
        env = os.environ | {"PYTHONPATH": str(root)}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
        return done.stdout.strip() or done.stderr.splitlines()[-1]

    return ask


def test_functions_of_a_file_reach_another_process(write, answers_elsewhere):
    """The other process loads the file, for functions pickled by name and by parts."""
    functions = functions_of(write(MANY))

    assert answers_elsewhere(functions, {"likes": 3}) == str([each({"likes": 3}) for each in functions])


def test_a_file_that_changed_or_is_gone_cannot_be_loaded_elsewhere(write, answers_elsewhere):
    """The message names the file; another version is never run."""
    path = write(TWO)
    functions = functions_of(path)
    write(TWO.replace("3", "7"))
    changed = answers_elsewhere(functions, {"likes": 3})
    path.unlink()

    assert f"InvalidFunction: {path} has changed since its functions were pickled: load the file" in changed
    assert f"UnreadableFile: {path}: cannot be read: No such file" in answers_elsewhere(functions, {})
    assert pickle.loads(pickle.dumps(functions)) == functions  # noqa: S301  # here they are loaded already
