"""The project of release 0.1.0 in fixtures/: opening it, asking it, comparing the answers."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from service.monitor.label_detector import log_thresholds

FIXTURES = Path(__file__).parent / "fixtures"
ARCHIVE = FIXTURES / "earlier_version.tar.xz"
EXPECTED = FIXTURES / "expected.json.xz"

OPENED = datetime(2026, 3, 5, 11, 10, tzinfo=UTC)
"""Time at which the project is opened: six minutes after the end of its story."""

STANDING = 5e-9
"""Speed of a clock that does not move by a millisecond during a test; intervals are divided by it, so it is not 0."""

JOBS = ("tick", "retrain", "report", "reload", "roll_up")
WINDOWS = ("5m", "1h", "1d", "7d", "since_promotion")
LATER = {
    "labels_to_alarm", "accuracy_reference", "reference_table", "incident", "moved", "baseline", "unknown_since",
    "last_known_at", "last_label_at", "fall", "pooled", "families", "settling_hours",
}  # fmt: skip
"""Fields of later versions that follow from those of 0.1.0."""
PROSE = {
    "reason",
    "f1_reason",
    "outcome",
    "description",
    "detail",
    "title",
    "message",
    "resolution",
    "sentence",
}
GAUGES = re.compile(r"slicewatch_(slice|last_label|snapshot|model_info)\w*(?<!_total)[{ ]")

RECORDS: list[dict[str, Any]] = [
    {"text": "the parcel arrived late", "channel": "app", "amount": 12.5},
    {"text": "GREAT THANKS DRIVER", "channel": "mail", "amount": 130.0},
    {"text": "lovely box", "channel": "web", "amount": None},
    {"text": "broken again, refund", "channel": "phone", "amount": 44},
    {"text": "12 34", "channel": "app", "amount": 80.01},
    {"text": "quick friendly driver today thanks", "channel": "app", "amount": 9.99},
    {"text": "WRONG ORDER", "channel": "fax", "amount": 20},
    {"text": "late box", "channel": "web", "amount": 15},
    {"text": "it arrived yesterday the shop recommend", "channel": "mail", "amount": None},
    {"text": "perfect", "channel": "app", "amount": 0},
]

LABELS = [
    {"id": "fixed-0", "label": "complaint"},
    {"id": "fixed-0", "label": "complaint"},
    {"id": "fixed-0", "label": "praise", "observed_at": "2026-03-05T11:10:01Z"},
    {"id": "fixed-1", "label": "praise", "labeller": "ada", "idempotency_key": "fixed-key"},
    {"id": "fixed-2", "label": "praise", "idempotency_key": "fixed-key"},
    {"id": "fixed-3", "label": "sarcasm"},
    {"id": "fixed-unknown", "label": "praise"},
    {"id": "never", "label": "complaint"},
    {"id": "t-1", "label": "complaint"},
    {"id": "e-0", "label": "complaint"},
]

Ask = Callable[..., tuple[int, Any]]
"""Takes a method, a path and a body; returns the status, and the JSON or text of the answer."""


def unpack(into: Path, at: datetime = OPENED, speed: float = STANDING) -> Path:
    """Unpack the project into a folder, set its clock, and return its own folder."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(into, filter="data")
    folder = into / "tickets"
    with (folder / "slicewatch.yaml").open("a") as settings:
        settings.write("clock: clock.json\n")
    set_clock(folder, at, speed)
    return folder


def set_clock(folder: Path, at: datetime, speed: float) -> None:
    """Write the clock that the next start reads."""
    wall0 = time.time()
    constants = {"t0": at.isoformat(), "wall0": wall0, "speed": speed}
    (folder / "clock.json").write_text(json.dumps(constants))


