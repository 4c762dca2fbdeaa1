"""Snorkel-compatible appliers: results as in Snorkel, without its bugs."""

import json
import re
from collections import deque
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from sfs.appliers import (
    ApplierMetadata,
    LFApplier,
    PandasLFApplier,
    PandasSFApplier,
    SFApplier,
    slice_dataframe,
)
from sfs.errors import DuplicateName, InvalidFunction, InvalidReturnValue, SliceError
from sfs.function import SlicingFunction, labeling_function, slicing_function
from sfs.matrix import SliceMatrix
from sfs.preprocess import preprocessor
from sfs.registry import FunctionSet
from sfs.template import template

QUIET = {"progress_bar": False}
NUMBERS = [3, 43, -9, 50]


@preprocessor()
def squared(x):
    x.num = x.num**2
    return x


@slicing_function()
def big(x):
    return x.num > 42


@slicing_function(pre=[squared], resources={"limit": 42})
def far(x, limit):
    return 1 if x.num > limit else 0


@slicing_function()
def broken(x):
    return x.nope > 42


@labeling_function()
def label(x):
    return 2 if x.num > 42 else -1


@labeling_function(pre=[squared])
def other_label(x):
    return np.int64(x.num > 42)


@pytest.fixture
def frame() -> pd.DataFrame:
    """Numbers under an index that is neither sorted nor distinct."""
    return pd.DataFrame({"num": NUMBERS, "text": ["a", None, "c", ""]}, index=[9, 2, 9, 0])


@pytest.fixture
def points() -> list[SimpleNamespace]:
    """The same numbers as objects."""
    return [SimpleNamespace(num=n) for n in NUMBERS]


def test_slicing_functions_give_a_recarray(frame, points) -> None:
    """There is one int64 field per function in their order, 1 for members and 0 for others."""
    for S in (
        SFApplier([big, far]).apply(points, **QUIET),
        PandasSFApplier([big, far]).apply(frame, **QUIET),
    ):
        assert isinstance(S, np.recarray)
        assert S.dtype.names == ("big", "far")
        assert S["big"].dtype == np.int64
        assert S.tolist() == [(0, 0), (1, 1), (0, 1), (1, 1)]


def test_labelling_functions_give_a_matrix(frame, points) -> None:
    """There is one column of labels per function in their order, -1 where it abstains."""
    for applier, rows in ((LFApplier, points), (PandasLFApplier, frame)):
        L = applier([label, other_label]).apply(rows, **QUIET)
        assert type(L) is np.ndarray
        assert L.dtype == np.int64
        assert L.tolist() == [[-1, 0], [2, 1], [-1, 1], [2, 1]]


def test_rows_of_an_array_are_passed_as_they_are() -> None:
    """A function of array rows reads them by position."""
    first_big = SlicingFunction("first_big", lambda x: x[0] > 42)
    assert SFApplier([first_big]).apply(np.array([[10], [100]]), **QUIET).tolist() == [(0,), (1,)]


def test_dicts_are_read_by_item_attribute_and_get() -> None:
    """A dict keeps its methods, and its fields are attributes too."""
    f = SlicingFunction("f", lambda x: x["num"] == x.num and x.get("nope") is None and len(x) == 1)
    assert SFApplier([f]).apply([{"num": 1}, {"num": 1, "nope": 2}], **QUIET).tolist() == [(1,), (0,)]
    with pytest.raises(AttributeError, match="no field 'nope'"):
        SFApplier([broken]).apply([{"num": 1}], **QUIET)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.get("nope", 3) == 3,
        lambda x: x.get(["num"]).tolist() == [x.num] and x.get(["nope"], 3) == 3,
        lambda x: x["num"] == x.num == x.loc["num"],
        lambda x: x.name in (9, 2, 0),
        lambda x: list(x.index) == ["num", "text"],
        lambda x: "num" in x and "nope" not in x,
        lambda x: len(x) == 2 and next(iter(x)) == x.num,
        lambda x: x[["num"]].tolist() == [x.num],
        lambda x: isinstance(x.to_dict(), dict),
        lambda x: pd.isna(x.text) or isinstance(x.text, str),
    ],
)
def test_a_row_of_a_frame_behaves_like_a_series(frame, f) -> None:
    """Functions written for Snorkel's rows, which are Series, work unchanged."""
    assert PandasSFApplier([SlicingFunction("f", f)]).apply(frame, **QUIET).tolist() == [(1,)] * 4
    assert (
        PandasSFApplier([SlicingFunction("f", f, pre=[preprocessor()(lambda x: x)])]).apply(frame, **QUIET).tolist()
        == [(1,)] * 4
    )


