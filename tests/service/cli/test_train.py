"""``slicewatch train``."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from models.registry import ModelRegistry
from service.cli.train import learner_config
from service.monitor.promotion_gate import least_rows
from service.settings.loading import load
from service.settings.schema import LearnerSettings
from sfs.schema import Column


def train(cli: Callable, project: Path, *options: str) -> dict:
    answer = cli("train", "--config", project, "--json", *options)
    assert (answer.code, answer.err) == (0, "")
    return json.loads(answer.out)


def test_the_first_version_becomes_champion(cli: Callable, trained: Path) -> None:
    """The first version becomes champion, with time and reason in the history."""
    listed = json.loads(cli("models", "list", "--config", trained, "--json").out)
    assert [(one["version"], one["aliases"]) for one in listed["versions"]] == [(1, ["champion"])]
    (change,) = listed["history"]
    assert (change["reason"], change["at"]) == ("first version", "2026-05-01T00:00:00+00:00")


def test_the_same_seed_gives_the_same_bundle(cli: Callable, trained: Path) -> None:
    """Training again without a change registers nothing."""
    before = json.loads(cli("models", "list", "--config", trained, "--json").out)["versions"][0]
    again = train(cli, trained)
    assert (again["version"], again["hash"]) == (1, before["hash"])


def test_a_later_version_waits_for_promotion(cli: Callable, trained: Path) -> None:
    """A later version is registered; the champion remains, and the output has the command to promote."""
    answer = cli("train", "--config", trained, "--seed", "5", "--epochs", "1", "--learner", "weighted_erm")
    assert answer.code == 0
    assert "version 1 remains champion: promote the new one with `slicewatch models promote 2`" in answer.out


def test_the_report_stands_beside_plain_models(cli: Callable, trained: Path) -> None:
    """The table has all rows and every slice, each with n, interval and the difference from ERM."""
    out = cli("models", "show", "--config", trained).out
    assert "slice-weighted ERM" in out
    for name in ("__all__", "short_comment", "cheap", "no_price"):
        assert any(line.startswith(name) and " to " in line for line in out.splitlines())


def test_the_needs_of_monitoring_are_known_at_training(cli: Callable, trained: Path) -> None:
    """Held-out rows, the gate's minimum, and limit and labels of an accuracy alarm are those of the service."""
    document = json.loads(cli("models", "show", "--config", trained, "--json").out)
    outlook = {entry["slice"]: entry for entry in document["outlook"]}
    assert set(outlook) == {"__all__", "short_comment", "cheap", "no_price"}
    assert [name for name, entry in outlook.items() if entry["protected"]] == ["__all__", "short_comment"]
    assert {entry["gate_rows"] for entry in outlook.values()} == {least_rows(0.02)}
    for row in document["report"]["shipped"]:
        entry = outlook[row["slice"]]
        assert entry["held_out"] <= row["n"]
        if entry["alarm_below"] is not None:
            assert entry["alarm_at_target"] or entry["alarm_below"] < row["accuracy"]
            assert min(entry["labels_to_alarm"], entry["labels_to_alarm_at_half"]) > 20
    assert outlook["__all__"]["alarm_below"] is not None


def test_a_protected_slice_that_the_gate_cannot_verify_is_noted(cli: Callable, trained: Path) -> None:
    """The note has its distinct held-out rows, the gate's minimum and the missing members; a wide margin needs none."""
    outlook = json.loads(cli("models", "show", "--config", trained, "--json").out)["outlook"]
    held_out = next(entry["held_out"] for entry in outlook if entry["slice"] == "short_comment")
    out = cli("models", "show", "--config", trained).out
    assert f"Note: short_comment has {held_out} distinct held-out rows; the promotion gate needs 190" in out
    assert f"about {10 * (190 - held_out):,} more members" in out
    assert "Note: cheap has" not in out
    assert any(line.startswith("short_comment * ") for line in out.splitlines())
    wide = cli(
        "models",
        "show",
        "--config",
        trained,
        SLICEWATCH_RETRAIN_MARGIN="0.9",
        SLICEWATCH_RETRAIN_MINIMUM_ROWS="2",
    )
    assert "the promotion gate needs" not in wide.out


