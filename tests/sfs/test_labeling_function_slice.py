"""Labelling functions as slices: memberships and fingerprints."""

from multiprocessing.reduction import ForkingPickler

import pytest

from sfs.apply import apply, apply_with_stats
from sfs.checks import check_function
from sfs.errors import DuplicateName, InvalidFunction
from sfs.function import LabelingFunction, LabelingFunctionSlice, Metadata, SlicingFunction
from sfs.preprocess import preprocessor
from sfs.registry import FunctionSet

PYTHON = """
from sfs import labeling_function, preprocessor, slicing_function


@preprocessor()
def folded(x):
    x.text = x.text.lower()
    return x


@slicing_function()
def short(x):
    return len(x.text) < 5


@labeling_function(resources={"word": "check"}, pre=[folded], owner="trust", budget_ms=3)
def says_check(x, word):
    "Asks to check something out."
    return 1 if word in x.text else -1
"""


@pytest.fixture
def python_file(tmp_path):
    path = tmp_path / "functions.py"
    path.write_text(PYTHON)
    return path


@pytest.mark.parametrize("answer", [0, 1, 7, False, True])
def test_a_row_with_a_label_is_a_member(answer):
    """A row with any label, including 0 and False, is a member."""
    S = apply([LabelingFunctionSlice(LabelingFunction("f", lambda x: answer))], [{"a": 1}])

    assert (S.member.tolist(), S.unknown.tolist()) == ([[True]], [[False]])


def test_an_abstention_makes_a_non_member():
    """An abstention makes a known non-member."""
    S = apply([LabelingFunctionSlice(LabelingFunction("f", lambda x: -1))], [{"a": 1}])

    assert (S.member.tolist(), S.unknown.tolist()) == ([[False]], [[False]])


@pytest.mark.parametrize("answer", ["spam", -2, None])
def test_an_invalid_return_value_makes_the_membership_unknown(answer):
    """Values that are neither a label nor an abstention are counted as invalid."""
    applied = apply_with_stats([LabelingFunctionSlice(LabelingFunction("f", lambda x: answer))], [{"a": 1}])

    assert (applied.matrix.member.tolist(), applied.matrix.unknown.tolist()) == ([[False]], [[True]])
    assert applied.stats[0].unknown == {"junk answer": 1}


def test_a_function_that_raises_leaves_the_membership_unknown():
    """The exception is the reason, and other rows are evaluated."""
    applied = apply_with_stats([LabelingFunctionSlice(LabelingFunction("f", lambda x: x.a))], [{"b": 1}, {"a": 1}])

    assert applied.matrix.unknown.tolist() == [[True], [False]]
    assert applied.stats[0].unknown == {"AttributeError": 1}


def test_rows_go_through_the_functions_preprocessors(python_file):
    """Preprocessors and resources are those of the labelling function."""
    functions = FunctionSet.from_files([python_file], votes=True)
    S = apply(functions, [{"text": "CHECK this out"}, {"text": "nice"}])

    assert S.member.tolist() == [[False, True], [True, False]]


def test_a_subclass_prepares_its_rows_itself():
    """A subclass that overrides ``__call__`` receives rows without preprocessing."""

    class Doubled(LabelingFunction):
        def __call__(self, x):
            return super().__call__({"n": 2 * x.n})

    @preprocessor()
    def one_more(x):
        x.n = x.n + 1
        return x

    votes = LabelingFunctionSlice(Doubled("f", lambda x: 1 if x.n == 5 else -1, pre=[one_more]))

    assert [votes({"n": n}) for n in (2, 4)] == [True, False]
    assert apply([votes], [{"n": 2}, {"n": 4}]).member.tolist() == [[True], [False]]


def test_name_metadata_and_budget_are_the_functions():
    """Name, metadata and budget are those of the labelling function."""
    function = LabelingFunction("f", len, metadata=Metadata("why", owner="trust"), budget_ms=3)
    votes = LabelingFunctionSlice(function)

    assert (votes.name, votes.metadata, votes.budget_ms) == ("f", function.metadata, 3.0)
    assert votes.function is function


