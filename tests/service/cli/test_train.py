"""``slicewatch train``."""

import json
from collections.abc import Callable
from pathlib import Path

from service.cli.train import learner_config
from service.settings.schema import LearnerSettings


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
