"""Application of functions to rows."""

from collections import UserList
from decimal import Decimal
from types import SimpleNamespace
from weakref import WeakSet

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sfs.apply import BLOCK_ROWS, PREPARED_ROWS, apply, apply_with_stats
from sfs.errors import DuplicateName, InvalidFunction, SliceError, UnknownName
from sfs.function import LabelingFunction, SlicingFunction
from sfs.preprocess import LambdaPreprocessor, preprocessor
from sfs.registry import FunctionSet
from sfs.template import template

short = SlicingFunction("short", lambda x: len(x.text.split()) < 3)
liked = SlicingFunction("liked", lambda x: x.likes is not None and x.likes > 2)
asks = template("asks", keyword={"field": "text", "words": ["please"]})
many = template("many", compare={"field": "likes", "above": 2})


def rows_of(comments):
    return comments.astype(object).where(comments.notna(), None).to_dict("records")


def test_every_row_is_member_non_member_or_unknown(comments) -> None:
    """A function that raises on a row makes only that membership unknown."""
    S = apply([short, liked], comments)
    assert S.names == ("short", "liked")
    assert S.column("short").tolist() == [True, True, False, True, False]
    assert S.unknown[:, 0].tolist() == [False, False, True, False, False]
    assert S.column("liked").tolist() == [False, False, True, False, True]
    assert not S.unknown[:, 1].any()


@pytest.mark.parametrize("kind", ["dicts", "objects", "tuple", "sequence", "array"])
def test_all_kinds_of_rows_are_alike(comments, kind) -> None:
    """A frame, and lists of its rows as dicts or objects, give the same matrix."""
    dicts = rows_of(comments)
    objects = [SimpleNamespace(**row) for row in dicts]
    rows = {
        "dicts": dicts,
        "objects": objects,
        "tuple": tuple(dicts),
        "sequence": UserList(dicts),
        "array": np.array(objects, dtype=object),
    }[kind]
    functions = [short, asks, liked, many]
    assert apply(functions, rows) == apply(functions, comments)


@pytest.mark.parametrize(
    "dtypes",
    [
        {"text": "string", "likes": "Int64"},
        {"text": "string[pyarrow]", "likes": "Float64"},
        {"text": pd.ArrowDtype(pa.string()), "likes": "int64[pyarrow]"},
        {"text": "category", "likes": "float32"},
        {"text": object, "likes": object},
    ],
)
def test_column_types_do_not_matter(comments, dtypes) -> None:
    """Nullable, Arrow, categorical and object columns give the memberships of plain ones."""
    functions = [short, asks, liked, many]
    assert apply(functions, comments.astype(dtypes)) == apply(functions, comments)


def test_times_with_a_zone_reach_the_function() -> None:
    """A function receives a timestamp with its time zone, and None for a missing one."""
    at = pd.to_datetime(pd.Series(["2024-03-01T12:00", None])).dt.tz_localize("Europe/Oslo")
    noon = SlicingFunction("noon", lambda x: x.at is not None and (x.at.hour, str(x.at.tz)) == (12, "Europe/Oslo"))
    assert apply([noon], pd.DataFrame({"at": at})).column("noon").tolist() == [True, False]


def test_rows_of_an_array_are_passed_as_they_are() -> None:
    """A function of array rows reads them by position."""
    S = apply([SlicingFunction("big", lambda x: x[0] > 42)], np.array([[10], [100]]))
    assert S.column("big").tolist() == [False, True]


def test_rows_of_any_object_are_passed_as_they_are() -> None:
    """Rows may be arbitrary objects."""
    S = apply([SlicingFunction("big", lambda x: x > 1)], [Decimal(1), 2.5, True, "a"])
    assert S.member[:, 0].tolist() == [False, True, False, False]
    assert S.unknown[:, 0].tolist() == [False, False, False, True]


@pytest.mark.parametrize("rows", [[], (), np.zeros((0, 2)), pd.DataFrame({"text": [], "likes": []})])
def test_no_rows_have_an_empty_matrix(rows) -> None:
    """Zero rows give a matrix of zero rows."""
    S = apply([short, liked], rows)
    assert (len(S), S.names, S.coverage()["short"].value) == (0, ("short", "liked"), None)


def test_no_functions_have_no_columns(comments) -> None:
    """Zero functions give N rows without slices."""
    applied = apply_with_stats([], comments)
    assert (applied.matrix.member.shape, applied.stats) == ((5, 0), ())


