"""``slicewatch models``."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.registry import ModelRegistry


@pytest.fixture
def two(cli: Callable, trained: Path) -> Path:
    """A project with two versions, the first of which is champion."""
    assert cli("train", "--config", trained, "--seed", "5", "--epochs", "1").code == 0
    return trained


def test_promotion_and_rollback_change_the_champion(cli: Callable, two: Path) -> None:
    """Changes are printed, and kept in the history with their reasons."""
    assert (
        "version 2 is the champion, in place of version 1"
        in cli("models", "promote", "2", "--reason", "better", "--by", "ada", "--config", two).out
    )
    back = cli("models", "rollback", "--config", two, "--json")
    assert json.loads(back.out) == {"champion": 1, "before": 2}
    history = json.loads(cli("models", "list", "--config", two, "--json").out)["history"]
    assert [(one["version"], one["change"], one["reason"]) for one in history] == [
        (1, "promote", "first version"),
        (2, "promote", "better (ada)"),
        (1, "rollback", "by hand"),
    ]


def test_the_list_marks_the_champion(cli: Callable, two: Path) -> None:
    """The table has the alias of a version, and the history follows."""
    out = cli("models", "list", "--config", two).out
    assert "1  champion" in out
    assert "first version" in out


def test_show_names_slices_and_features(cli: Callable, trained: Path) -> None:
    """A version is shown with its features, classes, slices and report."""
    shown = json.loads(cli("models", "show", "1", "--config", trained, "--json").out)
    assert shown["slices"] == ["short_comment", "cheap", "no_price"]
    assert shown["classes"] == ["kept", "lost", "returned"]
    assert shown["features"]["Price [eur]"] == "number"
    assert shown["report"]["shipped"][0]["slice"] == "__all__"


def test_a_lost_race_fails(cli: Callable, two: Path) -> None:
    """Another champion than --expected ends with code 1, and nothing changes."""
    answer = cli("models", "promote", "2", "--expected", "2", "--config", two)
    assert answer.code == 1
    assert "another process changed it" in answer.err
    assert "1  champion" in cli("models", "list", "--config", two).out


@pytest.mark.parametrize("version", ["9", "best", "-1", "1.5"])
def test_an_unknown_version_is_misuse(cli: Callable, trained: Path, version: str) -> None:
    """An unknown number or alias ends with code 2."""
    for action in ("show", "promote"):
        answer = cli("models", action, "--config", trained, "--", version)
        assert (answer.code, answer.out) == (2, "")
        assert version.lstrip("-") in answer.err


def test_nothing_to_roll_back_to_fails(cli: Callable, trained: Path) -> None:
    """The first champion cannot be rolled back."""
    answer = cli("models", "rollback", "--config", trained)
    assert answer.code == 1
    assert "no earlier version" in answer.err


@pytest.mark.parametrize("argv", [["list"], ["show"], ["promote", "1"], ["rollback"]])
def test_without_a_registry_train_comes_first(cli: Callable, project: Path, argv: list[str]) -> None:
    """Before the first training, every action ends with code 2 and the command to run."""
    answer = cli("models", *argv, "--config", project)
    assert answer.code == 2
    assert "run `slicewatch train` first" in answer.err


def test_a_tampered_bundle_is_refused(cli: Callable, trained: Path) -> None:
    """An altered file is named by every command that reads it, with code 1."""
    weights = next(trained.parent.rglob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(bytes(content))
    out = trained.parent / "out.csv"
    data = trained.parent / "orders.csv"
    for argv in (
        ["models", "show"],
        ["models", "promote", "1"],
        ["apply", data, "--out", out, "--with-predictions"],
    ):
        answer = cli(*argv, "--config", trained)
        assert (answer.code, answer.err.count("\n")) == (1, 1)
        assert weights.name in answer.err
    assert not out.exists()
    assert "was altered" in cli("doctor", "--config", trained).out


def test_promoting_the_champion_changes_nothing(cli: Callable, trained: Path) -> None:
    """Promoting the champion is a note, and the history does not change."""
    answer = cli("models", "promote", "1", "--config", trained)
    assert (answer.code, answer.out) == (0, "")
    assert "already the champion" in answer.err
    assert len(json.loads(cli("models", "list", "--config", trained, "--json").out)["history"]) == 1


def test_a_champion_that_is_gone_is_named(cli: Callable, two: Path) -> None:
    """With a missing champion, list warns and show fails."""
    shutil.rmtree(next(two.parent.rglob("versions/000001")))
    assert "champion of 'orders' is version 1, which is missing" in cli("models", "list", "--config", two).err
    answer = cli("models", "show", "--config", two)
    assert answer.code == 1
    assert "restore its folder" in answer.err


@pytest.fixture
def serving(service: Any, two: Path) -> tuple[Any, dict[str, str]]:
    """Stub service of these two versions, and the variables with its port."""
    versions = ModelRegistry(two.parent / ".slicewatch" / "registry", "orders").list()
    told = [{"version": each.number, "hash": each.hash} for each in versions]
    service.documents["/v1/models"] = {"model": "orders", "models": told}
    return service, {"SLICEWATCH_SERVE_PORT": str(service.server_port)}


def test_the_running_service_changes_the_champion(cli: Callable, two: Path, serving: Any) -> None:
    """A running service is asked for the change, and the registry is left to it."""
    service, environ = serving
    service.documents["/v1/models/2/promote"] = {"champion": 2, "before": 1}
    service.documents["/v1/models/rollback"] = {"champion": 1, "before": 2}
    promoted = cli("models", "promote", "2", "--reason", "better", "--config", two, **environ)
    author = ("--by", "ada", "--note", "worse on links")
    back = cli("models", "rollback", *author, "--config", two, "--json", **environ)
    assert promoted.out == "version 2 is the champion, in place of version 1\n"
    assert json.loads(back.out) == {"champion": 1, "before": 2}
    by = {"by": "the command line"}
    assert service.received == [
        ("/v1/models/2/promote", {"reason": "better", "expected": 1} | by),
        ("/v1/models/rollback", {"reason": "worse on links", "by": "ada"}),
    ]
    assert len(json.loads(cli("models", "list", "--config", two, "--json").out)["history"]) == 1


@pytest.mark.parametrize("change", [{"model": "books"}, {"models": [{"version": 1, "hash": "another"}]}])
def test_another_projects_service_changes_nothing_here(
    cli: Callable, two: Path, serving: Any, change: dict[str, Any]
) -> None:
    """If another model or other versions are served, the project's own registry is changed."""
    service, environ = serving
    service.documents["/v1/models"] |= change
    assert cli("models", "promote", "2", "--config", two, **environ).code == 0
    assert service.received == []
    assert "2  champion" in cli("models", "list", "--config", two).out
