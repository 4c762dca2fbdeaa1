"""Predicting and scoring through loaders."""

import numpy as np
import pytest
import torch
from torch import nn

from models.dataset import DictDataLoader, DictDataset
from models.errors import DataError
from models.scoring import Scorer
from models.seeding import seeded
from models.slice_aware import SliceAwareClassifier
from sfs.matrix import SliceMatrix


def build(sliced, names=("flipped", "half", "tail"), task: str = "task", S: SliceMatrix | None = None):
    """A fresh classifier with its loader of split 'test'."""
    with seeded(1):
        model = SliceAwareClassifier(nn.Linear(6, 8), 8, list(names), task_name=task)
    dataset = DictDataset.from_tensors(sliced.X, sliced.y, "test", task_name=task)
    matrix = S or SliceMatrix(names, sliced.S.member)
    return model, model.make_slice_dataloader(dataset, matrix, batch_size=64)


def test_slices_are_scored_by_the_final_prediction(sliced) -> None:
    """Every slice's accuracy is that of predict_proba on its members."""
    model, loader = build(sliced)
    scores = model.score_slices([loader])
    right = model.predict_proba(sliced.X).argmax(axis=1) == sliced.y.numpy()
    assert scores["task/SnorkelDataset/test/accuracy"] == pytest.approx(right.mean())
    assert scores["task_slice:base_pred/SnorkelDataset/test/accuracy"] == pytest.approx(right.mean())
    for name in sliced.S.names:
        expected = right[sliced.S.column(name)].mean()
        assert scores[f"task_slice:{name}_pred/SnorkelDataset/test/accuracy"] == pytest.approx(expected)
    assert not any(key.split("/")[0].endswith("_ind") for key in scores)


def test_an_empty_slice_is_a_value(sliced) -> None:
    """In Snorkel one slice without members ended the whole call: here its scores are None."""
    member = sliced.S.member.copy()
    member[:, 2] = False
    model, loader = build(sliced, S=SliceMatrix(sliced.S.names, member))
    for scores in (model.score_slices([loader]), model.score([loader])):
        assert scores["task_slice:tail_pred/SnorkelDataset/test/f1"] is None
        assert scores["task/SnorkelDataset/test/f1"] is not None


@pytest.mark.parametrize("task", ["kind", "prediction", "ind", "pred"])
def test_labels_are_told_apart_whole(sliced, task: str) -> None:
    """Snorkel looked for 'ind' and 'pred' anywhere in a name: tasks and slices may contain both."""
    names = ("pred_high", "wind", "x_ind")
    model, loader = build(sliced, names, task)
    labels = {key.split("/")[0] for key in model.score_slices([loader])}
    assert labels == {task} | {f"{task}_slice:{name}_pred" for name in (*names, "base")}


def test_a_frame_holds_any_name(sliced) -> None:
    """A slash in a name breaks nothing."""
    model, loader = build(sliced, ("a/b", "c.d", "e"))
    frame = model.score_slices([loader], as_dataframe=True)
    assert list(frame.columns) == ["label", "dataset", "split", "metric", "score"]
    assert "task_slice:a/b_pred" in set(frame["label"])


def test_score_asks_every_head_for_its_own_label(sliced) -> None:
    """Indicators are scored by F1 on memberships, experts on their members."""
    model, loader = build(sliced)
    scores = model.score([loader])
    answers = model.predict(loader, return_preds=True)
    said, member = answers["preds"]["task_slice:half_ind"], sliced.S.column("half")
    expected = 2 * (said & member).sum() / (said.sum() + member.sum())
    assert scores["task_slice:half_ind/SnorkelDataset/test/f1"] == pytest.approx(expected)
    members = answers["golds"]["task_slice:half_pred"] != -1
    right = (answers["preds"]["task_slice:half_pred"] == sliced.y.numpy())[members]
    assert scores["task_slice:half_pred/SnorkelDataset/test/accuracy"] == pytest.approx(right.mean())


def test_labels_can_be_left_out_and_answered_by_others(sliced) -> None:
    """A label mapped to None is not scored; one mapped to the task is answered by it."""
    model, loader = build(sliced)
    remap = dict.fromkeys(loader.dataset.Y_dict) | {"task_slice:half_pred": "task"}
    answers = model.predict(loader, remap_labels=remap)
    assert list(answers["probs"]) == ["task_slice:half_pred"]
    assert answers["probs"]["task_slice:half_pred"] == pytest.approx(model.predict_proba(sliced.X), abs=1e-6)


def test_a_head_that_does_not_exist_is_named(sliced) -> None:
    """Mapping a label to nothing known is an error."""
    model, loader = build(sliced)
    with pytest.raises(DataError, match="no head 'spam'"):
        model.score([loader], remap_labels={"task": "spam"})


def test_predictions_without_labels(sliced) -> None:
    """A loader without any label gives the task's probabilities, where Snorkel gave nothing."""
    model, _ = build(sliced)
    bare = DictDataLoader(DictDataset("d", "test", {"input_data": sliced.X}, {}), batch_size=64)
    answers = model.predict(bare, return_preds=True)
    assert answers["golds"] == {}
    assert answers["probs"]["task"] == pytest.approx(model.predict_proba(sliced.X), abs=1e-6)
    assert answers["preds"]["task"].shape == (200,)


def test_near_ties_do_not_depend_on_the_row(sliced) -> None:
    """In Snorkel the class of a near-tie came from the row's position: equal rows get equal classes."""
    model, _ = build(sliced)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
    same = DictDataset.from_tensors(sliced.X[:1].expand(20, -1), torch.zeros(20, dtype=torch.long), "test")
    loader = DictDataLoader(same, batch_size=7)
    assert len(set(model.predict(loader, return_preds=True)["preds"]["task"].tolist())) == 1


def test_the_models_scorer_is_its_own(sliced) -> None:
    """Other metrics come from the scorer that the model was given; two models share none by default."""
    first, loader = build(sliced)
    second, _ = build(sliced)
    assert first.scorer is not second.scorer
    first.scorer = Scorer(metrics=["matthews_corrcoef"])
    assert "task/SnorkelDataset/test/matthews_corrcoef" in first.score_slices([loader])
    assert np.isfinite(first.score_slices([loader])["task/SnorkelDataset/test/matthews_corrcoef"])
