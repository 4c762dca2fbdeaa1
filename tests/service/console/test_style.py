"""The colours of the style sheet have enough contrast in both schemes."""

import re

import pytest

from service.console.render import stylesheet

PAIRS = [
    ("text", "page"),
    ("text", "card"),
    ("quiet", "page"),
    ("quiet", "card"),
    ("accent", "card"),
    ("accent", "page"),
    ("text", "plain-fill"),
    ("text", "warn-fill"),
    *((name, f"{name}-fill") for name in ("bad", "warn", "odd", "good")),
]


def palette(dark):
    """Name to colour."""
    blocks = re.findall(r":root \{(.*?)\}", stylesheet(), re.S)
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[int(dark)]))


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("front", "back"), PAIRS)
def test_text_has_enough_contrast(front, back, dark):
    """Every pair of text and background colours has a contrast of at least 4.5."""
    colours = palette(dark)
    bright, dim = sorted((luminance(colours[front]), luminance(colours[back])), reverse=True)
    assert (bright + 0.05) / (dim + 0.05) >= 4.5


def test_the_style_sheet_loads_nothing():
    """The style sheet contains no address."""
    assert "url(" not in stylesheet()
    assert "@import" not in stylesheet()
