"""Rules and alerts, judged by Prometheus' own tool; it is part of what the tests need, not an option."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

SUITES = ("accuracy", "coverage", "drift", "functions", "labels", "operations", "retraining", "service")


@pytest.fixture
def folder(root: Path) -> Path:
    """Where the configuration of Prometheus is."""
    return root / "deploy" / "prometheus"


def alerts(folder: Path) -> list[dict[str, object]]:
    groups = yaml.safe_load((folder / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def promtool(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_the_configuration_is_valid(folder: Path) -> None:
    """Prometheus would start with it, and finds both files of rules."""
    result = promtool("check", "config", "prometheus.yml", folder=folder)
    assert result.returncode == 0, result.stderr
    assert "2 rule files found" in result.stdout


def test_the_linter_finds_no_fault(folder: Path) -> None:
    """All checks of rules pass, and a warning counts as a fault."""
    result = promtool(
        "check", "rules", "--lint=all", "--lint-fatal", "rules.yml", "alerts.yml", folder=folder
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("suite", SUITES)
def test_alerts_fire_and_stay_silent_when_they_should(folder: Path, suite: str) -> None:
    """The tests beside the rules pass."""
    result = promtool("test", "rules", f"tests/{suite}.yml", folder=folder)
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_suite_is_forgotten(folder: Path) -> None:
    """Every file of tests is run, and each alert has cases where it fires and where it stays silent."""
    assert sorted(path.stem for path in (folder / "tests").iterdir()) == sorted(SUITES)
    fires, silent = set(), set()
    for suite in SUITES:
        for test in yaml.safe_load((folder / "tests" / f"{suite}.yml").read_text())["tests"]:
            cases = test["alert_rule_test"]
            fires |= {case["alertname"] for case in cases if case["exp_alerts"]}
            if not any(case["exp_alerts"] for case in cases):
                silent |= {case["alertname"] for case in cases}
    assert fires == silent == {rule["alert"] for rule in alerts(folder)}


def test_every_alert_says_what_it_is_and_where_to_read_on(folder: Path, root: Path) -> None:
    """Each alert waits, has a summary and a description, and a section of the runbook that exists."""
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
        of_slices = bool(re.search("Slice(Coverage|Accuracy|Unknown)", rule["alert"]))
        assert ("severity" in rule.get("labels", {})) is not of_slices
