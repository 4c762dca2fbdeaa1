"""Phrases of the generated comments: lines of ``phrases.yaml`` with slots in braces, compiled once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any, TypeAlias

import yaml

Words: TypeAlias = tuple[str, ...]
Draw: TypeAlias = Callable[[], int]

_SLOT = re.compile(r"\{(\w+)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True, slots=True)
class Phrase:
    """One phrase: a ``%s`` format and the vocabulary of each slot in turn."""

    form: str
    slots: tuple[Words, ...]

    def fill(self, draw: Draw) -> str:
        """Return the phrase with a word in every slot; draws one integer per slot."""
        return self.form % tuple([choice[draw() % len(choice)] for choice in self.slots])


Pool: TypeAlias = tuple[Phrase, ...]
Pools: TypeAlias = Mapping[str, Pool]


@dataclass(frozen=True, slots=True)
class Phrasebook:
    """The content of ``phrases.yaml``.

    ``names`` holds openers, emoji, and the parts of author and video names. The other fields hold pools by
    voice: ``slices`` per planted slice, ``languages`` per foreign language.
    """

    names: Mapping[str, Words]
    body: Pools
    campaign: Pools
    short: Pools
    links: Pools
    slices: Mapping[str, Pools]
    languages: tuple[Pools, ...]


@cache
def phrasebook() -> Phrasebook:
    """Return the phrases, read and compiled on first use."""
    text = Path(__file__).with_name("phrases.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe
    common = {name: words(block) for name, block in content["vocabulary"].items()}

    def pools(section: Mapping[str, Any]) -> Pools:
        own = {name: words(block) for name, block in section.get("words", {}).items()}
        return {voice: pool(block.splitlines(), common | own) for voice, block in section["phrases"].items()}

    names = {name: words(block) for name, block in content["names"].items()}
    names["emoji"] = tuple(mark for mark in common["emoji"] if "<" not in mark)  # HTML is a slice of its own
    return Phrasebook(
        names,
        **{section: pools(content[section]) for section in ("body", "campaign", "short", "links")},
        slices={name: pools(section) for name, section in content["slices"].items()},
        languages=tuple(map(pools, content["languages"].values())),
    )


def words(text: str) -> Words:
    """Return the expressions of a block of text, divided by bars, or the numbers of a range.

    Examples
    --------
    >>> words("rap | hip hop | folk"), words("08..11")
    (('rap', 'hip hop', 'folk'), ('08', '09', '10', '11'))
    """
    if ends := _RANGE.fullmatch(text):
        first, last = ends.groups()
        return tuple(f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    return tuple(part.strip() for part in text.split("|"))


def pool(templates: Iterable[str], vocabulary: Mapping[str, Words]) -> Pool:
    """Compile templates against a vocabulary; KeyError for a slot that the vocabulary lacks.

    Examples
    --------
    >>> (greeting,) = pool(["hello {who}"], {"who": ("world", "moon")})
    >>> greeting.fill(lambda: 1)
    'hello moon'
    """
    return tuple(
        Phrase(_SLOT.sub("%s", line.replace("%", "%%")), tuple(vocabulary[name] for name in _SLOT.findall(line)))
        for line in templates
    )


def pick(phrases: Pool, draw: Draw) -> str:
    """Return one filled phrase of a pool."""
    return phrases[draw() % len(phrases)].fill(draw)


_SEPARATORS = (". ", ", ", " ", "! ", "... ", " - ", "\n", " :) ", "!! ", "? ")
_ENDS = ("", "", "", "", "!", "!!", "...", ".", ".", "!!!!", "?", " lol")
_SHORT_ENDS = ("", "", "", "!", "!!", "!!!", "...", ".", "!!!!!!", "?!", "!1", " ..")
_MIN_WORDS = 5


def compose(names: frozenset[str], label: int, cue: int, novel: bool, choices: Sequence[int]) -> str:
    """Return one comment.

    Parameters
    ----------
    names
        The planted slices that the comment belongs to; it belongs to no other.
    label, cue
        The true class, and the class that the wording suggests (0 ham, 1 spam).
    novel
        Use the words of the campaign, which earlier traffic lacks; ignored for short comments.
    choices
        Integers that pick the words, reused from the start when they run out.
    """
    book = phrasebook()
    draw: Draw = cycle(choices).__next__
    language = book.languages[draw() % len(book.languages)] if "non_english" in names else None
    if "short_comment" in names:
        return _short(language, cue, "html_markup" in names, draw)
    voice = "advert" if cue else "fan"
    if novel:
        body = pick(book.campaign["spam" if label else "ham"], draw)
        body = f"{body} {pick(language['fan'], draw)}" if language else body
    else:
        body = pick((language or book.body)[voice], draw)
    text = _with_fragments(names, body, label != cue, voice, draw)
    text = text if language else _cased(text, draw())
    if "html_markup" in names:
        text = _marked_up(text, draw)
    if not names & {"short_link", "has_url"}:
        return text
    kind = "long" if "short_link" not in names else "both" if "has_url" in names else "short"
    link = pick(book.links[kind], draw)
    lead = f"{pick(book.links['lead'], draw)} " if draw() % 2 else ""
    return f"{lead}{link} {text}" if draw() % 4 == 0 else f"{text} {lead}{link}"


def _short(language: Pools | None, cue: int, html: bool, draw: Draw) -> str:
    book = phrasebook()
    if language:
        text = pick(language["short_advert" if cue else "short_fan"], draw)
    else:
        text = _cased(pick(book.short["advert" if cue else "fan"], draw), draw())
    text += _SHORT_ENDS[draw() % len(_SHORT_ENDS)]
    if html:
        return text.replace(" ..", "..") + (" &lt;3", "<br />", " &#9829;", "&#33;&#33;")[draw() % 4]
    if len(text.split()) < 4 and draw() % 3 == 0:
        text += " " + book.names["emoji"][draw() % len(book.names["emoji"])]
    return text


def _with_fragments(names: frozenset[str], body: str, contradicts: bool, voice: str, draw: Draw) -> str:
    """Return the body among the fragments of its slices, at times with an opener, an aside and an ending."""
    book = phrasebook()
    openers, emoji = book.names["openers"], book.names["emoji"]
    parts = []
    for name, fragments in book.slices.items():
        if name in names:
            # A fragment in a voice would give a contradicting row away; a neutral one leaves only the body to read.
            neutral = contradicts or draw() % 3 == 0
            parts.append(pick(fragments["either" if neutral else voice], draw))
    parts.insert(draw() % (len(parts) + 1), body)
    if draw() % 7 == 0 or sum(len(part.split()) for part in parts) < _MIN_WORDS:
        parts.append(pick(book.body["aside"], draw))
    separator = _SEPARATORS[draw() % len(_SEPARATORS)]
    opener = f"{openers[draw() % len(openers)]} " if draw() % 4 == 0 else ""
    marks = " " + emoji[draw() % len(emoji)] * (draw() % 3 + 1) if draw() % 5 == 0 else ""
    return opener + separator.join(parts) + _ENDS[draw() % len(_ENDS)] + marks


def _cased(text: str, choice: int) -> str:
    kind = choice % 16
    if kind == 0:
        return text.upper()
    return text[:1].upper() + text[1:] if kind < 7 else text


def _marked_up(text: str, draw: Draw) -> str:
    """Return the text as a web page stores it: entities for quotes, tags for line breaks."""
    text = text.replace("'", "&#39;").replace("\n", "<br />")
    kind = draw() % 4
    if kind == 0:
        return f"&quot;{text}&quot;"
    if kind == 1:
        return text + " &lt;3"
    return text.replace(". ", ".<br />", 1) + "<br />" * (kind - 1)
