"""Function sets: explicit, ordered, hashed."""

from multiprocessing.reduction import ForkingPickler

import pytest

from sfs.errors import DuplicateName, InvalidFunction, UnknownName
from sfs.registry import FunctionSet
from sfs.template import template


def gap(field):
    return template(f"no_{field}", missing={"field": field})


def test_a_set_keeps_the_order_and_finds_by_name():
    """It is a sequence of functions and a mapping from names."""
    a, b = gap("a"), gap("b")
    functions = FunctionSet([b, a])

    assert (functions.names, list(functions), len(functions)) == (("no_b", "no_a"), [b, a], 2)
    assert functions["no_a"] is a
    assert "no_b" in functions
    assert "no_c" not in functions


def test_the_hash_covers_names_meanings_and_order():
    """Sets of the same functions in the same order are equal; any change is another set."""
    one = FunctionSet([gap("a"), gap("b")])

    assert one == FunctionSet([gap("a"), gap("b")])
    assert len({one, FunctionSet([gap("b"), gap("a")]), FunctionSet([gap("a")]), FunctionSet([])}) == 4
    assert one.fingerprints == {"no_a": gap("a").fingerprint, "no_b": gap("b").fingerprint}


def test_sets_can_be_joined():
    """The functions of the first set come first."""
    assert (FunctionSet([gap("b")]) + FunctionSet([gap("a")])).names == ("no_b", "no_a")


def test_duplicate_names_are_rejected():
    """Duplicate names are an error."""
    with pytest.raises(DuplicateName, match="Operator names not unique: 2 operators with name no_a"):
        FunctionSet([gap("a")]) + FunctionSet([gap("a")])


def test_only_slicing_functions_are_accepted():
    """A plain function is rejected."""
    with pytest.raises(InvalidFunction, match="expected a SlicingFunction, got <built-in function print>"):
        FunctionSet([print])


def test_an_unknown_name_is_named():
    """The error lists the known names."""
    with pytest.raises(UnknownName, match=r"no function 'x'; the functions are \['no_a'\]"):
        FunctionSet([gap("a")])["x"]


def test_a_set_reaches_another_process():
    """The compiled plan is not pickled."""
    functions = FunctionSet([gap("a")])
    assert functions.plan.fields == {"a"}

    assert ForkingPickler.loads(ForkingPickler.dumps(functions)) == functions


def test_the_plan_is_compiled_once_and_holds_the_templates_only():
    """Plain functions are not part of the plan."""
    functions = FunctionSet.from_module("sfs.library.spam") + FunctionSet([gap("a")])

    assert functions.plan is functions.plan
    assert functions.plan.fields == {"a"}


@pytest.fixture
def files(tmp_path):
    python, yaml = tmp_path / "slices.py", tmp_path / "more.yaml"
    python.write_text("from sfs import template\nno_a = template('no_a', missing={'field': 'a'})\n")
    yaml.write_text("slices:\n  - {name: no_b, missing: {field: b}}\n")
    return python, yaml


def test_files_of_both_kinds_make_one_set(files):
    """The suffix determines how a file is read."""
    assert FunctionSet.from_files(files).names == ("no_a", "no_b")
    assert FunctionSet.from_file(files[1]) == FunctionSet.from_yaml(files[1])


def test_a_name_in_two_files_is_rejected(files, tmp_path):
    """The message names both files."""
    again = tmp_path / "again.yml"
    again.write_text("slices:\n  - {name: no_a, missing: {field: b}}\n")

    with pytest.raises(DuplicateName, match=r"'no_a' is defined in .*slices\.py and .*again\.yml: rename one"):
        FunctionSet.from_files([*files, again])


def test_another_suffix_is_rejected(tmp_path):
    """Only supported suffixes are loaded."""
    with pytest.raises(InvalidFunction, match=r"slices\.toml: functions come from \.py, \.yaml or \.yml files"):
        FunctionSet.from_file(tmp_path / "slices.toml")


def test_a_dotted_name_among_files_is_a_module(tmp_path):
    """Modules and files are combined in the given order."""
    file = tmp_path / "slices.yaml"
    file.write_text("slices: [{name: last, missing: {field: a}}]\n")
    names = FunctionSet.from_files(["sfs.library.spam", file]).names
    assert (names[0], names[-1]) == ("short_comment", "last")


@pytest.mark.parametrize("votes", [False, True])
@pytest.mark.parametrize("name", ["links/short", "/", "<b>x</b>", ".", "..", "x" * 201])
def test_a_name_that_cannot_be_part_of_a_url_is_refused_in_files(tmp_path, name, votes):
    """Templates, slicing functions and, for monitoring, labelling functions are refused with file and name."""
    (tmp_path / "slices.yaml").write_text(f"slices: [{{name: '{name}', missing: {{field: a}}}}]\n")
    (tmp_path / "slices.py").write_text(
        "from sfs.function import labeling_function, slicing_function\n"
        f"@{'labeling' if votes else 'slicing'}_function(name={name!r})\ndef f(x): return 1\n"
    )
    for file in ("slices.yaml", "slices.py"):
        with pytest.raises(
            InvalidFunction, match=rf"{file}: name '[^']*(' cannot be part of a URL|201 char|' has 201)"
        ):
            FunctionSet.from_files([tmp_path / file], votes=votes)


@pytest.mark.parametrize("name", ["50% off", "...", "a.b", "x" * 200, "?q#", "back\\slash", "größe 😀"])
def test_other_characters_stay_allowed(tmp_path, name):
    """An address can hold them, encoded."""
    (tmp_path / "slices.yaml").write_text(f"slices: [{{name: '{name}', missing: {{field: a}}}}]\n")
    assert FunctionSet.from_files([tmp_path / "slices.yaml"]).names == (name,)
