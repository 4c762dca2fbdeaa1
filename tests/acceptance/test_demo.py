"""The whole demo, as a user starts it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("slicewatch")
MINUTES = 12  # on a machine that does other things too

Demo = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    """Runs the demo to its end."""

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        words = [
            COMMAND,
            "demo",
            "--once",
            "--port",
            "0",
            "--dir",
            tmp_path / "demo",
            "--minutes",
            str(MINUTES),
        ]
        return subprocess.run([*words, *options], capture_output=True, text=True, env=os.environ)

    return run


@pytest.mark.timeout(900)
def test_the_story_happens_on_generated_comments(demo: Demo) -> None:
    """Calm, campaign, alarms, late labels, retraining, gate, promotion, accuracy: exit code 0, told in order."""
    done = demo()
    assert done.returncode == 0, done.stdout + done.stderr
    told = [
        "TRAFFIC, calm",
        "TRAFFIC, campaign:",
        "coverage: short_link holds",
        "Run 1 is opened by a coverage alarm; it waits for labels",
        "Run 1 is training, attempt 1",
        "Run 1 has trained version 2",
        "Run 1 is promoted",
        "Version 2 is now serving",
        "The story happened",
    ]
    places = [done.stdout.index(each) for each in told]
    assert places == sorted(places)
    assert re.search(r"^ +html_markup .* yes +yes$", done.stdout, re.MULTILINE)


@pytest.mark.data
@pytest.mark.timeout(900)
def test_the_story_happens_on_real_comments(demo: Demo, data_dir: Path) -> None:
    """Held because too few rows were held out, or promoted; the alarms are those that the data ask for."""
    done = demo("--data", str(data_dir / "youtube-spam"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^ +regex_check_out .* yes +yes$", done.stdout, re.MULTILINE)
    assert re.search(r"The story happened: (held|promoted)", done.stdout)


@pytest.mark.timeout(300)
def test_a_demo_that_is_ended_leaves_no_service(tmp_path: Path, until: Callable[..., object]) -> None:
    """SIGTERM in the middle of the story stops the service too."""
    words = [COMMAND, "demo", "--port", "0", "--dir", tmp_path / "demo"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        while "TRAFFIC, calm" not in (line := process.stdout.readline()):
            assert line, "it ended before any traffic"
        lock = tmp_path / "demo" / ".slicewatch" / "store.sqlite3.lock"
        service = int(lock.read_text())
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
        assert process.returncode == 130
    assert not Path(f"/proc/{service}").exists()
