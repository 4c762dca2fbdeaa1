"""Templates of a stranger: patterns that are legal and slow, or many and large."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LIMITS = {f"SLICEWATCH_FUNCTION_LIMITS_{key}_MS": ms for key, ms in (("BUDGET", 1), ("LEAST", 50), ("HOLD", 200))}
SMALL = {"instances": [{"text": "abba", "video": "a", "likes": 1}]}
LARGE = {"instances": [{"text": "".join(random.Random(1).choices("ab", k=100_000)), "video": "a", "likes": 1}]}
"""A text on which the patterns below need a second each."""


def hostile(name: str, k: int = 0) -> dict[str, Any]:
    """Return a template of 199 legal patterns, each of some hundred instructions that are all active at once."""
    patterns = [f"(?:a|b)*a[ab{chr(ord('d') + k)}]{{{400 + n}}}c" for n in range(199)]
    return {"name": name, "any": [{"regex": {"field": "text", "pattern": pattern}} for pattern in patterns]}


@contextmanager
def small_requests(running: Any, caller: Any, what: str) -> Iterator[None]:
    """Send small requests all the time, and print how long they took; each must be answered."""
    done, seconds = threading.Event(), []

    def send() -> None:
        ask = caller(running.port)
        while not done.is_set():
            began = time.monotonic()
            if ask("POST", "/v1/predict", SMALL).status != 200:
                return
            seconds.append(time.monotonic() - began)
        ask.close()
        seconds.append(0.0)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert seconds[-1] == 0.0
    median, longest = sorted(seconds)[len(seconds) // 2], max(seconds)
    print(f"{what}: {len(seconds) - 1} small requests beside it, median {median:.3f} s, longest {longest:.2f} s")


def memory(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def commands(running: Any) -> Iterator[str]:
    """Yield the command line of every descendant."""
    for process in running.descendants():
        with suppress(OSError):  # it has ended meanwhile
            yield Path(f"/proc/{process}/cmdline").read_text()


def health(running: Any, name: str) -> Any:
    functions = running.ask("GET", "/v1/functions").json["functions"]
    return next(each["health"] for each in functions if each["name"] == name)


def test_a_slow_template_is_disabled_and_the_service_goes_on(up, project, until, caller) -> None:
    """Requests, a restart and SIGTERM do not wait for it; its memberships are unknown, and pages and metrics say so."""
    running = up(project, **LIMITS)
    assert running.ask("POST", "/v1/functions", hostile("slow")).status == 201
    before = running.ask("POST", "/v1/predict", SMALL).json["predictions"][0]
    for name in ("first large request", "second"):
        with small_requests(running, caller, name):
            began = time.monotonic()
            answer = running.ask("POST", "/v1/predict", LARGE)
            print(f"{name}: {time.monotonic() - began:.2f} s")
        assert answer.status == 200
        assert "slow" in answer.json["predictions"][0]["unknown_slices"]
    assert health(running, "slow") == {"state": "open", "reason": "over budget"}
    beside = running.ask("POST", "/v1/predict", SMALL).json["predictions"][0]
    assert (beside["slices"], beside["label"]) == (before["slices"], before["label"])
    assert {"slow", *before["unknown_slices"]} >= set(beside["unknown_slices"])
    assert any('slice="slow"' in series and "over budget" in series for series in running.metrics())
    until(lambda: "slow" in running.slices())
    assert "over budget" in running.ask("GET", "/slices/slow").body.decode()
    assert running.stop() == 0
    running = up(project, **LIMITS)
    assert running.ask("POST", "/v1/predict", LARGE).status == 200
    assert health(running, "slow") == {"state": "open", "reason": "over budget"}
    began = time.monotonic()
    assert running.stop() == 0
    print(f"SIGTERM: {time.monotonic() - began:.2f} s")


def test_many_large_templates_are_refused_in_time(up, project, caller) -> None:
    """Patterns are limited in sum; a refusal names the setting, and one more function is added as fast as before."""
    running = up(project, SLICEWATCH_SERVE_REQUEST_SECONDS=20, **LIMITS)
    pid, statuses, seconds = running.process.pid, [], []
    at_start = memory(pid)
    with small_requests(running, caller, "20 additions"):
        for k in range(20):
            began = time.monotonic()
            answer = running.ask("POST", "/v1/functions", hostile(f"many {k}", k))
            seconds.append(time.monotonic() - began)
            statuses.append(answer.status)
    assert (set(statuses), statuses[0], statuses[-1]) == ({201, 422}, 201, 422)
    assert "template_limits.pattern_mb" in answer.json["detail"]
    began = time.monotonic()
    assert running.ask("POST", "/v1/functions", {"name": "one", "missing": {"field": "text"}}).status == 201
    print(f"{statuses.count(201)} of 20 templates accepted, {memory(pid) - at_start:.0f} MiB more, additions took")
    print(f"{[round(each, 2) for each in seconds]} s, a small one {time.monotonic() - began:.2f} s")
    assert memory(pid) - at_start < 512
    preview = {"function": hostile("slow"), "records": LARGE["instances"]}
    answer = running.ask("POST", "/v1/functions/preview", preview)
    assert (answer.status, "not finished within" in answer.json["detail"]) == (422, True)
    assert running.stop() == 0


def test_no_preview_delays_the_end(up, project, until, caller) -> None:
    """SIGTERM ends one that may take hours; its client is told, and the log has no error."""
    hour = 3600
    running = up(project, SLICEWATCH_SERVE_REQUEST_SECONDS=hour, SLICEWATCH_SERVE_DRAIN_SECONDS=hour, **LIMITS)
    answers = []
    slow = {"function": hostile("slow"), "records": LARGE["instances"] * 20}
    client = threading.Thread(
        target=lambda: answers.append(caller(running.port, hour)("POST", "/v1/functions/preview", slow))
    )
    client.start()
    until(lambda: any("template_preview" in command for command in commands(running)))
    assert running.stop() == 0
    client.join()
    assert (answers[0].status, "is stopping" in answers[0].json["detail"]) == (503, True)
    assert [line for line in running.lines() if line["level"] == "ERROR"] == []
