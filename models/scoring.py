"""Scores of predictions, overall and slice by slice: Snorkel's ``Scorer`` and ``SliceScorer``.

What cannot be measured (a metric over no rows, an area under a curve with one class) is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from models.errors import DataError
from models.metrics import METRICS, metric_score
from sfs.matrix import SliceMatrix

Metric: TypeAlias = Callable[[Any, Any, Any], Any]
Scores: TypeAlias = dict[str, Any]
Slices: TypeAlias = "SliceMatrix | np.recarray[Any, Any]"

OVERALL = "overall"


class Scorer:
    """Several metrics at once.

    Parameters
    ----------
    metrics
        Names out of ``models.metrics.METRICS``.
    custom_metric_funcs
        Functions of (golds, preds, probs), unfiltered, by name; one that returns a dictionary adds all its
        entries.
    abstain_label
        Rows whose gold or predicted label is this one are left out of every metric but ``coverage``; None
        keeps all.

    Raises
    ------
    DataError
        If a metric does not exist.
    """

    def __init__(
        self,
        metrics: Sequence[str] | None = None,
        custom_metric_funcs: Mapping[str, Metric] | None = None,
        abstain_label: int | None = -1,
    ) -> None:
        self.abstain_label = abstain_label
        self.metrics: dict[str, Metric] = {name: self._named(name) for name in metrics or ()}
        self.metrics.update(custom_metric_funcs or {})

    def _named(self, name: str) -> Metric:
        if name not in METRICS:
            raise DataError(f"there is no metric {name!r}; the metrics are {', '.join(METRICS)}")
        abstained = [] if self.abstain_label is None else [self.abstain_label]
        left_out = {} if name == "coverage" else {"golds": abstained, "preds": abstained}
        return lambda golds, preds, probs: metric_score(golds, preds, probs, name, left_out)

    def score(
        self, golds: ArrayLike, preds: ArrayLike | None = None, probs: ArrayLike | None = None
    ) -> Scores:
        """Return each metric by name.

        Parameters
        ----------
        golds, preds
            Labels, [N] or [N, 1].
        probs
            float[N, C].

        Raises
        ------
        DataError
            If there are no labels, or a metric needs what is not given.
        """
        if len(np.asarray(golds)) == 0:
            raise DataError("there are no labels to score: golds is empty")
        return self.score_known(golds, preds, probs)

    def score_known(
        self, golds: ArrayLike, preds: ArrayLike | None = None, probs: ArrayLike | None = None
    ) -> Scores:
        """Return each metric by name, all None where there are no labels."""
        if len(np.asarray(golds)) == 0:
            return dict.fromkeys(self.metrics)
        scores: Scores = {}
        for name, metric in self.metrics.items():
            value = metric(golds, preds, probs)
            scores.update(value if isinstance(value, dict) else {name: value})
        return scores

    def score_slices(
        self, S: Slices, golds: ArrayLike, preds: ArrayLike, probs: ArrayLike, as_dataframe: bool = False
    ) -> dict[str, Scores] | pd.DataFrame:
        """Return the metrics overall and on the known members of every slice.

        A slice without members has None (NaN in the frame) for each; rows whose membership is unknown are
        in no slice.

        Raises
        ------
        DataError
            If the inputs differ in length, or a slice is called ``overall``.
        """
        matrix = S if isinstance(S, SliceMatrix) else SliceMatrix.from_recarray(S)
        arrays = [np.asarray(values) for values in (golds, preds, probs)]
        if len({len(matrix), *map(len, arrays)}) > 1:
            lengths = [len(matrix), *map(len, arrays)]
            raise DataError(f"S, golds, preds and probs are of the same rows, but number {lengths}")
        if OVERALL in matrix.names:
            raise DataError(f"a slice cannot be called {OVERALL!r}: that is the score of all rows")
        scores = {OVERALL: self.score(*arrays)}
        for name in matrix.names:
            members = matrix.column(name)
            scores[name] = self.score_known(*(values[members] for values in arrays))
        return pd.DataFrame.from_dict(scores, orient="index") if as_dataframe else scores


class SliceScorer:
    """A scorer of chosen slices.

    Parameters
    ----------
    scorer
        The metrics; accuracy and F1 by default. Slice names may stand here alone.
    slice_names
        Which slices, in this order; all by default.
    """

    def __init__(
        self, scorer: Scorer | Iterable[str] | None = None, slice_names: Iterable[str] | None = None
    ) -> None:
        names = slice_names if scorer is None or isinstance(scorer, Scorer) else scorer
        self.scorer = scorer if isinstance(scorer, Scorer) else Scorer(metrics=["accuracy", "f1"])
        self.slice_names = None if names is None else tuple(names)

    def score_slices(
        self, S: Slices, golds: ArrayLike, preds: ArrayLike, probs: ArrayLike, as_dataframe: bool = False
    ) -> dict[str, Scores] | pd.DataFrame:
        """Return the metrics overall and on the known members of the chosen slices, as a scorer does.

        Raises
        ------
        DataError
            If S lacks a chosen slice.
        """
        matrix = S if isinstance(S, SliceMatrix) else SliceMatrix.from_recarray(S)
        names = matrix.names if self.slice_names is None else self.slice_names
        absent = [name for name in names if name not in matrix.names]
        if absent:
            raise DataError(f"the slice matrix lacks slices {absent}; it has {list(matrix.names)}")
        return self.scorer.score_slices(matrix.align(names), golds, preds, probs, as_dataframe)
