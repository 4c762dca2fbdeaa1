"""Preprocessors: derived fields, unchanged rows, and memoization."""

import copy
import pickle
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from time import sleep
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from sfs.appliers import snorkel_rows
from sfs.errors import InvalidFunction, InvalidReturnValue, SliceError
from sfs.function import SlicingFunction
from sfs.preprocess import LambdaPreprocessor, Preprocessor, get_hashable, preprocessor
from sfs.record import Record


@preprocessor()
def lowered(x):
    x.low = x.text.lower()
    return x


@preprocessor()
def counted(x):
    x.n_words = len(x.low.split())
    return x


class Reversed(Preprocessor):
    """Preprocessor that derives a field named by its settings."""

    def run(self, text):
        return {"turned": text[::-1], "length": len(text)}


ROWS = {
    "record": lambda: Record({"text": "AB c", "seen": [1]}),
    "namespace": lambda: SimpleNamespace(text="AB c", seen=[1]),
    "series": lambda: pd.Series({"text": "AB c", "seen": [1]}, name=7),
}


@pytest.fixture(params=ROWS)
def row(request):
    """Row of every kind with attributes."""
    return ROWS[request.param]()


def test_a_new_field_can_be_read(row) -> None:
    """A derived field is an attribute, in addition to the original fields."""
    made = lowered(row)
    assert (made.low, made.text) == ("ab c", "AB c")
    assert type(made) is type(row)


def test_the_row_given_is_not_changed(row) -> None:
    """A preprocessor works on a copy, of plain containers too."""

    @preprocessor()
    def spoil(x):
        x.text = "other"
        x.seen.append(2)
        return x

    assert spoil(row).seen == [1, 2]
    assert (row.text, row.seen) == ("AB c", [1])


def test_chained_preprocessors_see_the_fields_of_those_before(row) -> None:
    """A derived field is readable by the next preprocessor, on rows of every kind."""
    assert SlicingFunction("f", lambda x: x.n_words == 2 and x.low == "ab c", pre=[lowered, counted])(row)


def test_a_nested_preprocessor_runs_first(row) -> None:
    """A preprocessor's own preprocessors run before it."""
    nested = preprocessor(pre=[lowered])(counted.f)
    assert nested(row).n_words == 2


def test_run_gets_fields_by_the_names_of_its_arguments(row) -> None:
    """By default run's arguments and results are fields of the same names."""
    made = Reversed("turned")(row)
    assert (made.turned, made.length) == ("c BA", 4)


def test_names_of_fields_can_be_mapped(row) -> None:
    """Settings rename the arguments and results of run; other keys are dropped."""
    made = Reversed("turned", {"text": "text"}, {"turned": "reversed text"})(row)
    assert getattr(made, "reversed text") == "c BA"
    assert not hasattr(made, "length")


def test_a_dict_is_a_row_too() -> None:
    """On a dict, fields are items."""
    given = {"text": "ab"}
    assert Reversed("turned")(given) == {"text": "ab", "turned": "ba", "length": 2}
    assert given == {"text": "ab"}


def test_an_array_is_a_row_too() -> None:
    """A preprocessor may set items of an array's copy."""

    @preprocessor()
    def doubled(x):
        x[0] *= 2
        return x

    given = np.array([1, 2])
    assert doubled(given).tolist() == [2, 2]
    assert given.tolist() == [1, 2]


def test_fields_that_are_not_names_can_be_set_and_deleted() -> None:
    """A mutable record has items as well as attributes."""

    @preprocessor()
    def rename(x):
        x["like count"] = x.likes
        del x.likes
        del x["text"]
        return x

    made = rename(Record({"text": "a", "likes": 3}))
    assert made == Record({"like count": 3})


def test_the_result_cannot_be_changed() -> None:
    """The result is a frozen record, which functions can share."""
    with pytest.raises(AttributeError, match="a record is immutable"):
        lowered(Record({"text": "a"})).low = "b"


@pytest.mark.parametrize("action", [lambda x: x.nope, lambda x: delattr(x, "nope")])
def test_an_absent_field_is_named(action) -> None:
    """Reading or deleting an absent field lists the fields."""
    with pytest.raises(AttributeError, match=r"no field 'nope'; its fields are \['text'\]"):
        preprocessor()(action)(Record({"text": "a"}))


def test_a_mutable_record_can_be_copied() -> None:
    """copy, deepcopy and pickle work on the row inside a preprocessor."""

    @preprocessor()
    def copying(x):
        carried = pickle.loads(pickle.dumps(x))  # noqa: S301  # our own bytes
        for again in (copy.copy(x), copy.deepcopy(x), carried):
            assert again == x
        return copy.copy(x)

    assert copying(Record({"text": "a"})) == Record({"text": "a"})


