"""Profile of the generated traffic: coverage, spam share and difficulty of each planted slice over positions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from models.errors import ConfigError

_FOREIGN_WORDS = (
    "muy|visita|essa|minha|muito|das|ist|ich|cette|quelle|je|"
    "questa|questi|che|vendo|guadagna|visitate|mancano|stanco|bu"
)
QUANTITIES = ("coverage", "spam_share", "contradiction", "novelty")
# Patterns (RE2 and re alike) that find the planted slices for which sfs.library.spam has no function.
PATTERNS: Mapping[str, str] = MappingProxyType(
    {
        "giveaway": r"(?i)giveaway|raffle",
        "non_english": rf"[À-ÖØ-öø-ɏЀ-ӿ]|(?i:\b(?:{_FOREIGN_WORDS})\b)",
        "timestamp_mention": r"\b\d{1,2}:\d{2}\b",
    }
)


@dataclass(frozen=True, slots=True)
class ShareChange:
    """One change of a share: from position ``at`` on it moves to ``value``, linearly over ``over_rows`` rows."""

    at: int
    value: float
    over_rows: int = 0


@dataclass(frozen=True, slots=True)
class ShareSchedule:
    """A share in [0, 1] as a function of the position in the stream: a start and changes, steps or ramps.

    Examples
    --------
    >>> ShareSchedule(0.02).then(1_000, 0.08, over_rows=100).at([0, 1_000, 1_050, 5_000]).tolist()
    [0.02, 0.02, 0.05, 0.08]
    """

    start: float
    changes: tuple[ShareChange, ...] = ()

    def __post_init__(self) -> None:
        for share in self.levels():
            if not (math.isfinite(share) and 0 <= share <= 1):
                raise ConfigError(f"a schedule holds {share}: use a share between 0 and 1")
        for change in self.changes:
            if change.at < 0 or change.over_rows < 0:
                raise ConfigError(f"{change} starts or lasts a negative number of rows: use 0 or more")
        ends = [0, *(change.at + change.over_rows for change in self.changes)]
        for change, earliest in zip(self.changes, ends, strict=False):
            if change.at < earliest:
                raise ConfigError(f"{change} starts before position {earliest}, the end of the previous change")

    def at(self, positions: NDArray[np.int64] | list[int]) -> NDArray[np.float64]:
        """Return float64[N]: the share in force at each position."""
        where = np.asarray(positions, dtype=np.float64)
        shares = np.full(where.shape, self.start)
        for change in self.changes:
            ramp = np.clip((where - change.at) / max(change.over_rows, 1), 0.0, 1.0)
            moved = ramp if change.over_rows else (where >= change.at).astype(np.float64)
            shares = shares * (1 - moved) + change.value * moved
        return shares

    def then(self, at: int, value: float, over_rows: int = 0) -> ShareSchedule:
        """Return the schedule with one more change appended."""
        return ShareSchedule(self.start, (*self.changes, ShareChange(at, value, over_rows)))

    def levels(self) -> list[float]:
        """Return the shares at the start and after each change."""
        return [self.start, *(change.value for change in self.changes)]

    def knots(self) -> list[int]:
        """Return the positions of steps and of the two ends of ramps."""
        return [0, *(edge for change in self.changes for edge in (change.at, change.at + change.over_rows))]


@dataclass(frozen=True, slots=True)
class SliceProfile:
    """One planted slice over time.

    Parameters
    ----------
    name
        One of ``SLICES``.
    coverage
        Share of all rows that belong to the slice.
    spam_share
        Share of its members that are spam, before label noise.
    contradiction
        Share of its members whose wording suggests the other class. Above one half, words mean the reverse
        inside the slice: a plain linear model fails there, a slice-aware one need not.
    novelty
        Share of its members written in the words of a campaign that other traffic lacks. Its spam reads
        like a fan's comment and its ham repeats the advertiser's words as a warning: an old model fails, a
        retrained one learns. Short comments have no room for it.
    """

    name: str
    coverage: ShareSchedule
    spam_share: ShareSchedule
    contradiction: ShareSchedule = ShareSchedule(0.0)
    novelty: ShareSchedule = ShareSchedule(0.0)


@dataclass(frozen=True, slots=True)
class Profile:
    """Traffic profile: planted slices, overall spam share, and defects of real data.

    Given its label, a comment belongs to each slice independently of the others, so that slices overlap as in
    real comments; only ``short_comment`` excludes most others.

    Raises
    ------
    ConfigError
        If a slice is unknown or repeated, or has more members of a label than that label has rows.
    """

    slices: tuple[SliceProfile, ...]
    spam_share: ShareSchedule = ShareSchedule(0.45)
    label_noise: float = 0.008
    duplicates: float = 0.03
    missing_likes: float = 0.08

    def __post_init__(self) -> None:
        names = [planted.name for planted in self.slices]
        unknown = [name for name in names if name not in SLICES]
        if unknown:
            raise ConfigError(f"unknown planted slice {unknown[0]!r}; known are {', '.join(SLICES)}")
        if len(set(names)) < len(names):
            raise ConfigError(f"the planted slices {names} repeat a name: name each slice once")
        for name in ("label_noise", "duplicates", "missing_likes"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}: use a share between 0 and 1")
        if "short_comment" in names and any(self["short_comment"].novelty.levels()):
            raise ConfigError("short_comment has a novelty, but four words have no room for the campaign: use 0")
        schedules = [getattr(planted, name) for planted in self.slices for name in QUANTITIES]
        knots = {knot for schedule in (self.spam_share, *schedules) for knot in schedule.knots()}
        membership_probabilities(self, np.array(sorted(knots), dtype=np.int64))

    def __getitem__(self, name: str) -> SliceProfile:
        for planted in self.slices:
            if planted.name == name:
                return planted
        raise ConfigError(f"the profile has no planted slice {name!r}; it has {', '.join(p.name for p in self.slices)}")

    def at(self, position: int) -> dict[str, dict[str, float]]:
        """Return the coverage, spam share, contradiction and novelty of each slice at a position."""
        return {
            planted.name: {name: float(getattr(planted, name).at([position])[0]) for name in QUANTITIES}
            for planted in self.slices
        }

    def with_change(self, name: str, at: int, over_rows: int = 0, **shares: float) -> Profile:
        """Return the profile with one slice changed from a position on, at once or linearly over some rows.

        Parameters
        ----------
        name, at, over_rows
            The slice, the first position, and the number of rows of the ramp (0: a step).
        shares
            New values of ``coverage``, ``spam_share``, ``contradiction`` or ``novelty``.

        Examples
        --------
        >>> busier = DEFAULT.with_change("short_link", at=50_000, coverage=0.08)
        >>> busier.at(49_999)["short_link"]["coverage"], busier.at(50_000)["short_link"]["coverage"]
        (0.02, 0.08)
        """
        wrong = [quantity for quantity in shares if quantity not in QUANTITIES]
        if wrong:
            raise ConfigError(f"a slice has no {wrong[0]!r}: change one of {', '.join(QUANTITIES)}")
        old = self[name]
        new = replace(old, **{key: getattr(old, key).then(at, value, over_rows) for key, value in shares.items()})
        return replace(self, slices=tuple(new if planted is old else planted for planted in self.slices))


# A comment of at most four words has room for markup and for another language, not for the other fragments.
COMPACT = frozenset({"short_comment", "html_markup", "non_english"})
SLICES = (
    "short_comment",
    "keyword_please",
    "keyword_subscribe",
    "regex_check_out",
    "short_link",
    "has_url",
    "html_markup",
    "giveaway",
    "non_english",
    "timestamp_mention",
)


def membership_probabilities(profile: Profile, positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return float64[2, S, N]: P(member | ham or spam), for slices that are not compact given a longer comment.

    Raises
    ------
    ConfigError
        If a probability exceeds 1: the slice has more members of a label than that label has rows.
    """
    spam = profile.spam_share.at(positions)
    priors = np.stack([1 - spam, spam])  # [2, N]
    likelihoods = np.empty((2, len(profile.slices), len(positions)))
    for s, planted in enumerate(profile.slices):
        share = planted.spam_share.at(positions)
        rows = planted.coverage.at(positions) * np.stack([1 - share, share])  # [2, N]
        likelihoods[:, s] = np.divide(rows, priors, out=np.where(rows > 0, np.inf, 0.0), where=priors > 0)
    names = [planted.name for planted in profile.slices]
    if "short_comment" in names:
        room = 1 - likelihoods[:, names.index("short_comment")]  # [2, N]
        wordy = [s for s, name in enumerate(names) if name not in COMPACT]
        taken = likelihoods[:, wordy]
        likelihoods[:, wordy] = np.divide(
            taken, room[:, None], out=np.where(taken > 0, np.inf, 0.0), where=room[:, None] > 0
        )
    full = np.argwhere(~(likelihoods <= 1 + 1e-9))
    if len(full):
        label, s, row = full[0]
        raise ConfigError(
            f"slice {names[s]!r} has more {('ham', 'spam')[label]} at position {positions[row]} than the traffic "
            "holds besides short comments: change its coverage or a spam_share"
        )
    return likelihoods


def _steady(name: str, coverage: float, spam_share: float, contradiction: float = 0.0) -> SliceProfile:
    return SliceProfile(name, ShareSchedule(coverage), ShareSchedule(spam_share), ShareSchedule(contradiction))


# Calm traffic. Two slices reverse the cues: keyword_please and timestamp_mention.
DEFAULT = Profile(
    (
        _steady("short_comment", 0.17, 0.25, 0.02),
        _steady("keyword_please", 0.035, 0.5, 0.8),
        _steady("keyword_subscribe", 0.08, 0.9),
        _steady("regex_check_out", 0.12, 0.94),
        _steady("short_link", 0.02, 0.5),
        _steady("has_url", 0.06, 0.8),
        _steady("html_markup", 0.06, 0.4),
        _steady("giveaway", 0.025, 0.6),
        _steady("non_english", 0.06, 0.4),
        _steady("timestamp_mention", 0.02, 0.5, 0.8),
    )
)
