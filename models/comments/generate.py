"""Unbounded stream of generated comments; rows do not depend on the chunk size.

The draws of a row are a function of the seed and of its position. Rows are drawn in blocks of 1,024, each from
Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11) keyed by (seed, block).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.comments.compose import compose, phrasebook
from models.comments.profile import COMPACT, DEFAULT, SLICES, Profile, membership_probabilities
from models.errors import ConfigError

CLASSES = ("ham", "spam")
COLUMNS = ("id", "author", "text", "video", "likes", "label")
BLOCK_ROWS = 1024
# The draws of a row, in this order. Those of the slices come last, so that one more slice moves no other draw.
_OWN, _OWN_CHOICES, _CHOICES, _CONTENT = slice(0, 5), slice(5, 13), slice(13, 61), slice(61, None)
_DUPLICATE, _SOURCE, _NOISE, _LIKES, _NO_LIKES = range(5)
_LABEL, _CONTRADICTION, _NOVELTY, _FIRST_SLICE = range(4)
_N_DRAWS = 61 + _FIRST_SLICE + len(SLICES)
_TO_INT = np.uint64(33)  # keeps 31 bits, so that Python and numpy hold the same small integers


def generate(n: int, seed: int = 0, profile: Profile = DEFAULT, start: int = 0) -> pd.DataFrame:
    """Return rows ``start`` to ``start + n`` of the stream defined by the seed and the profile.

    Parameters
    ----------
    seed
        The stream; 0 to 2**64 - 1.
    profile
        The traffic and its changes over positions.

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
    names = [planted.name for planted in profile.slices]
    columns: dict[str, list[object]] = {name: [] for name in COLUMNS}
    videos = phrasebook().names["videos"]
    for plan, rows in _plans(n, seed, profile, start):
        own, labels = plan.own_choices[rows].tolist(), plan.label[rows].tolist()
        written = (plan.member, plan.label, plan.cue, plan.novel, plan.choices)
        columns["id"] += _ids(plan.position[rows])
        columns["author"] += [_author(choices, label) for choices, label in zip(own, labels, strict=True)]
        columns["text"] += [
            compose(frozenset(name for name, is_in in zip(names, member, strict=True) if is_in), *rest)
            for member, *rest in zip(*(column[rows].tolist() for column in written), strict=True)
        ]
        columns["video"] += [videos[choices[7] % len(videos)] for choices in own]
        columns["likes"] += plan.likes[rows].tolist()
        columns["label"] += [CLASSES[label] for label in plan.given[rows].tolist()]
    frame = pd.DataFrame(columns)
    return frame.astype({name: np.float64 if name == "likes" else object for name in COLUMNS})


def truth(n: int, seed: int = 0, profile: Profile = DEFAULT, start: int = 0) -> pd.DataFrame:
    """Return the hidden facts of the same rows; arguments as of ``generate``.

    Returns
    -------
    DataFrame
        ``id``; ``label`` before label noise; ``noisy`` (the given label is wrong), ``contradicts`` (the
        wording suggests the other class), ``novel`` (written in the words of the campaign),
        ``duplicate_of`` (the id whose text it repeats, or None); and one boolean column per planted slice.
    """
    plans = list(_plans(n, seed, profile, start)) or [(plan_block(seed, 0, profile), slice(0, 0))]
    return pd.concat([_facts(plan, rows, profile) for plan, rows in plans], ignore_index=True)


