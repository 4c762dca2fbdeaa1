"""Search among linear models, trees and networks, each with slices, by their validation scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from models.base_search import BaseFamily, BaseResult, LinearFamily, Rows, TreeFamily, fit_base
from models.batches import FeatureRows, Split
from models.config import LearnerConfig
from models.learners import (
    FitResult,
    Progress,
    candidate_result,
    check_splits,
    fit_learner,
    search_samples,
)
from models.model_selection import EXPLANATION, companion_margin, validation_warnings
from models.slice_residual import SliceResidualClassifier

REACH = 0.05
"""Score that slices may add: a family is not searched further if it lacks more to the best one."""

_BASES_UNTIL = 0.4  # share of the progress
_SHOWN = 5  # names of slices


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
    search = search_samples(config, train, valid)
    bases, left_out = _fit_bases(config, search, (train, valid), num_classes, report)
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
        return replace(networks, sentences=(*networks.sentences, *left_out))
    selection = (*(candidate_result(base.form, base.score) for base in bases), *networks.selection)
    if networks.score > best.score.value + companion_margin(len(search[1])):
        sentence = f"A network is shipped: score {networks.score:.3f}, against {best.score.value:.3f} for {best.form}."
        return replace(networks, selection=selection, sentences=(sentence, *networks.sentences, *left_out))
    sentences = (*_sentences(best, bases, networks, valid), *left_out)
    if len(search[0]) < len(train):
        used = f"{len(search[0]):,} of {len(train):,} training rows"
        sentences += (f"The search used {used}; slopes and offsets of slices are those of the search.",)
    peers = dict(networks.peers)
    if isinstance(networks.model, SliceResidualClassifier):
        peers["slice_residual"] = networks.model
    is_wide = best.is_wide and valid.wide is not None
    return FitResult(best.model, best.form, peers, selection, sentences, best.score.value, is_wide)


def _fit_bases(
    config: LearnerConfig,
    search: tuple[Split, Split],
    whole: tuple[Split, Split],
    num_classes: int,
    progress: Progress,
) -> tuple[list[BaseResult], list[str]]:
    """Return the best model of each family within reach of the best, and sentences on families that are left out."""
    families: tuple[BaseFamily[Any], ...] = LinearFamily(num_classes, config.seed), TreeFamily(num_classes, config.seed)
    results: list[BaseResult] = []
    left_out: list[str] = []
    for done, family in enumerate(families):

        def on_stage(stage: str, share: float, done: int = done) -> None:
            progress(stage, _BASES_UNTIL * (done + share) / len(families))

        if limit := family.limit(_features(whole[0], family)):
            left_out.append(f"Not searched: {family.plural}, since {limit}.")
            continue
        rows = _rows(*search, family)
        best = max((result.plain_score.value for result in results), default=-np.inf)
        is_all = all(part is sample for part, sample in zip(whole, search, strict=True))
        every = (lambda rows=rows: rows) if is_all else (lambda family=family: _rows(*whole, family))
        found = fit_base(family, rows, every, on_stage, worth=best - REACH)
        results += [] if found is None else [found]
    return results, left_out


def _features(part: Split, family: BaseFamily[Any]) -> FeatureRows:
    return part.wide if family.is_wide and part.wide is not None else part.X


def _rows(train: Split, valid: Split, family: BaseFamily[Any]) -> Rows:
    return Rows.of(train, valid, _features(train, family).followed_by(_features(valid, family)))


def _sentences(best: BaseResult, bases: Sequence[BaseResult], networks: FitResult, valid: Split) -> Iterator[str]:
    others = [f"{base.score.value:.3f} for {base.form}" for base in bases if base is not best]
    others.append(f"{networks.score:.3f} for the best network ({networks.form})")
    kind = "A linear model" if best.family == "linear" else "Gradient-boosted trees"
    names = ", ".join(best.kept[:_SHOWN]) + (", ..." if len(best.kept) > _SHOWN else "")
    slices = f" with {len(best.kept)} slice{'s' * (len(best.kept) > 1)} ({names})" if best.kept else ""
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
