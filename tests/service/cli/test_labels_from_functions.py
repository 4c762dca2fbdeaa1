"""``labels: from functions``: `check`, `train` and `apply` on a table whose rows mostly have no label."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from models.features import FeatureSpec
from models.splits import content_hashes, held_out

FUNCTIONS = """

from sfs import labeling_function

KEPT, LOST, RETURNED = 0, 1, 2


@labeling_function()
def exclaims(x):
    return LOST if "!" in (x["Customer's comment: (raw)"] or "") else -1


@labeling_function()
def dear(x):
    price = x["Price [eur]"]
    return RETURNED if price is not None and price > 100 else -1


@labeling_function()
def inexpensive(x):
    price = x["Price [eur]"]
    return KEPT if price is not None and price < 60 else -1
"""


@pytest.fixture
def partly(project: Path, table_file: Path) -> Path:
    """The project with three labeling functions, and a label in 100 of 240 rows."""
    frame = pd.read_csv(table_file)
    frame.loc[frame.index >= 100, "class"] = None
    frame.to_csv(table_file, index=False)
    with project.with_name("slices.py").open("a") as file:
        file.write(FUNCTIONS)
    project.write_text(project.read_text() + "labels: from functions\n")
    return project


def test_check_explains_where_labels_come_from(cli: Callable, partly: Path) -> None:
    """Rows without a label, and for which classes each function votes, in text and JSON."""
    answer = cli("check", "--config", partly)
    assert (answer.code, answer.err) == (0, "")
    assert "labels from functions: 140 of 240 rows have no label. Of 240 sampled rows" in answer.out
    assert any(line.split()[:2] == ["dear", "returned"] for line in answer.out.splitlines())
    labels = json.loads(cli("check", "--config", partly, "--json").out)["labels"]
    assert (labels["rows"], labels["unlabelled"], labels["sampled_unlabelled"]) == (240, 140, 140)
    assert [each["classes"] for each in labels["functions"]] == [["lost"], ["returned"], ["kept"]]
    assert 0 < labels["conflict"] <= labels["overlap"] < labels["coverage"] < 1


def test_train_reports_the_labels_of_functions(cli: Callable, partly: Path, table_file: Path) -> None:
    """Rows, coverage and accuracies, and held-out rows with a true label only; the version remembers them."""
    answer = cli("train", "--config", partly)
    assert (answer.code, answer.err) == (0, "")
    assert "Labels from functions: " in answer.out
    assert "estimated accuracy" in answer.out
    assert "Labels from functions: " in cli("models", "show", "--config", partly).out
    document = json.loads(cli("models", "show", "--config", partly, "--json").out)["report"]
    frame = pd.read_csv(table_file)
    out = held_out(content_hashes(frame, [FeatureSpec("Customer's comment: (raw)", "text")]))
    labels = document["labels"]
    assert labels["given"] == sum(document["rows"].values()) == 100
    assert labels["labelled"] + labels["abstained"] + labels["set_aside"] == 140
    assert 0 < document["rows"]["held_out"] < out.sum()
    assert [each["name"] for each in labels["functions"]] == ["exclaims", "dear", "inexpensive"]


def test_the_split_of_rows_without_a_label_is_none(cli: Callable, partly: Path, tmp_path: Path) -> None:
    """As `train` splits these rows."""
    assert cli("train", "--config", partly).code == 0
    rows = json.loads(cli("models", "show", "--config", partly, "--json").out)["report"]["rows"]
    out = tmp_path / "split.csv"
    answer = cli("apply", tmp_path / "orders.csv", "--config", partly, "--with-split", "--out", out)
    assert answer.code == 0
    written = pd.read_csv(out)
    assert written["split"].value_counts().to_dict() == rows
    assert written.loc[written["class"].isna(), "split"].isna().all()


@pytest.mark.parametrize("command", ["check", "train"])
def test_without_labeling_functions_the_setting_is_refused(cli: Callable, partly: Path, command: str) -> None:
    """With the decorator to use."""
    file = partly.with_name("slices.py")
    file.write_text(file.read_text().replace(FUNCTIONS, ""))
    answer = cli(command, "--config", partly)
    assert answer.code == 2
    assert "labels: `from functions` needs labeling functions: decorate some with @labeling_function()" in answer.err


@pytest.mark.parametrize("command", ["check", "train"])
def test_too_few_labels_are_refused_with_their_counts(
    cli: Callable, partly: Path, table_file: Path, command: str
) -> None:
    """Before training, and in training."""
    frame = pd.read_csv(table_file)
    frame.loc[frame.index >= 12, "class"] = None
    frame.to_csv(table_file, index=False)
    answer = cli(command, "--config", partly)
    assert answer.code != 0
    assert "12 of 240 rows have a label in 'class' (kept: " in answer.err


@pytest.mark.parametrize("command", ["check", "train"])
def test_a_vote_for_no_class_is_refused(cli: Callable, partly: Path, command: str) -> None:
    """With the classes and their numbers."""
    with partly.with_name("slices.py").open("a") as file:
        file.write("\n\n@labeling_function()\ndef fourth(x):\n    return 3\n")
    answer = cli(command, "--config", partly)
    assert answer.code != 0
    assert "'fourth' returned 3, and the classes are 0 kept, 1 lost, 2 returned" in answer.err


def test_without_the_setting_blank_labels_are_refused(cli: Callable, partly: Path) -> None:
    """Functions alone label nothing."""
    partly.write_text(partly.read_text().replace("labels: from functions", "labels: given"))
    assert "140 of 240 rows have no 'class'" in cli("check", "--config", partly).err
    assert "blank in 140 of 240 rows" in cli("train", "--config", partly).err


def test_another_value_of_the_setting_is_refused(cli: Callable, partly: Path) -> None:
    """With the choices."""
    partly.write_text(partly.read_text().replace("labels: from functions", "labels: guessed"))
    assert "'labels': 'guessed' is not one of given, from functions" in cli("check", "--config", partly).err
