"""Slices of spam in comments and messages, for rows with a ``text``.

``SLICES`` are plain functions; ``TEMPLATES`` are the equivalent templates, which are much faster. A row without
text is in none of the slices. The two differ in ``short_link`` if a non-ASCII letter precedes ``.ly``: ``\\w`` is
ASCII only in RE2, which templates use, but matches any script in Python's ``re``.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from sfs.errors import InvalidFunction
from sfs.function import SlicingFunction, slicing_function
from sfs.template import Template, template

_CHECK_OUT = re.compile(r"check.*out", re.IGNORECASE)
_SHORT_LINK = re.compile(r"\w\.ly")  # matches the same texts as \w+\.ly, in linear time
_URL = re.compile(r"https?://|www\.|\.com")
_MARKUP = re.compile(r"<br|&(?:#[0-9]+|#x[0-9a-fA-F]+|[a-zA-Z][a-zA-Z0-9]*);")


@slicing_function(family="length")
def short_comment(x: Any) -> bool:
    """Fewer than five words."""
    return x.text is not None and len(x.text.split()) < 5


@slicing_function(family="asks")
def keyword_please(x: Any) -> bool:
    """Contains please or plz."""
    if x.text is None:
        return False
    text = x.text.lower()
    return "please" in text or "plz" in text


@slicing_function(family="asks")
def keyword_subscribe(x: Any) -> bool:
    """Asks to subscribe."""
    return x.text is not None and "subscribe" in x.text.lower()


@slicing_function(family="asks")
def regex_check_out(x: Any) -> bool:
    """Contains check out, check it out, check my video out."""
    return x.text is not None and _CHECK_OUT.search(x.text) is not None


@slicing_function(family="links")
def short_link(x: Any) -> bool:
    """Contains a shortened link such as bit.ly."""
    return x.text is not None and _SHORT_LINK.search(x.text) is not None


@slicing_function(family="links")
def has_url(x: Any) -> bool:
    """Contains a web address."""
    return x.text is not None and _URL.search(x.text) is not None


@slicing_function(family="markup")
def html_markup(x: Any) -> bool:
    """Contains a line break tag or an HTML entity."""
    return x.text is not None and _MARKUP.search(x.text) is not None


SLICES = (short_comment, keyword_please, keyword_subscribe, regex_check_out, short_link, has_url, html_markup)


def _twin(function: SlicingFunction, **kind: Any) -> Template:
    """Return a template with the name, description and family of a function."""
    metadata = function.metadata
    return template(function.name, description=metadata.description, family=metadata.family, **kind)


TEMPLATES = (
    _twin(short_comment, length={"field": "text", "unit": "words", "below": 5}),
    _twin(keyword_please, keyword={"field": "text", "words": ["please", "plz"]}),
    _twin(keyword_subscribe, keyword={"field": "text", "words": ["subscribe"]}),
    _twin(regex_check_out, regex={"field": "text", "pattern": _CHECK_OUT.pattern, "ignore_case": True}),
    _twin(short_link, regex={"field": "text", "pattern": _SHORT_LINK.pattern}),
    _twin(has_url, regex={"field": "text", "pattern": _URL.pattern}),
    _twin(html_markup, regex={"field": "text", "pattern": _MARKUP.pattern}),
)


@slicing_function(family="sentiment")
def textblob_polarity(x: Any) -> bool:
    """TextBlob polarity above 0.9. Requires the extra ``sentiment``."""
    return x.text is not None and bool(_textblob()(x.text).sentiment.polarity > 0.9)


SENTIMENT_SLICES = (textblob_polarity,)


@cache
def _textblob() -> Any:
    try:
        from textblob import TextBlob
    except ImportError:
        raise InvalidFunction(
            "textblob_polarity needs textblob: install it with pip install 'slicewatch[sentiment]'"
        ) from None
    return TextBlob
