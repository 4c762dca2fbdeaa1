"""Time and memory of a start, the longest wait of a restart, and the time of commands that need no network weights.

    python tests/benchmarks/bench_start.py --out FILE.json

The project is that of `slicewatch init`, trained. Times are from the start of the process; each figure is a median.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from servers import family

ROUNDS, REQUESTS = 3, 1_000
READY_SECONDS, RESIDENT_MIB, COMMAND_SECONDS, WAIT_SECONDS = 5.0, 600, 0.5, 3.0
COMMAND = (sys.executable, "-P", "-m", "service")
QUICK = {"--help": 0, "models list": 0, "sfs list": 0, "drift": 1, "retrain list": 1}
"""Commands and their exit codes; `drift` and `retrain` need a service, and say here that there is none."""
RECORD = {"text": "Check out my channel http://example.com", "video": "Neon Harbour - Tidal", "likes": 3}
TICKS = os.sysconf("SC_CLK_TCK")


def project(folder: Path) -> Path:
    """Make and train a project, and return its settings."""
    for words in (["init", folder], ["train", "--config", folder / "slicewatch.yaml"]):
        subprocess.run([*COMMAND, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    with (folder / "slicewatch.yaml").open("a") as settings:
        settings.write("serve: {port: 0}\n")
    return folder / "slicewatch.yaml"


class Service:
    """A running service, with its successors."""

    def __init__(self, settings: Path, log: Path) -> None:
        self._log, began = log, time.monotonic()
        with log.open("wb") as stream:
            self._process = subprocess.Popen([*COMMAND, "up", "--config", settings], stderr=stream)
        self.pid = self._process.pid
        self._connection = HTTPConnection("127.0.0.1", int(self._wait(r"console and API at http://127.0.0.1:(\d+)")))
        while self.ask("GET", "/readyz") != 200:
            self._require_life()
            time.sleep(0.01)
        self.ready_seconds = time.monotonic() - began

    def _wait(self, pattern: str, place: int = 0) -> str:
        while len(found := re.findall(pattern, self._log.read_text())) <= place:
            self._require_life()
            time.sleep(0.01)
        return str(found[place])

    def _require_life(self) -> None:
        """Raise SystemExit with the log if the process, or its successor, failed, or ended too early."""
        code, text = self._process.poll(), self._log.read_text()
        if code or (code == 0 and "stopped" not in text) or "serves on" in text:
            raise SystemExit(f"exit code {code}: {text}")

    def ask(self, method: str, path: str, sent: Any = None) -> int:
        """Send a request, and return the status; 0 without an answer."""
        try:
            body = None if sent is None else json.dumps(sent)
            self._connection.request(method, path, body, {"content-type": "application/json"})
            response = self._connection.getresponse()
            response.read()
        except (OSError, HTTPException):
            self._connection.close()
            return 0
        return response.status

    def cpu_seconds(self) -> float:
        """Return the processor time so far, of its descendants too."""
        fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in family(self.pid)]
        return sum(int(each[11]) + int(each[12]) for each in fields) / TICKS

    def resident_mib(self) -> float:
        """Return the resident memory, of its descendants too; a page that processes share counts once."""
        texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in family(self.pid)]
        return sum(int(re.findall(r"Pss:\s+(\d+)", text)[0]) for text in texts) / 1024

    def restart(self) -> float:
        """Restart under requests one after the other, and return the longest wait for an answer, in seconds."""
        os.kill(self.pid, signal.SIGUSR2)
        longest = 0.0
        while not (over := re.search(r"process (\d+) has taken over", self._log.read_text())):
            self._require_life()
            began = time.monotonic()
            if self.ask("POST", "/v1/predict", {"instances": [RECORD]}) != 200:
                raise SystemExit("a request failed during the restart")
            longest = max(longest, time.monotonic() - began)
        self.pid = int(over[1])
        return longest

    def stop(self) -> None:
        """Stop it, and wait."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
        self._wait(r'"message":\s*"stopped"', self._log.read_text().count("has taken over"))
        if code := self._process.wait():
            raise SystemExit(f"exit code {code}: {self._log.read_text()}")


def command_seconds(words: str, settings: Path) -> float:
    """Return the processor time of a command; SystemExit for another exit code than expected."""
    config = [] if words == "--help" else ["--config", str(settings)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([*COMMAND, *words.split(), *config], check=False, capture_output=True, text=True)
    if done.returncode != QUICK[words]:
        raise SystemExit(f"`slicewatch {words}`: exit code {done.returncode}: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> int:
    """Measure and write; 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    figures: dict[str, list[float]] = {name: [] for name in ("ready", "cpu", "resident", "served", "wait")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = project(folder / "comments")
        for _ in range(ROUNDS):
            service = Service(settings, folder / "up.log")
            figures["ready"].append(service.ready_seconds)
            figures["cpu"].append(service.cpu_seconds())
            figures["resident"].append(service.resident_mib())
            for _ in range(REQUESTS):
                service.ask("POST", "/v1/predict", {"instances": [RECORD]})
            figures["served"].append(service.resident_mib())
            figures["wait"].append(service.restart())
            service.stop()
        commands = {words: [command_seconds(words, settings) for _ in range(ROUNDS)] for words in QUICK}
    median = {name: statistics.median(values) for name, values in (figures | commands).items()}
    rows: list[tuple[str, float, float, str]] = [
        ("start until ready", median["ready"], READY_SECONDS, "s"),
        ("processor time of that", median["cpu"], READY_SECONDS, "s"),
        ("resident memory when ready", median["resident"], RESIDENT_MIB, "MiB"),
        (f"resident memory after {REQUESTS:,} requests", median["served"], RESIDENT_MIB, "MiB"),
        ("longest wait for an answer during a restart", median["wait"], WAIT_SECONDS, "s"),
        *((f"`slicewatch {name}`", median[name], COMMAND_SECONDS, "s") for name in commands),
    ]
    digits = {"s": 2, "MiB": 0}
    results = []
    for what, value, reach, unit in rows:
        text = f"{value:,.{digits[unit]}f} {unit}"
        results.append({"what": what, "value": text, "reach": f"<= {reach:g} {unit}", "reached": value <= reach})
    options.out.write_text(json.dumps({"rounds": ROUNDS, "results": results}, indent=1))
    for row in results:
        print(f"{row['what']:50} {row['value']:>12} {row['reach']:>12} {'' if row['reached'] else 'missed'}")
    return 0 if all(row["reached"] for row in results) else 1


if __name__ == "__main__":
    sys.exit(main())
