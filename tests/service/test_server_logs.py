"""The format of the log."""

import io
import json
import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import ServiceError
from service.server import configure


def test_a_record_is_one_json_object(stream: io.StringIO) -> None:
    """A record has time, level, logger and message, and its extra fields."""
    configure(stream, plain=False)
    logging.getLogger("service.x").info("took %s", "it\nall", extra={"request_id": "r1"})
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert (record["level"], record["logger"], record["message"]) == ("INFO", "service.x", "took it\nall")
    assert record["request_id"] == "r1"
    assert record["time"].endswith("+00:00")


def log_error(error: Exception) -> None:
    try:
        try:
            {}["4711-SECRET"]
        except KeyError as first:
            raise error from first
    except Exception:
        logging.getLogger("service.x").exception("it failed")


def test_an_error_has_its_traceback(stream: io.StringIO) -> None:
    """The traceback is a field of the same line, with the kinds of the error and its causes."""
    configure(stream, plain=False)
    log_error(ValueError("not a number: 4711-SECRET"))
    (line,) = stream.getvalue().splitlines()
    trace = json.loads(line)["exc_info"]
    assert [each for each in trace.splitlines() if each.endswith("Error")] == ["KeyError", "ValueError"]
    assert "in log_error" in trace
    assert "4711-SECRET')" not in line
    assert "number" not in line


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("error", [ServiceError("no room on the disk"), OSError(28, "no room on the disk")])
def test_messages_of_the_service_and_the_system_stay(stream: io.StringIO, error: Exception, plain: bool) -> None:
    """They quote no record."""
    configure(stream, plain=plain)
    log_error(error)
    assert "no room on the disk" in stream.getvalue()


@pytest.mark.parametrize("plain", [True, False])
def test_messages_of_exceptions_are_logged_at_level_debug(stream: io.StringIO, plain: bool) -> None:
    """The operator asks for them with SLICEWATCH_DEBUG."""
    configure(stream, plain=plain, level=logging.DEBUG)
    log_error(ValueError("not a number: odd"))
    assert "ValueError: not a number: odd" in stream.getvalue()


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


@pytest.mark.parametrize("plain", [True, False])
@given(st.text(st.characters(), max_size=30), st.sampled_from([1, 2_000]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_no_value_makes_a_line_of_its_own(plain: bool, text: str, repeats: int) -> None:
    """A message and a field with a stranger's text are one line of bounded length, whatever it contains."""
    root = logging.getLogger()
    handlers, level, stream = list(root.handlers), root.level, io.StringIO()
    try:
        configure(stream, plain=plain)
        value = f"a\n2026-01-01 INFO forged\r\x1b[2J\u2028{text}" * repeats
        logging.getLogger("service.x").info("run 1: %s", value, extra={"path": value})
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    line = stream.getvalue()
    assert len(line.splitlines()) == 1
    assert line.rstrip("\n").isprintable()
    assert len(line) < 50_000


def test_a_message_of_an_exception_forges_no_line(stream: io.StringIO) -> None:
    """Lines of a traceback are indented."""
    configure(stream, plain=True, level=logging.DEBUG)
    log_error(ValueError("odd\n2026-01-01 00:00:00,000 INFO    service.x: forged"))
    first, *rest = stream.getvalue().splitlines()
    assert first.endswith("it failed")
    assert all(line.startswith("    ") for line in rest)
