"""Search among linear models, trees and networks, each with slices, by their validation scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from models.base_search import BaseFamily, BaseResult, LinearFamily, Rows, TreeFamily, fit_base
from models.batches import FeatureRows, Split
from models.config import LearnerConfig
from models.learners import (
    CandidateResult,
    FitResult,
    Progress,
    candidate_result,
    check_splits,
    fit_learner,
    row_sample,
)
from models.model_selection import EXPLANATION, companion_margin, validation_warnings
from models.slice_residual import SliceResidualClassifier

REACH = 0.05
"""Score that slices may add: a family is not searched further if it lacks more to the best one."""

_BASES_UNTIL = 0.4  # share of the progress

Families: TypeAlias = Sequence[BaseFamily[Any]]


def search_models(
    config: LearnerConfig, train: Split, valid: Split, num_classes: int, progress: Progress | None = None
) -> FitResult:
    """Fit models of the configured kind, of all kinds by ``auto``, and return the best on validation rows.

    The parameters are those of `models.learners.fit_learner`, the rows with features for linear models. Raises
    DataError as it does.
    """
    if config.kind != "auto":
        return fit_learner(config, train, valid, num_classes, progress)
    check_splits(train, valid, num_classes)
    report = progress or (lambda stage, share: None)
    bases = _fit_bases(config, train, valid, num_classes, lambda stage, share: report(stage, _BASES_UNTIL * share))
    best = max(bases, key=lambda base: base.score.value, default=None)
    networks = fit_learner(
        config,
        train,
        valid,
        num_classes,
        lambda stage, share: report(stage, _BASES_UNTIL + (1 - _BASES_UNTIL) * share),
        worth=-np.inf if best is None else best.score.value - REACH,
    )
    if best is None:
        return networks
    selection = (*(_result(base) for base in bases), *networks.selection)
    if networks.score > best.score.value + companion_margin(len(valid)):
        sentence = (
            f"A network won against {best.form}: validation score {networks.score:.3f} to {best.score.value:.3f}."
        )
        return replace(networks, selection=selection, sentences=(sentence, *networks.sentences))
    return _ship(best, bases, networks, selection, valid)


def _fit_bases(
    config: LearnerConfig, train: Split, valid: Split, num_classes: int, progress: Progress
) -> list[BaseResult]:
    """Return the best model of each family whose plain score is within reach of the best."""
    generator = np.random.default_rng(config.seed)
    search_train = row_sample(train, config.max_search_rows, generator)
    search_valid = row_sample(valid, config.max_search_rows, generator)
    linear, trees = LinearFamily(num_classes, config.seed), TreeFamily(num_classes, config.seed)
    families: list[BaseFamily[Any]] = [linear, *([trees] if trees.suits(train.X) else [])]
    results: list[BaseResult] = []
    for done, family in enumerate(families):

        def on_stage(stage: str, share: float, done: int = done) -> None:
            progress(stage, (done + share) / len(families))

        search, whole = (_rows(*pair, family) for pair in ((search_train, search_valid), (train, valid)))
        best = max((result.plain_score.value for result in results), default=-np.inf)
        found = fit_base(family, search, whole, on_stage, worth=best - REACH)
        results += [] if found is None else [found]
    return results


def _rows(train: Split, valid: Split, family: BaseFamily[Any]) -> Rows:
    def features(part: Split) -> FeatureRows:
        return part.wide if family.is_wide and part.wide is not None else part.X

    return Rows.of(train, valid, features(train).followed_by(features(valid)))


def _ship(
    best: BaseResult,
    bases: Sequence[BaseResult],
    networks: FitResult,
    selection: tuple[CandidateResult, ...],
    valid: Split,
) -> FitResult:
    """Return the result of shipping a base model; the best network with slices, if any, becomes a peer."""
    peers = dict(networks.peers)
    if isinstance(networks.model, SliceResidualClassifier):
        peers["slice_residual"] = networks.model
    return FitResult(
        model=best.model,
        form=best.form,
        peers=peers,
        selection=selection,
        sentences=tuple(_sentences(best, bases, networks, valid)),
        score=best.score.value,
        is_wide=best.is_wide and valid.wide is not None,
    )


def _sentences(best: BaseResult, bases: Sequence[BaseResult], networks: FitResult, valid: Split) -> Iterator[str]:
    others = [f"{base.score.value:.3f} for {base.form}" for base in bases if base is not best]
    others.append(f"{networks.score:.3f} for the best network ({networks.form})")
    kind = "A linear model" if best.family == "linear" else "Gradient-boosted trees"
    slices = f" with slices ({', '.join(best.kept)})" if best.kept else ""
    verb = "is" if best.family == "linear" else "are"
    yield f"{kind}{slices} {verb} shipped: cross-fitted validation score {best.score.value:.3f}, {', '.join(others)}."
    yield EXPLANATION
    if best.kept:
        yield (
            f"Without slices the score is {best.plain_score.value:.3f}. A row with an unknown membership in one of "
            "them is predicted without slices."
        )
    elif valid.S.names:
        yield "Slices give no gain on this model, which reads no memberships."
    yield "The shipped model was fitted on training and validation rows together, its settings chosen before."
    yield from validation_warnings(valid)


def _result(base: BaseResult) -> CandidateResult:
    return candidate_result(base.form, base.score)
