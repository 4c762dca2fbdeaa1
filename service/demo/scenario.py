"""Scenarios: the comments that arrive, the labels that follow, and the expected effect of retraining."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from models.comments.generate import generate
from models.comments.profile import DEFAULT, Profile
from models.comments.public import load_youtube
from models.features import FeatureSpec
from models.splits import content_hashes, held_out


@dataclass(frozen=True, slots=True)
class Phase:
    """Part of the traffic with a constant distribution, from row ``start`` to the start of the next phase."""

    name: str
    description: str
    start: int


@dataclass(frozen=True, slots=True)
class Goal:
    """Required accuracy on a slice before and after retraining, and the labels needed to measure it after."""

    slice: str
    at_most_before: float
    at_least_after: float
    labelled: int


@dataclass(frozen=True, slots=True)
class Labelling:
    """Amount and delay of labels.

    Parameters
    ----------
    share
        Fraction of the rows that get a label.
    first_minutes, last_minutes
        Minimum and maximum delay of a label; delays are log-uniform in between.
    early, twice, corrected
        Fractions of the labels that precede their prediction, that are sent twice, and that are wrong at first.
    """

    share: float = 0.45
    first_minutes: float = 2.0
    last_minutes: float = 30.0
    early: float = 0.01
    twice: float = 0.04
    corrected: float = 0.01


@dataclass(frozen=True, slots=True)
class Learning:
    """Model settings of the project; ``features`` maps columns to their kinds."""

    features: Mapping[str, str]
    kind: str
    epochs: int
    batch_rows: int
    seed: int
    new_labels: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """Stream of comments in phases.

    Parameters
    ----------
    title, phases
        Name in the output, and parts of the traffic in order.
    rows_a_second, step_rows
        Rows per second of wall time, and number of rows in which every step of the story must have begun.
    goal, length
        Required effect of retraining (None if it is open), and number of rows (None for an endless stream).
    learning, labelling
        Model settings, and arrival of labels.
    base
        Returns the labelled rows that the first model is trained on.
    rows
        Takes a position and a number, and returns that many rows of the traffic with their labels.
    sample
        Returns rows with the distribution of a phase, enough to measure its coverages.
    """

    title: str
    phases: tuple[Phase, ...]
    rows_a_second: float
    goal: Goal | None
    length: int | None
    learning: Learning
    labelling: Labelling
    base: Callable[[], pd.DataFrame]
    rows: Callable[[int, int], pd.DataFrame]
    sample: Callable[[Phase], pd.DataFrame]
    step_rows: int = 50_000


def phase_at(phases: Sequence[Phase], position: int) -> Phase:
    """Return the phase at a position.

    Examples
    --------
    >>> phases = [Phase("calm", "", 0), Phase("campaign", "", 100)]
    >>> phase_at(phases, 99).name, phase_at(phases, 100).name
    ('calm', 'campaign')
    """
    return [phase for phase in phases if phase.start <= position][-1]


CAMPAIGN, VANISHING = "short_link", "html_markup"
GENERATED_COLUMNS = ["author", "text", "video", "likes", "label"]
BASE_ROWS = 20_000
NOVELTY = 0.85
"""Fraction of the campaign that uses new words, so large that the first model is wrong on about half of it."""

CALM_ROWS, CAMPAIGN_ROWS, SAMPLE_ROWS = 8_000, 4_000, 50_000
SAMPLE_START = 2**40
"""Position of samples, far from the rows that are served: a phase is not measured on the served rows."""

PHASES = (
    Phase("calm", "comments like those in the training data", 0),
    Phase(
        "campaign",
        f"advertisers post short links: {CAMPAIGN} rises from 2% to 8% of comments, in new words",
        CALM_ROWS,
    ),
    Phase(
        "campaign, no markup",
        f"in addition, the page now sends plain text: {VANISHING} vanishes",
        CALM_ROWS + CAMPAIGN_ROWS,
    ),
)


def generated_comments(seed: int = 0, sample_rows: int = SAMPLE_ROWS) -> Scenario:
    """Return the scenario of generated comments: calm, then a campaign, then a slice that vanishes.

    The seed determines every row; ``sample_rows`` is the size of a sample of a phase.

    Examples
    --------
    >>> scenario = generated_comments(seed=3)
    >>> scenario.rows(5_000, 2_000).equals(scenario.rows(5_000, 2_000)), [phase.name for phase in scenario.phases]
    (True, ['calm', 'campaign', 'campaign, no markup'])
    """
    # Only the campaign reverses the meaning of words: one surprise is enough.
    calm = DEFAULT
    for name in ("keyword_please", "timestamp_mention"):
        calm = calm.with_change(name, at=0, contradiction=0.02)

    def changed(campaign_at: int | None, vanished_at: int | None) -> Profile:
        profile = calm
        if campaign_at is not None:
            profile = profile.with_change(CAMPAIGN, at=campaign_at, coverage=0.08, novelty=NOVELTY)
        return profile if vanished_at is None else profile.with_change(VANISHING, at=vanished_at, coverage=0.0)

    def rows(n: int, profile: Profile, start: int) -> pd.DataFrame:
        return generate(n, seed, profile, start)[GENERATED_COLUMNS]

    served = changed(*(BASE_ROWS + phase.start for phase in PHASES[1:]))
    by_phase = dict(zip((p.name for p in PHASES), (calm, changed(0, None), changed(0, 0)), strict=True))
    return Scenario(
        title="generated comments",
        phases=PHASES,
        rows_a_second=600.0,
        goal=Goal(CAMPAIGN, at_most_before=0.6, at_least_after=0.85, labelled=200),
        length=None,
        learning=Learning({"text": "text", "likes": "number"}, "slice_aware", 4, 128, seed, new_labels=200),
        labelling=Labelling(),
        base=lambda: rows(BASE_ROWS, calm, 0),
        rows=lambda start, n: rows(n, served, BASE_ROWS + start),
        sample=lambda phase: rows(sample_rows, by_phase[phase.name], SAMPLE_START),
    )


REAL_COLUMNS = ["author", "text", "label"]
LEARNED_VIDEOS = 2
REAL_CALM_ROWS = 1_500


def real_comments(folder: Path, seed: int = 0) -> Scenario:
    """Return the scenario of the UCI YouTube comments.

    The first model is trained on two videos. The calm phase repeats their held-out comments at random, because
    these are few; then the other videos follow, every comment once.

    Raises
    ------
    DataError
        If the files are missing or invalid.
    """
    comments = load_youtube(folder)
    videos = list(dict.fromkeys(comments["video"]))
    by_video = {video: comments.loc[comments["video"] == video, REAL_COLUMNS] for video in videos}
    learned, remaining = videos[:LEARNED_VIDEOS], videos[LEARNED_VIDEOS:]
    base = pd.concat([by_video[video] for video in learned], ignore_index=True)
    calm = base[held_out(content_hashes(base, [FeatureSpec("text", "text")]))].reset_index(drop=True)
    drawn = calm.iloc[np.random.default_rng(seed).integers(len(calm), size=REAL_CALM_ROWS)]
    stream = pd.concat([drawn, *(by_video[video] for video in remaining)], ignore_index=True)
    description = f"{REAL_CALM_ROWS:,} random draws from the {len(calm)} held-out comments on {' and '.join(learned)}"
    phases, start = [Phase("calm", description, 0)], REAL_CALM_ROWS
    for video in remaining:
        description = f"all {len(by_video[video])} comments on the video of {video}, once"
        phases.append(Phase(video, description, start))
        start += len(by_video[video])
    parts = {"calm": calm, **by_video}
    return Scenario(
        title=f"the comments on {len(videos)} videos",
        phases=tuple(phases),
        rows_a_second=60.0,
        goal=None,
        length=len(stream),
        learning=Learning({"text": "text"}, "slice_residual", 12, 64, seed, new_labels=50),
        labelling=Labelling(share=0.8),
        base=lambda: base,
        rows=lambda start, n: stream.iloc[start : start + n],
        sample=lambda phase: parts[phase.name].reset_index(drop=True),
    )
