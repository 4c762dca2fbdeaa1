"""``slicewatch reference``: the file that sets the rates expected of a model served elsewhere, and their list."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from service.serving.table_reference import FOLDER, GIVEN, ReferenceSource
from service.settings.loading import load


@pytest.fixture
def external(project: Path) -> Path:
    """The orders of a model that is served elsewhere, with a file of its predictions; the settings file."""
    project.write_text(project.read_text() + "classes: [kept, returned, lost]\n")
    rows = pd.read_csv(project.parent / "orders.csv")
    rows.assign(predicted="kept", verdict="lost").to_csv(project.parent / "predictions.csv", index=False)
    return project


def test_a_file_of_predictions_becomes_the_reference(cli: Callable, external: Path) -> None:
    """It is copied for its owner only; the rows and the classes are those that were read."""
    answer = cli("reference", external.parent / "predictions.csv", "--version", 7, "--config", external)
    assert answer.code == 0, answer.err
    assert (
        "240 rows; 109 of 240 with both classes (columns predicted and class) are correct, of version 7" in answer.out
    )
    source = ReferenceSource.of(load(external, {}))
    assert (source.name, source.label, source.predicted, source.version) == ("predictions.csv", "class", "predicted", 7)
    assert source.path.read_bytes() == (external.parent / "predictions.csv").read_bytes()
    assert source.path.stat().st_mode & 0o777 == 0o600
    assert source.path.parent.stat().st_mode & 0o777 == 0o700


def test_another_file_replaces_the_first_and_the_table_both(cli: Callable, external: Path) -> None:
    """No copy is left behind."""
    folder = external.parent / ".slicewatch" / FOLDER
    first, second = external.parent / "predictions.csv", external.parent / "rows.csv"
    pd.read_csv(first).drop(columns=["predicted", "class"]).to_csv(second, index=False)
    for file, predicted in ((first, "predicted"), (second, None)):
        found = json.loads(cli("reference", file, "--json", "--config", external).out)
        assert (found["predicted_column"], found["rows"]) == (predicted, 240)
        assert len(list(folder.glob("given-*"))) == 1
    answer = cli("reference", external.parent / "orders.csv", "--config", external)
    assert "project's table" in answer.out
    assert "--predicted-column" not in answer.out
    assert list(folder.iterdir()) == []


def test_predictions_in_the_projects_table_are_not_ignored_in_silence(cli: Callable, external: Path) -> None:
    """The project's table stays the reference, and the option that uses its column is named."""
    table = external.parent / "orders.csv"
    (external.parent / "predictions.csv").replace(table)
    answer = cli("reference", table, "--config", external)
    assert "its predictions are not used without --predicted-column predicted" in answer.out
    assert not (external.parent / ".slicewatch" / FOLDER / GIVEN).exists()
    used = cli("reference", table, "--predicted-column", "predicted", "--config", external)
    assert "109 of 240 with both classes" in used.out


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--predicted-column", "verdicts"], "no column 'verdicts'; did you mean 'verdict'?"),
        (["--label-column", "shop", "--predicted-column", "verdict"], "column 'shop', row 0: 'north' is not a class"),
        (["--label-column", "none"], "--label-column and --version belong to predictions"),
    ],
)
def test_a_wrong_column_is_refused(cli: Callable, external: Path, options: list[str], reason: str) -> None:
    """Nothing is changed."""
    answer = cli("reference", external.parent / "predictions.csv", *options, "--config", external)
    assert answer.code == 2
    assert reason in answer.err
    assert not (external.parent / ".slicewatch" / FOLDER / GIVEN).exists()


def test_a_model_that_is_served_here_has_its_own_reference(cli: Callable, trained: Path) -> None:
    """The command is refused: without classes, and with a champion."""
    file = trained.parent / "orders.csv"
    assert "set `classes`" in cli("reference", file, "--config", trained).err
    trained.write_text(trained.read_text() + "classes: [kept, returned, lost]\n")
    assert "version 1 is served here" in cli("reference", file, "--config", trained).err


def test_expected_rates_are_listed(cli: Callable, service: Any) -> None:
    """A missing one has its reason, or the labels so far."""
    rate = {"value": 0.05, "count": 50, "n": 1000, "effective_n": 900}
    missing = {"n": 0, "needed": 1, "reason": "being counted on t.csv"}
    gathering = {"n": 120, "needed": 300, "reason": "the first labels"}
    slices = [
        {"name": "links", "kind": "slice", "reference": rate, "accuracy_reference": gathering},
        {"name": "short", "kind": "slice", "reference": missing, "accuracy_reference": rate},
        {"name": "__none__", "kind": "none", "reference": missing, "accuracy_reference": missing},
    ]
    note = "t.csv could not be counted: no column 'text'"
    table = {"name": "t.csv", "rows": 1000, "note": note}
    service.documents["/v1/slices?window=1h"] = {
        "model": "orders",
        "version": 7,
        "reference_table": table,
        "slices": slices,
    }
    lines = [" ".join(line.split()) for line in cli("reference", "--url", service.url).out.splitlines()]
    assert lines[:2] == [f"reference table: t.csv, 1,000 rows; {note}", ""]
    assert json.loads(cli("reference", "--json", "--url", service.url).out)["reference_table"] == table
    assert lines[4:] == ["links 5.0% 900 after 300 labels, so far 120 -", "short being counted on t.csv - 5.0% 900"]
    service.documents["/v1/alarms?state=unresolved&limit=200"] = {"alarms": [], "next": None}
    service.documents["/v1/slices?window=1h"]["slices"] = [{**slices[1], "drift": None}]
    out = cli("drift", "--url", service.url).out
    assert "yet: being counted on t.csv" in out
    assert out.startswith(f"reference table: t.csv, 1,000 rows; {note}\n\n")
    assert json.loads(cli("drift", "--json", "--url", service.url).out)["reference_table"] == table
