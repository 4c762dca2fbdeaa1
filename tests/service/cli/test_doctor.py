"""``slicewatch doctor``."""

import json
from collections.abc import Callable
from pathlib import Path


def findings(answer: object) -> dict[str, tuple[str, str]]:
    return {one["what"]: (one["state"], one["detail"]) for one in json.loads(answer.out)["findings"]}


def test_without_a_project_the_installation_is_checked(cli: Callable, tmp_path: Path) -> None:
    """A missing settings file is a note."""
    answer = cli("doctor", "--config", tmp_path / "absent.yaml", "--json")
    found = findings(answer)
    assert answer.code == 0
    assert found["settings"][0] == "note"
    assert found["torch"][0] == found["python"][0] == "ok"


def test_a_trained_project_is_proved(cli: Callable, trained: Path) -> None:
    """The champion is loaded, which checks its hash and golden batch."""
    answer = cli("doctor", "--config", trained, "--json")
    found = findings(answer)
    assert (answer.code, found["registry"][0], found["functions"]) == (0, "ok", ("ok", "3 loaded"))
    assert "golden batch reproduced" in found["registry"][1]


def test_an_untrained_project_is_sound(cli: Callable, project: Path) -> None:
    """A missing registry is a note."""
    answer = cli("doctor", "--config", project)
    assert answer.code == 0
    assert "no model trained yet" in answer.out


def test_broken_parts_fail(cli: Callable, project: Path, table_file: Path) -> None:
    """Missing data and a broken file of functions are reported together, with code 1."""
    table_file.unlink()
    project.with_name("slices.py").write_text("1 / 0")
    answer = cli("doctor", "--config", project, "--json")
    found = findings(answer)
    assert answer.code == 1
    assert (found["data"][0], found["functions"][0]) == ("broken", "broken")


def test_broken_settings_fail(cli: Callable, project: Path) -> None:
    """Each problem of the settings is a finding."""
    project.write_text("colour: red\n")
    answer = cli("doctor", "--config", project)
    assert answer.code == 1
    assert "unknown setting 'colour'" in answer.out


def test_variables_are_shown(cli: Callable, project: Path) -> None:
    """An override is listed with its setting; an unknown variable is listed as ignored."""
    out = cli("doctor", "--config", project, SLICEWATCH_LEARNER_SEED="3", SLICEWATCH_LERNER_SEED="3").out
    assert "SLICEWATCH_LEARNER_SEED overrides 'learner.seed'" in out
    assert "not a setting, ignored: SLICEWATCH_LERNER_SEED" in out
