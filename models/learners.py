"""Learner fitting on labelled rows with slices: search, refit and model selection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, StrictFloat
from torch import Tensor, nn

from models.baselines import PlainClassifier
from models.batches import FeatureRows, Split
from models.config import LearnerConfig
from models.errors import ConfigError, DataError
from models.linear_classifier import LinearClassifier
from models.model_selection import (
    Candidate,
    CandidateSpec,
    ModelComparison,
    SelectionScore,
    TrainingTask,
    best_candidate,
    describe_comparison,
    max_trainings,
    peer_scores_text,
    selection_score,
    slice_form,
    train_candidate,
    train_plain_candidates,
    train_slice_candidates,
    validation_warnings,
)
from models.objectives import WEIGHTINGS
from models.refit import refit_last_layer
from models.slice_adapter import SliceAdapter
from models.slice_aware import AttentiveClassifier
from models.slice_report import STRICT
from models.slice_residual import MODES, Mode, SliceResidualClassifier
from models.soft_voting import SoftVotingClassifier
from models.trainer import EpochRecord
from models.tree_classifier import TreeClassifier
from sfs.matrix import SliceMatrix

Progress: TypeAlias = Callable[[str, float], None]

_BASES: Mapping[Any, Callable[[Mapping[str, Any]], nn.Module]] = {
    "linear": LinearClassifier.from_config,
    "soft_voting": SoftVotingClassifier.from_config,
    "trees": TreeClassifier.from_config,
}


class Network(Protocol):
    """Interface of a fitted network."""

    def predict_proba(self, X: FeatureRows, S: SliceMatrix | None = None) -> NDArray[np.float64]:
        """Return float[N, C]."""
        ...

    def config(self) -> dict[str, Any]:
        """Return the shape as JSON values."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return the weights."""
        ...


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """Validation result of a candidate: selection score, accuracy, shrunken worst-slice accuracy."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: str
    score: StrictFloat
    accuracy: StrictFloat
    worst: StrictFloat


@dataclass(frozen=True, slots=True)
class FitResult:
    """Fitted model, its plain peers and the selection results.

    Parameters
    ----------
    model
        The shipped network.
    form
        Short description of the shipped network.
    peers
        ``erm`` and ``weighted_erm``, fitted on the same rows, and ``slice_residual``, the best network with
        slices, if another model is shipped in its place; or ``base``, the model without slices, with its features.
    selection
        All candidates with their validation scores.
    sentences
        A description of the selection for the user.
    score
        Validation score of the model.
    is_wide
        Whether the model and its base read the features for linear models; networks do not.
    """

    model: Network
    form: str
    peers: Mapping[str, Network]
    selection: tuple[CandidateResult, ...]
    sentences: tuple[str, ...]
    score: float
    is_wide: bool = False


def fit_learner(
    config: LearnerConfig,
    train: Split,
    valid: Split,
    num_classes: int,
    progress: Progress | None = None,
    known: Sequence[Candidate] = (),
    modes: Sequence[Mode] | None = None,
) -> FitResult:
    """Fit a network and its plain peers, with model selection on the validation rows.

    Parameters
    ----------
    config
        Settings; of ``auto``, those of ``slice_residual``.
    train, valid
        Rows with classes 0 .. C - 1 and memberships; valid's slices are matched to train's by name.
    num_classes
        C, at least 2.
    progress
        Called with the current stage and the completed fraction, 0 to 1.
    known
        Candidates that were trained on the rows of the search before.
    modes
        Modes of ``slice_residual`` to search, with ERM, all rows weighted equally; by default all modes, and every
        weighting of ERM and of the best mode.

    Raises
    ------
    DataError
        If the splits do not match, a label is out of range, or the training rows have one class only.
    """
    check_splits(train, valid, num_classes)
    if config.kind == "auto":
        config = replace(config, kind="slice_residual")
    valid = replace(valid, S=valid.S.align(train.S.names))
    sample, search_valid = search_samples(config, train, valid)
    whole = TrainingTask(train, search_valid, num_classes, config.widths, config.trainer_config)
    search = replace(whole, train=sample)
    return _LearnerFit(config, search, whole, progress or (lambda stage, share: None), known, modes).run()


def check_splits(train: Split, valid: Split, num_classes: int) -> None:
    """Raise DataError if splits do not match, a label is out of range, or training rows have one class only."""
    if num_classes < 2:
        raise DataError(f"a classifier requires at least two classes, got {num_classes}: check the label column")
    if train.X.shape[1] != valid.X.shape[1]:
        raise DataError(f"training rows have {train.X.shape[1]} features, validation rows {valid.X.shape[1]}")
    for part, y in (("training", train.y), ("validation", valid.y)):
        if y.min() < 0 or y.max() >= num_classes:
            raise DataError(f"{part} labels must be 0 to {num_classes - 1}, got {y.min()} to {y.max()}")
    if train.y.min() == train.y.max():
        raise DataError(f"all training rows have class {train.y[0]}: add rows of another class")


class _LearnerFit:
    """Search on a sample, followed by training of the winner and its peers on all rows."""

    def __init__(
        self,
        config: LearnerConfig,
        search: TrainingTask,
        whole: TrainingTask,
        progress: Progress,
        known: Sequence[Candidate],
        modes: Sequence[Mode] | None,
    ) -> None:
        self.modes = modes
        self.config, self.search, self.whole, self.progress = config, search, whole, progress
        self.known = {candidate.spec: candidate for candidate in known}
        self.names = whole.train.S.names
        self.sampled = len(search.train) < len(whole.train)
        n_slices = len(self.names) if config.kind == "slice_residual" else 0
        trainings = max_trainings(n_slices, modes) + 4 * (n_slices == 0 and modes is None)
        self.expected = trainings + (3 if modes is None else 1) * self.sampled + 1
        self.done = 0

    def train(self, spec: CandidateSpec, task: TrainingTask | None = None) -> Candidate:
        """Train one candidate, on the sample by default, and report the progress."""
        if task is None and spec in self.known:
            self.done += 1
            return self.known[spec]

        def on_epoch(record: EpochRecord) -> None:
            share = self.done + (record.epoch + 1) / self.config.n_epochs
            self.progress(f"training {spec.name}", min(1.0, share / self.expected))

        candidate = train_candidate(task or self.search, spec, on_epoch)
        self.done += 1
        return candidate

    def on_all_rows(self, candidate: Candidate) -> Candidate:
        """Return the candidate trained on all rows."""
        return self.train(candidate.spec, self.whole) if self.sampled else candidate

    def run(self) -> FitResult:
        """Fit the plain peers, then the configured kind."""
        weightings = WEIGHTINGS if self.modes is None else WEIGHTINGS[:1]
        if self.modes is None:
            plain = train_plain_candidates(self.search, self.train)
            erm = self.on_all_rows(plain[0])
        else:  # nothing is chosen by a plain network on the sample
            erm = self.train(CandidateSpec("erm", self.names), self.whole if self.sampled else None)
            plain = [] if self.sampled else [erm]
        sliced: list[Candidate] = []
        if self.config.kind == "slice_residual" and self.names:
            sliced = train_slice_candidates(self.search, self.train, self.modes or MODES, weightings)
        weighted = self.on_all_rows(best_candidate(plain[1:])) if plain[1:] else erm
        if sliced:
            result = self.ship_residual(erm, weighted, self.on_all_rows(best_candidate(sliced)))
        elif self.config.kind == "slice_aware" and self.names:
            spec = CandidateSpec("slice_aware", self.names)
            result = self.ship_attentive(erm, weighted, self.train(spec, self.whole))
        else:
            result = self.ship_plain(erm, weighted)
        self.progress("done", 1.0)
        searched = tuple(candidate_result(candidate.spec.name, candidate.score) for candidate in (*plain, *sliced))
        sentences = result.sentences
        if self.sampled:
            sentences += (
                f"The search used {len(self.search.train):,} of {len(self.whole.train):,} training rows; "
                "the winner and its peers were then trained on all rows.",
            )
        return replace(result, selection=searched + result.selection, sentences=sentences)

    def ship_residual(self, erm: Candidate, weighted: Candidate, winner: Candidate) -> FitResult:
        self.progress("refitting the last layer", min(1.0, self.done / self.expected))
        model, valid = cast(SliceResidualClassifier, winner.model), self.whole.valid
        refit = refit_last_layer(model, valid, self.config.seed)
        if refit is None:
            unknown = selection_score(model.predict_proba(valid.X), valid.y, valid.S.member)
        else:
            unknown = refit.score_unknown
        refit_score = None if refit is None else refit.score
        comparison = ModelComparison(winner, refit_score, unknown.value, erm, weighted, rows=len(valid))
        if refit is not None:
            model.attach_refit(refit.layer.weight, refit.layer.bias)
        companion = cast(PlainClassifier, comparison.companion.model)
        if model.reads_memberships:
            model.attach_companion(companion, comparison.unknown_rows)
        ships_plain = comparison.companion_ships
        return FitResult(
            model=companion if ships_plain else model,
            form=comparison.form,
            peers=_peers(erm, weighted) | ({"slice_residual": model} if ships_plain else {}),
            selection=() if refit is None else (candidate_result(slice_form(winner, True), refit.score),),
            sentences=tuple(describe_comparison(comparison, valid)),
            score=comparison.companion.score.value if ships_plain else comparison.score,
        )

    def ship_attentive(self, erm: Candidate, weighted: Candidate, attentive: Candidate) -> FitResult:
        score, against = attentive.score, peer_scores_text(erm, weighted)
        sentences = [f"Attention over slices is shipped: score {score.value:.3f} against {against}."]
        if score.value <= max(erm.score.value, weighted.score.value):
            sentences.append("It gives no gain: a plain model is at least as good on validation.")
        sentences += validation_warnings(self.whole.valid)
        result = candidate_result(attentive.spec.name, score)
        return FitResult(
            attentive.model, attentive.spec.name, _peers(erm, weighted), (result,), tuple(sentences), score.value
        )

    def ship_plain(self, erm: Candidate, weighted: Candidate) -> FitResult:
        """Ship the configured plain model, or ERM where there are no slices."""
        shipped = weighted if self.config.kind == "weighted_erm" else erm
        sentences = [f"The plain model ({shipped.spec.name}) is shipped: score {peer_scores_text(erm, weighted)}."]
        if not self.names:
            sentences.append("Without slices, only a plain model can be fitted.")
        sentences += validation_warnings(self.whole.valid)
        peers, score = _peers(erm, weighted), shipped.score.value
        return FitResult(shipped.model, shipped.spec.name, peers, (), tuple(sentences), score)


def network_from_config(config: Mapping[str, Any]) -> nn.Module:
    """Return an untrained network of any kind from its ``config()``.

    Raises
    ------
    ConfigError
        If the kind is unknown.
    """
    kinds: dict[Any, Callable[[Mapping[str, Any]], nn.Module]] = {
        **_BASES,
        "plain": PlainClassifier.from_config,
        "slice_adapter": _adapter_from_config,
        "slice_aware": AttentiveClassifier.from_config,
        "slice_residual": SliceResidualClassifier.from_config,
    }
    if config.get("kind") not in kinds:
        raise ConfigError(f"unknown network kind {config.get('kind')!r}; known are {', '.join(kinds)}")
    return kinds[config["kind"]](config)


def _adapter_from_config(shape: Mapping[str, Any]) -> SliceAdapter:
    if (kind := shape["base"].get("kind")) not in _BASES:
        raise ConfigError(f"a slice adapter has no base of kind {kind!r}; known are {', '.join(_BASES)}")
    if not (isinstance(shape["slices"], list) and isinstance(shape["kept"], list)):
        raise ConfigError("the slices of an adapter, and its kept slices must be lists of names")
    return SliceAdapter(_BASES[kind](shape["base"]), shape["slices"], shape["kept"])


def search_samples(config: LearnerConfig, train: Split, valid: Split, most: int | None = None) -> tuple[Split, Split]:
    """Return training and validation rows, of each at most ``most`` (those of a search), drawn by the seed."""
    generator = np.random.default_rng(config.seed)
    most = config.max_search_rows if most is None else most
    search_valid = _sample(valid, most, generator)
    return _sample(train, most, generator), search_valid


def _sample(rows: Split, n: int, generator: np.random.Generator) -> Split:
    """Return n random rows in their order, rather those with true labels; or all rows if there are at most n."""
    if len(rows) <= n:
        return rows
    if rows.weight is not None:
        contents = np.arange(len(rows)) if rows.groups is None else rows.groups
        _, content = np.unique(contents, return_inverse=True)
        turn = generator.permutation(int(content.max()) + 1)[content]  # a row in two classes stays in both
        return rows.subset(np.sort(np.lexsort((turn, rows.weight < 1))[:n]))
    return rows.subset(np.sort(generator.choice(len(rows), size=n, replace=False)))


def candidate_result(name: str, score: SelectionScore) -> CandidateResult:
    """Return a candidate's result."""
    return CandidateResult(name, score.value, score.accuracy, score.worst)


def _peers(erm: Candidate, weighted: Candidate) -> dict[str, Network]:
    return {"erm": erm.model, "weighted_erm": weighted.model}
