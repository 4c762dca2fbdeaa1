"""Rules and alerts, checked by promtool, which the tests require."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

SUITES = (
    "accuracy",
    "coverage",
    "drift",
    "functions",
    "incidents",
    "labels",
    "operations",
    "retraining",
    "service",
    "store",
    "tasks",
)


@pytest.fixture
def folder(root: Path) -> Path:
    """Folder of the Prometheus configuration."""
    return root / "deploy" / "prometheus"


def alerts(folder: Path) -> list[dict[str, object]]:
    groups = yaml.safe_load((folder / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_the_configuration_is_valid(folder: Path) -> None:
    """promtool accepts it and finds both rule files."""
    result = promtool("check", "config", "prometheus.yml", folder=folder)
    assert result.returncode == 0, result.stderr
    assert "2 rule files found" in result.stdout


def test_the_rules_pass_the_linter(folder: Path) -> None:
    """All checks pass; warnings are errors."""
    result = promtool("check", "rules", "--lint=all", "--lint-fatal", "rules.yml", "alerts.yml", folder=folder)
    assert result.returncode == 0, result.stdout + result.stderr


def with_needed_rules(folder: Path, suite: str, out: Path) -> Path:
    """Copy a test file with the rules that it depends on: promtool evaluates all rules, at every step of every test."""
    text = (folder / "tests" / f"{suite}.yml").read_text()
    groups = [
        (file, group) for file in ("rules.yml", "alerts.yml")
        for group in yaml.safe_load((folder / file).read_text())["groups"]
    ]  # fmt: skip
    rules = {name_of(rule): str(rule) for _, group in groups for rule in group["rules"]}
    needed, unread = set[str](), [text]
    while unread:
        read = unread.pop()
        found = {name for name in rules.keys() - needed if re.search(rf"(?<![\w:]){name}(?![\w:])", read)}
        needed |= found
        unread += [rules[name] for name in found]
    for file in ("rules.yml", "alerts.yml"):
        kept = [
            group | {"rules": [rule for rule in group["rules"] if name_of(rule) in needed]}
            for its_file, group in groups
            if its_file == file
        ]
        (out / file).write_text(yaml.safe_dump({"groups": [group for group in kept if group["rules"]]}))
    (out / "tests").mkdir()
    (out / "tests" / f"{suite}.yml").write_text(text)
    return out


def name_of(rule: Mapping[str, object]) -> str:
    """Return the name of an alert, or of a recorded series."""
    return str(rule.get("alert") or rule["record"])


@pytest.mark.parametrize("suite", SUITES)
def test_alerts_fire_and_stay_silent_when_they_should(folder: Path, suite: str, tmp_path: Path) -> None:
    """The promtool tests pass."""
    result = promtool("test", "rules", f"tests/{suite}.yml", folder=with_needed_rules(folder, suite, tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_suite_is_forgotten(folder: Path) -> None:
    """All test files are run, and every alert has cases that fire and cases that stay silent."""
    assert sorted(path.stem for path in (folder / "tests").iterdir()) == sorted(SUITES)
    fires, silent = set(), set()
    for suite in SUITES:
        for test in yaml.safe_load((folder / "tests" / f"{suite}.yml").read_text())["tests"]:
            cases = test["alert_rule_test"]
            fires |= {case["alertname"] for case in cases if case["exp_alerts"]}
            if not any(case["exp_alerts"] for case in cases):
                silent |= {case["alertname"] for case in cases}
    assert fires == silent == {rule["alert"] for rule in alerts(folder)}


def test_every_alert_has_annotations_and_a_runbook_section(folder: Path, root: Path) -> None:
    """Every alert has a pending time, a summary, a description, and an existing section of the runbook."""
    runbook = (root / "deploy" / "runbook.md").read_text()
    sections = {line[3:].lower() for line in runbook.splitlines() if line.startswith("## ")}
    for rule in alerts(folder):
        notes = rule["annotations"]
        assert rule["for"]
        assert set(notes) == {"summary", "description", "runbook_url"}
        file, _, section = notes["runbook_url"].partition("#")
        assert file == "deploy/runbook.md"
        assert section in sections
    assert len(sections) == len(alerts(folder))


def test_alerts_on_slices_leave_owner_and_severity_to_the_slice(folder: Path) -> None:
    """A rule about slices sets no severity of its own; the others do."""
    for rule in alerts(folder):
        of_slices = bool(re.search("Slice(Coverage|Accuracy|Unknown)|Incident", rule["alert"]))
        assert ("severity" in rule.get("labels", {})) is not of_slices