def test_rows_without_fields_are_rows() -> None:
    """A frame without columns still has its rows."""
    always = SlicingFunction("always", lambda x: True)
    assert apply([always], pd.DataFrame(index=range(3))).column("always").tolist() == [True] * 3


@pytest.mark.parametrize(
    "rows",
    [
        iter([]),
        (x for x in []),
        "text",
        {"text": ["a"]},
        3,
        None,
        np.array(3),
        {1},
        pa.table({"text": ["a"]}),
    ],
)
def test_invalid_rows_are_rejected_with_advice(rows) -> None:
    """Iterators, text, dicts, scalars and Arrow tables are not valid rows."""
    with pytest.raises(SliceError, match="a data frame or a list"):
        apply([short], rows)


def test_duplicate_columns_are_rejected() -> None:
    """A frame with two columns of one name is ambiguous."""
    with pytest.raises(SliceError, match="duplicate column 'text'"):
        apply([short], pd.DataFrame([["a", "b"]], columns=["text", "text"]))


def test_duplicate_names_are_rejected(comments) -> None:
    """Duplicate names are an error."""
    with pytest.raises(DuplicateName, match="2 operators with name short"):
        apply([short, liked, SlicingFunction("short", len)], comments)


@pytest.mark.parametrize("functions", [[len], ["short"], [LabelingFunction("f", len)], short])
def test_only_slicing_functions_are_applied(functions, comments) -> None:
    """A plain function, a name, or a single function is rejected with advice."""
    with pytest.raises(InvalidFunction, match=r"list of functions|create it with @slicing_function"):
        apply(functions, comments)


def test_a_template_that_reads_an_absent_column_is_rejected_before_any_work(comments) -> None:
    """The message names the template, the column, and the closest one; nothing has run."""
    asked = []
    spy = SlicingFunction("spy", lambda x: asked.append(x) or True)
    with pytest.raises(UnknownName, match=r"'odd' reads column 'txt'.*did you mean 'text'"):
        apply([spy, template("odd", missing={"field": "txt"})], comments)
    with pytest.raises(UnknownName, match=r"available: 'text', 'likes'"):
        apply([spy, template("odd", missing={"field": "zzz"})], comments)
    assert asked == []


def test_one_bad_function_never_hurts_another(comments) -> None:
    """Functions that raise, return invalid values or abstain do not affect the others."""

    class HostileError(Exception):
        def __str__(self):
            raise RuntimeError

    def hostile(x):
        raise HostileError

    bad = [
        SlicingFunction("raises", hostile),
        SlicingFunction("junk", lambda x: x),
        SlicingFunction("none", lambda x: None),
        SlicingFunction("abstains", lambda x: -1),
        SlicingFunction("truthless", lambda x: np.array([1, 2])),
        SlicingFunction("deep", lambda x: (lambda f: f(f))(lambda f: f(f))),
        SlicingFunction("changes", lambda x: setattr(x, "text", "") or True),
    ]
    applied = apply_with_stats([*bad, short, asks], comments)
    assert applied.matrix.unknown[:, : len(bad)].all()
    assert applied.matrix.align(["short", "asks"]) == apply([short, asks], comments)
    reasons = {each.name: dict(each.unknown) for each in applied.stats[: len(bad)]}
    assert reasons == {
        "raises": {"HostileError": 5},
        "junk": {"junk answer": 5},
        "none": {"junk answer": 5},
        "abstains": {"abstained": 5},
        "truthless": {"junk answer": 5},
        "deep": {"RecursionError": 5},
        "changes": {"AttributeError": 5},
    }


def test_the_first_fault_has_its_row(comments) -> None:
    """The statistics have the first faulty row and the reason; an abstention is not a fault."""
    some = SlicingFunction("some", lambda x: x.text.index("e") >= 0)
    abstains = SlicingFunction("abstains", lambda x: -1)
    runs = {each.name: each for each in apply_with_stats([some, short, liked, abstains], comments).stats}
    assert runs["some"].first_fault.startswith("row 2: AttributeError: ")
    assert runs["some"].unknown == {"AttributeError": 1, "ValueError": 1}
    assert runs["short"].first_fault.startswith("row 2: AttributeError: 'NoneType'")
    assert runs["liked"].first_fault is None
    assert runs["abstains"].first_fault is None


def test_an_exception_without_a_readable_message_is_reported(comments) -> None:
    """An exception whose ``str`` raises is reported by its type."""

    class MuteError(Exception):
        def __str__(self):
            raise RuntimeError

    def f(x):
        raise MuteError

    fault = apply_with_stats([SlicingFunction("f", f)], comments).stats[0].first_fault
    assert fault == "row 0: MuteError: (no readable message)"