def test_missing_numbers_are_those_of_pandas() -> None:
    """A comparison with a missing number is false, as in Snorkel."""
    likes = pd.DataFrame({"likes": [1.0, np.nan, 3.0]})
    S = PandasSFApplier([SlicingFunction("liked", lambda x: x.likes > 2)]).apply(likes, **QUIET)
    assert S["liked"].tolist() == [0, 0, 1]


def test_integer_column_names_are_kept() -> None:
    """Columns without names are read by number."""
    f = SlicingFunction("f", lambda x: x[1] > x[0])
    assert PandasSFApplier([f]).apply(pd.DataFrame([[1, 2], [2, 1]]), **QUIET)["f"].tolist() == [1, 0]


def test_a_frame_without_columns_has_rows() -> None:
    """A frame without columns keeps its number of rows."""
    f = SlicingFunction("f", lambda x: len(x) == 0)
    assert PandasSFApplier([f]).apply(pd.DataFrame(index=[3, 3]), **QUIET)["f"].tolist() == [1, 1]


def test_an_exception_propagates_unchanged(frame, points) -> None:
    """If faults are not tolerated, the function's own exception is raised."""
    error = KeyError("mine")

    def f(x):
        if x.num == -9:
            raise error
        return True

    for applier, rows in ((SFApplier, points), (PandasSFApplier, frame)):
        with pytest.raises(KeyError) as caught:
            applier([big, SlicingFunction("f", f)]).apply(rows, **QUIET)
        assert caught.value is error


def test_the_first_faulty_row_decides_which_exception_is_raised(points) -> None:
    """With several faulty functions, the exception of the earliest row is raised."""

    def at(row, error):
        return lambda x: (_ for _ in ()).throw(error) if x.num == NUMBERS[row] else True

    late = SlicingFunction("late", at(2, KeyError()))
    early = SlicingFunction("early", at(1, ConnectionError()))
    second = SlicingFunction("second", at(1, IndexError()))
    with pytest.raises(ConnectionError):
        SFApplier([late, early, second]).apply(points, **QUIET)


