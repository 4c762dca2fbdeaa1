"""Templates for a text column, by column name.

``templates("review")`` returns all templates, named after the column; ``SLICES`` are those for ``text``.
"""

from __future__ import annotations

from sfs.template import Template, template

_LETTER = r"[\pL\pM]"


def very_short(field: str, words: int = 3) -> Template:
    """Return the slice of texts with fewer than ``words`` words."""
    return template(
        f"{field}_very_short",
        length={"field": field, "unit": "words", "below": words},
        description=f"{field} has fewer than {words} words.",
        family="length",
    )


def very_long(field: str, words: int = 100) -> Template:
    """Return the slice of texts with more than ``words`` words."""
    return template(
        f"{field}_very_long",
        length={"field": field, "unit": "words", "above": words},
        description=f"{field} has more than {words} words.",
        family="length",
    )


def all_caps(field: str) -> Template:
    """Return the slice of texts in capitals: at least four upper-case letters and no lower-case letter."""
    return template(
        f"{field}_all_caps",
        all=[
            {"regex": {"field": field, "pattern": r"\p{Lu}(?:\P{L}*\p{Lu}){3}"}},
            {"not": {"regex": {"field": field, "pattern": r"\p{Ll}"}}},
        ],
        description=f"{field} is in capitals.",
        family="style",
    )


def question(field: str) -> Template:
    """Return the slice of texts with a Latin, full-width, Arabic or Greek question mark."""
    return template(
        f"{field}_question",
        regex={"field": field, "pattern": r"[?\x{FF1F}\x{61F}\x{37E}]"},  # Latin, full-width, Arabic, Greek
        description=f"{field} contains a question mark.",
        family="style",
    )


def non_latin(field: str) -> Template:
    """Return the slice of texts with letters of a non-Latin script."""
    return template(
        f"{field}_non_latin",
        regex={"field": field, "pattern": r"[^\P{L}\p{Latin}]"},
        description=f"{field} has letters outside the Latin script.",
        family="language",
    )


def repeated_letters(field: str) -> Template:
    """Return the slice of texts with a repeated vowel or exclamation mark: ``soooo``, ``!!!``."""
    stretched = "|".join(f"{character}{{4,}}" for character in "aeiouy") + "|!{3,}"
    return template(
        f"{field}_repeated_letters",
        regex={"field": field, "pattern": stretched, "ignore_case": True},
        description=f"{field} contains a vowel four times or an exclamation mark three times in a row.",
        family="style",
    )


def has_link(field: str) -> Template:
    """Return the slice of texts with a web address."""
    return template(
        f"{field}_has_link",
        regex={"field": field, "pattern": r"https?://|\bwww\.", "ignore_case": True},
        description=f"{field} contains a web address.",
        family="links",
    )


def no_letters(field: str) -> Template:
    """Return the slice of texts without a letter: digits, emoji, punctuation, or spaces only."""
    return template(
        f"{field}_no_letters",
        all=[
            {"not": {"missing": {"field": field}}},
            {"not": {"regex": {"field": field, "pattern": _LETTER}}},
        ],
        description=f"{field} has no letter.",
        family="style",
    )


def templates(field: str) -> tuple[Template, ...]:
    """Return all templates for one column, with their default limits.

    Examples
    --------
    >>> [each.name for each in templates("review")][:2]
    ['review_very_short', 'review_very_long']
    """
    makers = (very_short, very_long, all_caps, question, non_latin, repeated_letters, has_link, no_letters)
    return tuple(make(field) for make in makers)


SLICES = templates("text")
