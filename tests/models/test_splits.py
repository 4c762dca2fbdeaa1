"""Training, validation and held-out rows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import DataError
from models.features import FeatureSpec
from models.splits import content_hashes, held_out, split

TEXT = (FeatureSpec("text", "text"),)
BOTH = (FeatureSpec("text", "text"), FeatureSpec("n", "number"))


def hashes_of(texts: list) -> np.ndarray:
    return content_hashes([{"text": text} for text in texts], TEXT)


def test_case_and_spaces_do_not_count() -> None:
    """Texts that differ in case or spaces only have one hash."""
    a, b, c = hashes_of(["Check  OUT\tthis ", "check out this", "check out that"])
    assert a == b != c


def test_the_hash_is_the_same_for_ever() -> None:
    """The rule reaches over versions and processes, so the number itself is fixed."""
    assert int(hashes_of(["check out this"])[0]) == 8966750737379095436


def test_copies_of_a_text_go_the_same_way_whatever_else_differs() -> None:
    """A comment posted again with other numbers is no new content; without text the other features count."""
    rows = [{"text": "hi", "n": 1}, {"text": "HI", "n": 2}, {"text": None, "n": 1}, {"text": "", "n": 2}]
    a, b, c, d = content_hashes(rows, BOTH)
    assert a == b
    assert c != d


def test_tables_and_records_hash_alike() -> None:
    """A table's row has the hash of the same row in a request, in any order of features."""
    frame = pd.DataFrame({"n": pd.array([1, None], dtype="Int64"), "c": ["x", None]})
    specs = (FeatureSpec("n", "number"), FeatureSpec("c", "category"))
    rows = [{"c": "X ", "n": 1.0}, {"n": None, "c": None}]
    assert content_hashes(frame, specs).tolist() == content_hashes(rows, specs[::-1]).tolist()


def test_a_tenth_is_held_out() -> None:
    """About one content in ten is divisible by ten."""
    out = held_out(hashes_of([f"text {k}" for k in range(5000)]))
    assert 0.085 < out.mean() < 0.115


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 60), min_size=20, max_size=200), st.integers(2, 4), st.randoms())
def test_no_content_is_on_two_sides(contents: list[int], n_classes: int, random: object) -> None:
    """Every row is in exactly one part, copies together, and both other parts have every class."""
    hashes = hashes_of([f"text {k}" for k in contents])
    y = np.array([random.randrange(n_classes) for _ in contents])  # type: ignore[attr-defined]
    try:
        parts = split(hashes, y, [str(k) for k in range(n_classes)])
    except DataError:
        return
    sides = [parts.train, parts.valid, parts.held_out]
    assert sorted(np.concatenate(sides).tolist()) == list(range(len(contents)))
    assert sum(len(np.unique(hashes[side])) for side in sides) == len(np.unique(hashes))
    assert held_out(hashes[parts.held_out]).all()
    for side in (parts.train, parts.valid):
        assert set(y[side]) == set(range(n_classes))


def test_validation_takes_a_fifth_of_the_rest() -> None:
    """A table of some size has the usual shares and no remark."""
    hashes = hashes_of([f"text {k}" for k in range(3000)])
    parts = split(hashes, np.arange(3000) % 2, ["a", "b"])
    assert 0.17 < len(parts.valid) / (3000 - len(parts.held_out)) < 0.23
    assert parts.remarks == ()


def test_small_tables_are_split_otherwise_and_say_so() -> None:
    """Where a fifth would miss a class, more goes to validation, with a remark."""
    rare = [k for k in range(400) if not held_out(hashes_of([f"text {k}"]))[0]]
    found = set()
    for first, second in zip(rare[::2], rare[1::2], strict=False):
        hashes = hashes_of([f"text {k}" for k in range(400)])
        y = np.zeros(400, dtype=np.int64)
        y[[first, second]] = 1
        try:
            found.update(split(hashes, y, ["common", "rare"]).remarks)
        except DataError as error:
            found.add(str(error))
    assert any("one in 3 of the rows" in remark for remark in found)


def test_few_rows_are_refused() -> None:
    """A handful of rows is no table to learn from."""
    with pytest.raises(DataError, match="19 rows are too few"):
        split(hashes_of([str(k) for k in range(19)]), np.arange(19) % 2, ["a", "b"])


def test_a_class_with_one_content_is_refused_by_name() -> None:
    """Copies of one row cannot be in both training and validation."""
    hashes = hashes_of([*(f"text {k}" for k in range(40)), *["hello there"] * 5])
    y = np.array([0] * 40 + [1] * 5)
    with pytest.raises(DataError, match="class 'rare' has 5 rows with 1 distinct content, 1 of them outside"):
        split(hashes, y, ["common", "rare"])


def test_a_class_that_is_held_out_as_a_whole_is_counted_in_all_rows() -> None:
    """All 300 rows of a class repeat one content, which is held out."""
    out = next(text for text in map(str, range(1000)) if held_out(hashes_of([text]))[0])
    hashes = hashes_of([*(f"text {k}" for k in range(40)), *[out] * 300])
    with pytest.raises(DataError, match="class 'rare' has 300 rows with 1 distinct content, 0 of them outside"):
        split(hashes, np.array([0] * 40 + [1] * 300), ["common", "rare"])


def test_one_content_that_makes_up_the_held_out_rows_is_named() -> None:
    """Of 251 held-out rows 250 repeat one content: nothing is expected, and two contents are not called one."""
    texts = [f"text {k}" for k in range(200)]
    kept = [text for text in texts if not held_out(hashes_of([text]))[0]][:60]
    first, second = [text for text in texts if text not in kept and held_out(hashes_of([text]))[0]][:2]
    rows = [*kept, *[first] * 250, second]
    (remark,) = split(hashes_of(rows), np.arange(len(rows)) % 2, ["a", "b"]).remarks
    assert remark.startswith("One content has most of the held-out 251 rows: a hash selects a tenth")


def test_nothing_held_out_is_said() -> None:
    """A table of which nothing falls among the held-out tenth is split, with a remark."""
    texts = [f"text {k}" for k in range(200)]
    kept = [text for text in texts if not held_out(hashes_of([text]))[0]][:60]
    parts = split(hashes_of(kept), np.arange(60) % 2, ["a", "b"])
    assert len(parts.held_out) == 0
    assert "No row is held out" in parts.remarks[-1]


def test_every_class_with_too_few_rows_is_named() -> None:
    """The message names the first, lists others, and is cut after ten."""
    hashes = hashes_of([f"text {k}" for k in range(60)])
    y = np.array([0] * 45 + list(range(1, 16)))
    with pytest.raises(DataError, match=r"class 'c01' .* \(as have too few: 'c02', .*'c11', \.\.\.\): add rows"):
        split(hashes, y, [f"c{k:02d}" for k in range(16)])
