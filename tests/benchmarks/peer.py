"""A peer in its own interpreter: a script of this folder that answers lines of JSON."""

import json
import subprocess
from pathlib import Path
from typing import Any


class Peer:
    """A running peer script.

    Parameters
    ----------
    python
        An interpreter that has the peer installed.
    script
        File name of the script, beside this one.
    """

    def __init__(self, python: str, script: str) -> None:
        path = Path(__file__).with_name(script)
        self.process = subprocess.Popen(
            [python, "-W", "ignore", str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **request: object) -> Any:
        """Send a request and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the peer ended with exit code {self.process.wait()} when asked {request}")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
