"""The demo on real comments, and its stop on a signal; test_demo_kills runs it on generated comments."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("slicewatch")


@pytest.mark.data
@pytest.mark.timeout(900)
def test_the_story_happens_on_real_comments(tmp_path: Path, data_dir: Path) -> None:
    """The candidate is held for lack of held-out rows, or promoted; the alarms match the data."""
    options = ["--once", "--port", "0", "--dir", tmp_path / "demo"]
    command = [COMMAND, "demo", *options, "--data", data_dir / "youtube-spam"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^ +regex_check_out .* yes +yes$", done.stdout, re.MULTILINE)
    assert re.search(r"The story happened: (held|promoted)", done.stdout)


@pytest.mark.timeout(300)
def test_a_demo_that_is_ended_leaves_no_service(tmp_path: Path, until: Callable[..., object]) -> None:
    """SIGTERM during the demo stops the service, too; the simulated times are labelled."""
    words = [COMMAND, "demo", "--port", "0", "--dir", tmp_path / "demo"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        header = []
        while "TRAFFIC, calm" not in (line := process.stdout.readline()):
            assert line, "it ended before any traffic"
            header.append(line)
        assert "The times on the left are simulated (UTC): " in "".join(header)
        lock = tmp_path / "demo" / ".slicewatch" / "store.sqlite3.lock"
        service = int(lock.read_text().split()[0])
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
        assert process.returncode == 130
    assert not Path(f"/proc/{service}").exists()
