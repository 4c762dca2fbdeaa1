"""The soak for some seconds: everything but memory is judged as in a long run."""

import os
import subprocess
import sys
from pathlib import Path


def test_nothing_fails_or_is_wrong_beside_attacks(root: Path) -> None:
    """12 s of traffic, each attack alone and all at once: no violation."""
    command = [sys.executable, "-m", "chaos.soak", "--minutes", "0.2", "--slow-machine"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=1500, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
