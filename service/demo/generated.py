"""The script on generated comments: calm, then a campaign, then a slice that vanishes."""

from __future__ import annotations

import pandas as pd

from models.comments.generate import generate
from models.comments.profile import DEFAULT, Profile
from service.demo.script import Goal, Labelling, Learning, Phase, Script

CAMPAIGN, VANISHING = "short_link", "html_markup"
COLUMNS = ("author", "text", "video", "likes", "label")

BASE_ROWS = 20_000
NOVELTY = 0.85
"""Share of the campaign that is written in new words: so much that the old model is wrong on about half of it."""

CALM_ROWS = 14_000
CAMPAIGN_ROWS = 5_000
SAMPLE_ROWS = 50_000

PHASES = (
    Phase("calm", "comments like those that the model has learned from", 0),
    Phase(
        "campaign",
        f"advertisers with short links: {CAMPAIGN} goes from 2 % to 8 % of comments, in words that are new",
        CALM_ROWS,
    ),
    Phase(
        "campaign, no markup",
        f"beside that the page now sends plain text: {VANISHING} vanishes",
        CALM_ROWS + CAMPAIGN_ROWS,
    ),
)

_FAR = 2**40
"""A position far from those that are served: what is said of a phase is not counted on the rows served in it."""


def generated_comments(seed: int = 0, sample_rows: int = SAMPLE_ROWS) -> Script:
    """Return the script; the seed decides every row of it, and ``sample_rows`` are counted of every phase.

    Examples
    --------
    >>> script = generated_comments(seed=3)
    >>> script.rows(5_000, 2_000).equals(script.rows(5_000, 2_000)), [phase.name for phase in script.phases]
    (True, ['calm', 'campaign', 'campaign, no markup'])
    """
    return Script(
        title="generated comments",
        phases=PHASES,
        rows_a_second=400.0,
        goal=Goal(CAMPAIGN, at_most_before=0.6, at_least_after=0.85, labelled=300),
        length=None,
        learning=Learning({"text": "text", "likes": "number"}, "slice_aware", 6, seed, new_labels=300),
        labelling=Labelling(),
        base=lambda: _of(BASE_ROWS, seed, _calm(), 0),
        rows=lambda start, n: _of(n, seed, _served(), BASE_ROWS + start),
        sample=lambda phase: _of(sample_rows, seed, _nature(phase), _FAR),
    )


def _of(n: int, seed: int, profile: Profile, start: int) -> pd.DataFrame:
    return generate(n, seed, profile, start)[list(COLUMNS)]


def _calm() -> Profile:
    """Return the usual profile without slices in which words mean their opposite: one surprise is enough."""
    calm = DEFAULT
    for name in ("keyword_please", "timestamp_mention"):
        calm = calm.changed(name, at=0, contradiction=0.02)
    return calm


def _served() -> Profile:
    campaign, vanished = (BASE_ROWS + phase.start for phase in PHASES[1:])
    profile = _calm().changed(CAMPAIGN, at=campaign, coverage=0.08, novelty=NOVELTY)
    return profile.changed(VANISHING, at=vanished, coverage=0.0)


def _nature(phase: Phase) -> Profile:
    """Return the profile of a phase as one that always was so."""
    profile = _calm()
    if phase.start >= PHASES[1].start:
        profile = profile.changed(CAMPAIGN, at=0, coverage=0.08, novelty=NOVELTY)
    return profile.changed(VANISHING, at=0, coverage=0.0) if phase.start >= PHASES[2].start else profile