def test_a_target_is_the_limit_of_a_slice_with_few_held_out_rows(cli: Callable, trained: Path) -> None:
    """The table marks it, and has the labels of two falls; so has the document."""
    out = cli("models", "show", "--config", trained).out
    (line,) = (line for line in out.splitlines() if line.startswith("short_comment * "))
    assert " 90.0% (target) " in line
    labels = [int(cell.replace(",", "")) for cell in line.split()[-2:]]
    assert 10 < labels[1] < labels[0] < 1_000
    document = json.loads(cli("models", "show", "--config", trained, "--json").out)
    entry = next(entry for entry in document["outlook"] if entry["slice"] == "short_comment")
    assert (entry["target"], entry["alarm_at_target"], entry["alarm_below"]) == (0.9, True, 0.9)
    assert [entry["labels_to_alarm"], entry["labels_to_alarm_at_half"]] == labels
    assert "the held-out rows of short_comment" not in out


def test_a_slice_with_a_target_and_no_held_out_row_is_in_the_table(cli: Callable, project: Path) -> None:
    """Its alarm is at its target, and the version is there."""
    file = project.parent / "slices.py"
    text = file.read_text() + "\n\n@slicing_function(target=0.75)\ndef rare(x):\n    return x.text == 'never'\n"
    file.write_text(text)
    out = cli("train", "--config", project, "--epochs", "1", "--learner", "erm").out
    (line,) = (line for line in out.splitlines() if line.startswith("rare ") and "(target)" in line)
    assert line.split()[:4] == ["rare", "0", "75.0%", "(target)"]
    assert "\n\nversion 1" in out


def test_a_protected_slice_with_a_wide_band_and_no_target_is_noted(cli: Callable, project: Path) -> None:
    """The note says that a target is monitored whatever the number of held-out rows."""
    file = project.parent / "slices.py"
    file.write_text(file.read_text().replace(", target=0.9", ""))
    out = cli("train", "--config", project, "--epochs", "1", "--learner", "erm").out
    assert "Note: the held-out rows of __all__" not in out
    told = r"set (the accuracy alarm as low as [\d.]+%|no accuracy alarm)\. A `target`"
    assert re.search(f"Note: the held-out rows of short_comment {told} is", out)


def test_train_prints_what_models_show_prints(cli: Callable, project: Path) -> None:
    """The report and the needs of monitoring are printed after a training, and again on request."""
    trained = cli("train", "--config", project).out.split("\n\nversion 1")[0]
    assert "the promotion gate needs 190" in trained
    assert "target" in trained
    assert cli("models", "show", "--config", project).out.rstrip().endswith(trained)


def test_a_faulty_function_is_reported_and_not_fatal(cli: Callable, project: Path) -> None:
    """A function that raises or answers junk leaves its own slice unknown; training goes on."""
    with (project.parent / "slices.py").open("a") as file:
        file.write("\n\n@slicing_function()\ndef raises(x):\n    return x['nowhere']\n")
        file.write("\n\n@slicing_function()\ndef junk(x):\n    return 0.7\n")
    report = train(cli, project)["report"]
    unknown = {row["slice"]: row["unknown"] for row in report["shipped"]}
    assert unknown["raises"] == unknown["junk"] == report["rows"]["held_out"]
    assert unknown["cheap"] == 0


def test_settings_reach_the_learner() -> None:
    """Every learner setting has a place in the learner's configuration; the rest keeps its default."""
    config = learner_config(LearnerSettings("erm", 3, (8, 4), 0.1, 16, 9, 7))
    assert (config.kind, config.n_epochs, config.widths) == ("erm", 3, (8, 4))
    assert (config.lr, config.batch_size, config.max_search_rows, config.seed) == (0.1, 16, 9, 7)
    assert learner_config(LearnerSettings()).n_epochs > 1


def test_the_types_in_the_settings_are_those_of_the_bundle(cli: Callable, project: Path, table_file: Path) -> None:
    """A code that the table spells as a number is text where the settings say so, and a mark is missing."""
    frame = pd.read_csv(table_file)
    zips = ["501" if n % 3 else "-" for n in range(len(frame))]
    frame.assign(zip=zips).to_csv(table_file, index=False)
    types = "schema:\n  zip: {type: category, width: 5, missing: '-'}\n"
    project.write_text(f"{project.read_text()}{types}")
    train(cli, project, "--epochs", "1", "--learner", "erm")
    schema = ModelRegistry(project.with_name(".slicewatch") / "registry", name=load(project, {}).name).schema(1)
    assert schema.columns["zip"] == Column("zip", "category", width=5, missing=("-",))
    assert schema.parse_record({"zip": 501}) == schema.parse_record({"zip": "00501 "}) == {"zip": "00501"}
    assert schema.parse_record({"zip": "-"}) == {"zip": None}
    assert schema.columns["country"].type == "category"
