"""Pattern sets against single patterns."""

import numpy as np
import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from sfs.patterns import (
    PatternSet,
    TextColumn,
    pattern_error,
    replace_surrogates,
    with_case_flag,
    words_pattern,
)

PATTERNS = [
    "check.*out",
    r"\w+\.ly",
    "(?i:ÇA|k)",
    "^a",
    "o$",
    "x*",
    r"\pL",
    "[^a-z]",
    r"(?:^|[^\pL\pM\pN_])(?:ad)(?:$|[^\pL\pM\pN_])",
    r"\d",
]
TEXTS = st.text(alphabet=list("acehkoutxy.ly \nÇçK0é́"), max_size=12) | st.sampled_from(
    ["check it out", "Check\nout", "bit.ly", "an ad!", "ads", ""]
)


def matched(patterns, texts, lowered=False):
    found = np.zeros((len(texts), len(patterns)), dtype=bool)
    PatternSet(patterns, lowered).match(TextColumn(texts), found)
    return found


@settings(max_examples=60)
@given(st.lists(TEXTS, min_size=1, max_size=5), st.lists(st.sampled_from(PATTERNS), min_size=1, unique=True))
def test_a_set_of_patterns_matches_like_single_patterns(texts, patterns):
    """The literal filter neither loses nor adds a match."""
    alone = [[re2.search(pattern, text) is not None for pattern in patterns] for text in texts]

    assert matched(patterns, texts).tolist() == alone


@settings(max_examples=30)
@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_a_large_batch_matches_like_a_small_one(texts):
    """Arrow's kernel, used for large batches, agrees with the filter, used for small ones."""
    repeats = 1 + 128 // len(texts)

    assert matched(PATTERNS, texts * repeats).tolist() == matched(PATTERNS, texts).tolist() * repeats


@pytest.mark.parametrize("repeats", [1, 30])
def test_lowering_is_pythons_in_batches_of_any_size(repeats):
    """Lower-casing equals that of Python, even if Unicode versions differ."""
    texts = ["ABC", "İx", "ΣΑΣ", "ẞ", "\u212a", "ſ", "É\ud800", ""]
    patterns = ["abc", "i\u0307x", "σας", "ß", "k", "s", "é\ufffd"]
    found = matched(patterns, texts * repeats, lowered=True)

    assert (
        found.tolist()
        == [[replace_surrogates(p) in replace_surrogates(t.lower()) for p in patterns] for t in texts] * repeats
    )


def test_many_patterns_in_a_large_batch_agree_too():
    """The engine depends on the number of patterns, the result does not."""
    many = [f"{letter}{other}" for letter in "abcde" for other in "abcde"]
    texts = ["abcab", "eda", "", "cc"] * 50

    assert matched(many, texts).tolist() == [[pattern in text for pattern in many] for text in texts]


@pytest.mark.parametrize("repeats", [1, 200])
def test_a_lone_surrogate_is_read_as_a_replacement_character(repeats):
    """A lone surrogate matches any character, and affects no other row."""
    found = matched(["a.b", "ok"], ["a\ud800b", "ok"] * repeats)

    assert found.tolist() == [[True, False], [False, True]] * repeats


def test_no_patterns_match_nothing():
    """An empty pattern set matches nothing."""
    assert matched([], ["a"]).shape == (1, 0)


def test_catastrophic_backtracking_is_impossible():
    """RE2 takes linear time on the classic example."""
    assert not matched(["(a+)+$"], ["a" * 20_000 + "b"])[0, 0]


@pytest.mark.parametrize("pattern", ["(?=a)", r"(a)\1", "(", "((a{100}){100}){10}", "[[:foo:]]"])
def test_a_rejected_pattern_has_the_reason_of_re2(pattern):
    """The reason is readable text."""
    assert isinstance(pattern_error(pattern), str)


def test_an_unbalanced_pattern_is_rejected():
    """Patterns are checked before the case flag is added."""
    assert "unexpected )" in pattern_error("a)(b")
    assert with_case_flag("a|b", True) == "(?i:a|b)"


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("ad", True),
        ("an ad!", True),
        ("ads", False),
        ("bad", False),
        ("ad_", False),
        ("adé", False),
        ("ad\u0301", False),
        ("ad-hoc", True),
    ],
)
def test_a_whole_word_stands_between_characters_that_are_no_part_of_words(text, inside):
    """Letters, marks, digits and underscores of any script continue a word."""
    assert bool(matched([words_pattern(["ad"], whole_word=True)], [text])[0, 0]) is inside


def test_words_are_taken_literally():
    """Special characters of a word are escaped."""
    assert matched([words_pattern(["c++", "a.b"], whole_word=False)], ["c++", "axb", "cc"])[:, 0].tolist() == [
        True,
        False,
        False,
    ]


def test_replace_surrogates_keeps_all_other_characters():
    """Lone surrogates are replaced one by one."""
    assert replace_surrogates("a\ud800\udfffé👍") == "a\ufffd\ufffdé👍"


def test_a_long_list_of_words_is_one_pattern():
    """A list beyond the pattern limit matches, together with other patterns."""
    words = [f"word{i:05d}" for i in range(5_000)]
    patterns = [words_pattern(words, whole_word=False), "x"]

    assert matched(patterns, ["a word04999", "x word", "word0499"]).tolist() == [
        [True, False],
        [False, True],
        [False, False],
    ]


def test_more_literals_than_one_filter_holds_are_split():
    """Patterns keep their numbers across filters."""
    patterns = [f"{i:06d}{'abcdefghij' * 30}{i:06d}" for i in range(1_200)]
    found = matched(patterns, [patterns[0], patterns[1_199] + patterns[600], "none"])

    assert [np.flatnonzero(row).tolist() for row in found] == [[0], [600, 1_199], []]
