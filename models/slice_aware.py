"""The slice-aware classifier: a backbone, an indicator and an expert for every slice, and attention.

Slices are heads of stacked tensors, identified by index; names are only labels. The last head is the base
slice, of which every row is a member.

References
----------
.. [1] Chen, Wu, Ratner, Weng, Ré. Slice-based Learning: A Programming Model for Residual Learning in
   Critical Data Slices. NeurIPS 2019. https://arxiv.org/abs/1909.06349
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.baselines import MLP
from models.batches import Batch, FeatureRows, as_rows, finite_softmax, predict_in_chunks
from models.dataset import (
    BASE_SLICE,
    DEFAULT_INPUT_DATA_KEY,
    DEFAULT_TASK_NAME,
    DictDataLoader,
    DictDataset,
    SliceTargets,
    expert_label,
    indicator_label,
    read_slice_labels,
    slice_targets,
    with_slice_labels,
)
from models.errors import ConfigError, DataError, require_type
from models.experts import Attention, FullExperts, LowRankExperts, attend, default_temperature
from models.objectives import expert_loss, indicator_loss, weighted_cross_entropy
from models.scoring import Scorer
from sfs.matrix import SliceMatrix

Floats: TypeAlias = NDArray[np.float64]
Inputs: TypeAlias = FeatureRows | Tensor | NDArray[np.float32]

DEFAULT_RANK = 4
_PREDICTION_ROWS = 4096


class Heads(NamedTuple):
    """Outputs of the network for B rows; S = K + 1 heads, the base slice last.

    ``logits`` float[B, C], ``membership`` logits float[B, S], ``experts`` logits float[B, S, C],
    ``attention`` float[B, S].
    """

    logits: Tensor
    membership: Tensor
    experts: Tensor
    attention: Tensor


class SliceAwareClassifier(nn.Module):
    """Classifier with one representation per slice, and attention over the slices of a row.

    Parameters
    ----------
    base_architecture
        The backbone, float[B, ...] to float[B, H].
    head_dim
        H.
    slice_names
        K distinct names.
    input_data_key, task_name, scorer
        The field of the inputs in datasets, the name of the labels, and the metrics of ``score``.
    num_classes
        C.
    expert_rank
        Rank of each expert's correction of the shared representation, or None for a full H x H matrix per expert.
    attention
        ``symmetric``, or ``snorkel`` for two classes: see ``models.attention.attend``.
    temperature
        Divides the attention logits; ``default_temperature`` by default, with which one slice can win against K.
    class_weights
        C factors on the loss of each class.

    Raises
    ------
    ConfigError
        If a value is out of range, or names repeat.
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
        require_type(base_architecture, nn.Module, "base_architecture", "a torch module")
        if isinstance(slice_names, str) or len(set(slice_names)) != len(slice_names):
            raise ConfigError(f"slice_names must be distinct names, got {slice_names!r}")
        if num_classes < 2:
            raise ConfigError(f"num_classes must be at least 2, got {num_classes}")
        if expert_rank is not None and expert_rank < 1:
            raise ConfigError(f"expert_rank must be at least 1, or None for full rank, got {expert_rank}")
        if attention not in ("symmetric", "snorkel"):
            raise ConfigError(f"attention must be 'symmetric' or 'snorkel', got {attention!r}")
        if attention == "snorkel" and num_classes != 2:
            raise ConfigError(f"attention 'snorkel' requires two classes, got {num_classes}: use 'symmetric'")
        if temperature is not None and not temperature > 0:
            raise ConfigError(f"temperature must be above 0, got {temperature}")
        if class_weights is not None and len(class_weights) != num_classes:
            raise ConfigError(f"class_weights must have {num_classes} entries, got {len(class_weights)}")

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
        """Return the outputs of every head for a batch in the form that the backbone takes."""
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
        y
            Classes int64[B], or probabilities float[B, C].
        S
            Memberships by name, in any order; slices that it lacks are unknown, and all of them without S.
        weights
            float[B], the weight of each row in L_base, 1 on average over all rows.
        """
        losses = self.losses(X, y, slice_targets(S, self.slice_names, len(y)), weights)
        return sum(losses.values(), torch.zeros((), device=y.device))

    def calculate_loss(
        self, X_dict: dict[str, Any], Y_dict: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Return the three losses and the number of known labels or memberships of each.

        The labels are those of ``make_slice_dataloader``.
        """
        y, targets = read_slice_labels(Y_dict, self.task_name, self.slice_names)
        losses = self.losses(X_dict[self.input_data_key], y, targets)
        counts = (targets.labelled, targets.known, targets.member)
        return losses, {name: int(mask.sum()) for name, mask in zip(losses, counts, strict=True)}

    def losses(self, X: Any, y: Tensor, targets: SliceTargets, weights: Tensor | None = None) -> dict[str, Tensor]:
        """Return the three losses by name; ``targets`` are of the K slices in order, weights as in ``loss``."""
        heads = self.heads(X)
        everyone = torch.ones_like(targets.labelled).unsqueeze(1)  # the base slice, [B, 1]
        member = torch.cat([targets.member, everyone], dim=1)  # [B, S]
        known = torch.cat([targets.known, everyone], dim=1)
        # A constant target gives no training signal: unlike Snorkel's, the base slice's indicator has no loss.
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
        """Return float[N, C]; reads neither labels nor memberships.

        Raises
        ------
        ModelError
            If a feature or a weight is not a finite number.
        """
        return self._collect(X, lambda heads, at: finite_softmax(heads.logits, at), self.num_classes)

    def slice_attention(self, X: Inputs) -> Floats:
        """Return float[N, K + 1], the attention weight of each slice's expert; the base is last."""
        return self._collect(X, lambda heads, _: heads.attention.numpy(force=True), len(self.slice_names) + 1)

    def _collect(self, X: Inputs, part: Callable[[Heads, int], NDArray[Any]], width: int) -> Floats:
        out = np.empty((len(X), width))
        rows = X if isinstance(X, Tensor) else as_rows(X)
        with eval_mode(self):
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
        """Return ``golds`` [N], ``probs`` float[N, C] and optionally ``preds`` int[N], each by label.

        Parameters
        ----------
        dataloader
            Batches with the labels of any heads; without labels, the task is predicted.
        return_preds
            Add the likeliest class of every row.
        remap_labels
            For a label, the label whose head predicts it, or None to leave it out.

        Raises
        ------
        DataError
            If a label is mapped to a head that does not exist.
        """
        heads, remap = self._heads_by_label(), remap_labels or {}
        present = [label for label in heads if label in dataloader.dataset.Y_dict] or [self.task_name]
        head_of = {label: target for label in present if (target := remap.get(label, label)) is not None}
        for target in head_of.values():
            if target not in heads:
                raise DataError(f"unknown head {target!r} in remap_labels; known are {list(heads)}")
        golds: dict[str, list[NDArray[Any]]] = {}
        probs: dict[str, list[NDArray[Any]]] = {}
        with eval_mode(self):
            for X_dict, Y_dict in dataloader:
                outputs = self.heads(X_dict[self.input_data_key])
                by_head = {head: _head_probabilities(outputs, *heads[head]) for head in set(head_of.values())}
                for label, head in head_of.items():
                    probs.setdefault(label, []).append(by_head[head])
                    if label in Y_dict:
                        golds.setdefault(label, []).append(Y_dict[label].numpy(force=True))
        out = {
            name: {label: np.concatenate(arrays) for label, arrays in parts.items()}
            for name, parts in (("golds", golds), ("probs", probs))
        }
        if return_preds:
            out["preds"] = {label: values.argmax(axis=1) for label, values in out["probs"].items()}
        return out

    def score(
        self,
        dataloaders: Sequence[DictDataLoader],
        remap_labels: Mapping[str, str | None] | None = None,
        as_dataframe: bool = False,
    ) -> dict[str, float | None] | pd.DataFrame:
        """Score every label by its own head, under label/dataset/split/metric; None has nothing to score.

        The classifier's scorer measures all labels but those of indicators, which are measured by F1.

        Parameters
        ----------
        dataloaders
            One or more, identified by the names and splits of their datasets.
        remap_labels
            As for ``predict``.
        as_dataframe
            Return a row per score instead.
        """
        heads, remap = self._heads_by_label(), remap_labels or {}
        rows: list[tuple[str, str, str, str, float | None]] = []
        for loader in dataloaders:
            outputs = self.predict(loader, True, remap)
            for label, gold in outputs["golds"].items():
                indicator = heads[remap.get(label) or label][0] == "indicator"
                scorer = Scorer(metrics=["f1"]) if indicator else self.scorer
                metrics = scorer.score_known(gold, outputs["preds"][label], outputs["probs"][label])
                rows += [(label, loader.dataset.name, loader.dataset.split, *item) for item in metrics.items()]
        if as_dataframe:
            return pd.DataFrame(rows, columns=["label", "dataset", "split", "metric", "score"])
        return {"/".join(row[:4]): row[4] for row in rows}

    def score_slices(
        self, dataloaders: Sequence[DictDataLoader], as_dataframe: bool = False
    ) -> dict[str, float | None] | pd.DataFrame:
        """Score the final prediction overall and on the members of every slice; indicators are left out."""
        remap = {
            label: None if kind == "indicator" else self.task_name
            for label, (kind, _) in self._heads_by_label().items()
        }
        return self.score(dataloaders, remap, as_dataframe)

    def _heads_by_label(self) -> dict[str, tuple[str, int]]:
        """Return the head of each label: ``task``, or ``indicator`` or ``expert`` k; the base is last."""
        names = [*self.slice_names] if BASE_SLICE in self.slice_names else [*self.slice_names, BASE_SLICE]
        heads = {self.task_name: ("task", 0)}
        for k, name in enumerate(names):
            heads[indicator_label(self.task_name, name)] = ("indicator", k)
            heads[expert_label(self.task_name, name)] = ("expert", k)
        return heads

    def config(self) -> dict[str, Any]:
        """Return everything but the backbone and the weights, as JSON values."""
        return {
            "head_dim": self.head_dim,
            "slice_names": list(self.slice_names),
            "input_data_key": self.input_data_key,
            "task_name": self.task_name,
            "num_classes": self.num_classes,
            "expert_rank": self.expert_rank,
            "attention": self.attention_kind,
            "temperature": self.temperature,
            "class_weights": None if self.class_weights is None else self.class_weights.tolist(),
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


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Run a block in eval mode without gradients, and restore the previous mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def _head_probabilities(heads: Heads, kind: str, k: int) -> NDArray[Any]:
    if kind == "indicator":
        inside = torch.sigmoid(heads.membership[:, k])
        probabilities: Tensor = torch.stack([1 - inside, inside], dim=1)
    else:
        probabilities = torch.softmax(heads.logits if kind == "task" else heads.experts[:, k], dim=1)
    return probabilities.numpy(force=True)


class AttentiveClassifier(nn.Module):
    """A ``SliceAwareClassifier`` over an MLP, with the interface of the other learners.

    Memberships are read in training only.

    Parameters
    ----------
    backbone
        From D features to H hidden units.
    slice_names
        K distinct names.
    num_classes
        C.
    options
        Further arguments of ``SliceAwareClassifier``, by the names of its ``config()``.
    """

    def __init__(
        self,
        backbone: MLP,
        slice_names: Sequence[str],
        num_classes: int = 2,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.num_classes = backbone.in_features, num_classes
        self.slice_names = self.indicated = tuple(slice_names)
        self._backbone_config = backbone.config()
        required = {"head_dim": backbone.out_features, "slice_names": slice_names, "num_classes": num_classes}
        self.network = SliceAwareClassifier(backbone, **{**(options or {}), **required})

    def forward(self, X: Tensor) -> Tensor:
        """Return logits float[B, C]."""
        return self.network.forward(X)

    def loss(self, batch: Batch) -> Tensor:
        """Return the sum of the three losses of slice-based learning; row weights apply to the first."""
        labelled = torch.ones(len(batch.y), dtype=torch.bool)
        targets = SliceTargets(batch.slices.member.bool(), batch.slices.known, labelled)
        losses = self.network.losses(batch.X, batch.y, targets, batch.weight)
        return torch.stack(list(losses.values())).sum()

    def predict_proba(
        self, X: FeatureRows | Tensor | NDArray[np.float32], S: SliceMatrix | None = None
    ) -> NDArray[np.float64]:
        """Return float[N, C]; memberships are ignored. Raises as `models.batches.predict_in_chunks`."""
        return predict_in_chunks(as_rows(X), self.in_features, self.num_classes, lambda x, _: self.forward(x))

    def predict_indicated(self, X: FeatureRows, S: SliceMatrix) -> tuple[Floats, NDArray[np.bool_]]:
        """Return float[N, C], and the memberships by the indicators, bool[N, K]."""
        inside = np.zeros((len(X), len(self.slice_names)), np.bool_)

        def logits(x: Tensor, rows: slice) -> Tensor:
            heads = self.network.heads(x)
            inside[rows] = heads.membership[:, : inside.shape[1]].numpy(force=True) > 0
            return heads.logits

        return predict_in_chunks(X, self.in_features, self.num_classes, logits), inside

    def config(self) -> dict[str, Any]:
        """Return the arguments of ``from_config`` as JSON values."""
        return {
            "kind": "slice_aware",
            "backbone": self._backbone_config,
            "options": self.network.config(),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> AttentiveClassifier:
        """Return an untrained network built from the output of ``config()``."""
        options = config["options"]
        return cls(MLP.from_config(config["backbone"]), options["slice_names"], options["num_classes"], options)