def _plans(n: int, seed: int, profile: Profile, start: int) -> Iterator[tuple[BlockPlan, slice]]:
    """Yield the plan of each block that the rows touch, and which of its rows they are."""
    if n < 0 or start < 0 or not 0 <= seed < 2**64:
        raise ConfigError(f"n={n}, start={start}, seed={seed}: n and start must be 0 or more, seed in 0..2**64-1")
    for block in range(start // BLOCK_ROWS, -(-(start + n) // BLOCK_ROWS)):
        origin = block * BLOCK_ROWS
        first, end = max(start - origin, 0), min(start + n - origin, BLOCK_ROWS)
        if first < end:
            yield plan_block(seed, block, profile), slice(first, end)


def _ids(positions: NDArray[np.int64]) -> list[str]:
    return [f"c{position:09d}" for position in positions.tolist()]


def _author(choices: list[int], label: int) -> str:
    names = phrasebook().names
    if choices[0] % 5 < 1 + 2 * label:
        return names["handles"][choices[1] % len(names["handles"])] + str(choices[2] % 10_000)
    last = names["last"][choices[2] % len(names["last"])]
    first = names["first"][choices[1] % len(names["first"])]
    return (
        f"{first} {last}",
        f"{first} {last[0]}",
        f"{first.lower()}{last.lower()}",
        f"{first} {choices[4] % 100}",
    )[choices[3] % 4]


def _facts(plan: BlockPlan, rows: slice, profile: Profile) -> pd.DataFrame:
    repeated = plan.source[rows] != plan.position[rows]
    sources = [ident if again else None for ident, again in zip(_ids(plan.source[rows]), repeated, strict=True)]
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
    return facts.assign(**{planted.name: plan.member[rows, s] for s, planted in enumerate(profile.slices)})


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """The facts of N rows of the stream before anything is written; S planted slices.

    ``member`` bool[N, S]; ``cue`` is the class (0 ham, 1 spam) that the wording suggests, ``label`` the true
    class and ``given`` the noisy one; ``source`` is the position whose content the row repeats, its own
    where it repeats none; ``choices`` int64[N, 48] and ``own_choices`` int64[N, 8] pick the words of the
    content and of the rest.
    """

    position: NDArray[np.int64]
    source: NDArray[np.int64]
    member: NDArray[np.bool_]
    label: NDArray[np.int64]
    given: NDArray[np.int64]
    cue: NDArray[np.int64]
    novel: NDArray[np.bool_]
    likes: NDArray[np.float64]
    choices: NDArray[np.int64]
    own_choices: NDArray[np.int64]


def plan_block(seed: int, block: int, profile: Profile) -> BlockPlan:
    """Return the plan of the 1,024 rows of one block."""
    # The raw bits of Philox, which no version of numpy may change.
    raw = np.random.Philox(key=np.array([seed, block], dtype=np.uint64)).random_raw(_N_DRAWS * BLOCK_ROWS)
    bits = np.asarray(raw).reshape(_N_DRAWS, BLOCK_ROWS)
    own, content = (np.ldexp(bits[part].astype(np.float64), -64) for part in (_OWN, _CONTENT))
    rows = np.arange(BLOCK_ROWS)
    repeats = (own[_DUPLICATE] < profile.duplicates) & (rows > 0)
    source = np.where(repeats, (own[_SOURCE] * rows).astype(np.int64), rows)
    while (source[source] != source).any():  # a duplicate of a duplicate has the content of the first
        source = source[source]
    position = block * BLOCK_ROWS + rows
    member, label, cue, novel = _content(content[:, source], position[source], profile)
    # A heavy-tailed count of likes, smaller for spam.
    scale = np.where(label, 0.8, 3.0)
    likes = np.floor(scale * (1 / np.maximum(1 - own[_LIKES], 1e-6) ** 0.7 - 1))
    return BlockPlan(
        position=position,
        source=position[source],
        member=member,
        label=label,
        given=label ^ (own[_NOISE] < profile.label_noise),
        cue=cue,
        novel=novel,
        likes=np.where(own[_NO_LIKES] < profile.missing_likes, np.nan, likes),
        choices=(bits[_CHOICES] >> _TO_INT).T.astype(np.int64)[source],
        own_choices=(bits[_OWN_CHOICES] >> _TO_INT).T.astype(np.int64),
    )


def _content(
    draws: NDArray[np.float64], position: NDArray[np.int64], profile: Profile
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return memberships bool[N, S], labels, cues and novelty of some positions."""
    label = (draws[_LABEL] < profile.spam_share.at(position)).astype(np.int64)
    names = [planted.name for planted in profile.slices]
    likelihoods = membership_probabilities(profile, position)
    likelihood = np.where(label, likelihoods[1], likelihoods[0])  # [S, N]
    columns = [_FIRST_SLICE + SLICES.index(name) for name in names]  # the draws of a slice do not depend on the profile
    member = np.asarray((draws[columns] < likelihood).T)  # [N, S]
    roomy = np.ones(len(position), dtype=bool)
    if "short_comment" in names:
        short = member[:, names.index("short_comment")].copy()
        member &= ~(short[:, None] & np.array([name not in COMPACT for name in names]))
        roomy = ~short
    contradiction, novelty = np.zeros(len(position)), np.zeros(len(position))
    for s, planted in enumerate(profile.slices):
        contradiction = np.maximum(contradiction, member[:, s] * planted.contradiction.at(position))
        novelty = np.maximum(novelty, member[:, s] * planted.novelty.at(position))
    novel = (draws[_NOVELTY] < novelty) & roomy
    contradicts = (draws[_CONTRADICTION] < contradiction) & ~novel
    return member, label, label ^ contradicts, novel
