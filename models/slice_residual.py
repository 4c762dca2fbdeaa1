"""A plain network plus, per slice, a linear residual gated by observed and predicted membership."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.baselines import MLP, PlainClassifier
from models.batches import (
    CHUNK_NUMBERS,
    Batch,
    FeatureRows,
    Memberships,
    Split,
    as_rows,
    check_same_rows,
    memberships,
    predict_in_chunks,
)
from models.errors import ConfigError, require_type
from models.objectives import indicator_loss, weighted_cross_entropy
from sfs.matrix import SliceMatrix

Mode: TypeAlias = Literal["blend", "soft", "emb"]
MODES: tuple[Mode, ...] = get_args(Mode)
UnknownRows: TypeAlias = Literal["impute", "companion"]

MAX_UNGATED = 20
"""Largest number of slices without gating; with so few slices, gating costs more than it saves."""
USELESS_KEPT = 3
"""Expected number of uninformative slices that pass the gate."""


class LogitTerms(NamedTuple):
    """Terms of the logits: hidden float[B, H], base and residual float[B, C], indicators float[B, K]."""

    hidden: Tensor
    base: Tensor
    residual: Tensor
    indicators: Tensor


class SliceResidualClassifier(nn.Module):
    """Base logits plus gated residuals of the slices; untrained, it predicts exactly like its plain part.

    In ``blend`` a slice's gate is a learned mix of the observed and the predicted membership, and the
    latter alone where the observed is unknown; in ``soft`` it is always the predicted one, so that
    memberships are read in training only. In ``emb`` there are no gates: a vector per slice joins the first
    layer. No gradient flows from the gates into the indicators; these learn from memberships, and the
    backbone from both losses.

    Parameters
    ----------
    backbone
        From D features to H hidden units.
    head_dim
        H, equal to the backbone's.
    slice_names
        The K slices of the model.
    num_classes
        C.
    mode
        ``blend``, ``soft`` or ``emb``.
    kept
        The slices with a residual; all by default.
    coverage
        Share of members per slice in the training rows: the initial value of the indicators, and in ``emb`` the
        value of an unknown membership; .5 by default.

    Raises
    ------
    ConfigError
        If the mode, a kept slice, or head_dim is invalid.
    """

    coverage: Tensor

    def __init__(
        self,
        backbone: MLP,
        head_dim: int,
        slice_names: Sequence[str],
        num_classes: int = 2,
        *,
        mode: Mode = "blend",
        kept: Sequence[str] | None = None,
        coverage: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        require_type(backbone, nn.Module, "backbone", "a torch module with out_features")
        self.slice_names, self.num_classes, self.mode = tuple(slice_names), num_classes, mode
        self.kept = self.slice_names if kept is None else tuple(kept)
        self.backbone = backbone
        if mode not in MODES:
            raise ConfigError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
        if head_dim != backbone.out_features:
            raise ConfigError(f"head_dim is {head_dim}, but the backbone gives {backbone.out_features} units")
        if len(set(self.slice_names)) != len(self.slice_names):
            raise ConfigError(f"slice names must be distinct, got {list(self.slice_names)}")
        unknown = [name for name in self.kept if name not in self.slice_names]
        if unknown:
            raise ConfigError(f"kept slice {unknown[0]!r} is not among the slices {list(self.slice_names)}")
        shares = [min(max((coverage or {}).get(name, 0.5), 1e-3), 0.999) for name in self.kept]
        self.register_buffer("coverage", torch.tensor(shares, dtype=torch.float32))
        # One linear map of base, residuals and indicators: a single product gives all three.
        K, C = len(self.kept), num_classes
        base = nn.Linear(head_dim, C)  # drawn first, and so the same as a plain network's from the same seed
        gated = 0 if mode == "emb" else K
        self.heads = nn.Linear(head_dim, C + gated * C + gated)
        with torch.no_grad():
            self.heads.weight[:C], self.heads.bias[:C] = base.weight, base.bias
            self.heads.weight[C : C + gated * C], self.heads.bias[C : C + gated * C] = 0.0, 0.0
            self.heads.weight[C + gated * C :].uniform_(-1e-3, 1e-3)
            # On the CPU even where the network has no memory (meta device): torch would load its compiler.
            starts = torch.tensor(shares[:gated], dtype=torch.float32, device="cpu")
            self.heads.bias[C + gated * C :] = torch.logit(starts)
        if mode == "emb":
            self.embedding = nn.Parameter(torch.zeros(K, backbone.widths[0]))
        if mode == "blend":
            self.slope = nn.Parameter(torch.zeros(K))
            self.mix = nn.Parameter(torch.ones(K))
        self.refit: nn.Linear | None = None
        self.companion: PlainClassifier | None = None
        self.unknown_rows: UnknownRows = "impute"

    @property
    def reads_memberships(self) -> bool:
        """Predictions depend on memberships at serving."""
        return self.mode != "soft" and bool(self.kept)

    def terms(self, X: Tensor, slices: Memberships) -> LogitTerms:
        """Return the terms of the logits of float[B, D]."""
        C, K = self.num_classes, len(self.kept)
        if self.mode == "emb":
            values = torch.where(slices.known, slices.member, self.coverage)
            hidden = self.backbone(X, values @ self.embedding if K else None)
            base = self.heads(hidden)
            return LogitTerms(hidden, base, torch.zeros_like(base), base[:, :0])
        hidden = self.backbone(X)
        out = self.heads(hidden)  # [B, C + K*C + K]
        base, indicators = out[:, :C], out[:, C + K * C :]
        gates = self._gates(indicators, slices)
        heads = out[:, C : C + K * C].unflatten(1, (K, C))  # [B, K, C]
        residual = (gates[:, None, :] @ heads).squeeze(1)  # [B, C]
        if self.mode == "blend":
            residual = residual + base * (gates @ self.slope)[:, None]
        return LogitTerms(hidden, base, residual, indicators)

    def slice_residuals(self, X: Tensor, slices: Memberships) -> Tensor:
        """Return each slice's own part of the logits, float[B, K, C]; none in ``emb``."""
        C, K = self.num_classes, len(self.kept)
        if self.mode == "emb":
            return torch.zeros(len(X), 0, C)
        out = self.heads(self.backbone(X))
        heads = out[:, C : C + K * C].unflatten(1, (K, C))
        if self.mode == "blend":
            heads = heads + out[:, None, :C] * self.slope[:, None]
        gates = self._gates(out[:, C + K * C :], slices)
        residuals: Tensor = heads * gates[:, :, None]
        return residuals

    def _gates(self, indicators: Tensor, slices: Memberships) -> Tensor:
        expected = torch.sigmoid(indicators.detach())  # no gradient from the task into the indicators
        if self.mode == "soft":
            return expected
        trust = torch.sigmoid(self.mix)
        return torch.where(slices.known, (1 - trust) * expected + trust * slices.member, expected)

    def forward(self, X: Tensor, slices: Memberships | None = None) -> Tensor:
        """Return logits float[B, C]; ``slices`` are memberships in the kept slices, unknown by default."""
        terms = self.terms(X, slices or memberships(None, self.kept, len(X)))
        if self.refit is not None:
            logits: Tensor = self.refit(self.refit_features(terms))
            return logits
        return terms.base + terms.residual

    def refit_features(self, terms: LogitTerms) -> Tensor:
        """Return the features of the refitted last layer: hidden units, residual and logits against class 0."""
        logits = terms.base + terms.residual
        contrasts = [logits] if self.mode == "emb" else [terms.residual, logits]
        return torch.cat([terms.hidden, *(x[:, 1:] - x[:, :1] for x in contrasts)], dim=1)

    def loss(self, batch: Batch) -> Tensor:
        """Return weighted cross entropy plus the indicators' mean cross entropy over known memberships."""
        terms = self.terms(batch.X, batch.visible_slices())
        task = weighted_cross_entropy(terms.base + terms.residual, batch.y, weights=batch.weight)
        if not terms.indicators.shape[1]:
            return task
        return task + indicator_loss(terms.indicators, batch.slices.member, batch.slices.known)

    def attach_refit(self, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> None:
        """Predict by a linear layer float[C, F] on ``refit_features`` from now on."""
        self.refit = _frozen_linear(weight.shape[1], weight.shape[0])
        self.refit.load_state_dict(
            {
                "weight": torch.from_numpy(weight.astype(np.float32)),
                "bias": torch.from_numpy(bias.astype(np.float32)),
            }
        )

    def attach_companion(self, companion: PlainClassifier, unknown_rows: UnknownRows) -> None:
        """Add a network that reads no memberships, for rows with an unknown kept slice if so configured."""
        if unknown_rows not in get_args(UnknownRows):
            raise ConfigError(f"unknown_rows must be impute or companion, got {unknown_rows!r}")
        self.companion = companion
        self.unknown_rows = unknown_rows

    def predict_proba(
        self, X: FeatureRows | Tensor | NDArray[np.float32], S: SliceMatrix | None = None
    ) -> NDArray[np.float64]:
        """Return float[N, C].

        Parameters
        ----------
        X
            N rows of D features.
        S
            Memberships, matched by slice name; a missing slice is unknown, and all of them without S.

        Raises
        ------
        DataError
            If rows or features differ in number.
        ModelError
            If a feature or a weight is not a finite number.
        """
        rows = as_rows(X)
        check_same_rows(S, len(rows))
        read = S if self.reads_memberships else None
        companion = self.companion if self.reads_memberships and self.unknown_rows == "companion" else None

        def logits(x: Tensor, at: slice) -> Tensor:
            part = read if read is None or len(x) == len(rows) else read.take(at)
            slices = memberships(part, self.kept, len(x))
            if companion is None or slices.known.all():
                return self.forward(x, slices)
            complete = slices.known.all(dim=1)
            out = companion.forward(x)
            if bool(complete.any()):
                out[complete] = self.forward(x[complete], slices.take(complete))
            return out

        widest = max(self.backbone.widths[0], self.heads.out_features)
        return predict_in_chunks(rows, self.backbone.in_features, self.num_classes, logits, widest=widest)

    def config(self) -> dict[str, Any]:
        """Return the arguments of ``from_config`` as JSON values; everything else is in ``state_dict``."""
        return {
            "kind": "slice_residual",
            "backbone": self.backbone.config(),
            "slice_names": list(self.slice_names),
            "num_classes": self.num_classes,
            "mode": self.mode,
            "kept": list(self.kept),
            "refit_features": None if self.refit is None else self.refit.in_features,
            "companion": None if self.companion is None else self.companion.config(),
            "unknown_rows": self.unknown_rows,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> SliceResidualClassifier:
        """Return a network of that shape; its weights, refit and companion come from ``load_state_dict``."""
        backbone = MLP.from_config(config["backbone"])
        names, kept, mode = config["slice_names"], config["kept"], config["mode"]
        model = cls(backbone, backbone.out_features, names, config["num_classes"], mode=mode, kept=kept)
        if config["refit_features"] is not None:
            model.refit = _frozen_linear(config["refit_features"], config["num_classes"])
        if config["companion"] is not None:
            model.attach_companion(PlainClassifier.from_config(config["companion"]), config["unknown_rows"])
        return model


def _frozen_linear(in_features: int, out_features: int) -> nn.Linear:
    layer = nn.Linear(in_features, out_features, device="meta")  # draws no numbers
    # Not `to_empty`: on the device of a bundle that is loaded, it would import SymPy.
    layer.weight = nn.Parameter(torch.zeros(out_features, in_features), requires_grad=False)
    layer.bias = nn.Parameter(torch.zeros(out_features), requires_grad=False)
    return layer


def gate_threshold(n_slices: int) -> float:
    """Return the standard errors that a gain must exceed, so that about three uninformative slices pass.

    Examples
    --------
    >>> round(gate_threshold(100), 2)
    1.88
    """
    share = 1 - USELESS_KEPT / n_slices
    return max(0.0, NormalDist().inv_cdf(share)) if share > 0 else 0.0


def kept_slices(model: SliceResidualClassifier, valid: Split) -> tuple[str, ...]:
    """Return the slices whose removal raises the validation loss by more than chance.

    The loss without the residual less the loss with it is summed over rows; a slice stays if the sum exceeds
    ``gate_threshold(K)`` times the root of the sum of squares.
    """
    slices = memberships(valid.S, model.kept, len(valid))
    y = torch.from_numpy(valid.y)
    K = len(model.kept)
    total, squares = torch.zeros(K, dtype=torch.float64), torch.zeros(K, dtype=torch.float64)
    chunk = max(1, CHUNK_NUMBERS // max(model.backbone.in_features, K * model.num_classes))
    with torch.inference_mode():
        for start in range(0, len(valid), chunk):
            part = slice(start, start + chunk)
            X, known = valid.X.take(part), slices.take(part)
            logits = model(X, known)  # [B, C]
            without = logits[:, None, :] - model.slice_residuals(X, known)  # [B, K, C]
            labels = y[part].repeat_interleave(without.shape[1])
            losses = functional.cross_entropy(without.flatten(0, 1), labels, reduction="none")
            loss = functional.cross_entropy(logits, y[part], reduction="none")
            gains = (losses.view(without.shape[:2]) - loss[:, None]).double()  # [B, K]
            total += gains.sum(dim=0)
            squares += gains.square().sum(dim=0)
    passed = total > gate_threshold(K) * squares.sqrt()
    return tuple(name for name, keep in zip(model.kept, passed.tolist(), strict=True) if keep)
