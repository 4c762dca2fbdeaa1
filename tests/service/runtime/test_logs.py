"""The format of the log."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from service.runtime.logs import configure


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A stream for the log; afterwards logging is reset."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_record_is_one_json_object(stream: io.StringIO) -> None:
    """A record has time, level, logger and message, and its extra fields."""
    configure(stream, plain=False)
    logging.getLogger("service.x").info("took %s", "it\nall", extra={"request_id": "r1"})
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert (record["level"], record["logger"], record["message"]) == ("INFO", "service.x", "took it\nall")
    assert record["request_id"] == "r1"
    assert record["time"].endswith("+00:00")


def test_an_error_has_its_traceback(stream: io.StringIO) -> None:
    """The traceback is a field of the same line."""
    configure(stream, plain=False)
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("service.x").exception("it failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: odd" in json.loads(line)["exc_info"]


def test_a_plain_line_has_its_fields(stream: io.StringIO) -> None:
    """A plain line ends with the extra fields."""
    configure(stream, plain=True)
    logging.getLogger("service.x").warning("slow", extra={"ms": 12})
    assert stream.getvalue().rstrip().endswith("WARNING service.x: slow ms=12")


def test_chatty_libraries_are_quiet(stream: io.StringIO) -> None:
    """Libraries log warnings only."""
    configure(stream, plain=True)
    logging.getLogger("apscheduler.executors").info("ran")
    logging.getLogger("apscheduler.executors").warning("missed")
    assert "ran" not in stream.getvalue()
    assert "missed" in stream.getvalue()
