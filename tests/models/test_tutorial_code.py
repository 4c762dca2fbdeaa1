"""Both slicing tutorials of Snorkel run to their end on their own data, and print what the notebooks print."""

from pathlib import Path

import pytest
from tutorial_code import Newer, Older, newer, older

from models.comments.public import youtube_tutorial_split

pytestmark = pytest.mark.data

OLDER_SLICES = [
    "short_link",
    "keyword_subscribe",
    "keyword_please",
    "regex_check_out",
    "short_comment",
    "textblob_polarity",
]
NEWER_SLICES = ["short_comment", "keyword_please", "regex_check_out", "short_link", "textblob_polarity"]
SCORE_COLUMNS = ["label", "dataset", "split", "metric", "score"]


@pytest.fixture(scope="module")
def first(data_dir: Path) -> Older:
    """The older tutorial on the 80 most frequent words."""
    return older(youtube_tutorial_split(data_dir / "youtube-spam"), words=80, epochs=(15, 12))


@pytest.fixture(scope="module")
def second(data_dir: Path) -> Newer:
    """The newer one on the same words."""
    return newer(youtube_tutorial_split(data_dir / "youtube-spam"), words=80, epochs=25)


def test_the_older_tutorial_slices_and_trains_without_slices(first: Older) -> None:
    """Five short links; scores of training and validation rows; missed spam by its bucket."""
    assert list(first.linked["label"]) == [1, 1, 1, 1, 1]
    assert list(first.plain.columns) == SCORE_COLUMNS
    assert first.plain[["label", "dataset", "split", "metric"]].to_numpy().tolist() == [
        ["spam_task", "spam_dataset", split, metric] for split in ("train", "valid") for metric in ("accuracy", "f1")
    ]
    assert first.plain["score"].min() > 0.7
    assert set(first.missed["label"]) == {1}


def test_the_older_tutorial_monitors_a_slice(first: Older) -> None:
    """Labels of the slice and the base slice are added; the slice's are scored by the task, others are left out."""
    labels = ["spam_task", *(f"spam_task_slice:{s}_{kind}" for s in ("short_link", "base") for kind in ("ind", "pred"))]
    assert first.dataset == f"DictDataset(name=spam_dataset, X_keys=['bow_features'], Y_keys={labels})"
    assert first.monitored[["label", "split"]].drop_duplicates().to_numpy().tolist() == [
        [label, split] for split in ("valid", "test") for label in ("spam_task", "spam_task_slice:short_link_pred")
    ]
    assert list(first.one.columns) == ["accuracy", "f1"]
    assert list(first.one.index) == ["overall", "short_link"]
    assert list(first.all.index) == ["overall", *OLDER_SLICES]


def test_the_older_tutorial_trains_slice_tasks(first: Older) -> None:
    """Fifteen tasks, scores of each on the validation rows, and at the end all slices by the task's own head."""
    names = [f"spam_task_slice:{s}_{kind}" for kind in ("ind", "pred") for s in (*OLDER_SLICES, "base")]
    assert first.tasks == [f"Task(name={name})" for name in (*names, "spam_task")]
    assert {"model/all/train/loss", "model/all/train/lr", "spam_task/spam_dataset/valid/f1"} <= set(first.metrics)
    assert {f"{name}/spam_dataset/valid/f1" for name in names} <= set(first.metrics)
    scored = {"spam_task", *(name for name in names if name.endswith("_pred"))}
    assert set(first.sliced["label"]) == scored
    score = first.sliced.set_index(["label", "split", "metric"])["score"]
    assert score["spam_task", "test", "accuracy"] == score["spam_task_slice:base_pred", "test", "accuracy"] > 0.85


def test_the_newer_tutorial_trains_a_slice_aware_classifier(second: Newer) -> None:
    """A table of F1 with a row for the task and each slice, in their order, as in the notebook."""
    assert len(second.short) == 92
    assert list(second.one.index) == ["overall", "short_comment"]
    assert list(second.all.index) == ["overall", *NEWER_SLICES]
    labels = ["task", *(f"task_slice:{name}_pred" for name in (*NEWER_SLICES, "base"))]
    assert second.sliced[["label", "dataset", "split", "metric"]].to_numpy().tolist() == [
        [label, "SnorkelDataset", "test", "f1"] for label in labels
    ]
    score = second.sliced.set_index("label")["score"]
    assert score["task"] == score["task_slice:base_pred"] > 0.85
    assert score["task_slice:short_comment_pred"] > 0.3
