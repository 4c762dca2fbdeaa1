"""Search among linear models, trees and networks, each with slices, by their scores on rows that they have not seen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from models.base_families import Rows
from models.base_search import BaseResult, best_base, search_bases
from models.batches import Split
from models.config import LearnerConfig
from models.learners import (
    CandidateResult,
    FitResult,
    Network,
    Progress,
    candidate_result,
    check_splits,
    fit_learner,
    search_samples,
)
from models.model_selection import EXPLANATION, TrainingTask, companion_margin, selection_score, validation_warnings
from models.network_pilot import ROUNDS, NetworkPilot, PilotRound
from models.slice_residual import MAX_UNGATED, SliceResidualClassifier

_BASES_UNTIL, _PILOT_UNTIL = 0.4, 0.5  # shares of the progress
LEAST_VALID = 300
"""Validation rows from which networks are searched: on fewer, the best of several refits is often best by chance."""
_SHOWN = 5  # names of slices
_LIKELY = 0.95
_ERRORS = 0.5 / math.sqrt(_LIKELY * (1 - _LIKELY))  # 2.3
_KINDS = {
    "linear": "A linear model",
    "trees": "Gradient-boosted trees",
    "mean of linear and trees": "The mean of a linear model and gradient-boosted trees",
}


def search_models(
    config: LearnerConfig, train: Split, valid: Split, num_classes: int, progress: Progress | None = None
) -> FitResult:
    """Fit models of the configured kind, of all kinds by ``auto``, and return the best.

    The parameters are those of `models.learners.fit_learner`, texts with features for linear models. Raises
    DataError as it does.
    """
    if config.kind != "auto":
        return fit_learner(config, train, valid, num_classes, progress)
    check_splits(train, valid, num_classes)
    valid = replace(valid, S=valid.S.align(train.S.names))
    return _ModelSearch(config, train, valid, num_classes, progress or (lambda stage, share: None)).run()


def network_margin(rows: int, rival: float = _LIKELY) -> float:
    """Return the score by which a network must be better than a base.

    The epoch, the form and the last layer of a network have been chosen on these rows; the score of a base is
    cross-fitted from the start. The margin is 2.3 standard errors of an accuracy that is the base's score, of 95 % at
    least; the score, half of which is of one slice, has a larger one.

    Parameters
    ----------
    rows
        Validation rows.
    rival
        Score of the base.

    Examples
    --------
    >>> network_margin(400), network_margin(400, 0.99), network_margin(10_000)
    (0.025, 0.0114..., 0.00547...)
    """
    likely = min(max(rival, _LIKELY), 1.0)
    return max(companion_margin(rows), _ERRORS * math.sqrt(likely * (1 - likely) / rows))


class _ModelSearch:
    """Bases with slices first; then networks, if a pilot comes near."""

    def __init__(self, config: LearnerConfig, train: Split, valid: Split, num_classes: int, progress: Progress) -> None:
        self.config, self.train, self.valid = config, train, valid
        self.num_classes, self.progress = num_classes, progress
        self.sample, self.search_valid = search_samples(config, train, valid)
        base_rows = search_samples(config, train, valid, max(1, config.max_search_rows // 2))
        self.search = Rows.of(*base_rows)

    def run(self) -> FitResult:
        bases, left_out = search_bases(
            self.search,
            self.train,
            self.num_classes,
            self.config.seed,
            lambda stage, share: self.progress(stage, _BASES_UNTIL * share),
        )
        best = best_base(bases)
        if best is None:
            networks = fit_learner(self.config, self.train, self.valid, self.num_classes, self.progress)
            return replace(networks, sentences=(*networks.sentences, *left_out))
        pilot = NetworkPilot(self.config.seed, self.on_pilot_stage)
        reason = self.out_of_reach(best)
        if not reason and not pilot.passes([partial(self.round, best, rows) for rows in (*ROUNDS, len(self.sample))]):
            reason = pilot.reason
        if reason:
            return self.shipped(best, bases, pilot.tried, {}, [reason, *left_out])
        networks = self.networks(pilot)
        if len(self.train.S.names) > MAX_UNGATED or pilot.last is None:
            _, rival = self.rival_scores(best, self.train, self.search_valid)
        else:
            rival = pilot.last.sliced
        if networks.score > rival + network_margin(len(self.search_valid), rival):
            selection = (*(candidate_result(base.form, base.score) for base in bases), *networks.selection)
            told = f"A network is shipped: score {networks.score:.3f}, against {rival:.3f} for {best.form}."
            return replace(networks, selection=selection, sentences=(told, *networks.sentences, *left_out))
        peers = {name: peer for name, peer in networks.peers.items() if name != "weighted_erm"}
        if isinstance(networks.model, SliceResidualClassifier):
            peers["slice_residual"] = networks.model
        told = (
            f"On validation rows alone its score is {rival:.3f}, that of the best network "
            f"({networks.form}) {networks.score:.3f}."
        )
        return self.shipped(best, bases, networks.selection, peers, [told, *left_out])

    def out_of_reach(self, best: BaseResult) -> str:
        """Return why networks are not searched: too few rows, or too little to gain; empty if they are."""
        if len(self.search_valid) < LEAST_VALID:
            return (
                f"Networks were not searched: {len(self.search_valid):,} validation rows are too few to compare them "
                f"with {best.form}; add labelled rows, to at least {LEAST_VALID}."
            )
        if best.score.value + network_margin(len(self.search_valid)) < 1:
            return ""
        return (
            f"Networks were not searched: the score of {best.form} is {best.score.value:.3f}, and on "
            f"{len(self.search_valid):,} validation rows too little can be gained to tell it from chance."
        )

    def round(self, best: BaseResult, rows: int) -> PilotRound:
        """Return a round of the pilot.

        It has all rows of the search if they are fewer than one and a half times as many.
        """
        is_whole = len(self.sample) <= 1.5 * rows
        train, valid = self.sample, self.search_valid
        if not is_whole:
            train, valid = search_samples(self.config, self.train, self.valid, rows)
        task = TrainingTask(train, valid, self.num_classes, self.config.widths, self.config.trainer_config)
        scores = self.rival_scores(best, train, valid)
        return PilotRound(task, best.form, *scores, network_margin(len(valid), scores[1]), is_whole)

    def rival_scores(self, best: BaseResult, train: Split, valid: Split) -> tuple[float, float]:
        """Return the scores of the base without and with slices on validation rows, fitted on training rows.

        If these are the rows of its search, they are its cross-fitted scores; else slices add what they did there.
        """
        plain, sliced = best.plain_score.value, best.score.value
        if len(train) + len(valid) == len(self.search.y) or not np.ptp(train.y):
            return plain, sliced
        part = Rows(train.X, train.wide, train.y, train.S, np.arange(len(train)), len(train), train.weight)
        score = selection_score(best.base.draft_probabilities(part, valid), valid.y, valid.S.member).value
        return score, min(1.0, score + sliced - plain)

    def on_pilot_stage(self, stage: str, share: float) -> None:
        self.progress(stage, _BASES_UNTIL + (_PILOT_UNTIL - _BASES_UNTIL) * share)

    def networks(self, pilot: NetworkPilot) -> FitResult:
        """Return the best network."""
        return fit_learner(
            self.config,
            self.train,
            self.valid,
            self.num_classes,
            lambda stage, share: self.progress(stage, _PILOT_UNTIL + (0.95 - _PILOT_UNTIL) * share),
            known=pilot.known,
            modes=pilot.modes,
        )

    def shipped(
        self,
        best: BaseResult,
        bases: Sequence[BaseResult],
        tried: Sequence[CandidateResult],
        peers: Mapping[str, Network],
        sentences: Sequence[str],
    ) -> FitResult:
        """Return the best base, fitted on all rows."""
        self.progress(f"fitting {best.base.name} on all rows", 0.95)
        sampled = len(self.search.y) < len(self.train) + len(self.valid)
        base = best.base.fit(Rows.of(self.train, self.valid) if sampled else self.search)
        told = [*self.told(best, bases), *sentences]
        if sampled:
            of_all = f"{len(self.search.y):,} of {len(self.train) + len(self.valid):,} training and validation rows"
            told.append(f"The search used {of_all}; slopes and offsets of slices are those of the search.")
        self.progress("done", 1.0)
        return FitResult(
            best.adapted(base),
            best.form,
            ({"base": base} if best.kept else {}) | dict(peers),
            (*(candidate_result(each.form, each.score) for each in bases), *tried),
            tuple(told),
            best.score.value,
            best.base.is_wide,
        )

    def told(self, best: BaseResult, bases: Sequence[BaseResult]) -> Iterator[str]:
        names = ", ".join(best.kept[:_SHOWN]) + (", ..." if len(best.kept) > _SHOWN else "")
        slices = f" with {len(best.kept)} slice{'s' * (len(best.kept) > 1)} ({names})" if best.kept else ""
        verb = "are" if best.base.name == "trees" else "is"
        others = [f"{each.cross_fitted.value:.3f} for {each.form}" for each in bases if each is not best]
        against = f", against {' and '.join(others)}" if others else ""
        yield (
            f"{_KINDS[best.base.name]}{slices} {verb} shipped: score {best.cross_fitted.value:.3f}, cross-fitted on "
            f"{self.search.labelled.sum():,} training and validation rows{against}."
        )
        yield EXPLANATION
        if best.kept:
            yield (
                f"Without slices the score is {best.cross_fitted_base.value:.3f}. A row with an unknown membership in "
                "one of them is predicted without slices."
            )
        elif self.valid.S.names:
            yield "Slices give no gain on this model, which reads no memberships."
        yield "The shipped model was fitted on training and validation rows together, its settings chosen before."
        yield from validation_warnings(self.valid)
