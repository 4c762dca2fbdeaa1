"""What the traffic is like: per planted slice its coverage, spam share and difficulty, over positions."""

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
class Change:
    """One change of a share: from position ``at`` on it moves to ``value``, evenly over some rows."""

    at: int
    value: float
    over_rows: int = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """A share in [0, 1] as a function of the position in the stream: a start and changes, steps or ramps.

    Examples
    --------
    >>> Schedule(0.02).then(1_000, 0.08, over_rows=100).at([0, 1_000, 1_050, 5_000]).tolist()
    [0.02, 0.02, 0.05, 0.08]
    """

    start: float
    changes: tuple[Change, ...] = ()

    def __post_init__(self) -> None:
        for share in self.levels():
            if not (math.isfinite(share) and 0 <= share <= 1):
                raise ConfigError(f"a schedule holds {share}; give a share between 0 and 1")
        for change in self.changes:
            if change.at < 0 or change.over_rows < 0:
                raise ConfigError(f"{change} starts or lasts a negative number of rows; give 0 or more")
        ends = [0, *(change.at + change.over_rows for change in self.changes)]
        for change, earliest in zip(self.changes, ends, strict=False):
            if change.at < earliest:
                raise ConfigError(f"{change} starts before position {earliest}, where the one before it ends")

    def at(self, positions: NDArray[np.int64] | list[int]) -> NDArray[np.float64]:
        """Return float64[N]: the share in force at each position."""
        where = np.asarray(positions, dtype=np.float64)
        shares = np.full(where.shape, self.start)
        for change in self.changes:
            ramp = np.clip((where - change.at) / max(change.over_rows, 1), 0.0, 1.0)
            moved = ramp if change.over_rows else (where >= change.at).astype(np.float64)
            shares = shares * (1 - moved) + change.value * moved
        return shares

    def then(self, at: int, value: float, over_rows: int = 0) -> Schedule:
        """Return the schedule with one more change at its end."""
        return Schedule(self.start, (*self.changes, Change(at, value, over_rows)))

    def levels(self) -> list[float]:
        """Return the shares at the start and after each change."""
        return [self.start, *(change.value for change in self.changes)]

    def knots(self) -> list[int]:
        """Return the positions at which a step happens or a ramp begins and ends."""
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
        Share of its members whose wording speaks for the other class. Above a half, what a word says inside
        the slice is the reverse of what it says outside: a plain linear model fails there, one that knows
        the slice need not.
    novelty
        Share of its members written in the words of a campaign that other traffic does not hold. Its spam
        reads like a fan's comment and its ham repeats the advertiser to warn of him: an old model fails, a
        retrained one learns. Short comments have no room for it.
    """

    name: str
    coverage: Schedule
    spam_share: Schedule
    contradiction: Schedule = Schedule(0.0)
    novelty: Schedule = Schedule(0.0)


@dataclass(frozen=True, slots=True)
class Profile:
    """The whole traffic: planted slices, the overall spam share, and the blemishes of real data.

    Given its label, a comment belongs to each slice independently of the others, so slices overlap as they
    do in real comments; only ``short_comment`` leaves no room for a fragment of most others.

    Raises
    ------
    ConfigError
        If a slice is unknown or named twice, or has more members of a label than that label has rows.
    """

    slices: tuple[SliceProfile, ...]
    spam_share: Schedule = Schedule(0.45)
    label_noise: float = 0.008
    duplicates: float = 0.03
    missing_likes: float = 0.08

    def __post_init__(self) -> None:
        names = [piece.name for piece in self.slices]
        unknown = [name for name in names if name not in SLICES]
        if unknown:
            raise ConfigError(f"no planted slice is called {unknown[0]!r}; there are {', '.join(SLICES)}")
        if len(set(names)) < len(names):
            raise ConfigError(f"a planted slice is given twice in {names}; give each once")
        for name in ("label_noise", "duplicates", "missing_likes"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; give a share between 0 and 1")
        if "short_comment" in names and any(self["short_comment"].novelty.levels()):
            raise ConfigError("short_comment has a novelty; four words have no room for the campaign: give 0")
        membership_probabilities(self, np.asarray(self._knots(), dtype=np.int64))

    def __getitem__(self, name: str) -> SliceProfile:
        for piece in self.slices:
            if piece.name == name:
                return piece
        raise ConfigError(
            f"the profile plants no slice {name!r}; it has {', '.join(p.name for p in self.slices)}"
        )

    def at(self, position: int) -> dict[str, dict[str, float]]:
        """Return, per slice, the coverage, spam share, contradiction and novelty in force at a position."""
        return {
            piece.name: {name: float(getattr(piece, name).at([position])[0]) for name in QUANTITIES}
            for piece in self.slices
        }

    def changed(self, name: str, at: int, over_rows: int = 0, **shares: float) -> Profile:
        """Return the profile with one slice changed from a position on, at once or evenly over some rows.

        Parameters
        ----------
        name, at, over_rows
            Which slice, from which position, and over how many rows (0: a step).
        shares
            New values of ``coverage``, ``spam_share``, ``contradiction`` or ``novelty``.

        Examples
        --------
        >>> busier = DEFAULT.changed("short_link", at=50_000, coverage=0.08)
        >>> busier.at(49_999)["short_link"]["coverage"], busier.at(50_000)["short_link"]["coverage"]
        (0.02, 0.08)
        """
        wrong = [quantity for quantity in shares if quantity not in QUANTITIES]
        if wrong:
            raise ConfigError(f"a slice has no {wrong[0]!r}; change one of {', '.join(QUANTITIES)}")
        old = self[name]
        new = replace(
            old, **{key: getattr(old, key).then(at, value, over_rows) for key, value in shares.items()}
        )
        return replace(self, slices=tuple(new if piece is old else piece for piece in self.slices))

    def _knots(self) -> list[int]:
        schedules = [getattr(piece, name) for piece in self.slices for name in QUANTITIES]
        return sorted({knot for schedule in (self.spam_share, *schedules) for knot in schedule.knots()})


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
    """Return float64[2, S, N]: P(member | ham or spam), given that it is not short but for compact slices.

    Raises
    ------
    ConfigError
        If a probability exceeds 1: the slice has more members of a label than that label leaves room for.
    """
    spam = profile.spam_share.at(positions)
    priors = np.stack([1 - spam, spam])  # [2, N]
    likelihoods = np.empty((2, len(profile.slices), len(positions)))
    for s, piece in enumerate(profile.slices):
        share = piece.spam_share.at(positions)
        rows = piece.coverage.at(positions) * np.stack([1 - share, share])  # [2, N]
        likelihoods[:, s] = np.divide(rows, priors, out=np.where(rows > 0, np.inf, 0.0), where=priors > 0)
    names = [piece.name for piece in profile.slices]
    if "short_comment" in names:
        room = 1 - likelihoods[:, names.index("short_comment")]  # [2, N]
        wordy = [s for s, name in enumerate(names) if name not in COMPACT]
        taken = likelihoods[:, wordy]
        likelihoods[:, wordy] = np.divide(
            taken, room[:, None], out=np.where(taken > 0, np.inf, 0.0), where=room[:, None] > 0
        )
    _demand_room(likelihoods, names, positions)
    return likelihoods


def _demand_room(likelihoods: NDArray[np.float64], names: list[str], positions: NDArray[np.int64]) -> None:
    full = np.argwhere(~(likelihoods <= 1 + 1e-9))
    if len(full):
        label, s, row = full[0]
        raise ConfigError(
            f"slice {names[s]!r} has more {('ham', 'spam')[label]} at position {positions[row]} than all of "
            "the traffic holds beside short comments; change its coverage or a spam_share"
        )


def _steady(name: str, coverage: float, spam_share: float, contradiction: float = 0.0) -> SliceProfile:
    return SliceProfile(name, Schedule(coverage), Schedule(spam_share), Schedule(contradiction))


# Calm traffic. Two slices reverse the cues: those who say please, and those who quote a time in the video.
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
