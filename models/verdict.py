"""What a fit tells its user in plain words: which form won, by how much, and when slices bring nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from models.batches import Split
from models.candidates import Candidate
from models.refit import Refit
from models.slice_residual import UnknownRows

COMPANION_MARGIN = 0.01
"""A plain model is shipped instead when its score is higher by more than this, on few validation rows."""
MARGIN_ROWS = 3000
"""Beyond so many validation rows the margin shrinks as the score's own error does."""
NO_GAIN = 0.001
"""A higher score by this much or less is not called a win."""
FEW_MEMBERS = 25
EXPLANATION = "The score is half the accuracy and half that of the worst slice, if small drawn to the whole."


@dataclass(frozen=True, slots=True)
class Contest:
    """The best form with slices, its refit, and the plain models, all scored on validation rows."""

    winner: Candidate
    refit: Refit | None
    unknown_score: float
    erm: Candidate
    weighted: Candidate
    rows: int

    @property
    def companion(self) -> Candidate:
        """The better plain model; ERM where they are equal."""
        return max((self.erm, self.weighted), key=lambda peer: peer.score.value)

    @property
    def score(self) -> float:
        """What the best form with slices is worth: cross-fitted where its last layer was refitted."""
        return self.winner.score.value if self.refit is None else self.refit.score.value

    @property
    def companion_ships(self) -> bool:
        """Whether a plain model is shipped in place of slices."""
        return self.companion.score.value > self.score + companion_margin(self.rows)

    @property
    def unknown_rows(self) -> UnknownRows:
        """Who answers rows with an unknown membership."""
        return "impute" if self.unknown_score >= self.companion.score.value else "companion"

    @property
    def form(self) -> str:
        """The shipped form in a few words."""
        if self.companion_ships:
            return f"companion: {self.companion.plan.name}"
        return slice_form(self.winner, self.refit is not None)


def companion_margin(rows: int) -> float:
    """Return by how much a plain model's score must be higher on so many validation rows.

    Checkpoints are chosen by the score they are then compared by, a refitted layer is not; the margin stands
    for that optimism, which falls with the square root of the rows.

    Examples
    --------
    >>> companion_margin(500), companion_margin(12_000)
    (0.01, 0.005)
    """
    return COMPANION_MARGIN * min(1.0, math.sqrt(MARGIN_ROWS / max(rows, 1)))


def slice_form(winner: Candidate, refitted: bool) -> str:
    """Return a form with slices in a few words, with how many it could have kept."""
    words = winner.plan.name
    if winner.plan.gated:
        gated = f"gated to {len(winner.plan.slices)}"
        words = words.replace(gated, f"{gated} of {_slices(winner)} slices")
    return f"{words}, last layer refitted" if refitted else words


def residual_sentences(contest: Contest, valid: Split) -> Iterator[str]:
    """Yield what a user of the slice residual learner should know."""
    yield _who_won(contest)
    yield EXPLANATION
    if not contest.companion_ships:
        yield from _about_shipped(contest)
    yield from validation_warnings(valid)


def _who_won(contest: Contest) -> str:
    form = slice_form(contest.winner, contest.refit is not None)
    plain = contest.companion
    if contest.companion_ships:
        return (
            f"Slice awareness brings nothing here: the plain model ({plain.plan.name}) is shipped. On "
            f"validation it scores {plain.score.value:.3f} against {contest.score:.3f} for slices ({form})."
        )
    against = peers_against(contest.erm, contest.weighted)
    if not contest.winner.plan.slices:
        refitted = "" if contest.refit is None else ", its last layer refitted"
        return (
            f"Slice awareness brings nothing here: none of {_slices(contest.winner)} slices earned a place. "
            f"A plain network is shipped{refitted}: score {contest.score:.3f} against {against}."
        )
    if contest.score > plain.score.value + NO_GAIN:
        return f"Residual slices ({form}) won on validation: score {contest.score:.3f} against {against}."
    return (
        f"Residual slices ({form}) are shipped, but validation shows no gain: score {contest.score:.3f} "
        f"(cross-fitted, so a little strict) against {against}. Expect a plain model's accuracy."
    )


def peers_against(erm: Candidate, weighted: Candidate) -> str:
    """Return the plain models' scores in words."""
    text = f"{erm.score.value:.3f} for ERM"
    if weighted is erm:
        return text
    return f"{text} and {weighted.score.value:.3f} for slice-weighted ERM ({weighted.plan.weighting})"


def _about_shipped(contest: Contest) -> Iterator[str]:
    plan = contest.winner.plan
    if contest.refit is None:
        yield "The last layer was not refitted: some class has fewer than two validation rows."
    if not plan.slices:
        yield "Memberships are not read."
    elif plan.form == "soft":
        yield "Memberships are read in training only: at serving the network predicts them itself."
    elif contest.unknown_rows == "impute":
        yield "Where a membership is unknown, the network answers with its own estimate of it."
    else:
        name = contest.companion.plan.name
        yield f"Rows with an unknown membership go to the companion ({name}), which reads no slices."


def validation_warnings(valid: Split) -> Iterator[str]:
    """Yield which slices have too few validation rows to choose by."""
    members = valid.S.member.sum(axis=0)
    few = [name for name, n in zip(valid.S.names, members, strict=True) if n < FEW_MEMBERS]
    if few:
        shown = ", ".join(few[:5]) + (", ..." if len(few) > 5 else "")
        yield (
            f"{len(few)} of {len(members)} slices have under {FEW_MEMBERS} validation members ({shown}): "
            "the choice hardly sees them."
        )


def _slices(winner: Candidate) -> int:
    return len(getattr(winner.model, "slice_names", winner.plan.slices))
