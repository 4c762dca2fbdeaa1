"""Search of a base model and of the slices that adapt it: linear models, trees, and their mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from models.base_families import LEAST_PROBABILITY, BaseFamily, LinearFamily, Rows, TreeFamily
from models.batches import Split
from models.linear_classifier import LinearClassifier
from models.model_selection import MIN_GAIN, SelectionScore, selection_score
from models.refit import two_halves
from models.slice_adapter import PENALTIES, AdapterTerms, SliceAdapter
from models.slice_residual import MAX_UNGATED, gate_threshold
from models.soft_voting import SoftVotingClassifier
from models.tree_classifier import TreeClassifier

Floats = NDArray[np.float64]
BaseModel = LinearClassifier | TreeClassifier | SoftVotingClassifier

NEAR = 0.02
"""Score that slices may add to one base more than to another, and accuracy that a mean may bridge."""
_MIDDLE_PENALTY = PENALTIES[1]


@dataclass(frozen=True, slots=True)
class CrossFittedBase:
    """A base whose settings are chosen: one family, or the mean of several.

    Parameters
    ----------
    members
        Families and their settings.
    P : float64[N, C]
        Probabilities of the rows of the search with true labels, each by models fitted without it.
    """

    members: tuple[tuple[BaseFamily[Any], Any], ...]
    P: Floats

    @property
    def name(self) -> str:
        """The families."""
        names = [family.name for family, _ in self.members]
        return names[0] if len(names) == 1 else f"mean of {' and '.join(names)}"

    @property
    def is_wide(self) -> bool:
        """Whether it reads the features for linear models."""
        return self.members[0][0].is_wide

    def fit(self, rows: Rows) -> BaseModel:
        """Return the model fitted on some rows."""
        models = [family.fit(family.features(rows), rows.y, settings, rows.weight) for family, settings in self.members]
        return models[0] if len(models) == 1 else SoftVotingClassifier(models)

    def draft_probabilities(self, fitted: Rows, held: Split) -> Floats:
        """Return the probabilities float[N, C] of rows by drafts of the members, fitted on other rows."""
        found = []
        for family, settings in self.members:
            draft = family.draft(family.features(fitted), fitted.y, settings, fitted.weight)
            found.append(draft.predict_proba(family.features(held)))
        return np.asarray(np.mean(found, axis=0))


@dataclass(frozen=True, slots=True)
class BaseResult:
    """A base with or without slices, and its scores by bases and adapters fitted without the rows scored.

    Parameters
    ----------
    base
        The base.
    names
        All slices.
    kept, terms
        Slices that change its logits, and how.
    cross_fitted, cross_fitted_base
        Scores with slices and without on training and validation rows.
    score, plain_score
        The same on validation rows alone.
    """

    base: CrossFittedBase
    names: tuple[str, ...]
    kept: tuple[str, ...]
    terms: AdapterTerms | None
    cross_fitted: SelectionScore
    cross_fitted_base: SelectionScore
    score: SelectionScore
    plain_score: SelectionScore

    @property
    def form(self) -> str:
        """The model in a few words."""
        if not self.kept:
            return self.base.name
        return f"{self.base.name}, {len(self.kept)} slice{'s' * (len(self.kept) > 1)} adapted"

    def adapted(self, model: BaseModel) -> BaseModel | SliceAdapter:
        """Return a fitted model of the base with its slices, if any."""
        if self.terms is None:
            return model
        adapter = SliceAdapter(model, self.names, self.kept)
        adapter.set_terms(self.terms.slope, self.terms.offset)
        return adapter


def search_bases(
    search: Rows, whole: Split, num_classes: int, seed: int, on_stage: Callable[[str, float], None]
) -> tuple[list[BaseResult], list[str]]:
    """Return the bases near the best, each with its slices, and sentences on families left out.

    Parameters
    ----------
    search
        Rows on which settings, slices and penalties are chosen.
    whole
        Training rows of the model that is shipped, of which ``search`` may have a sample.
    on_stage
        Called with the stage and the completed share.
    """
    families: tuple[BaseFamily[Any], ...] = (
        LinearFamily(num_classes, seed, is_wide=whole.wide is not None),
        TreeFamily(num_classes, seed),
    )
    bases: list[CrossFittedBase] = []
    left_out: list[str] = []
    rival: Floats | None = None
    known = search.labelled
    judged = search if known.all() else search.subset(known)  # functions vote on the others
    for done, family in enumerate(families):
        if limit := family.limit(family.features(whole)):
            left_out.append(f"Not searched: {family.plural}, since {limit}.")
            continue
        on_stage(f"cross-fitting {family.plural}", done / len(families))
        if found := family.cross_fit(search, rival):
            rival = found[1] if rival is None else rival
            bases.append(CrossFittedBase(((family, found[0]),), found[1][known]))
    accuracies = [selection_score(base.P, judged.y, judged.S.member).accuracy for base in bases]
    if len(bases) > 1 and not any(base.is_wide for base in bases) and np.ptp(accuracies) <= NEAR:
        members = tuple(member for base in bases for member in base.members)
        bases.append(CrossFittedBase(members, np.mean([base.P for base in bases], axis=0)))
    scores = [selection_score(base.P, judged.y, judged.S.member).value for base in bases]
    near = [base for base, score in zip(bases, scores, strict=True) if score >= max(scores) - NEAR]
    return [with_slices(base, judged, seed) for base in near], left_out


def best_base(results: Sequence[BaseResult]) -> BaseResult | None:
    """Return the result with the highest cross-fitted score, the first of equal ones; None without any."""
    return max(results, key=lambda result: result.cross_fitted.value, default=None)


def with_slices(base: CrossFittedBase, rows: Rows, seed: int) -> BaseResult:
    """Return a base with the slices that raise its score."""

    def scores(P: Floats) -> tuple[SelectionScore, SelectionScore]:
        every = selection_score(P, rows.y, rows.S.member)
        return every, selection_score(P[rows.valid], rows.y[rows.valid], rows.S.member[rows.valid])

    plain = scores(base.P)
    fitted = _fit_terms(rows, centred_logits(base.P), seed)
    if fitted is None:
        return BaseResult(base, rows.S.names, (), None, plain[0], plain[0], plain[1], plain[1])
    kept, terms, P = fitted
    own = scores(P)
    return BaseResult(base, rows.S.names, kept, terms, own[0], plain[0], own[1], plain[1])


def _fit_terms(rows: Rows, base: Floats, seed: int) -> tuple[tuple[str, ...], AdapterTerms, Floats] | None:
    """Return the slices that change logits, their terms, and the cross-fitted probabilities; None without a gain."""
    y, names = rows.y, np.array(rows.S.names, dtype=object)
    if not len(names):
        return None
    halves = two_halves(y, np.random.default_rng(seed), rows.groups)
    known = ~rows.S.unknown
    member = rows.S.member & known

    def gate(fitted: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the slices whose terms lower the log loss of other rows by more than chance, bool[K]."""
        if len(names) <= MAX_UNGATED:
            return np.ones(len(names), np.bool_)
        gains, squares = np.zeros((2, len(names)))
        for own, held in ((fitted, other), (other, fitted)):
            terms = AdapterTerms(base[own], member[own], y[own], _MIDDLE_PENALTY)
            gain, error = terms.gains(base[held], member[held], y[held])
            gains, squares = gains + gain, squares + error**2
        return np.asarray(gains > gate_threshold(len(names)) * np.sqrt(squares))

    quarters = two_halves(y, np.random.default_rng(seed + 1), rows.groups)  # of the rows that a half is scored by
    gates = {True: gate(halves & quarters, halves & ~quarters), False: gate(~halves & quarters, ~halves & ~quarters)}

    def cross_fitted(penalty: float) -> Floats:
        P = np.empty(base.shape)
        for side, half in ((False, halves), (True, ~halves)):  # the gate and the terms are those of the other half
            inside = _whole_rows(member, known, gates[side])
            terms = AdapterTerms(base[~half], inside[~half], y[~half], penalty)
            P[half] = softmax(terms.logits(base[half], inside[half]), axis=1)
        return P

    keep = gate(halves, ~halves)
    best, score = None, selection_score(softmax(base, axis=1), y, rows.S.member).value + MIN_GAIN
    for penalty in PENALTIES if keep.any() else ():
        P = cross_fitted(penalty)
        found = selection_score(P, y, rows.S.member).value
        if found > score:
            best, score = (penalty, P), found
    if best is None:
        return None
    penalty, P = best
    valid = rows.valid
    own, plain = (selection_score(each[valid], y[valid], rows.S.member[valid]).value for each in (P, softmax(base, 1)))
    if own < plain + MIN_GAIN:
        return None
    inside = _whole_rows(member, known, keep)
    return tuple(names[keep].tolist()), AdapterTerms(base, inside, y, penalty), P


def _whole_rows(member: NDArray[np.bool_], known: NDArray[np.bool_], keep: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the members of the kept slices, bool[N, J]; none in a row with an unknown one, as at serving."""
    return np.asarray(member[:, keep] & known[:, keep].all(axis=1, keepdims=True))


def centred_logits(P: Floats) -> Floats:
    """Return logits float[N, C] of probabilities, with a sum of 0 over the classes."""
    logits = np.log(np.maximum(P, LEAST_PROBABILITY))
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))
