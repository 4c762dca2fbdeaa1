"""The demo stops on a signal; test_demo_kills runs it to its end."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from models.comments.generate import generate
from models.comments.public import YOUTUBE_FILES

COMMAND = Path(sys.executable).with_name("slicewatch")


def test_a_demo_that_is_ended_leaves_no_service(tmp_path: Path, until: Callable[..., object]) -> None:
    """SIGTERM during the demo stops the service, too; the simulated times are labelled."""
    for n, name in enumerate(YOUTUBE_FILES):  # few comments, so that the training is short
        rows = generate(60, seed=n)
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
