"""What a slice-aware classifier answers for the labels of a loader, and how well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.dataset import DictDataLoader
from models.errors import DataError
from models.scoring import Scorer
from models.snorkel_labels import BASE_SLICE, expert_label, indicator_label

if TYPE_CHECKING:
    from models.slice_aware import Heads, SliceAwareClassifier

_COLUMNS = ["label", "dataset", "split", "metric", "score"]


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Switch to eval mode without gradients, and back to the mode there was."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(was_training)


def slice_heads(task_name: str, slice_names: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Return by label which head answers it: ``task``, or ``indicator`` or ``expert`` k; the base is last.

    Parameters
    ----------
    task_name
        What the task's labels are called.
    slice_names
        The K slices in the order of the heads.
    """
    names = [*slice_names] if BASE_SLICE in slice_names else [*slice_names, BASE_SLICE]
    heads = {task_name: ("task", 0)}
    for k, name in enumerate(names):
        heads[indicator_label(task_name, name)] = ("indicator", k)
        heads[expert_label(task_name, name)] = ("expert", k)
    return heads


def slices_to_task(task_name: str, slice_names: Sequence[str]) -> dict[str, str | None]:
    """Return the mapping that judges every slice's members by the final prediction, and no indicators.

    Parameters are those of ``slice_heads``.
    """
    heads = slice_heads(task_name, slice_names)
    return {label: None if kind == "indicator" else task_name for label, (kind, _) in heads.items()}


def predict(
    model: SliceAwareClassifier,
    dataloader: DictDataLoader,
    return_preds: bool,
    remap_labels: Mapping[str, str | None],
) -> dict[str, dict[str, NDArray[Any]]]:
    """Return ``golds`` [N], ``probs`` float[N, C] and if asked ``preds`` int[N], each by label.

    Parameters
    ----------
    model
        The network, left in the mode that it was in.
    dataloader
        Batches with the labels of any heads; where it has none, the task is answered.
    return_preds
        Whether to add the likeliest class of every row.
    remap_labels
        For a label, the one whose head answers it, or None to leave it out.

    Raises
    ------
    DataError
        If a label is to be answered by a head that does not exist.
    """
    heads = slice_heads(model.task_name, model.slice_names)
    present = [label for label in heads if label in dataloader.dataset.Y_dict] or [model.task_name]
    head_of = {label: target for label in present if (target := remap_labels.get(label, label)) is not None}
    for target in head_of.values():
        if target not in heads:
            raise DataError(f"there is no head {target!r} to answer a label; the heads are {list(heads)}")
    golds, probs = _collect(model, dataloader, head_of, heads)
    out = {"golds": golds, "probs": probs}
    if return_preds:
        out["preds"] = {label: values.argmax(axis=1) for label, values in probs.items()}
    return out


def _collect(
    model: SliceAwareClassifier,
    dataloader: DictDataLoader,
    head_of: Mapping[str, str],
    heads: Mapping[str, tuple[str, int]],
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    golds: dict[str, list[NDArray[Any]]] = {}
    probs: dict[str, list[NDArray[Any]]] = {}
    with evaluating(model):
        for X_dict, Y_dict in dataloader:
            answers = model.heads(X_dict[model.input_data_key])
            by_head = {head: _probabilities(answers, *heads[head]) for head in set(head_of.values())}
            for label, head in head_of.items():
                probs.setdefault(label, []).append(by_head[head])
                if label in Y_dict:
                    golds.setdefault(label, []).append(Y_dict[label].numpy(force=True))
    return _concatenated(golds), _concatenated(probs)


def _concatenated(parts: Mapping[str, list[NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {label: np.concatenate(arrays) for label, arrays in parts.items()}


def _probabilities(heads: Heads, kind: str, k: int) -> NDArray[Any]:
    if kind == "indicator":
        inside = torch.sigmoid(heads.membership[:, k])
        answer: Tensor = torch.stack([1 - inside, inside], dim=1)
    else:
        answer = torch.softmax(heads.logits if kind == "task" else heads.experts[:, k], dim=1)
    return answer.numpy(force=True)


def score(
    model: SliceAwareClassifier,
    dataloaders: Sequence[DictDataLoader],
    remap_labels: Mapping[str, str | None],
    as_dataframe: bool,
) -> dict[str, float | None] | pd.DataFrame:
    """Return every label's metrics under label/dataset/split/metric; None has nothing to score.

    Parameters
    ----------
    model
        The network; its scorer measures all labels but those of indicators, whose F1 counts.
    dataloaders
        One or more, told apart by their datasets' names and splits.
    remap_labels
        As in ``predict``.
    as_dataframe
        Whether to return a row per score instead.

    Raises
    ------
    DataError
        If a label is to be answered by a head that does not exist.
    """
    heads = slice_heads(model.task_name, model.slice_names)
    rows: list[tuple[str, str, str, str, float | None]] = []
    for loader in dataloaders:
        answers = predict(model, loader, True, remap_labels)
        for label, gold in answers["golds"].items():
            indicates = heads[remap_labels.get(label) or label][0] == "indicator"
            scorer = Scorer(metrics=["f1"]) if indicates else model.scorer
            metrics = scorer.score_known(gold, answers["preds"][label], answers["probs"][label])
            rows += [(label, loader.dataset.name, loader.dataset.split, *item) for item in metrics.items()]
    if as_dataframe:
        return pd.DataFrame(rows, columns=_COLUMNS)
    return {"/".join(row[:4]): row[4] for row in rows}
