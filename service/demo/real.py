"""The script on real comments: two videos to learn from, and three that are others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from models.comments.public import load_youtube
from models.features import FeatureSpec
from models.splits import content_hashes, held_out
from service.demo.script import Labelling, Learning, Phase, Script

COLUMNS = ["author", "text", "label"]
LEARNED_VIDEOS = 2
CALM_ROWS = 1_500


def real_comments(folder: Path, seed: int = 0) -> Script:
    """Return the script of the UCI YouTube comments.

    The first model learns from two videos. What it has held out of them is the calm phase, drawn again and
    again because it is few comments; then come the other videos, every comment once.

    Raises
    ------
    DataError
        If the files are not there, or not what they should be.
    """
    comments = load_youtube(folder)
    videos = list(dict.fromkeys(comments["video"]))
    by_video = {video: comments.loc[comments["video"] == video, COLUMNS] for video in videos}
    base = pd.concat([by_video[video] for video in videos[:LEARNED_VIDEOS]], ignore_index=True)
    calm = base[held_out(content_hashes(base, [FeatureSpec("text", "text")]))].reset_index(drop=True)
    drawn = calm.iloc[np.random.default_rng(seed).integers(len(calm), size=CALM_ROWS)]
    parts = {"calm": calm, **{video: by_video[video] for video in videos[LEARNED_VIDEOS:]}}
    stream = pd.concat([drawn, *list(parts.values())[1:]], ignore_index=True)
    return Script(
        title=f"the comments under {len(videos)} videos",
        phases=_phases(parts, videos[:LEARNED_VIDEOS]),
        rows_a_second=60.0,
        goal=None,
        length=len(stream),
        learning=Learning({"text": "text"}, "slice_residual", 12, seed, new_labels=50),
        labelling=Labelling(share=0.8),
        base=lambda: base,
        rows=lambda start, n: stream.iloc[start : start + n],
        sample=lambda phase: parts[phase.name].reset_index(drop=True),
    )


def _phases(parts: dict[str, pd.DataFrame], learned: list[str]) -> tuple[Phase, ...]:
    said = f"the {len(parts['calm'])} comments held out under {' and '.join(learned)}, {CALM_ROWS:,} times one of them"
    phases, start = [Phase("calm", said, 0)], CALM_ROWS
    for name, rows in list(parts.items())[1:]:
        phases.append(Phase(name, f"all {len(rows)} comments under the video of {name}, each once", start))
        start += len(rows)
    return tuple(phases)
