"""Terminal output: aligned tables, one JSON document, messages on stderr, and progress bars."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from datetime import datetime
from typing import Any, TextIO

Progress = Callable[[str, float], None]
"""Takes the name of a stage and the fraction of it that is done."""


def print_message(message: str) -> None:
    """Print a message on stderr, so that stdout stays a document."""
    print(message, file=sys.stderr)


_STDOUT: ContextVar[TextIO | None] = ContextVar("stdout", default=None)


@contextmanager
def only_documents() -> Iterator[None]:
    """Keep stdout for `print_json`: output of the project's functions goes to stderr."""
    token = _STDOUT.set(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _STDOUT.reset(token)


def print_json(document: object) -> None:
    """Print one JSON document on stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False), file=_STDOUT.get())


def printable(text: str) -> str:
    """Return a text without control characters: values of the data must not send escape codes to the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def format_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return an aligned table: numbers to the right, a dash for None.

    Examples
    --------
    >>> print(format_table(["slice", "n"], [["short", 12], ["long_one", None]]))
    slice      n
    --------  --
    short     12
    long_one   -
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(columns, *cells, strict=True)]
    is_numeric = [
        bool(rows) and all(row[k] == "-" or row[k][:1] in "+-" or row[k][:1].isdigit() for row in cells)
        for k in range(len(columns))
    ]
    lines = []
    for line in [columns, ["-" * width for width in widths], *cells]:
        spaces = [" " * (width - _width(cell)) for cell, width in zip(line, widths, strict=True)]
        padded = [
            space + cell if right else cell + space for cell, space, right in zip(line, spaces, is_numeric, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def format_interval(bounds: Sequence[float]) -> str:
    """Return the bounds of an interval in percent.

    Examples
    --------
    >>> format_interval((0.1, 0.25))
    '10.0 .. 25.0'
    """
    return " .. ".join(f"{100 * bound:.1f}" for bound in bounds)


def format_counts(counts: Mapping[str, int]) -> str:
    """Return ``3 KeyError, 1 junk answer``, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {name}" for name, count in ordered)


def format_time(timestamp: str | None) -> str | None:
    """Return an ISO 8601 timestamp as tables show it, or None for None."""
    return None if timestamp is None else f"{datetime.fromisoformat(timestamp):%Y-%m-%d %H:%M:%S}"


@contextmanager
def stage_progress(command: str) -> Iterator[Progress]:
    """Yield a callback that shows a stage and its progress; silent unless stderr is a terminal."""
    from tqdm import tqdm

    layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}"
    with tqdm(total=100, desc=command, bar_format=layout, disable=not sys.stderr.isatty()) as bar:

        def show(stage: str, fraction: float) -> None:
            bar.set_description_str(stage, refresh=False)
            bar.n = round(100 * min(max(fraction, 0.0), 1.0))
            bar.refresh()

        yield show


@contextmanager
def row_progress(command: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a callback that takes the number of further rows done; silent unless stderr is a terminal."""
    from tqdm import tqdm

    with tqdm(total=total, desc=command, unit="row", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        yield lambda rows: (bar.update(rows), None)[1]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return printable(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))


def _width(text: str) -> int:
    visible = [c for c in text if not unicodedata.combining(c)]
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in visible)
