"""The log of requests: its policy, its batches, and a stream that takes nothing."""

import io
import json
import logging
import threading

import pytest

from service.metrics.request_log import MAX_WAITING, LoggedRequest, RequestLog
from service.server import configure


def request(status: int = 200, level: int = logging.INFO, name: str = "r1") -> LoggedRequest:
    return LoggedRequest(0.0, level, name, "POST", "/v1/predict", status, 1.5, 2)


def test_requests_of_a_batch_are_lines_of_their_own(stream: io.StringIO) -> None:
    """Each line has the fields of any record, and those of its request."""
    configure(stream, plain=False)
    log = RequestLog("all", lambda _: None)
    log.add(request(name="a"))
    log.add(request(name="b", status=503))
    log.stop()
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "INFO", "logger": "service.access", "message": "request", "request_id": "a", "method": "POST",
        "route": "/v1/predict", "status": 200, "ms": 1.5, "rows": 2,
    }  # fmt: skip
    assert (second["request_id"], second["status"]) == ("b", 503)


def test_requests_are_plain_lines_on_a_terminal(stream: io.StringIO) -> None:
    """They have the form of other records."""
    configure(stream, plain=True)
    log = RequestLog("all", lambda _: None)
    log.add(request())
    log.stop()
    (line,) = stream.getvalue().splitlines()
    assert line.split(" ", 2)[2] == (
        "INFO    service.access: request request_id=r1 method=POST route=/v1/predict status=200 ms=1.5 rows=2"
    )


@pytest.mark.parametrize(
    ("policy", "logged"),
    [("all", [200, 404, 500]), ("errors", [404, 500]), ("none", []), (1e-12, [404, 500]), (1 - 1e-12, [200, 404, 500])],
)
def test_the_policy_selects_requests(stream: io.StringIO, policy: str | float, logged: list[int]) -> None:
    """A share selects of the requests without an error only."""
    configure(stream, plain=False)
    log = RequestLog(policy, lambda _: None)
    for status in (200, 404, 500):
        log.add(request(status))
    log.stop()
    assert [json.loads(line)["status"] for line in stream.getvalue().splitlines()] == logged


def test_requests_below_the_level_are_left_out(stream: io.StringIO) -> None:
    """Those of probes have level DEBUG."""
    configure(stream, plain=False)
    log = RequestLog("all", lambda _: None)
    log.add(request(level=logging.DEBUG))
    log.stop()
    assert stream.getvalue() == ""


class Stuck(io.StringIO):
    """A stream that takes nothing until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.opened = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        assert self.opened.wait(600)
        return super().write(text)


def test_a_stuck_stream_holds_up_no_request(stream: io.StringIO) -> None:
    """Requests beyond the limit are counted as lost, the others are written later."""
    stuck, lost = Stuck(), []
    configure(stuck, plain=False)
    log = RequestLog("all", lost.append)
    log.add(request())
    assert stuck.entered.wait(600)
    for _ in range(MAX_WAITING + 3):
        log.add(request())
    assert sum(lost) == 3
    stuck.opened.set()
    log.stop()
    assert len(stuck.getvalue().splitlines()) == MAX_WAITING + 1
