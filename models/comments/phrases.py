"""Phrases of the generated comments: lines of ``phrases.yaml`` with slots in braces, compiled once."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
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
        Phrase(
            _SLOT.sub("%s", line.replace("%", "%%")), tuple(vocabulary[name] for name in _SLOT.findall(line))
        )
        for line in templates
    )


def pick(phrases: Pool, draw: Draw) -> str:
    """Return one filled phrase of a pool."""
    return phrases[draw() % len(phrases)].fill(draw)