@contextmanager
def serving_process(folder: Path) -> Iterator[Ask]:
    """Run ``slicewatch up`` on a project, and give a function that asks it."""
    settings = str(folder / "slicewatch.yaml")
    command = [sys.executable, "-m", "service", "up", "--port", "0", "--config", settings]
    environ = {**os.environ, "SLICEWATCH_SERVE_REQUEST_SECONDS": "120"}
    with subprocess.Popen(command, cwd=folder, env=environ, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            log = []
            for line in process.stderr:
                log.append(line)
                if address := re.search(r"console and API at (http://[0-9.:]+)", line):
                    break
            else:
                raise RuntimeError("".join(log))
            yield partial(_ask, address[1])
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()


def _ask(address: str, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    reply = httpx.request(method, address + path, json=body, timeout=150)
    return reply.status_code, reply.json() if reply.text[:1] == "{" else reply.text


def job_runs(metrics: str) -> dict[str, float]:
    """Return the number of successful runs of each job."""
    found = re.findall(r'^slicewatch_job_runs_total\{outcome="ok",task="(\w+)"\} (\S+)', metrics, re.MULTILINE)
    return {job: float(runs) for job, runs in found}


def wait_for_jobs(ask: Ask) -> None:
    """Wait until every job has run once; with a standing clock, none runs again."""
    end = time.monotonic() + 300
    while min(job_runs(ask("GET", "/metrics")[1]).get(job, 0) for job in JOBS) < 1:
        assert time.monotonic() < end, "the jobs did not all run within 300 s"
        time.sleep(0.05)


def answers_of(ask: Ask) -> dict[str, Any]:
    """Return the answers of a service on a standing clock, after every job has run once."""
    wait_for_jobs(ask)
    answers = {}

    def keep(method: str, path: str, body: Any = None, again: str = "") -> Any:
        status, answer = ask(method, path, body)
        answer.pop("request_id", None)
        answers[f"{method} {path}{again}"] = {"status": status, "answer": answer}
        return answer

    for window in WINDOWS:
        slices = keep("GET", f"/v1/slices?window={window}")["slices"]
    for name in (each["name"] for each in slices):
        keep("GET", f"/v1/slices/{name}?window=5m&from=2026-03-05T11:00:00Z")
    keep("GET", "/v1/slices/from_app?window=1h")
    for kind in ("errors", "unknown", "unlabelled", "correct", "all"):
        keep("GET", f"/v1/slices/shouting/records?kind={kind}&limit=5")
    keep("GET", "/v1/slices/__all__/records?kind=all&limit=3")
    for path in (
        "/v1/functions",
        "/v1/models",
        "/v1/models/1",
        "/v1/models/2",
        "/v1/models/3",
        "/v1/models/4",
    ):
        keep("GET", path)
    keep("GET", "/v1/alarms")
    for each in keep("GET", "/v1/alarms?state=all")["alarms"]:
        keep("GET", f"/v1/alarms/{each['id']}")
    for each in keep("GET", "/v1/runs")["runs"]:
        keep("GET", f"/v1/runs/{each['id']}")
    for each in keep("GET", "/v1/reports")["reports"]:
        keep("GET", f"/v1/reports/{each['id']}")
    keep("GET", "/v1/audit")
    answers["gauges"] = gauges(ask("GET", "/metrics")[1])
    ids = [f"fixed-{n}" for n in range(len(RECORDS))]
    assert "predictions" in keep("POST", "/v1/predict", {"instances": RECORDS, "ids": ids})
    keep("POST", "/v1/predict", {"instances": RECORDS[:3], "ids": ids[:3]}, " (once more)")
    keep("POST", "/v1/predict", {"instances": RECORDS[:1], "ids": ["t-1"]}, " (a taken id)")
    keep("POST", "/v1/labels", {"labels": LABELS})
    return answers


def gauges(metrics: str) -> dict[str, float]:
    """Return the series of ``/metrics`` that come from the log, not from the process."""
    lines = (line.rsplit(" ", 1) for line in metrics.splitlines() if GAUGES.match(line) and "_slice_last_" not in line)
    return {series: float(value) for series, value in lines}


def differences(expected: Any, found: Any, where: str = "") -> Iterator[str]:
    """Yield the differences of two answers: numbers to 1e-5, times to the millisecond, prose and ``LATER`` ignored."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys() - LATER):
            if key not in expected or key not in found:
                yield f"{where}.{key}: {'new' if key in found else 'missing'}"
            elif not (key in PROSE and is_prose(expected[key]) and is_prose(found[key])):
                yield from differences(expected[key], found[key], f"{where}.{key}")
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            yield f"{where}: {len(found)} entries, not {len(expected)}"
        for n, pair in enumerate(zip(expected, found, strict=False)):
            yield from differences(*pair, f"{where}[{n}]")
    elif not same_value(expected, found):
        yield f"{where}: {found!r}, not {expected!r}"


def with_changes(answer: Any) -> Any:
    """Return an answer of 0.1.0 in the form of this version.

    ``f1`` is null beside its reason, not an object; a target above the tolerance band is the limit of the accuracy. The
    evidence on accuracies starts over, at other thresholds. A record names what is cut of it, and figures what is wrong
    with the clock.
    """
    if isinstance(answer, list):
        return [with_changes(part) for part in answer]
    if not isinstance(answer, dict):
        return answer
    changed = {key: with_changes(part) for key, part in answer.items()}
    if "f1" in changed and "f1_reason" not in changed:
        missing = isinstance(changed["f1"], dict)
        changed["f1_reason"] = changed["f1"]["reason"] if missing else None
        changed["f1"] = None if missing else changed["f1"]
    if {"tolerance", "effective_n"} <= changed.keys():
        changed.setdefault("target", None)
    if {"features", "unknown_slices"} <= changed.keys():
        changed |= {"cut": {}, "omitted": 0}
    if {"window", "slices"} <= changed.keys():
        changed["clock"] = None
    target = (changed.get("metadata") or {}).get("target")
    if "metadata" in changed and "accuracy" in (changed.get("drift") or {}):
        drift = changed["drift"]["accuracy"]
        if target is not None:
            assert drift["expected"]["lower"] < target
            drift["expected"] |= {"lower": target, "target": target}
        drift |= {"evidence": 0.0, "share": 0.0, "since": None, "direction": None}
        drift["observed"] = {"count": 0, "n": 0, "value": None, "lower": 0.0, "upper": 1.0}
        of_slice, _, of_all = log_thresholds(200, 0, 0.5)
        drift["threshold"] = of_all if changed["name"] == "__all__" else of_slice
    for series in changed:
        if series.startswith('slicewatch_slice_drift_evidence{kind="accuracy"'):
            changed[series] = 0.0
    return changed


def is_prose(value: Any) -> bool:
    """Whether a value is text of more than one word, whose wording may change."""
    return isinstance(value, str) and " " in value.strip()


def same_value(expected: Any, found: Any) -> bool:
    """Whether two values agree within the precision of two machines."""
    if isinstance(expected, float) and isinstance(found, int | float) and not isinstance(found, bool):
        return math.isclose(expected, found, rel_tol=1e-5, abs_tol=1e-5)
    if isinstance(expected, str) and isinstance(found, str) and expected[:4] == found[:4] == "2026":
        moments = [datetime.fromisoformat(text) for text in (expected, found)]
        return abs(moments[0] - moments[1]) < timedelta(milliseconds=1)
    return type(expected) is type(found) and bool(expected == found)
