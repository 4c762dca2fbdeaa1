"""Pilot of networks: a few trainings on samples, to see whether a search among networks can pay."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from models.base_families import REACH
from models.learners import CandidateResult, candidate_result
from models.model_selection import Candidate, CandidateSpec, SelectionScore, TrainingTask, slice_form, train_candidate
from models.refit import refit_last_layer
from models.slice_residual import MAX_UNGATED, MODES, Mode, SliceResidualClassifier

ROUNDS = (2_000, 6_000)
"""Training and validation rows of the first rounds; the last has all rows of the search."""
NETWORK_REACH = 0.01
PILOT_MODES: tuple[Mode, ...] = ("blend", "emb")
"""Modes that are tried; ``soft``, which reads no memberships, was never the best where a network was shipped."""


@dataclass(frozen=True, slots=True)
class PilotRound:
    """Rows of a round and the shape of its networks, with the base that a network has to come near.

    Parameters
    ----------
    task
        The rows and the shape.
    rival
        Name of the base.
    plain, sliced
        Scores on these validation rows of the base without and with slices, fitted on as many rows.
    margin
        Score by which a network has to be better to be shipped, of as many validation rows.
    is_whole
        Whether the rows are those of the search.
    """

    task: TrainingTask
    rival: str
    plain: float
    sliced: float
    margin: float
    is_whole: bool

    @property
    def reach(self) -> float:
        """Score that more rows, if there are, may add to a network more than to the base."""
        return 0.0 if self.is_whole else NETWORK_REACH


@dataclass(frozen=True, slots=True)
class _Trial:
    """A network and its score, cross-fitted with a refitted last layer where that is possible."""

    candidate: Candidate
    score: SelectionScore
    form: str


class NetworkPilot:
    """Trainings of ERM and of modes of the slice residual in the first round, of the best mode in the next ones.

    The modes decide: the score of ERM is that of its best epoch, which favours it. Without slices ERM decides, and is
    trained in every round; where they are many, gates do, and it is trained once.

    Parameters
    ----------
    seed
        Of the halves of a refit.
    on_stage
        Called with the stage and the completed share.

    Attributes
    ----------
    known
        Networks trained on the rows of the search.
    last
        The last round.
    reason
        Why the search cannot pay.
    """

    def __init__(self, seed: int, on_stage: Callable[[str, float], None]) -> None:
        self.seed, self.on_stage = seed, on_stage
        self.known: list[Candidate] = []
        self.reason = ""
        self.last: PilotRound | None = None
        self._trials: list[_Trial] = []
        self._rows = self._trained = 0
        self._best: Mode | None = None

    def passes(self, rounds: Sequence[Callable[[], PilotRound]]) -> bool:
        """Whether a search can pay by all rounds; if not, ``reason`` says why not.

        A round whose training rows have one class is left out.
        """
        for make in rounds:
            this = make()
            if not np.ptp(this.task.train.y):
                continue
            self.last = this
            if not self._passes(this):
                return False
            if this.is_whole or len(this.task.train.S.names) > MAX_UNGATED:
                break
        return True

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The best mode; all where there are many slices, since gates change their order, or none."""
        return MODES if self._best is None else (self._best,)

    @property
    def tried(self) -> tuple[CandidateResult, ...]:
        """Networks of the last round."""
        name = f", pilot of {self._rows:,} rows"
        return tuple(candidate_result(trial.form + name, trial.score) for trial in self._trials)

    def _passes(self, this: PilotRound) -> bool:
        names, self._trials, self._rows = this.task.train.S.names, [], len(this.task.train)
        if self._best is None:
            erm = self._train(this, CandidateSpec("erm", names))
            if self._lacks(this, erm, this.plain - REACH):
                return False
            if not names:
                return not self._lacks(this, erm, this.plain + this.margin - this.reach)
            if len(names) > MAX_UNGATED:
                return True
        modes = PILOT_MODES if self._best is None else (self._best,)
        trials = {mode: self._train(this, CandidateSpec(mode, names)) for mode in modes}
        self._best, best = max(trials.items(), key=lambda trial: trial[1].score.value)
        return not self._lacks(this, best, this.sliced + this.margin - this.reach)

    def _train(self, this: PilotRound, spec: CandidateSpec) -> _Trial:
        share = min(1.0, self._trained / (len(PILOT_MODES) + len(ROUNDS) + 1))
        self.on_stage(f"pilot of networks on {self._rows:,} rows: {spec.name}", share)
        self._trained += 1
        candidate = train_candidate(this.task, spec)
        trial = _Trial(candidate, candidate.score, spec.name)
        if isinstance(candidate.model, SliceResidualClassifier):
            refit = refit_last_layer(candidate.model, this.task.valid, self.seed)
            if refit is not None:
                trial = _Trial(candidate, refit.score, slice_form(candidate, True))
        if this.is_whole:
            self.known.append(candidate)
        self._trials.append(trial)
        return trial

    def _lacks(self, this: PilotRound, trial: _Trial, least: float) -> bool:
        """Whether a network has less than a score; then this is the reason."""
        score = trial.score.value
        if score < least:
            rival = this.plain if trial.candidate.spec.form == "erm" else this.sliced
            self.reason = (
                f"Networks were not searched: in a pilot of {self._rows:,} training rows the validation score was "
                f"{score:.3f} ({trial.form}), against {rival:.3f} for {this.rival}, and had to be at least {least:.3f}."
            )
        return score < least
