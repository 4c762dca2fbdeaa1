"""Terminal output."""

import json
import math
import os
import select
import termios
from collections.abc import Iterator
from contextlib import redirect_stderr

import pytest

from service.cli.terminal import (
    format_counts,
    format_interval,
    format_percent,
    format_table,
    print_json,
    print_message,
    row_progress,
    stage_progress,
)


def test_columns_of_numbers_stand_right() -> None:
    """Numbers are aligned to the right, words to the left, and None is a dash."""
    text = format_table(("name", "n", "share"), [["a", 1000, "3.0 %"], ["bb", None, None]])
    assert text.splitlines() == [
        "name      n  share",
        "----  -----  -----",
        "a     1,000  3.0 %",
        "bb        -      -",
    ]


def test_wide_characters_keep_columns_aligned() -> None:
    """An ideograph takes two columns, a combining accent none."""
    lines = format_table(("a", "b"), [["日本", "x"], ["e\u0301tat", "y"]]).splitlines()
    assert lines[2] == "日本  x"
    assert lines[3] == "e\u0301tat  y"


def test_escape_codes_from_data_are_not_printed() -> None:
    """Escape codes in data are replaced."""
    assert "\x1b" not in format_table(("a",), [["\x1b[31mred"]])


def test_a_table_without_rows_is_its_header() -> None:
    """No rows leave the header and its rule."""
    assert format_table(("a", "bc"), []) == "a  bc\n-  --"


def test_shares_and_intervals_are_percent() -> None:
    """None stays None."""
    assert (format_percent(0.125), format_percent(None), format_interval((0.0, 1.0))) == (
        "12.5 %",
        None,
        "0.0 .. 100.0",
    )


def test_reasons_stand_by_frequency() -> None:
    """The most frequent reason comes first."""
    assert format_counts({"junk": 1, "KeyError": 2000}) == "2,000 KeyError, 1 junk"


def test_json_is_one_strict_document(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON keeps text readable, and refuses NaN."""
    print_json({"a": "é"})
    assert json.loads(capsys.readouterr().out) == {"a": "é"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        print_json(math.nan)


def test_messages_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Messages leave stdout empty."""
    print_message("hello")
    assert capsys.readouterr() == ("", "hello\n")


def test_progress_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Progress is not drawn unless stderr is a terminal."""
    with stage_progress("train") as progress, row_progress("apply", 10) as done:
        progress("fitting", 0.5)
        done(10)
    assert capsys.readouterr() == ("", "")


def _arrived(controller: int) -> Iterator[str]:
    """Yield what has been written to a terminal so far; one read returns only part of it."""
    while select.select([controller], [], [], 0.1)[0]:
        yield os.read(controller, 10_000).decode(errors="replace")


def test_progress_is_drawn_on_a_terminal() -> None:
    """Stage, percentage and rows are drawn if stderr is a terminal."""
    controller, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (40, 100))
    with os.fdopen(terminal, "w") as stderr, redirect_stderr(stderr):
        with stage_progress("train") as progress:
            progress("fitting", 0.5)
        with row_progress("apply", 1000) as done:
            done(1000)
        stderr.flush()
        drawn = "".join(_arrived(controller))
    os.close(controller)
    assert "fitting:  50%" in drawn
    assert "1.00k/1.00k" in drawn
