"""Phrases fill their slots, use every vocabulary, and do not come from the public files."""

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.comments.compose import Phrase, Pool, phrasebook, pick, pool, words
from models.comments.public import load_sms, load_youtube


def pools() -> Iterator[Pool]:
    """Every pool of prose; links are not prose."""
    book = phrasebook()
    for section in (book.body, book.campaign, book.short, *book.slices.values(), *book.languages):
        yield from section.values()


def every_phrase() -> list[Phrase]:
    return [phrase for each in pools() for phrase in each]


def plain(text: str) -> str:
    """The words of a text in lower case, divided by single spaces, with one at either end."""
    return " " + " ".join(re.findall(r"[^\W_]+", text.casefold())) + " "


def test_the_book_is_complete() -> None:
    """Every section of the file has its voices, and no line of it is empty."""
    book = phrasebook()
    assert all(set(pools) == {"fan", "advert", "either"} for pools in book.slices.values())
    assert [set(language) for language in book.languages] == [{"fan", "advert", "short_fan", "short_advert"}] * 7
    assert all(phrase.form.strip() for phrase in every_phrase())


def test_a_phrase_takes_one_draw_per_slot() -> None:
    """Slots are filled from left to right, each by one draw, and percent signs stay."""
    (phrase,) = pool(["{a} is 100% {b}, {a}"], {"a": ("x", "y"), "b": ("u", "v", "w")})
    draws = iter([0, 5, 3])
    assert phrase.fill(draws.__next__) == "x is 100% w, y"
    assert list(draws) == []


def test_an_unknown_slot_is_an_error_at_compilation() -> None:
    """A template with a slot outside the vocabulary never reaches the stream."""
    with pytest.raises(KeyError, match="missing"):
        pool(["{missing}"], {})


def test_picking_takes_a_phrase_and_then_its_words() -> None:
    """The first draw picks the phrase, wrapping round the pool."""
    assert pick(pool(["one", "two {x}"], {"x": words("a|b")}), iter([3, 1]).__next__) == "two b"


def test_no_phrase_is_written_twice_in_a_pool() -> None:
    """Each pool holds different templates."""
    for each in pools():
        assert len({(phrase.form, phrase.slots) for phrase in each}) == len(each)


def test_short_phrases_have_at_most_three_words() -> None:
    """With any words in its slots, a short phrase leaves room for an ending or a mark within four words."""
    book = phrasebook()
    for each in [*book.short.values()] + [
        part for language in book.languages for part in (language["short_fan"], language["short_advert"])
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
