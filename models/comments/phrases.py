"""Phrases: one line of writing with slots in braces, compiled once so that filling one is cheap."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

Words: TypeAlias = tuple[str, ...]
Draw: TypeAlias = Callable[[], int]

_SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Phrase:
    """One phrase: a ``%s`` format and the vocabulary of each slot in turn."""

    form: str
    slots: tuple[Words, ...]

    def fill(self, draw: Draw) -> str:
        """Return the phrase with a word in every slot; draws one integer per slot."""
        return self.form % tuple([choice[draw() % len(choice)] for choice in self.slots])


Pool: TypeAlias = tuple[Phrase, ...]


def lines(text: str) -> Words:
    """Return the non-empty lines of a block of writing.

    Examples
    --------
    >>> lines('''
    ... one
    ... two words
    ... ''')
    ('one', 'two words')
    """
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def words(text: str) -> Words:
    """Return the words or expressions of a block of writing, divided by bars.

    Examples
    --------
    >>> words("rap|hip hop|folk")
    ('rap', 'hip hop', 'folk')
    """
    return tuple(part.strip() for part in text.replace("\n", " ").split("|"))


def pool(templates: Iterable[str], vocabulary: Mapping[str, Words]) -> Pool:
    """Compile templates against a vocabulary; a slot that the vocabulary lacks is a KeyError at once.

    Examples
    --------
    >>> (greeting,) = pool(["hello {who}"], {"who": ("world", "moon")})
    >>> greeting.fill(lambda: 1)
    'hello moon'
    """
    return tuple(_phrase(template, vocabulary) for template in templates)


def _phrase(template: str, vocabulary: Mapping[str, Words]) -> Phrase:
    slots = tuple(vocabulary[name] for name in _SLOT.findall(template))
    return Phrase(_SLOT.sub("%s", template.replace("%", "%%")), slots)


def pick(phrases: Pool, draw: Draw) -> str:
    """Return one filled phrase of a pool."""
    return phrases[draw() % len(phrases)].fill(draw)
