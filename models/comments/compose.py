"""Composition of one comment: a body in one voice, a fragment per slice, and decoration."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from models.comments.phrases import Draw, Pools, phrasebook, pick

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
