"""The lines of the log."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from service.runtime.logs import configure


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A stream to be configured; afterwards logging is as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_record_is_one_json_object(stream: io.StringIO) -> None:
    """Time, level, logger and message are there, and the further fields beside them."""
    configure(stream, plain=False)
    logging.getLogger("service.x").info("took %s", "it\nall", extra={"request_id": "r1"})
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert (record["level"], record["logger"], record["message"]) == ("INFO", "service.x", "took it\nall")
    assert record["request_id"] == "r1"
    assert record["time"].endswith("+00:00")


def test_an_error_carries_where_it_was(stream: io.StringIO) -> None:
    """A traceback is a field of the one line."""
    configure(stream, plain=False)
    try:
        raise ValueError("odd")
    except ValueError:
        logging.getLogger("service.x").exception("it failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: odd" in json.loads(line)["exc_info"]


def test_a_person_gets_lines_with_fields(stream: io.StringIO) -> None:
    """A plain line ends in its further fields."""
    configure(stream, plain=True)
    logging.getLogger("service.x").warning("slow", extra={"ms": 12})
    assert stream.getvalue().rstrip().endswith("WARNING service.x: slow ms=12")


def test_chatty_libraries_are_quiet(stream: io.StringIO) -> None:
    """What libraries say of every step is left out, and their warnings stay."""
    configure(stream, plain=True)
    logging.getLogger("apscheduler.executors").info("ran")
    logging.getLogger("apscheduler.executors").warning("missed")
    assert "ran" not in stream.getvalue()
    assert "missed" in stream.getvalue()
