"""The slice-aware classifier: a backbone, an indicator and an expert for every slice, and attention.

Slices are heads of stacked tensors and are told apart by index alone; names are only labels. The last head
is the base slice, of which every row is a member.

References
----------
.. [1] Chen, Wu, Ratner, Weng, Ré. Slice-based Learning: A Programming Model for Residual Learning in
   Critical Data Slices. NeurIPS 2019. https://arxiv.org/abs/1909.06349
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.attention import Attention, attend, default_temperature
from models.dataset import DEFAULT_INPUT_DATA_KEY, DEFAULT_TASK_NAME, DictDataLoader, DictDataset
from models.errors import ConfigError
from models.experts import FullExperts, LowRankExperts
from models.inference import probabilities
from models.objectives import expert_loss, indicator_loss, weighted_cross_entropy
from models.rows import FeatureRows, as_rows
from models.scoring import Scorer
from models.slice_scores import evaluating, predict, score, slices_to_task
from models.snorkel_labels import SliceTargets, read_slice_labels, slice_targets, with_slice_labels
from sfs.matrix import SliceMatrix

Floats: TypeAlias = NDArray[np.float64]
Inputs: TypeAlias = FeatureRows | Tensor | NDArray[np.float32]

DEFAULT_RANK = 4
_PREDICTION_ROWS = 4096


class Heads(NamedTuple):
    """What the network makes of B rows; S = K + 1 heads, the base slice last.

    ``logits`` float[B, C], ``membership`` logits float[B, S], ``experts`` logits float[B, S, C],
    ``attention`` float[B, S].
    """

    logits: Tensor
    membership: Tensor
    experts: Tensor
    attention: Tensor


class SliceAwareClassifier(nn.Module):
    """A classifier with a representation for every slice, which attends to those a row seems to belong to.

    Parameters
    ----------
    base_architecture
        The backbone, float[B, ...] to float[B, H].
    head_dim
        H.
    slice_names
        K distinct names.
    input_data_key, task_name, scorer
        Where datasets hold the inputs, what the labels are called, and what ``score`` measures.
    num_classes
        C.
    expert_rank
        Rank of each expert's correction of the shared representation, or None for a whole H x H matrix each.
    attention
        ``symmetric``, or ``snorkel`` for two classes: see ``models.attention.attend``.
    temperature
        Divides the attention logits; by default so that one slice can win against K: ``default_temperature``.
    class_weights
        C factors on the loss of each class.

    Raises
    ------
    ConfigError
        If a value cannot be, or names repeat.
    """

    def __init__(
        self,
        base_architecture: nn.Module,
        head_dim: int,
        slice_names: Sequence[str],
        input_data_key: str = DEFAULT_INPUT_DATA_KEY,
        task_name: str = DEFAULT_TASK_NAME,
        scorer: Scorer | None = None,
        *,
        num_classes: int = 2,
        expert_rank: int | None = DEFAULT_RANK,
        attention: Attention = "symmetric",
        temperature: float | None = None,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        _check(slice_names, num_classes, expert_rank, attention, temperature, class_weights)
        S = len(slice_names) + 1
        self.slice_names, self.head_dim, self.num_classes = list(slice_names), head_dim, num_classes
        self.input_data_key, self.task_name = input_data_key, task_name
        self.scorer = scorer or Scorer(metrics=["accuracy", "f1" if num_classes == 2 else "f1_macro"])
        self.expert_rank, self.attention_kind = expert_rank, attention
        self.temperature = temperature or default_temperature(attention, S - 1)
        self.base_architecture = base_architecture
        self.indicators = nn.Linear(head_dim, 2 * S if attention == "snorkel" else S)
        full = expert_rank is None
        self.experts = FullExperts(S, head_dim) if full else LowRankExperts(S, head_dim, expert_rank or 1)
        self.expert_head = nn.Linear(head_dim, num_classes)
        self.head = nn.Linear(head_dim, num_classes)
        weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", weights, persistent=False)

    def heads(self, X: Any) -> Heads:
        """Return what every head makes of a batch, as the backbone takes it."""
        z = self.base_architecture(X)  # [B, H]
        membership = self.indicators(z)  # [B, S], or [B, 2 S] for Snorkel's pairs
        if self.attention_kind == "snorkel":
            pairs = membership.view(len(z), -1, 2)
            membership = pairs[..., 1] - pairs[..., 0]  # [B, S], the same softmax
        codes = self.experts.codes(z)
        experts = self.experts.logits(z, codes, self.expert_head)  # [B, S, C]
        attention = attend(self.attention_kind, membership, experts, self.temperature)
        return Heads(self.head(self.experts.mixture(z, codes, attention)), membership, experts, attention)

    def forward(self, X: Any) -> Tensor:
        """Return logits float[B, C]; X is a batch for the backbone, or a dictionary that holds it."""
        return self.heads(X[self.input_data_key] if isinstance(X, Mapping) else X).logits

    def loss(self, X: Any, y: Tensor, S: SliceMatrix | None, weights: Tensor | None = None) -> Tensor:
        """Return the loss of a batch: L_base + L_ind + L_pred, each a mean (see ``models.objectives``).

        Parameters
        ----------
        X
            A batch for the backbone.
        y
            Classes int64[B], or probabilities float[B, C].
        S
            Memberships by name, in any order; slices that it lacks are unknown, as are all without it.
        weights
            float[B], how much each row counts in L_base, where 1 is the average of all rows.
        """
        losses = self.losses(X, y, slice_targets(S, self.slice_names, len(y)), weights)
        return sum(losses.values(), torch.zeros((), device=y.device))

    def calculate_loss(
        self, X_dict: dict[str, Any], Y_dict: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Return the three losses and how many known labels or memberships each is over.

        The labels are those of ``make_slice_dataloader``.
        """
        y, targets = read_slice_labels(Y_dict, self.task_name, self.slice_names)
        losses = self.losses(X_dict[self.input_data_key], y, targets)
        counts = (targets.labelled, targets.known, targets.member)
        return losses, {name: int(mask.sum()) for name, mask in zip(losses, counts, strict=True)}

    def losses(
        self, X: Any, y: Tensor, targets: SliceTargets, weights: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the three losses by name; ``targets`` are of the K slices in order, weights as in ``loss``."""
        heads = self.heads(X)
        everyone = torch.ones_like(targets.labelled).unsqueeze(1)  # the base slice, [B, 1]
        member = torch.cat([targets.member, everyone], dim=1)  # [B, S]
        known = torch.cat([targets.known, everyone], dim=1)
        # A constant teaches nothing: the base slice's indicator is left to the attention, unlike Snorkel's.
        taught = member.shape[1] - (self.attention_kind != "snorkel")
        indicators = indicator_loss(heads.membership[:, :taught], member[:, :taught], known[:, :taught])
        counts = member & targets.labelled.unsqueeze(1)
        rows = weighted_cross_entropy(heads.logits, y, targets.labelled, self.class_weights, weights)
        return {
            self.task_name: rows,
            f"{self.task_name}_indicators": indicators,
            f"{self.task_name}_experts": expert_loss(heads.experts, y, counts, self.class_weights),
        }

    def predict_proba(self, X: Inputs) -> Floats:
        """Return float[N, C]; neither labels nor memberships are needed.

        Raises
        ------
        ModelError
            If a feature or a weight is not a finite number.
        """
        return self._collect(X, lambda heads, at: probabilities(heads.logits, at), self.num_classes)

    def slice_attention(self, X: Inputs) -> Floats:
        """Return float[N, K + 1], the share of each slice's expert; the base is last."""
        return self._collect(X, lambda heads, _: heads.attention.numpy(force=True), len(self.slice_names) + 1)

    def _collect(self, X: Inputs, part: Callable[[Heads, int], NDArray[Any]], width: int) -> Floats:
        out = np.empty((len(X), width))
        rows = X if isinstance(X, Tensor) else as_rows(X)
        with evaluating(self):
            for start in range(0, len(X), _PREDICTION_ROWS):
                chosen = slice(start, start + _PREDICTION_ROWS)
                batch = rows[chosen] if isinstance(rows, Tensor) else rows.take(chosen)
                out[chosen] = part(self.heads(batch), start)
        return out

    def make_slice_dataloader(
        self, dataset: DictDataset, S: SliceMatrix | np.recarray[Any, Any], **dataloader_kwargs: Any
    ) -> DictDataLoader:
        """Return a loader of the rows with the labels of every slice; the dataset itself stays as it is.

        Raises
        ------
        DataError
            If the dataset lacks the task's labels, or S other rows or other slices than the classifier.
        """
        sliced = with_slice_labels(dataset, self.task_name, S, self.slice_names)
        return DictDataLoader(sliced, **dataloader_kwargs)

    def predict(
        self,
        dataloader: DictDataLoader,
        return_preds: bool = False,
        remap_labels: Mapping[str, str | None] | None = None,
    ) -> dict[str, dict[str, NDArray[Any]]]:
        """Return ``golds``, ``probs`` and if asked ``preds`` by label; without labels those of the task."""
        return predict(self, dataloader, return_preds, remap_labels or {})

    def score(
        self,
        dataloaders: Sequence[DictDataLoader],
        remap_labels: Mapping[str, str | None] | None = None,
        as_dataframe: bool = False,
    ) -> dict[str, float | None] | pd.DataFrame:
        """Score every label by its own head, under label/dataset/split/metric; None has nothing to score.

        ``remap_labels`` scores a label by another's head, or leaves it out (None).
        """
        return score(self, dataloaders, remap_labels or {}, as_dataframe)

    def score_slices(
        self, dataloaders: Sequence[DictDataLoader], as_dataframe: bool = False
    ) -> dict[str, float | None] | pd.DataFrame:
        """Score the final prediction overall and on the members of every slice."""
        remap = slices_to_task(self.task_name, self.slice_names)
        return score(self, dataloaders, remap, as_dataframe)

    def config(self) -> dict[str, Any]:
        """Return everything but the backbone and the weights, as JSON values."""
        weights = None if self.class_weights is None else self.class_weights.tolist()
        return {
            "head_dim": self.head_dim,
            "slice_names": list(self.slice_names),
            "input_data_key": self.input_data_key,
            "task_name": self.task_name,
            "num_classes": self.num_classes,
            "expert_rank": self.expert_rank,
            "attention": self.attention_kind,
            "temperature": self.temperature,
            "class_weights": weights,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any], base_architecture: nn.Module) -> SliceAwareClassifier:
        """Return a classifier over a backbone, with fresh weights."""
        return cls(base_architecture, **config)

    def save(self, path: str | Path) -> None:
        """Write the weights as safetensors, making the folder where needed."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_file({name: value.contiguous() for name, value in self.state_dict().items()}, path)

    def load(self, path: str | Path) -> None:
        """Read weights that ``save`` wrote."""
        self.load_state_dict(load_file(path))


def _check(
    slice_names: Sequence[str],
    num_classes: int,
    expert_rank: int | None,
    attention: str,
    temperature: float | None,
    class_weights: Sequence[float] | None,
) -> None:
    if isinstance(slice_names, str) or len(set(slice_names)) != len(slice_names):
        raise ConfigError(f"slice_names must be distinct names, got {slice_names!r}")
    if num_classes < 2:
        raise ConfigError(f"num_classes must be at least 2, got {num_classes}")
    if expert_rank is not None and expert_rank < 1:
        raise ConfigError(f"expert_rank must be at least 1, or None for full rank, got {expert_rank}")
    if attention not in ("symmetric", "snorkel"):
        raise ConfigError(f"attention must be 'symmetric' or 'snorkel', got {attention!r}")
    if attention == "snorkel" and num_classes != 2:
        raise ConfigError(f"attention 'snorkel' knows two classes, got {num_classes}: use 'symmetric'")
    if temperature is not None and not temperature > 0:
        raise ConfigError(f"temperature must be above 0, got {temperature}")
    if class_weights is not None and len(class_weights) != num_classes:
        raise ConfigError(f"class_weights must have {num_classes} entries, got {len(class_weights)}")
