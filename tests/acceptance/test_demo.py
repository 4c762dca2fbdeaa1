"""The demo on real comments, and its stop on a signal; test_demo_kills runs it on generated comments."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from priority import raise_priority

from models.comments.generate import generate
from models.comments.public import YOUTUBE_FILES

COMMAND = Path(sys.executable).with_name("slicewatch")


@pytest.mark.data
def test_the_story_happens_on_real_comments(tmp_path: Path, data_dir: Path) -> None:
    """The candidate is held for lack of held-out rows, or promoted; the alarms match the data."""
    options = ["--once", "--port", "0", "--dir", tmp_path / "demo"]
    command = [COMMAND, "demo", *options, "--data", data_dir / "youtube-spam"]
    output = tmp_path / "output"
    with output.open("wb") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as demo:
        while demo.poll() is None:
            raise_priority(demo.pid)
            time.sleep(1)
    said = output.read_text()
    assert demo.returncode == 0, said
    assert re.search(r"^ +regex_check_out .* yes +yes$", said, re.MULTILINE)
    assert re.search(r"The story happened: (held|promoted)", said)


def test_a_demo_that_is_ended_leaves_no_service(tmp_path: Path, until: Callable[..., object]) -> None:
    """SIGTERM during the demo stops the service, too; the simulated times are labelled."""
    for n, name in enumerate(YOUTUBE_FILES):  # few comments, so that the training is short
        rows = generate(150, seed=n)
        columns = {"AUTHOR": rows["author"], "CONTENT": rows["text"], "CLASS": (rows["label"] == "spam").astype(int)}
        pd.DataFrame(columns).to_csv(tmp_path / name, index=False)
    words = [COMMAND, "demo", "--port", "0", "--dir", tmp_path / "demo", "--data", tmp_path]
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
        process.communicate(timeout=600)
        assert process.returncode == 130
    assert not Path(f"/proc/{service}").exists()
