"""Logistic regression: fitted along a path of penalties, and served as one sparse product."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.batches import FeatureRows
from models.inference import ChunkedInference, Floats, inference
from sfs.matrix import SliceMatrix

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Inverse strengths of the L2 penalty, as scikit-learn's ``C``; sparse rows have length one, numbers deviation one."""

_ITERATIONS, _TOLERANCE = 300, 1e-3
_ABSENT = -10.0  # logit of a class without a row


class LinearClassifier(nn.Module):
    """Logistic regression, of which only the weights are kept.

    Parameters
    ----------
    in_features
        D.
    num_classes
        C.

    Attributes
    ----------
    weight : float32[D, C]
    bias : float32[C]
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, in_features: int, num_classes: int = 2) -> None:
        super().__init__()
        self.in_features, self.num_classes = in_features, num_classes
        self.register_buffer("weight", torch.zeros(in_features, num_classes))
        self.register_buffer("bias", torch.zeros(num_classes))

    @classmethod
    def fit(
        cls,
        X: FeatureRows,
        y: NDArray[np.int64],
        num_classes: int,
        strength: float,
        weight: NDArray[np.float64] | None = None,
    ) -> LinearClassifier:
        """Return the regression of one strength on N labelled rows, with their weights float64[N]."""
        (model,) = cls.path(X, y, num_classes, [strength], weight)
        return model

    @classmethod
    def path(
        cls,
        X: FeatureRows,
        y: NDArray[np.int64],
        num_classes: int,
        strengths: Sequence[float],
        weight: NDArray[np.float64] | None = None,
    ) -> Iterator[LinearClassifier]:
        """Yield the regression of each strength, in this order; each continues from the one before.

        Parameters
        ----------
        X
            Features of N rows.
        y : int64[N]
            Classes, of which at least two are there.
        weight : float64[N] or None
            Weights of the rows; by default 1.
        """
        from sklearn.exceptions import ConvergenceWarning  # slow to import, and not needed at serving
        from sklearn.linear_model import LogisticRegression

        scale = X.dense_scale()
        matrix = X.matrix(1 / scale)
        regression = LogisticRegression(max_iter=_ITERATIONS, tol=_TOLERANCE, warm_start=True)
        for strength in strengths:
            regression.set_params(C=strength)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # sufficient: the score decides
                regression.fit(matrix, y, sample_weight=weight)
            coefficients, intercepts = regression.coef_.copy(), regression.intercept_
            coefficients[:, coefficients.shape[1] - len(scale) :] /= scale
            if len(coefficients) == 1:  # two classes: logits of the second against the first
                coefficients = np.concatenate([np.zeros_like(coefficients), coefficients])
                intercepts = np.array([0.0, intercepts[0]])
            model = cls(X.shape[1], num_classes)
            model.bias[:] = _ABSENT
            model.weight[:, regression.classes_] = torch.from_numpy(coefficients.T.astype(np.float32))
            model.bias[regression.classes_] = torch.from_numpy(intercepts.astype(np.float32))
            yield model

    def predict_proba(self, X: FeatureRows, S: SliceMatrix | None = None) -> NDArray[np.float64]:
        """Return float64[N, C]; memberships are ignored. DataError if the rows have other features."""
        return inference(self).predict_proba(X, S)

    def config(self) -> dict[str, Any]:
        """Return the arguments of ``from_config`` as JSON values."""
        return {"kind": "linear", "in_features": self.in_features, "num_classes": self.num_classes}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> LinearClassifier:
        """Return an untrained model built from the output of ``config()``."""
        return cls(config["in_features"], config["num_classes"])


class _LinearInference(ChunkedInference):
    """The same by NumPy."""

    def __init__(self, model: LinearClassifier) -> None:
        super().__init__(model.in_features, model.num_classes, model.num_classes)
        self._weight, self._bias = model.weight.numpy(), model.bias.numpy()

    def logits(
        self, X: FeatureRows, rows: slice, S: SliceMatrix | None = None, inside: NDArray[np.bool_] | None = None
    ) -> Floats:
        product = X.product(rows, self._weight)
        product += self._bias
        return product


inference.register(LinearClassifier, _LinearInference)
