"""Fit a learner on labelled rows with slices: search, refit, and the choice of what is shipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
from torch import nn

from models.attentive import AttentiveClassifier
from models.baselines import PlainClassifier
from models.batches import Split
from models.candidates import Candidate, Plan, Task, train_candidate
from models.errors import ConfigError, DataError
from models.recipe import TrainerConfig
from models.refit import refit_last_layer
from models.search import best, expected_trainings, plain_candidates, slice_candidates
from models.selection import Score, selection_score
from models.slice_residual import SliceResidualClassifier
from models.trainer import EpochRecord
from models.verdict import Contest, peers_against, residual_sentences, slice_form, validation_warnings

__all__ = ["CandidateResult", "Fitted", "LearnerConfig", "Split", "fit_learner", "network_from_config"]

Kind: TypeAlias = Literal["slice_residual", "slice_aware", "erm", "weighted_erm"]
KINDS: tuple[str, ...] = get_args(Kind)
Report: TypeAlias = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class LearnerConfig:
    """What to fit and how.

    Parameters
    ----------
    kind
        ``slice_residual`` (the default), ``slice_aware``, ``erm`` or ``weighted_erm``.
    widths
        Hidden units of each layer.
    n_epochs, lr, batch_size, l2, evaluate_every
        The recipe of every training; batches grow where an epoch would have more than 500 steps.
    seed
        Same seed, same weights.
    max_search_rows
        The search runs on at most so many training and validation rows; the winner is trained on all.

    Raises
    ------
    ConfigError
        If a value cannot be.
    """

    kind: str = "slice_residual"
    widths: tuple[int, ...] = (32,)
    n_epochs: int = 12
    lr: float = 3e-3
    batch_size: int = 64
    seed: int = 0
    max_search_rows: int = 20_000
    l2: float = 0.0
    evaluate_every: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"there is no learner {self.kind!r}; the learners are {', '.join(KINDS)}")
        if not self.widths or min(self.widths) < 1:
            raise ConfigError(f"widths must name the units of one layer or more, got {self.widths!r}")
        if self.max_search_rows < 1:
            raise ConfigError(f"max_search_rows must be at least 1, got {self.max_search_rows}")
        _ = self.recipe

    @property
    def recipe(self) -> TrainerConfig:
        """The trainer's settings."""
        return TrainerConfig(
            n_epochs=self.n_epochs,
            lr=self.lr,
            batch_size=self.batch_size,
            seed=self.seed,
            l2=self.l2,
            evaluate_every=self.evaluate_every,
            grad_clip=None,
        )


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """What a candidate came to on validation rows: the score that decides, accuracy, shrunken worst slice."""

    name: str
    score: float
    accuracy: float
    worst: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted model, its plain peers, and how it was chosen.

    ``peers`` holds ``erm`` and ``weighted_erm``, fitted on the same rows; ``sentences`` say in plain words
    which form won, by how much, and when slices bring nothing.
    """

    model: nn.Module
    form: str
    peers: Mapping[str, nn.Module]
    selection: tuple[CandidateResult, ...]
    sentences: tuple[str, ...]


def fit_learner(
    config: LearnerConfig, train: Split, valid: Split, num_classes: int, progress: Report | None = None
) -> Fitted:
    """Fit a learner; everything is chosen on the validation rows.

    Parameters
    ----------
    config
        What to fit and how.
    train, valid
        Rows with classes 0 .. C - 1 and memberships; valid's slices are matched to train's by name.
    num_classes
        C, at least 2.
    progress
        Told what is being done and the share that is done.

    Raises
    ------
    DataError
        If the splits do not match, a label is no class, or the training rows have one class only.
    """
    _check(train, valid, num_classes)
    generator = np.random.default_rng(config.seed)
    valid = replace(valid, S=valid.S.align(train.S.names))
    chosen_on = _at_most(valid, config.max_search_rows, generator)
    whole = Task(train, chosen_on, num_classes, config.widths, config.recipe)
    sample = _at_most(train, config.max_search_rows, generator)
    run = _Run(config, replace(whole, train=sample), whole, progress or (lambda stage, share: None))
    return run.fit()


class _Run:
    """One fit: the search on a sample, the training on all rows, and what is reported meanwhile."""

    def __init__(self, config: LearnerConfig, search: Task, whole: Task, report: Report) -> None:
        self.config, self.search, self.whole, self.report = config, search, whole, report
        self.names = whole.train.S.names
        self.sampled = len(search.train) < len(whole.train)
        slices = len(self.names) if config.kind == "slice_residual" else 0
        self.expected = expected_trainings(slices) + 4 * (slices == 0) + 3 * self.sampled + 1
        self.done = 0

    def train(self, plan: Plan, task: Task | None = None) -> Candidate:
        """Train one candidate, on the sample by default, and tell how far it is."""

        def on_epoch(record: EpochRecord) -> None:
            share = self.done + (record.epoch + 1) / self.config.n_epochs
            self.report(f"training {plan.name}", min(1.0, share / self.expected))

        candidate = train_candidate(task or self.search, plan, on_epoch)
        self.done += 1
        return candidate

    def finished(self, candidate: Candidate) -> Candidate:
        """Return the candidate trained on all rows."""
        return self.train(candidate.plan, self.whole) if self.sampled else candidate

    def fit(self) -> Fitted:
        """Fit the plain peers, then the configured kind beside them."""
        plain = plain_candidates(self.search, self.train)
        found = [*plain]
        if self.config.kind == "slice_residual" and self.names:
            found += slice_candidates(self.search, self.train)
        erm, weighted = self.finished(plain[0]), (self.finished(best(plain[1:])) if plain[1:] else None)
        peers = (erm, weighted or erm)
        fitted = self._shipped(peers, found[len(plain) :])
        self.report("done", 1.0)
        searched = tuple(_result(candidate.plan.name, candidate.score) for candidate in found)
        said = (*fitted.sentences, *self._about_sample())
        return replace(fitted, selection=searched + fitted.selection, sentences=said)

    def _shipped(self, peers: tuple[Candidate, Candidate], rivals: list[Candidate]) -> Fitted:
        if rivals:
            return self._slice_residual(peers, self.finished(best(rivals)))
        if self.config.kind == "slice_aware" and self.names:
            return self._slice_aware(peers, self.train(Plan("slice_aware", self.names), self.whole))
        return self._plain(peers)

    def _slice_residual(self, peers: tuple[Candidate, Candidate], winner: Candidate) -> Fitted:
        self.report("refitting the last layer", min(1.0, self.done / self.expected))
        model, valid = cast(SliceResidualClassifier, winner.model), self.whole.valid
        refit = refit_last_layer(model, valid, self.config.seed)
        if refit is None:
            imputing = selection_score(model.predict_proba(valid.X), valid.y, valid.S.member).value
        else:
            imputing = refit.score_unknown.value
        contest = Contest(winner, refit, imputing, *peers, rows=len(valid))
        if refit is not None:
            model.attach_refit(refit.layer.weight, refit.layer.bias)
        if model.reads_memberships:
            model.attach_companion(cast(PlainClassifier, contest.companion.model), contest.unknown_rows)
        shipped = contest.companion.model if contest.companion_ships else model
        refitted = (_result(slice_form(winner, True), refit.score),) if refit else ()
        said = tuple(residual_sentences(contest, valid))
        return Fitted(shipped, contest.form, _peer_models(peers), refitted, said)

    def _slice_aware(self, peers: tuple[Candidate, Candidate], attentive: Candidate) -> Fitted:
        against = peers_against(*peers)
        said = [f"Attention over slices is shipped: score {attentive.score.value:.3f} against {against}."]
        if attentive.score.value <= max(peer.score.value for peer in peers):
            said.append("It brings nothing here: a plain model does as well on validation.")
        said += validation_warnings(self.whole.valid)
        result = (_result(attentive.plan.name, attentive.score),)
        return Fitted(attentive.model, attentive.plan.name, _peer_models(peers), result, tuple(said))

    def _plain(self, peers: tuple[Candidate, Candidate]) -> Fitted:
        """Ship the plain model that was asked for, or ERM where there are no slices to be aware of."""
        erm, weighted = peers
        shipped = weighted if self.config.kind == "weighted_erm" else erm
        said = [f"The plain model ({shipped.plan.name}) is shipped: score {peers_against(erm, weighted)}."]
        if not self.names:
            said.append("There are no slices: the plain model is all that can be fitted.")
        said += validation_warnings(self.whole.valid)
        return Fitted(shipped.model, shipped.plan.name, _peer_models(peers), (), tuple(said))

    def _about_sample(self) -> Iterable[str]:
        if self.sampled:
            yield (
                f"The search saw {len(self.search.train):,} of {len(self.whole.train):,} training rows; "
                "the winner and its peers were then trained on all."
            )


def network_from_config(config: Mapping[str, Any]) -> nn.Module:
    """Return an untrained network of the shape that its ``config()`` gave, whatever its kind.

    Raises
    ------
    ConfigError
        If the kind is none of ours.
    """
    kind = config.get("kind")
    if kind == "slice_residual":
        return SliceResidualClassifier.from_config(config)
    if kind == "slice_aware":
        return AttentiveClassifier.from_config(config)
    if kind == "plain":
        return PlainClassifier.from_config(config)
    raise ConfigError(
        f"there is no network of kind {kind!r}; the kinds are plain, slice_aware, slice_residual"
    )


def _check(train: Split, valid: Split, num_classes: int) -> None:
    if num_classes < 2:
        raise DataError(f"a classifier needs two classes or more, got {num_classes}: check the label column")
    if train.X.shape[1] != valid.X.shape[1]:
        raise DataError(f"training rows have {train.X.shape[1]} features, validation rows {valid.X.shape[1]}")
    for what, y in (("training", train.y), ("validation", valid.y)):
        if y.min() < 0 or y.max() >= num_classes:
            raise DataError(f"{what} labels must be 0 to {num_classes - 1}, got {y.min()} to {y.max()}")
    if train.y.min() == train.y.max():
        raise DataError(f"every training row has class {train.y[0]}: there is nothing to tell apart")


def _at_most(rows: Split, n: int, generator: np.random.Generator) -> Split:
    """Return n random rows in their order, or all where there are no more."""
    if len(rows) <= n:
        return rows
    return rows.subset(np.sort(generator.choice(len(rows), size=n, replace=False)))


def _result(name: str, score: Score) -> CandidateResult:
    return CandidateResult(name, score.value, score.accuracy, score.worst)


def _peer_models(peers: tuple[Candidate, Candidate]) -> dict[str, nn.Module]:
    return {"erm": peers[0].model, "weighted_erm": peers[1].model}
