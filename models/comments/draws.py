"""Counter-based randomness: every row's draws are a function of the seed and of its position in the stream.

Rows are drawn in blocks of 1,024, each from Philox (Salmon et al., "Parallel random numbers: as easy as 1,
2, 3", SC'11) keyed by (seed, block), so that a stream is the same however it is cut into chunks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.comments.profile import COMPACT, SLICES, Profile, membership_probabilities

BLOCK_ROWS = 1024
# The draws of a row, in this order; those of the slices come last so that one more slice moves no other draw.
_OWN, _OWN_CHOICES, _CHOICES, _CONTENT = slice(0, 5), slice(5, 13), slice(13, 61), slice(61, None)
_DUPLICATE, _SOURCE, _NOISE, _LIKES, _NO_LIKES = range(5)
_LABEL, _CONTRADICTION, _NOVELTY, _FIRST_SLICE = range(4)
_N_DRAWS = 61 + _FIRST_SLICE + len(SLICES)
_TO_INT = np.uint64(33)  # keeps 31 bits, so that Python and numpy hold the same small integers


@dataclass(frozen=True, slots=True)
class Plan:
    """What some rows of the stream are, before anything is written; N rows, S planted slices.

    ``member`` bool[N, S]; ``cue`` is the class (0 ham, 1 spam) that the wording speaks for, ``label`` the
    true class and ``given`` the noisy one; ``source`` is the position whose content the row repeats, its
    own where it repeats none; ``choices`` int64[N, 48] and ``own_choices`` int64[N, 8] pick the words of
    the content and of the rest.
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


def plan_block(seed: int, block: int, profile: Profile) -> Plan:
    """Return the plan of the 1,024 rows of one block."""
    bits = _bits(seed, block)
    own, content = _shares(bits[_OWN]), _shares(bits[_CONTENT])
    source = _sources(own, profile.duplicates)
    position = block * BLOCK_ROWS + np.arange(BLOCK_ROWS)
    member, label, cue, novel = _content(content[:, source], position[source], profile)
    return Plan(
        position=position,
        source=position[source],
        member=member,
        label=label,
        given=label ^ (own[_NOISE] < profile.label_noise),
        cue=cue,
        novel=novel,
        likes=_likes(own, label, profile.missing_likes),
        choices=(bits[_CHOICES] >> _TO_INT).T.astype(np.int64)[source],
        own_choices=(bits[_OWN_CHOICES] >> _TO_INT).T.astype(np.int64),
    )


def _bits(seed: int, block: int) -> NDArray[np.uint64]:
    """Return uint64[draws, 1024]; the raw bits of Philox, which no version of numpy may change."""
    generator = np.random.Philox(key=np.array([seed, block], dtype=np.uint64))
    return np.asarray(generator.random_raw(_N_DRAWS * BLOCK_ROWS)).reshape(_N_DRAWS, BLOCK_ROWS)


def _shares(bits: NDArray[np.uint64]) -> NDArray[np.float64]:
    return np.ldexp(bits.astype(np.float64), -64)


def _sources(own: NDArray[np.float64], duplicates: float) -> NDArray[np.int64]:
    """Return int64[N]: the row of the block whose content each row has; a duplicate has an earlier one."""
    rows = np.arange(BLOCK_ROWS)
    repeats = (own[_DUPLICATE] < duplicates) & (rows > 0)
    sources = np.where(repeats, (own[_SOURCE] * rows).astype(np.int64), rows)
    while (sources[sources] != sources).any():  # a duplicate of a duplicate has the content of the first
        sources = sources[sources]
    return sources


def _content(
    draws: NDArray[np.float64], position: NDArray[np.int64], profile: Profile
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    label = (draws[_LABEL] < profile.spam_share.at(position)).astype(np.int64)
    member = _members(draws[_FIRST_SLICE:], label, position, profile)
    contradiction, novelty, roomy = (
        np.zeros(len(position)),
        np.zeros(len(position)),
        np.ones(len(position), bool),
    )
    for s, piece in enumerate(profile.slices):
        contradiction = np.maximum(contradiction, member[:, s] * piece.contradiction.at(position))
        novelty = np.maximum(novelty, member[:, s] * piece.novelty.at(position))
        roomy &= ~member[:, s] | (piece.name != "short_comment")
    novel = (draws[_NOVELTY] < novelty) & roomy
    contradicts = (draws[_CONTRADICTION] < contradiction) & ~novel
    return member, label, label ^ contradicts, novel


def _members(
    draws: NDArray[np.float64], label: NDArray[np.int64], position: NDArray[np.int64], profile: Profile
) -> NDArray[np.bool_]:
    """Return bool[N, S] in the profile's order; a slice has the same column of draws in each."""
    names = [piece.name for piece in profile.slices]
    likelihoods = membership_probabilities(profile, position)
    chosen = np.where(label, likelihoods[1], likelihoods[0])  # [S, N]
    member = (draws[[SLICES.index(name) for name in names]] < chosen).T  # [N, S]
    if "short_comment" in names:
        wordy = [name not in COMPACT for name in names]
        member &= ~(member[:, [names.index("short_comment")]] & np.asarray(wordy))
    return np.asarray(member)


def _likes(own: NDArray[np.float64], label: NDArray[np.int64], missing: float) -> NDArray[np.float64]:
    """Return float64[N]: a heavy-tailed count of likes, smaller for spam; NaN where it is missing."""
    scale = np.where(label, 0.8, 3.0)
    count = np.floor(scale * (1 / np.maximum(1 - own[_LIKES], 1e-6) ** 0.7 - 1))
    return np.where(own[_NO_LIKES] < missing, np.nan, count)
