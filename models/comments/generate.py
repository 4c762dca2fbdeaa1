"""Comments as a stream without end: any rows of it, in any chunks, are the same rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.comments.compose import compose
from models.comments.draws import BLOCK_ROWS, Plan, plan_block
from models.comments.phrases_words import FIRST_NAMES, HANDLES, LAST_NAMES, VIDEOS
from models.comments.profile import DEFAULT, Profile
from models.errors import ConfigError

CLASSES = ("ham", "spam")
COLUMNS = ("id", "author", "text", "video", "likes", "label")


def generate(n: int, seed: int = 0, profile: Profile = DEFAULT, start: int = 0) -> pd.DataFrame:
    """Return rows ``start`` to ``start + n`` of the stream of comments that the seed and the profile define.

    Parameters
    ----------
    n
        How many rows.
    seed
        Which stream; 0 to 2**64 - 1.
    profile
        What the traffic is like, and how it changes over positions.
    start
        Position of the first row.

    Returns
    -------
    DataFrame
        ``id``, ``author``, ``text``, ``video`` (a category), ``likes`` (a number, NaN where missing) and
        ``label`` (``spam`` or ``ham``).

    Raises
    ------
    ConfigError
        If a number is out of range.

    Examples
    --------
    >>> whole = generate(1_500, seed=7)
    >>> whole[1_100:1_200].reset_index(drop=True).equals(generate(100, seed=7, start=1_100))
    True
    """
    pieces = [_written(plan, first, last, profile) for plan, first, last in _plans(n, seed, profile, start)]
    return pd.concat(pieces, ignore_index=True) if pieces else _frame([], [], [], np.empty(0), [], [])


def truth(n: int, seed: int = 0, profile: Profile = DEFAULT, start: int = 0) -> pd.DataFrame:
    """Return what ``generate`` hides about the same rows; arguments as there.

    Returns
    -------
    DataFrame
        ``id``; ``label`` before label noise; ``noisy`` (the given label is wrong), ``contradicts`` (the
        wording speaks for the other class), ``novel`` (written in the words of the campaign),
        ``duplicate_of`` (the id whose text it repeats, or None); and one boolean column per planted slice.
    """
    pieces = [_revealed(plan, first, last, profile) for plan, first, last in _plans(n, seed, profile, start)]
    empty = _revealed(plan_block(seed, 0, profile), 0, 0, profile) if not pieces else None
    return pd.concat(pieces, ignore_index=True) if empty is None else empty


def _plans(n: int, seed: int, profile: Profile, start: int) -> Iterator[tuple[Plan, int, int]]:
    """Yield each block that the rows touch, with the first and one past the last of its rows."""
    if n < 0 or start < 0 or not 0 <= seed < 2**64:
        raise ConfigError(
            f"n={n}, start={start}, seed={seed}: n and start must be 0 or more, seed in 0..2**64-1"
        )
    for block in range(start // BLOCK_ROWS, -(-(start + n) // BLOCK_ROWS)):
        origin = block * BLOCK_ROWS
        first, last = max(start - origin, 0), min(start + n - origin, BLOCK_ROWS)
        if first < last:
            yield plan_block(seed, block, profile), first, last


def _written(plan: Plan, first: int, last: int, profile: Profile) -> pd.DataFrame:
    rows = slice(first, last)
    own = plan.own_choices[rows].tolist()
    return _frame(
        _ids(plan.position[rows]),
        [_author(choices, label) for choices, label in zip(own, plan.label[rows].tolist(), strict=True)],
        _texts(plan, rows, [piece.name for piece in profile.slices]),
        plan.likes[rows],
        [VIDEOS[choices[7] % len(VIDEOS)] for choices in own],
        [CLASSES[label] for label in plan.given[rows].tolist()],
    )


def _frame(
    ids: list[str],
    authors: list[str],
    texts: list[str],
    likes: NDArray[np.float64],
    videos: list[str],
    labels: list[str],
) -> pd.DataFrame:
    columns = (ids, authors, texts, videos, likes, labels)
    frame = pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))
    return frame.astype({name: object for name in COLUMNS if name != "likes"})


def _texts(plan: Plan, rows: slice, names: list[str]) -> list[str]:
    columns = (plan.member, plan.label, plan.cue, plan.novel, plan.choices)
    return [
        compose(frozenset(name for name, is_in in zip(names, member, strict=True) if is_in), *rest)
        for member, *rest in zip(*(column[rows].tolist() for column in columns), strict=True)
    ]


def _ids(positions: NDArray[np.int64]) -> list[str]:
    return [f"c{position:09d}" for position in positions.tolist()]


def _author(choices: list[int], label: int) -> str:
    if choices[0] % 5 < 1 + 2 * label:
        return HANDLES[choices[1] % len(HANDLES)] + str(choices[2] % 10_000)
    last = LAST_NAMES[choices[2] % len(LAST_NAMES)]
    first = FIRST_NAMES[choices[1] % len(FIRST_NAMES)]
    return (
        f"{first} {last}",
        f"{first} {last[0]}",
        f"{first.lower()}{last.lower()}",
        f"{first} {choices[4] % 100}",
    )[choices[3] % 4]


def _revealed(plan: Plan, first: int, last: int, profile: Profile) -> pd.DataFrame:
    rows = slice(first, last)
    repeated = plan.source[rows] != plan.position[rows]
    sources = [
        ident if again else None for ident, again in zip(_ids(plan.source[rows]), repeated, strict=True)
    ]
    facts = pd.DataFrame(
        {
            "id": pd.Series(_ids(plan.position[rows]), dtype=object),
            "label": pd.Series([CLASSES[label] for label in plan.label[rows].tolist()], dtype=object),
            "noisy": plan.given[rows] != plan.label[rows],
            "contradicts": plan.cue[rows] != plan.label[rows],
            "novel": plan.novel[rows],
            "duplicate_of": pd.Series(sources, dtype=object),
        }
    )
    members = {piece.name: plan.member[rows, s] for s, piece in enumerate(profile.slices)}
    return facts.assign(**members)