@pytest.mark.parametrize("made", [LambdaPreprocessor("gone", lambda x: None), Reversed("gone")])
def test_returning_none_to_a_function_is_an_error_that_names_the_preprocessor(made) -> None:
    """A forgotten return statement is an error, memoized or not."""
    made.run = lambda text: None
    message = "Preprocessor should not return None, but 'gone' did"
    for memoize in (False, True):
        made.memoize = memoize
        for pre in (made, preprocessor("outer", pre=[made])(lambda x: x)):
            with pytest.raises(InvalidReturnValue, match=message):
                SlicingFunction("f", lambda x: True, pre=[pre])(Record({"text": "a"}))


def test_a_direct_call_returns_none_as_it_is() -> None:
    """As in Snorkel; a memoized None is not computed again."""
    calls = []
    for memoize in (False, True):
        gone = LambdaPreprocessor("gone", lambda x: calls.append(x), memoize=memoize)
        assert [gone(Record({"text": "a"})) for _ in range(2)] == [None, None]
    assert len(calls) == 3


def test_run_returns_a_mapping_with_the_named_keys() -> None:
    """The result of run is validated."""
    odd = Reversed("odd")
    odd.run = lambda text: ["turned"]
    with pytest.raises(InvalidReturnValue, match="return a dict"):
        odd(Record({"text": "a"}))
    with pytest.raises(InvalidReturnValue, match="without 'nope'"):
        Reversed("odd", mapped_field_names={"nope": "b"})(Record({"text": "a"}))


def test_a_subclass_implements_run() -> None:
    """Preprocessor is abstract: a call of run without an implementation raises."""
    with pytest.raises(NotImplementedError, match="does not implement run: define it in a subclass"):
        Preprocessor("none", {"text": "text"})(Record({"text": "a"}))


def test_run_with_any_arguments_needs_field_names() -> None:
    """With *args or **kwargs, field_names is required."""

    class Any(Preprocessor):
        def run(self, **fields):
            return {"n": len(fields)}

    with pytest.raises(InvalidFunction, match="pass field_names"):
        Any("any")
    assert Any("any", {"a": "text"})(Record({"text": "x"})).n == 1


def test_a_decorated_preprocessor_is_pickled_by_name() -> None:
    """Unpickling gives the same object."""
    assert pickle.loads(pickle.dumps(lowered)) is lowered  # noqa: S301  # our own bytes


def test_a_preprocessor_with_a_memo_can_be_pickled() -> None:
    """The cache is not pickled."""
    made = Reversed("turned", memoize=True)
    made(Record({"text": "ab"}))
    again = pickle.loads(pickle.dumps(made))  # noqa: S301  # our own bytes
    assert again(Record({"text": "ab"})).turned == "ba"


def counting(**settings):
    """Return a memoizing preprocessor and the list of its processed rows."""
    worked = []

    def note(x):
        worked.append(x.value)
        x.found = [x.value]
        return x

    return LambdaPreprocessor("note", note, memoize=True, **settings), worked


def test_an_equal_row_is_processed_once(row) -> None:
    """The cache serves rows of equal content."""
    made, worked = counting()
    for value in (1, 2, 1):
        row_with = lowered(row)
        row_with = preprocessor()(lambda x, value=value: setattr(x, "value", value) or x)(row_with)
        assert made(row_with).found == [value]
    assert worked == [1, 2]


@pytest.mark.parametrize(
    "values",
    [
        [1, True, 1.0, "1", b"1", np.int64(1), np.float32(1)],
        [0.0, -0.0],
        [np.zeros((2, 3)), np.zeros((3, 2)), np.zeros((2, 3), "f4"), np.zeros((2, 3), "i8"), [0.0] * 6],
        [np.array([1, "a"], dtype=object), np.array([2, "a"], dtype=object)],
        [(1, 2), [1, 2], {1, 2}, frozenset({1, 2}), {1: 2}, bytearray(b"a"), b"a"],
        [{"a": 1}, {"a": True}, Record({"a": 1}), SimpleNamespace(a=1), pd.Series({"a": 1})],
        [int, float, len, print],
        [None, "None"],
        [datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 1, 13, tzinfo=timezone(timedelta(hours=1)))],
        [pd.Timestamp("2026-03-01 12:00", tz="UTC"), pd.Timestamp("2026-03-01 13:00", tz="Europe/Berlin")],
        [np.datetime64("2026-03-01"), np.datetime64("2026-03-01T00")],
        [Decimal("1.0"), Decimal("1.00")],
        [pd.Series([1, 2], ["a", "a"]), pd.Series([3, 2], ["a", "a"]), pd.Series([1, 2], ["a", "a"], dtype="i1")],
    ],
)
def test_values_that_python_calls_equal_are_different_rows(values) -> None:
    """1, True and 1.0, arrays of the same bytes, and one time in two zones, have different keys."""
    made, worked = counting()
    for value in values * 2:
        made(SimpleNamespace(value=value))
    assert len(worked) == len(values)


def test_nan_equals_nan() -> None:
    """A missing number has the same key every time."""
    made, worked = counting()
    for _ in range(2):
        made(Record({"value": float("nan")}))
    assert len(worked) == 1