def test_keyboard_interrupt_propagates(comments) -> None:
    """KeyboardInterrupt does not count as a fault of a function."""

    def stop(x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        apply([SlicingFunction("stop", stop)], comments)


def test_a_shared_preprocessor_runs_once_per_row(comments) -> None:
    """Functions with the same preprocessor, directly or nested, share its results."""
    worked = []

    @preprocessor()
    def lowered(x):
        worked.append(x.text)
        x.low = (x.text or "").lower()
        return x

    @preprocessor(pre=[lowered])
    def split(x):
        x.words = x.low.split()
        return x

    functions = [
        SlicingFunction("a", lambda x: "please" in x.low, pre=[lowered]),
        SlicingFunction("b", lambda x: "cool" in x.low, pre=[lowered]),
        SlicingFunction("c", lambda x: len(x.words) == 2, pre=[split]),
        SlicingFunction("d", lambda x: hasattr(x, "low")),
    ]
    S = apply(functions, comments)
    assert len(worked) == len(comments)
    assert S.member.sum(axis=0).tolist() == [2, 1, 2, 0]


def test_a_preprocessor_that_raises_hurts_its_dependents_only(comments) -> None:
    """Rows on which a preprocessor raises are unknown only to the functions that use it."""

    @preprocessor()
    def lowered(x):
        x.low = x.text.lower()
        return x

    behind = SlicingFunction("behind", lambda x: "please" in x.low, pre=[lowered])
    applied = apply_with_stats([behind, liked], comments)
    assert applied.matrix.unknown.sum(axis=0).tolist() == [1, 0]
    assert applied.matrix.column("behind").tolist() == [True, False, False, False, True]
    assert applied.stats[0].unknown == {"AttributeError": 1}
    assert applied.stats[0].first_fault.startswith("row 2: AttributeError")
    assert applied.stats[0].first_fault.endswith("(in preprocessor 'lowered')")


def test_templates_and_plain_functions_keep_their_order(comments) -> None:
    """Columns and statistics follow the order of the functions, however they are evaluated."""
    functions = [many, short, asks, liked]
    applied = apply_with_stats(functions, comments)
    assert applied.matrix.names == ("many", "short", "asks", "liked")
    assert [each.name for each in applied.stats] == ["many", "short", "asks", "liked"]
    assert np.array_equal(applied.matrix.column("many"), applied.matrix.column("liked"))
    assert applied.matrix.column("asks").tolist() == [True, False, False, False, True]


def test_a_function_set_and_a_list_have_one_matrix(comments) -> None:
    """The compiled plan of a set gives the results of a list."""
    for functions in ([many, short, asks], [many, asks], [short]):
        assert apply(FunctionSet(functions), comments) == apply(functions, comments)


def test_a_template_that_cannot_read_a_value_says_so() -> None:
    """A value of the wrong type is unknown to a template, with reason and row."""
    applied = apply_with_stats([short, many], [{"text": "a", "likes": 3}, {"text": "a", "likes": "three"}])
    assert applied.matrix.unknown.tolist() == [[False, False], [False, True]]
    assert sum(applied.stats[1].unknown.values()) == 1
    assert applied.stats[1].first_fault.startswith("row 1:")


def test_a_subclass_with_its_own_call_is_called(comments) -> None:
    """A slicing function that overrides ``__call__`` is not bypassed."""

    class Opposite(SlicingFunction):
        def __call__(self, x):
            return not super().__call__(x)

    opposite = Opposite("opposite", lambda x: x.likes is None)
    assert apply([opposite], comments).column("opposite").tolist() == [True, False, True, True, True]


def test_every_function_has_a_time(comments) -> None:
    """Seconds are measured per function, also for those that fail."""
    runs = apply_with_stats([short, asks, SlicingFunction("bad", lambda x: x.nope)], comments).stats
    assert all(each.seconds > 0 for each in runs)


def test_progress_counts_rows_to_the_end() -> None:
    """Progress counts sum to the number of rows, for every mix of functions."""
    rows = [{"text": "a", "likes": 1}] * (BLOCK_ROWS + 5)
    for functions in ([short], [asks], [short, asks], []):
        told = []
        apply_with_stats(functions, rows, progress=told.append)
        assert sum(told) == len(rows)


def test_blocks_do_not_show(comments) -> None:
    """Rows beyond the first block keep their order, memberships and row numbers."""
    n = BLOCK_ROWS + 3
    frame = pd.DataFrame({"n": range(n)}, index=np.arange(n)[::-1])
    odd = SlicingFunction("odd", lambda x: 1 // (x.n != n - 2) and x.n % 2 == 1)
    applied = apply_with_stats([odd], frame)
    assert applied.matrix.member[:, 0].tolist() == [i % 2 == 1 and i != n - 2 for i in range(n)]
    assert applied.stats[0].first_fault == f"row {n - 2}: ZeroDivisionError: integer division or modulo by zero"


def test_prepared_rows_are_held_for_a_small_block_only() -> None:
    """At most PREPARED_ROWS results of a preprocessor are in memory."""
    alive = WeakSet()

    class Document:
        pass

    @preprocessor()
    def parsed(x):
        x.doc = Document()
        alive.add(x.doc)
        return x

    most = []
    long = SlicingFunction("long", lambda x: most.append(len(alive)) or x.n % 2 == 1, pre=[parsed])
    S = apply([long], [{"n": n} for n in range(2 * PREPARED_ROWS + 3)])
    assert S.member[:, 0].tolist() == [n % 2 == 1 for n in range(2 * PREPARED_ROWS + 3)]
    assert max(most) <= PREPARED_ROWS + 1


def test_a_membership_does_not_depend_on_other_rows(comments) -> None:
    """A row has the same memberships alone, in a batch, and in any order."""
    functions = [short, asks, liked, many]
    S = apply(functions, comments)
    order = [3, 0, 4, 2, 1]
    assert apply(functions, comments.iloc[order]) == S.take(order)
    for row in range(len(comments)):
        assert apply(functions, comments.iloc[[row]]) == S.take([row])


@pytest.mark.parametrize("functions", [[short, liked], [asks, many], [short, asks]])
def test_functions_may_come_from_a_generator(comments, functions) -> None:
    """A generator of functions is applied like a list."""
    assert apply((each for each in functions), comments) == apply(functions, comments)


def test_a_container_that_cannot_be_copied_is_shared() -> None:
    """A list that contains a generator is passed without a copy."""
    held = [(n for n in range(3))]
    assert apply([SlicingFunction("f", lambda x: next(x.held[0]) == 0)], [{"held": held}]).member.tolist() == [[True]]


@pytest.mark.parametrize("framed", [False, True])
def test_no_function_changes_what_another_reads(framed) -> None:
    """Every function receives its own containers, also after preprocessing; the caller's are unchanged."""

    @preprocessor()
    def paired(x):
        x.pairs = [(tag, [tag]) for tag in x.tags]
        return x

    def take(x):
        taken = x.pairs.pop()[1].pop() if "pairs" in x else x.tags.pop()
        return taken == "b" and x.more["n"].pop() == 1

    rows = [{"tags": ["a", "b"], "more": {"n": [1]}}, {"tags": [], "more": None}]
    pre = [[], [], [paired], [paired]]
    functions = [SlicingFunction(f"f{k}", take, pre=each) for k, each in enumerate(pre)]
    S = apply(functions, pd.DataFrame(rows) if framed else rows)
    assert S.member.tolist() == [[True] * 4, [False] * 4]
    assert S.unknown.tolist() == [[False] * 4, [True] * 4]
    assert rows == [{"tags": ["a", "b"], "more": {"n": [1]}}, {"tags": [], "more": None}]


def test_a_function_that_ends_the_process_is_a_fault_like_another(comments) -> None:
    """sys.exit in a function or a preprocessor makes only that membership unknown."""

    def exits(x: object) -> bool:
        raise SystemExit(5)

    before = SlicingFunction("before", lambda x: True, pre=[LambdaPreprocessor("exits", exits)])
    applied = apply_with_stats([SlicingFunction("exits", exits), before, short], comments)
    assert applied.matrix.unknown[:, :2].all()
    assert not applied.matrix.unknown[:, 2].all()
    assert applied.stats[0].unknown == {"SystemExit": len(comments)}
    assert applied.stats[0].first_fault == "row 0: SystemExit: 5"


def test_a_function_cannot_change_the_fields_that_others_see() -> None:
    """Its own rows are unknown."""

    def changes(x):
        x.__dict__["n"] = 0
        return True

    functions = [SlicingFunction("changes", changes), SlicingFunction("odd", lambda x: x.n % 2 == 1)]
    S = apply(functions, [{"n": n} for n in range(4)])
    assert S.column("odd").tolist() == [False, True, False, True]
    assert S.unknown[:, 0].all()
