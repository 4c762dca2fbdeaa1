"""Ready-made templates for text."""

import pytest

from sfs.library.text import SLICES, templates

CASES = {
    "very_short": (["a b", ""], ["a b c"]),
    "very_long": (["a " * 101], ["a " * 100]),
    "all_caps": (["BUY NOW!", "ЖЖЖЖ", "A B C D 1"], ["OK", "BUY NOw", "1234", "漢字漢字"]),
    "question": (["why?", "为什么？", "لماذا؟", "γιατί\u037e"], ["why;"]),
    "non_latin": (["привет", "ok 漢"], ["żółć", "1 👍"]),
    "repeated_letters": (["soooo good", "SOOOO", "wow!!!"], ["soon", "wow!!", "www"]),
    "has_link": (["see HTTPS://a", "www.a.b"], ["awww.", "http"]),
    "no_letters": (["123 👍", "", "..."], ["1a", "é"]),
}


@pytest.mark.parametrize("function", templates("review"), ids=lambda each: each.name)
def test_each_template_finds_its_slice(function):
    """Members and non-members follow the description."""
    inside, outside = CASES[function.name.removeprefix("review_")]

    assert [function({"review": text}) for text in inside] == [True] * len(inside)
    assert [function({"review": text}) for text in [*outside, None]] == [False] * (len(outside) + 1)


def test_names_begin_with_the_column():
    """Templates of several columns have distinct names."""
    names = [each.name for each in (*SLICES, *templates("title"))]

    assert len(set(names)) == len(names) == 16
    assert all(each.metadata.description for each in SLICES)
