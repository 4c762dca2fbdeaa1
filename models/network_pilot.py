"""Pilot of networks: a few trainings on a sample, to see whether a search among networks can pay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from models.base_families import REACH
from models.model_selection import (
    Candidate,
    CandidateSpec,
    TrainingTask,
    best_candidate,
    train_candidate,
)
from models.objectives import WEIGHTINGS
from models.slice_residual import MAX_UNGATED, MODES, Mode

ROWS = 2_000
"""Training and validation rows of a pilot, unless all are fewer than one and a half times as many."""
NETWORK_REACH, MODE_REACH = 0.015, 0.02
"""Score that a search may add to a pilot, and by which more rows may turn modes."""


@dataclass(frozen=True, slots=True)
class Rival:
    """Scores of a base fitted on the rows of a pilot, without and with slices, and its name."""

    name: str
    plain: float
    sliced: float


class NetworkPilot:
    """Trainings of ERM, of the modes of the slice residual, and of the best one with rare cells weighted most.

    Where slices are many, gates decide, and only ERM is trained.

    Parameters
    ----------
    task
        Rows of the pilot, and the shape of the networks.
    rival
        The base that a network has to come near.
    margin
        Score by which a network has to be better to be shipped.

    Attributes
    ----------
    candidates
        Networks trained on the rows of the pilot.
    known
        Networks trained on the rows of the search.
    reason
        Why the search cannot pay.
    """

    def __init__(self, task: TrainingTask, rival: Rival, margin: float) -> None:
        self.task, self.rival, self.margin = task, rival, margin
        self.candidates: list[Candidate] = []
        self.known: list[Candidate] = []
        self.reason = ""

    def run(self, on_stage: Callable[[str, float], None]) -> bool:
        """Train, and return whether a search can pay; if not, ``reason`` says why not."""
        names = self.task.train.S.names
        erm = self._train(CandidateSpec("erm", names), on_stage)
        if self._lacks(erm, self.rival.plain, -REACH):
            return False
        if len(names) > MAX_UNGATED:
            return True
        if names:
            best = best_candidate([self._train(CandidateSpec(mode, names), on_stage) for mode in MODES])
            self._train(replace(best.spec, weighting=WEIGHTINGS[-1]), on_stage)
        return not self._lacks(best_candidate(self.candidates), self.rival.sliced, self.margin - NETWORK_REACH)

    def confirm(self, task: TrainingTask, rival: float, margin: float, on_stage: Callable[[str, float], None]) -> bool:
        """Train the best one on the rows of the search, if there are more, and return whether it comes near there, too.

        Where slices are many it does: gates decide.
        """
        self.known = self.candidates
        if len(task.train) == len(self.task.train) and len(task.valid) == len(self.task.valid):
            return True
        self.known = []
        if len(task.train.S.names) > MAX_UNGATED:
            return True
        on_stage("pilot of networks on more rows", 1.0)
        again = train_candidate(task, best_candidate(self.candidates).spec)
        self.known = [again]
        self.task, self.margin = task, margin
        return not self._lacks(again, rival, margin - NETWORK_REACH)

    def _train(self, spec: CandidateSpec, on_stage: Callable[[str, float], None]) -> Candidate:
        on_stage(f"pilot of networks: {spec.name}", min(1.0, len(self.candidates) / (len(MODES) + 2)))
        self.candidates.append(train_candidate(self.task, spec))
        return self.candidates[-1]

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes near the best one; all where slices are many, since gates change their order."""
        if len(self.task.train.S.names) > MAX_UNGATED:
            return MODES
        modes = [each for each in self.candidates if each.spec.form in MODES and each.spec.weighting == WEIGHTINGS[0]]
        least = max((candidate.score.value for candidate in modes), default=0.0) - MODE_REACH
        near = {candidate.spec.form for candidate in modes if candidate.score.value >= least}
        return tuple(mode for mode in MODES if mode in near)

    def _lacks(self, candidate: Candidate, rival: float, more: float) -> bool:
        """Whether a network has less than the rival's score and some more; then this is the reason."""
        score = candidate.score.value
        if score < rival + more:
            self.reason = (
                f"Networks were not searched: in a pilot of {len(self.task.train):,} training rows the validation "
                f"score was {score:.3f} ({candidate.spec.name}), against {rival:.3f} for {self.rival.name}. "
                f"To be shipped, a network must have {self.margin:.3f} more."
            )
        return score < rival + more
