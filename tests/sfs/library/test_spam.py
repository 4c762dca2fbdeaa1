"""Spam functions, plain and as templates, on examples and on the public comments."""

import subprocess
import sys

import pandas as pd
import pytest

from sfs.apply import apply
from sfs.library import spam
from sfs.registry import FunctionSet

CASES = {
    "short_comment": (["Cool video!", "", "a b c d"], ["a b c d e"]),
    "keyword_please": (["PLEASE look", "plz", "displeased"], ["pls"]),
    "keyword_subscribe": (["Subscribe!", "unsubscribed"], ["sub"]),
    "regex_check_out": (["Check it OUT", "checkout my page"], ["out of check", "check\nout"]),
    "short_link": (["see bit.ly/x", "ow.ly"], ["really", ".ly"]),
    "has_url": (["http://a", "https://a", "www.a", "a.com"], ["HTTP", "wwwa"]),
    "html_markup": (["a<br />b", "&amp;", "&#39;", "&#x27;"], ["a & b;", "&;", "< br"]),
}
PAIRS = list(zip(spam.SLICES, spam.TEMPLATES, strict=True))


@pytest.mark.parametrize("function", [*spam.SLICES, *spam.TEMPLATES], ids=lambda each: type(each).__name__)
def test_each_function_finds_its_slice(function):
    """Members and non-members follow the description; a missing text is not a member."""
    inside, outside = CASES[function.name]

    assert [function({"text": text}) for text in inside] == [True] * len(inside)
    assert [function({"text": text}) for text in [*outside, None]] == [False] * (len(outside) + 1)


def test_plain_functions_and_templates_have_the_same_names_and_descriptions():
    """The two sets are interchangeable."""
    assert [(a.name, a.metadata) for a, _ in PAIRS] == [(b.name, b.metadata) for _, b in PAIRS]


def test_sentiment_is_not_among_the_default_slices():
    """The sentiment slice requires an extra, so it is not loaded by default."""
    assert FunctionSet.from_module("sfs.library.spam").names == tuple(CASES)


def test_the_documented_difference_between_re_and_re2():
    """A non-ASCII letter before .ly is a link for the plain function only."""
    answers = {type(each).__name__: each({"text": "żółć.ly"}) for each in PAIRS[4]}

    assert answers == {"SlicingFunction": True, "Template": False}


def comments(data_dir):
    frames = [pd.read_csv(path) for path in sorted((data_dir / "youtube-spam").glob("*.csv"))]
    return pd.concat(frames).rename(columns={"CONTENT": "text"})[["text"]].reset_index(drop=True)


@pytest.mark.data
def test_templates_agree_with_the_plain_functions_on_the_public_comments(data_dir):
    """Both agree on every slice of all 1,956 comments."""
    frame = comments(data_dir)

    assert len(frame) == 1956
    assert apply(spam.TEMPLATES, frame) == apply(spam.SLICES, frame)


@pytest.mark.data
def test_coverage_of_the_public_comments_is_as_published(data_dir):
    """Coverage of the first four videos equals counts by other code."""
    frame = comments(data_dir)[:1586]
    coverage = {name: rate.count for name, rate in apply(spam.TEMPLATES, frame).coverage().items()}

    assert {name: coverage[name] for name in ("short_comment", "keyword_please", "regex_check_out", "short_link")} == {
        "short_comment": 358,
        "keyword_please": 178,
        "regex_check_out": 371,
        "short_link": 1,
    }


def test_sentiment_finds_gushing_comments():
    """A polarity above 0.9 is a member."""
    (polarity,) = spam.SENTIMENT_SLICES

    assert [polarity({"text": text}) for text in ("the best song ever, perfect!", "a table", None)] == [
        True,
        False,
        False,
    ]


def test_sentiment_without_its_extra_says_what_to_install():
    """The error names the missing extra."""
    code = "import sys; sys.modules['textblob'] = None; from sfs.library.spam import *; textblob_polarity({'text': ''})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "InvalidFunction" in done.stderr
    assert "install it with pip install 'slicewatch[sentiment]'" in done.stderr