def test_every_caller_gets_a_copy() -> None:
    """A change of a memoized result by one caller is not visible to others."""
    made, _ = counting()
    for _ in range(3):
        result = made(SimpleNamespace(value=1))
        assert result.found == [1]
        result.found.append("spoilt")


def test_a_changed_object_is_another_row() -> None:
    """An object without its own hash is compared by its current content."""

    class Plain:
        value = 1

    class Slotted:
        __slots__ = ("found", "value")

    class Both(Slotted):
        pass

    for x in (Plain(), Slotted(), Both()):
        made, worked = counting()
        x.found = None
        for x.value in (1, 2, 1):
            made(x)
        assert worked == [1, 2]


def test_arrays_of_other_packages_are_compared_by_content() -> None:
    """Tensors, also changed in place, and the arrays of pandas."""
    first = [pd.Categorical(["a", "b"]), pd.array(["a", "b"], dtype="string"), torch.tensor([1, 2])]
    same = [pd.Categorical(["a", "b"]), pd.array(["a", "b"], dtype="string"), torch.tensor([1, 2])]
    other = [pd.Categorical(["b", "a"]), pd.array(["a", None], dtype="string"), torch.tensor([1.0, 2.0])]
    for one, equal, different in zip(first, same, other, strict=True):
        assert get_hashable(one) == get_hashable(equal) != get_hashable(different)
    before = get_hashable(first[2])
    first[2][0] = 7
    assert get_hashable(first[2]) != before


def test_the_cache_is_bounded() -> None:
    """Beyond memoize_size, the least recently used row is evicted."""
    made, worked = counting(memoize_size=2)
    for value in (1, 2, 1, 3, 1, 2, 3):
        made(Record({"value": value}))
    assert worked == [1, 2, 3, 2, 3]


def test_memoize_key_determines_equal_rows() -> None:
    """Rows with the same key share a result."""
    made, worked = counting(memoize_key=lambda x: x.value)
    made(Record({"value": 1, "id": 1}))
    made(Record({"value": 1, "id": 2}))
    assert worked == [1]


def test_the_cache_can_be_cleared() -> None:
    """After reset_cache every row is processed again."""
    made, worked = counting()
    made(Record({"value": 1}))
    made.reset_cache()
    made(Record({"value": 1}))
    assert worked == [1, 1]


def test_threads_share_a_cache() -> None:
    """Threads get correct results, and the cache keeps its bound."""
    from concurrent.futures import ThreadPoolExecutor

    made, worked = counting(memoize_size=3)
    values = [i % 5 for i in range(2_000)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda v: made(Record({"value": v})).found, values))
    assert results == [[v] for v in values]
    before = len(worked)
    for value in range(5):
        made(Record({"value": value}))
    assert len(worked) - before >= 2


def test_a_thread_does_not_evict_what_another_reads() -> None:
    """Threads take turns while a key is looked up."""
    from concurrent.futures import ThreadPoolExecutor

    @dataclass(frozen=True)
    class Slow:
        value: int

        def __hash__(self):
            sleep(1e-4)
            return self.value

    made, _ = counting(memoize_size=1, memoize_key=lambda x: Slow(x.value))
    values = [i // 2 % 3 for i in range(200)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda v: made(Record({"value": v})).found, values)) == [[v] for v in values]


def test_a_value_without_hash_or_parts_requires_a_key() -> None:
    """The error advises to pass memoize_key."""

    class Opaque:
        __slots__ = ()
        __hash__ = None

    made, _ = counting()
    with pytest.raises(SliceError, match="memoize_key"):
        made(Record({"value": Opaque()}))


@pytest.mark.parametrize("size", [0, -1, 1.5, True, None])
def test_memoize_size_is_validated(size) -> None:
    """memoize_size is an integer of at least 1."""
    with pytest.raises(InvalidFunction, match="memoize_size"):
        Reversed("turned", memoize=True, memoize_size=size)


KINDS_OF_FRAME_ROWS = pytest.mark.parametrize(
    "rows", [snorkel_rows, lambda frame: [row for _, row in frame.iterrows()]]
)


@KINDS_OF_FRAME_ROWS
def test_equal_rows_of_a_frame_are_processed_once(rows) -> None:
    """The index label is no part of the key, and every result has that of its own row."""
    made, worked = counting()
    results = [made(row) for row in rows(pd.DataFrame({"value": ["a", "b", "a"]}, index=[4, 7, 9]))]
    assert worked == ["a", "b"]
    assert [row.name for row in results] == [4, 7, 9]


@KINDS_OF_FRAME_ROWS
def test_a_result_that_depends_on_the_index_label_is_not_shared(rows) -> None:
    """A preprocessor that reads the label, also nested, runs once for each label."""

    @preprocessor()
    def labelled(x):
        x.label = x.name
        return x

    outer = LambdaPreprocessor("outer", lambda x: x, pre=[labelled], memoize=True)
    frame = pd.DataFrame({"text": ["a", "a", "a"]}, index=[4, 7, 4])
    assert [(row.name, row.label) for row in map(outer, rows(frame))] == [(4, 4), (7, 7), (4, 4)]
