"""Phrases fill their slots, use every vocabulary, and are our own."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.comments import phrases_body, phrases_short, phrases_slices
from models.comments.phrases import Phrase, Pool, lines, pick, pool, words
from models.comments.phrases_languages import LANGUAGES
from models.comments.public import load_sms, load_youtube


def pools() -> Iterator[Pool]:
    """Every pool of prose; links are not prose."""
    body, short = phrases_body, phrases_short
    yield from (body.FAN, body.ADVERT, body.CAMPAIGN_SPAM, body.CAMPAIGN_HAM, body.ASIDE)
    yield from (short.SHORT_FAN, short.SHORT_ADVERT)
    for markers in phrases_slices.MARKERS.values():
        yield from (markers.fan, markers.advert, markers.either)
    for language in LANGUAGES:
        yield from (language.fan, language.advert, language.short_fan, language.short_advert)


def every_phrase() -> list[Phrase]:
    return [phrase for each in pools() for phrase in each]


def plain(text: str) -> str:
    """The words of a text in lower case, divided by single spaces, with one at either end."""
    return " " + " ".join(re.findall(r"[^\W_]+", text.casefold())) + " "


def test_a_phrase_takes_one_draw_per_slot() -> None:
    """Slots are filled from left to right, each by one draw, and percent signs stay."""
    (phrase,) = pool(["{a} is 100% {b}, {a}"], {"a": ("x", "y"), "b": ("u", "v", "w")})
    draws = iter([0, 5, 3])
    assert phrase.fill(draws.__next__) == "x is 100% w, y"
    assert list(draws) == []


def test_an_unknown_slot_is_found_when_phrases_are_compiled() -> None:
    """A template that names no vocabulary never reaches the stream."""
    with pytest.raises(KeyError, match="missing"):
        pool(["{missing}"], {})


def test_picking_takes_a_phrase_and_then_its_words() -> None:
    """The first draw picks the phrase, wrapping round the pool."""
    assert pick(pool(lines("one\ntwo {x}"), {"x": words("a|b")}), iter([3, 1]).__next__) == "two b"


def test_no_phrase_is_written_twice_in_a_pool() -> None:
    """Each pool holds different templates."""
    for each in pools():
        assert len({(phrase.form, phrase.slots) for phrase in each}) == len(each)


def test_short_phrases_have_at_most_three_words() -> None:
    """Whatever fills a short phrase, an ending or a mark can follow within four words."""
    for each in [phrases_short.SHORT_FAN, phrases_short.SHORT_ADVERT] + [
        part for language in LANGUAGES for part in (language.short_fan, language.short_advert)
    ]:
        for phrase in each:
            longest = [max(slot, key=lambda word: len(word.split())) for slot in phrase.slots]
            assert len((phrase.form % tuple(longest)).split()) <= 3


@pytest.mark.data
def test_no_sentence_comes_from_the_public_files(data_dir: Path) -> None:
    """No phrase of five words or more, and no such run of a template, occurs in a public text."""
    texts = [*load_youtube(data_dir / "youtube-spam")["text"], *load_sms(data_dir / "sms-spam")["text"]]
    public = " | ".join(plain(text) for text in texts)
    rng = random.Random(0)
    candidates = set()
    for phrase in every_phrase():
        candidates |= {plain(phrase.fill(lambda: rng.getrandbits(31))) for _ in range(20)}
        candidates |= {plain(run) for run in phrase.form.split("%s")}
    long_enough = [text for text in candidates if len(text.split()) >= 5]
    assert len(long_enough) > 1_000
    assert [text for text in long_enough if text in public] == []