def test_tolerated_faults_are_counted(frame, points) -> None:
    """A function that raises gives -1 in that row, counted under its name."""
    some = SlicingFunction("some", lambda x: 1 // (x.num - 43) is not None)
    for applier, rows in ((SFApplier, points), (PandasSFApplier, frame)):
        S, meta = applier([big, broken, some]).apply(rows, fault_tolerant=True, return_meta=True, **QUIET)
        assert S.tolist() == [(0, -1, 1), (1, -1, -1), (0, -1, 1), (1, -1, 1)]
        assert meta == ApplierMetadata({"broken": 4, "some": 1})


def test_no_faults_are_an_empty_dict(points) -> None:
    """Functions without faults are absent from the metadata, and an abstention is not a fault."""
    abstains = SlicingFunction("abstains", lambda x: -1)
    assert SFApplier([big, abstains]).apply(points, return_meta=True, **QUIET)[1] == ({},)


def test_duplicate_names_are_rejected_at_construction() -> None:
    """The message has the words that Snorkel's users look for, the error is a ValueError."""
    with pytest.raises(DuplicateName, match="Operator names not unique: 2 operators with name big"):
        SFApplier([big, far, SlicingFunction("big", len)])


def test_the_repr_lists_the_functions() -> None:
    """An applier prints as Snorkel's does."""
    assert repr(PandasLFApplier([label, other_label])) == "PandasLFApplier, LFs: ['label', 'other_label']"


def test_appliers_accept_templates(frame) -> None:
    """Templates are evaluated among plain functions, in a list or a set."""
    functions = [template("above", compare={"field": "num", "above": 42}), big]
    for given in (functions, FunctionSet(functions)):
        assert PandasSFApplier(given).apply(frame, **QUIET).tolist() == [(0, 0), (1, 1), (0, 0), (1, 1)]


def test_a_template_that_cannot_read_a_value_is_a_fault() -> None:
    """A value of the wrong type raises, or is counted if faults are tolerated."""
    applier = SFApplier([template("above", compare={"field": "num", "above": 42})])
    points = [SimpleNamespace(num=50), SimpleNamespace(num="many")]
    with pytest.raises(InvalidReturnValue, match="row 1"):
        applier.apply(points, **QUIET)
    S, meta = applier.apply(points, fault_tolerant=True, return_meta=True, **QUIET)
    assert (S["above"].tolist(), meta.faults) == ([1, -1], {"above": 1})


def test_slice_dataframe_returns_the_members(frame) -> None:
    """Members keep their columns, labels and order."""
    pd.testing.assert_frame_equal(slice_dataframe(frame, big), frame.iloc[[1, 3]])


def test_the_pandas_appliers_take_frames_only() -> None:
    """The error for a list names the other applier."""
    with pytest.raises(SliceError, match="use SFApplier for other rows"):
        PandasSFApplier([big]).apply([1, 2])


def test_a_labelling_function_is_no_slicing_function() -> None:
    """A labelling function is rejected by SFApplier."""
    with pytest.raises(InvalidFunction, match=r"create it with @slicing_function\(\)"):
        SFApplier([label])


def test_a_progress_bar_is_for_terminals(points, capsys) -> None:
    """Nothing is printed if standard error is not a terminal."""
    SFApplier([big]).apply(points)
    assert capsys.readouterr().err == ""


def test_a_label_too_large_for_the_matrix_is_a_fault(points) -> None:
    """A label beyond 64 bits raises, or is -1 and counted."""
    applier = LFApplier([labeling_function("huge")(lambda x: 2**70), label])
    with pytest.raises(OverflowError):
        applier.apply(points, **QUIET)
    L, meta = applier.apply(points, fault_tolerant=True, return_meta=True, **QUIET)
    assert L.tolist() == [[-1, -1], [-1, 2], [-1, -1], [-1, 2]]
    assert meta.faults == {"huge": 4}


# Defects of Snorkel 0.10, each named by what holds here instead.


def test_a_failed_function_is_not_membership(frame, points) -> None:
    """-1 is truthy in Python, but a row with a fault or an abstention is not a member."""
    S = SFApplier([broken]).apply(points, fault_tolerant=True, **QUIET)
    matrix = SliceMatrix.from_recarray(S)
    assert not matrix.member.any()
    assert matrix.unknown.all()
    abstains = SlicingFunction("abstains", lambda x: 0 if x.num > 42 else -1)
    assert len(slice_dataframe(frame, abstains)) == 0


def assigning(x) -> bool:
    """Change the row by every means that a dict has."""
    x["new"] = x.num = 5
    vars(x)["newer"] = 6
    del x["text"]
    if isinstance(x, dict):
        x.update(a=1)
        x.setdefault("b", 2)
        x |= {"c": 3}
        x.pop("a")
        x.popitem()
    return "new" in x and x.new == x["num"] == 5 and "text" not in x


def test_a_function_may_assign_to_fields_of_its_row(frame) -> None:
    """The next function does not see it, nor do the caller's rows; a preprocessed row is no exception."""
    mappings = frame.to_dict("records")
    untouched = SlicingFunction("untouched", lambda x: list(vars(x)) == ["num", "text"] and x.num in NUMBERS)
    same = preprocessor()(lambda x: x)
    functions = [SlicingFunction("f", assigning), untouched] + [
        SlicingFunction(f"{f.name}_too", f.f, pre=[same]) for f in (SlicingFunction("f", assigning), untouched)
    ]
    before = repr((frame, mappings))
    for applier, rows in ((PandasSFApplier, frame), (SFApplier, mappings)):
        assert applier(functions).apply(rows, **QUIET).tolist() == [(1, 1, 1, 1)] * 4
    assert repr((frame, mappings)) == before


def test_a_row_of_a_mapping_is_a_dict() -> None:
    """Functions written for dicts work unchanged."""
    row = {"num": 1, "items": [2]}
    f = SlicingFunction("f", lambda x: isinstance(x, dict) and x == row and json.loads(json.dumps(x)) == row)
    methods = SlicingFunction("methods", lambda x: dict(x.items()) == row and {**x} == row and x | {} == row)
    other = SlicingFunction("other", lambda x: x.num == 1 and x["items"] == [2] and x.get("nope", 3) == 3)
    assert SFApplier([f, methods, other]).apply([row], **QUIET).tolist() == [(1, 1, 1)]


def test_rows_may_come_from_any_iterable(points) -> None:
    """A generator, a view or an iterator is read once; text and a single mapping are no rows."""
    for rows in (iter(points), (x for x in points), dict(enumerate(points)).values(), deque(points)):
        assert SFApplier([big]).apply(rows, **QUIET).tolist() == [(0,), (1,), (0,), (1,)]
    for wrong in ("text", {"num": 1}, 3, None):
        with pytest.raises(SliceError, match="rows must be a data frame or a list"):
            SFApplier([big]).apply(wrong, **QUIET)


@pytest.mark.parametrize("junk", [None, 0.7, 5, "yes", float("nan"), np.array([1, 0]), re.match("a", "a")])
def test_an_invalid_return_value_is_a_fault_like_an_exception(frame, points, junk) -> None:
    """An invalid return value raises, or is -1 and counted; it is never stored."""
    odd = SlicingFunction("odd", lambda x: junk)
    for applier, rows in ((SFApplier, points), (PandasSFApplier, frame)):
        with pytest.raises(InvalidReturnValue, match="'odd' returned"):
            applier([odd]).apply(rows, **QUIET)
        S, meta = applier([odd, big]).apply(rows, fault_tolerant=True, return_meta=True, **QUIET)
        assert S["odd"].tolist() == [-1] * 4
        assert S["big"].tolist() == [0, 1, 0, 1]
        assert meta.faults == {"odd": 4}


@pytest.mark.parametrize("junk", [None, 0.7, -2, "yes", re.match("a", "a")])
def test_an_invalid_label_is_a_fault_like_an_exception(frame, points, junk) -> None:
    """It raises, or is -1 and counted, also where a labelling function forgets to return."""
    odd = labeling_function("odd")(lambda x: junk)
    for applier, rows in ((LFApplier, points), (PandasLFApplier, frame)):
        with pytest.raises(InvalidReturnValue, match="'odd' returned"):
            applier([odd]).apply(rows, **QUIET)
        L, meta = applier([odd, label]).apply(rows, fault_tolerant=True, return_meta=True, **QUIET)
        assert L.tolist() == [[-1, -1], [-1, 2], [-1, -1], [-1, 2]]
        assert meta.faults == {"odd": 4}


def test_fields_of_chained_preprocessors_survive_on_frame_rows(frame) -> None:
    """A field derived by the first preprocessor is readable by the second and by the function."""

    @preprocessor()
    def halved(x):
        x.half = x.num / 2
        return x

    @preprocessor()
    def quartered(x):
        x.quarter = x.half / 2
        return x

    nested = preprocessor("nested", pre=[halved])(quartered.f)
    for pre in ([halved, quartered], [nested]):
        f = SlicingFunction("f", lambda x: x.quarter * 4 == x.half * 2 == x.num, pre=pre)
        assert PandasSFApplier([f]).apply(frame, **QUIET)["f"].tolist() == [1, 1, 1, 1]


def test_no_functions_are_no_columns(frame, points) -> None:
    """An applier without functions gives N rows without columns."""
    assert SFApplier([]).apply(points, **QUIET).shape == (4,)
    assert PandasSFApplier([]).apply(frame, **QUIET).dtype.names in ((), None)
    assert LFApplier([]).apply(points, **QUIET).shape == (4, 0)
    assert SFApplier([big]).apply([], **QUIET).shape == (0,)
    assert PandasSFApplier([big]).apply(pd.DataFrame({"num": []}), **QUIET).shape == (0,)


def test_rows_line_up_whatever_the_index(frame) -> None:
    """A shuffled, repeated or text index neither moves nor merges rows."""
    expected = PandasSFApplier([big, far]).apply(frame.reset_index(drop=True), **QUIET).tolist()
    for index in ([9, 2, 9, 0], [3, 2, 1, 0], list("dbca"), [None, 1, None, 1]):
        assert PandasSFApplier([big, far]).apply(frame.set_axis(index), **QUIET).tolist() == expected


def test_a_row_has_one_result_at_any_position(frame) -> None:
    """The result for a row does not depend on its position in the batch."""
    whole = PandasSFApplier([big, far]).apply(frame, **QUIET)
    for order in ([3, 2, 1, 0], [2], [1, 1, 0]):
        assert PandasSFApplier([big, far]).apply(frame.iloc[order], **QUIET).tolist() == whole[order].tolist()


def test_a_slice_may_be_called_base(points) -> None:
    """A function named "base" is a slice like any other."""
    S = SFApplier([SlicingFunction("base", big.f), far]).apply(points, **QUIET)
    assert S["base"].tolist() == [0, 1, 0, 1]
    assert SliceMatrix.from_recarray(S).column("base").tolist() == [False, True, False, True]


def test_repeated_rows_get_separate_results_from_a_memo() -> None:
    """A function that changes a memoized result changes no other row, and 1 is not True to the cache."""

    @preprocessor(memoize=True)
    def listed(x):
        x.kinds = [type(x.num).__name__]
        return x

    def spoiling(x):
        x.kinds.append("spoilt")
        return x.kinds == ["int", "spoilt"]

    f = SlicingFunction("f", spoiling, pre=[listed])
    points = [SimpleNamespace(num=n) for n in (1, True, 1.0, 1, 1)]
    assert SFApplier([f]).apply(points, **QUIET)["f"].tolist() == [1, 0, 0, 1, 1]
