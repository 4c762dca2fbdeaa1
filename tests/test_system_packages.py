"""The script that installs the Debian packages of the tests, with commands that only record their calls."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PACKAGES = ("prometheus", "prometheus-alertmanager", "chromium", "wrk", "default-jre-headless")
RECORD = 'echo "$(basename "$0") $* RUNLEVEL=$RUNLEVEL" >>"$CALLS"'
Run = Callable[..., subprocess.CompletedProcess[str]]
Calls = Callable[[], list[str]]


@pytest.fixture
def run(root: Path, tmp_path: Path) -> Run:
    """Runs the script in an empty folder, as a user, where only the given commands are installed."""
    path, folder = tmp_path / "bin", tmp_path / "checkout"

    def make(name: str, body: str) -> None:
        (path / name).write_text(f"#!/bin/sh\n{body}\n")
        (path / name).chmod(0o755)

    def run_script(*commands: str, user: int = 0, systemd: bool = True) -> subprocess.CompletedProcess[str]:
        path.mkdir()
        folder.mkdir()
        for name in ("sh", "cat", "mkdir", "basename"):
            (path / name).symlink_to(shutil.which(name) or "")
        make("id", f"echo {user}")
        for name in ("apt-get", *(["systemctl"] if systemd else [])):
            make(name, RECORD)
        for name in commands:
            make(name, "")
        environ = {**os.environ, "PATH": str(path), "RUNLEVEL": "", "CALLS": str(tmp_path / "calls")}
        script = str(root / "tests" / "system-packages")
        return subprocess.run(["sh", script], cwd=folder, env=environ, capture_output=True, text=True)

    return run_script


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    """Returns every call of apt-get and systemctl."""
    file = tmp_path / "calls"
    return lambda: file.read_text().splitlines() if file.exists() else []


def test_services_are_masked_before_the_installation(run: Run, calls: Calls) -> None:
    """Both services are masked first, so that they are neither enabled nor started, and the output says so."""
    done = run()
    assert done.returncode == 0, done.stderr
    assert calls() == [
        "systemctl mask prometheus prometheus-alertmanager RUNLEVEL=1",
        "apt-get update RUNLEVEL=1",
        f"apt-get install -y --no-install-recommends {' '.join(PACKAGES)} RUNLEVEL=1",
    ]
    assert "outside .venv: prometheus prometheus-alertmanager chromium wrk default-jre-headless" in done.stdout
    assert "masked these system services, which the tests do not need: prometheus prometheus-alertmanager" in (
        done.stdout
    )


def test_installed_services_stay_as_they_are(run: Run, calls: Calls) -> None:
    """The service of a package that is installed already is not masked."""
    assert run("promtool", "chromium").returncode == 0
    assert [call for call in calls() if "mask" in call] == ["systemctl mask prometheus-alertmanager RUNLEVEL=1"]


def test_without_systemd_no_init_script_starts(run: Run, calls: Calls) -> None:
    """Where there is no systemd, packages are installed in the runlevel that starts no service."""
    assert run(systemd=False).returncode == 0
    assert [call.split()[-1] for call in calls()] == ["RUNLEVEL=1", "RUNLEVEL=1"]


def test_nothing_missing_changes_nothing(run: Run, calls: Calls) -> None:
    """With every command there, nothing is said and nothing is called."""
    done = run("promtool", "amtool", "chromium", "wrk", "java")
    assert (done.returncode, done.stdout, calls()) == (0, "", [])


def test_other_users_are_told_what_to_install(run: Run, calls: Calls) -> None:
    """A user without rights gets the names, and the command that masks the services; nothing is called."""
    done = run(user=1000)
    assert done.returncode == 1
    assert f"sudo apt-get install {' '.join(PACKAGES)}" in done.stderr
    assert "sudo systemctl mask prometheus prometheus-alertmanager" in done.stderr
    assert calls() == []
