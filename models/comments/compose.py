"""Writes one comment from its plan: a body in one voice, a fragment per slice, and dressing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle

from models.comments.phrases import Draw, Pool, pick
from models.comments.phrases_body import ADVERT, ASIDE, CAMPAIGN_HAM, CAMPAIGN_SPAM, FAN
from models.comments.phrases_languages import LANGUAGES, Language
from models.comments.phrases_short import SHORT_ADVERT, SHORT_FAN
from models.comments.phrases_slices import BOTH_LINKS, LINK_LEADS, LONG_LINKS, MARKERS, SHORT_LINKS
from models.comments.phrases_words import EMOJI, OPENERS

_SEPARATORS = (". ", ", ", " ", "! ", "... ", " - ", "\n", " :) ", "!! ", "? ")
_ENDS = ("", "", "", "", "!", "!!", "...", ".", ".", "!!!!", "?", " lol")
_SHORT_ENDS = ("", "", "", "!", "!!", "!!!", "...", ".", "!!!!!!", "?!", "!1", " ..")
_LEAST_WORDS = 5


def compose(names: frozenset[str], label: int, cue: int, novel: bool, choices: Sequence[int]) -> str:
    """Return one comment.

    Parameters
    ----------
    names
        The planted slices that it belongs to, and no others.
    label, cue
        The true class and the class that the wording speaks for (0 ham, 1 spam).
    novel
        Whether it is written in the words of the campaign that earlier traffic does not hold; not if short.
    choices
        Integers that pick the words; they are reused from the start if they run out.
    """
    draw: Draw = cycle(choices).__next__
    language = LANGUAGES[draw() % len(LANGUAGES)] if "non_english" in names else None
    if "short_comment" in names:
        return _short(language, cue, "html_markup" in names, draw)
    prose = _prose(names, _body(language, label, cue, novel, draw), label != cue, cue, draw)
    prose = prose if language else _cased(prose, draw())
    return _linked(names, _marked_up(prose, draw) if "html_markup" in names else prose, draw)


def _short(language: Language | None, cue: int, html: bool, draw: Draw) -> str:
    if language:
        words = pick(language.short_advert if cue else language.short_fan, draw)
    else:
        words = _cased(pick(SHORT_ADVERT if cue else SHORT_FAN, draw), draw())
    words += _SHORT_ENDS[draw() % len(_SHORT_ENDS)]
    if html:
        return words.replace(" ..", "..") + (" &lt;3", "<br />", " &#9829;", "&#33;&#33;")[draw() % 4]
    if len(words.split()) < 4 and draw() % 3 == 0:
        words += " " + EMOJI[draw() % len(EMOJI)]
    return words


def _body(language: Language | None, label: int, cue: int, novel: bool, draw: Draw) -> str:
    if novel:
        campaign = pick(CAMPAIGN_SPAM if label else CAMPAIGN_HAM, draw)
        return f"{campaign} {pick(language.fan, draw)}" if language else campaign
    if language:
        return pick(language.advert if cue else language.fan, draw)
    return pick(ADVERT if cue else FAN, draw)


def _prose(names: frozenset[str], body: str, contradicts: bool, cue: int, draw: Draw) -> str:
    """Return the body among the fragments of its slices, at times with an opener, an aside and an ending."""
    parts = [pick(_voice(name, contradicts, cue, draw), draw) for name in MARKERS if name in names]
    parts.insert(draw() % (len(parts) + 1), body)
    if draw() % 7 == 0 or sum(len(part.split()) for part in parts) < _LEAST_WORDS:
        parts.append(pick(ASIDE, draw))
    glue = _SEPARATORS[draw() % len(_SEPARATORS)]
    opener = f"{OPENERS[draw() % len(OPENERS)]} " if draw() % 4 == 0 else ""
    emoji = " " + EMOJI[draw() % len(EMOJI)] * (draw() % 3 + 1) if draw() % 5 == 0 else ""
    return opener + glue.join(parts) + _ENDS[draw() % len(_ENDS)] + emoji


def _voice(name: str, contradicts: bool, cue: int, draw: Draw) -> Pool:
    """Return the pool of a slice's fragment: neutral where the wording contradicts the label.

    A fragment in a voice would give a contradicting row away; a neutral one leaves only the body to read.
    """
    markers = MARKERS[name]
    if contradicts or draw() % 3 == 0:
        return markers.either
    return markers.advert if cue else markers.fan


def _cased(text: str, choice: int) -> str:
    kind = choice % 16
    if kind == 0:
        return text.upper()
    return text[:1].upper() + text[1:] if kind < 7 else text


def _marked_up(text: str, draw: Draw) -> str:
    """Return the text as a page would store it: entities for quotes, and line breaks as tags."""
    text = text.replace("'", "&#39;").replace("\n", "<br />")
    kind = draw() % 4
    if kind == 0:
        return f"&quot;{text}&quot;"
    if kind == 1:
        return text + " &lt;3"
    return text.replace(". ", ".<br />", 1) + "<br />" * (kind - 1)


def _linked(names: frozenset[str], text: str, draw: Draw) -> str:
    if "short_link" in names:
        link = pick(BOTH_LINKS if "has_url" in names else SHORT_LINKS, draw)
    elif "has_url" in names:
        link = pick(LONG_LINKS, draw)
    else:
        return text
    lead = f"{pick(LINK_LEADS, draw)} " if draw() % 2 else ""
    return f"{lead}{link} {text}" if draw() % 4 == 0 else f"{text} {lead}{link}"