def test_the_fingerprint_changes_with_the_function():
    """Another function or resource gives another fingerprint; an equal one the same."""

    def print_of(f, **resources):
        return LabelingFunctionSlice(LabelingFunction("f", f, resources or None)).fingerprint

    same = [print_of(lambda x: 1 if x.a else -1) for _ in range(2)]
    assert same[0] == same[1]
    assert (
        len(
            {
                same[0],
                print_of(lambda x: 1 if x.b else -1),
                print_of(lambda x, n: n, n=1),
                print_of(lambda x, n: n, n=2),
            }
        )
        == 4
    )


def test_the_slice_has_a_fingerprint_of_its_own():
    """A slicing function of the same name and code has another fingerprint."""

    def f(x):
        return 1

    prints = {
        LabelingFunctionSlice(LabelingFunction("f", f)).fingerprint,
        SlicingFunction("f", f).fingerprint,
    }
    assert len(prints | {LabelingFunction("f", f).fingerprint}) == 3


def test_the_slice_reaches_another_process(python_file):
    """The slice is pickled by its labelling function."""
    votes = FunctionSet.from_files([python_file], votes=True)["says_check"]
    twin = ForkingPickler.loads(ForkingPickler.dumps(votes))

    assert isinstance(twin, LabelingFunctionSlice)
    assert (twin.fingerprint, twin({"text": "Check"})) == (votes.fingerprint, True)


def test_the_slice_passes_the_contract_checks(python_file):
    """Only totality fails, because the function raises on a missing text."""
    votes = FunctionSet.from_files([python_file], votes=True)["says_check"]
    checks = {check.name: check.passed for check in check_function(votes, [{"text": "Check"}])}

    assert checks == {
        "deterministic": True, "total": False, "does not mutate": True, "picklable": True, "within budget": True,
    }  # fmt: skip


def test_slices_precede_labelling_functions(python_file, tmp_path):
    """Slices of all files come first; a set without votes has slices only."""
    more = tmp_path / "more.yaml"
    more.write_text("slices: [{name: no_text, missing: {field: text}}]\n")
    paths = [str(python_file), more]

    assert FunctionSet.from_files(paths, votes=True).names == ("short", "no_text", "says_check")
    assert FunctionSet.from_files(paths).names == ("short", "no_text")


def test_a_file_of_labelling_functions_only_has_no_slices(tmp_path):
    """The file adds monitored functions, but no slices of the model."""
    path = tmp_path / "labelers.py"
    path.write_text(PYTHON.replace("@slicing_function()\n", ""))

    assert FunctionSet.from_files([path]).names == ()
    assert FunctionSet.from_files([path], votes=True).names == ("says_check",)


def test_an_installed_module_has_labelling_functions_too(tmp_path, monkeypatch):
    """A module is given by its dotted name."""
    (tmp_path / "shop_votes.py").write_text(PYTHON)
    monkeypatch.syspath_prepend(str(tmp_path))

    assert FunctionSet.from_files(["shop_votes"], votes=True).names == ("short", "says_check")


def test_a_name_of_a_slice_and_of_a_labelling_function_is_rejected(python_file, tmp_path):
    """The message names both files."""
    again = tmp_path / "again.py"
    again.write_text("from sfs import template\nsays_check = template('says_check', missing={'field': 'text'})\n")

    with pytest.raises(DuplicateName, match=r"'says_check' is defined in .*again\.py and .*functions\.py: rename one"):
        FunctionSet.from_files([python_file, again], votes=True)


def test_a_duplicate_name_in_one_file_is_rejected(tmp_path):
    """The message names the file once."""
    path = tmp_path / "functions.py"
    path.write_text(f"{PYTHON}\nagain = slicing_function('says_check')(lambda x: True)\n")

    with pytest.raises(DuplicateName, match=r"'says_check' is defined in .*functions\.py twice: rename one"):
        FunctionSet.from_files([path], votes=True)


def test_a_reserved_name_is_rejected():
    """The names of all rows and of no slice are reserved."""
    with pytest.raises(InvalidFunction, match="'__all__' is a reserved name"):
        LabelingFunctionSlice(LabelingFunction("__all__", len))
