"""Words are counted as ``str.split`` counts them, whichever way a batch goes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sfs.lengths import WordCounter, characters
from sfs.patterns import Texts

SPACES = [chr(code) for code in range(0x110000) if chr(code).isspace()]
TEXTS = st.lists(
    st.text(alphabet=["a", "é", "\u200b", "\ud800", *SPACES], max_size=30), min_size=1, max_size=4
)
BOUNDS = st.lists(
    st.sampled_from([-np.inf, np.inf, -1.0, 0.0, 0.5, 1.0, 2.0, 4.999, 5.0, 70.0]), min_size=1, max_size=3
)


def sides(numbers, bounds):
    return [[(number >= bound, number <= bound) for bound in bounds] for number in numbers]


@settings(max_examples=80, deadline=None)
@given(TEXTS, BOUNDS, st.sampled_from([1, 128]))
def test_counts_lie_on_the_same_side_of_every_bound_as_the_words(texts, bounds, repeats):
    """Splitting early, splitting in full and searching all tell what the bounds ask."""
    counted = WordCounter(bounds, bounds)(Texts(texts * repeats))
    words = [len(text.split()) for text in texts]

    assert sides(counted, bounds) == sides(words, bounds) * repeats


def test_every_space_of_every_script_separates_words():
    """The pattern's spaces are Python's."""
    texts = [f"a{space}b" for space in SPACES] * 10

    assert WordCounter([2.0], [np.inf])(Texts(texts)).tolist() == [2.0] * len(texts)


def test_characters_are_code_points():
    """As len counts them."""
    assert characters(Texts(["", "é", "👍🏽", "a\ud800"])).tolist() == [0, 1, 2, 2]
