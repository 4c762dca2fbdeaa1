"""What a person sees: aligned tables, one JSON document, messages on stderr, and progress bars."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

Progress = Callable[[str, float], None]
"""Takes the name of a stage and the share of it that is done."""


def say(message: str) -> None:
    """Tell the person something; it goes to stderr, so that stdout stays a document."""
    print(message, file=sys.stderr)


def print_json(document: object) -> None:
    """Print one JSON document on stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return an aligned table; numbers stand right, None is a dash.

    Examples
    --------
    >>> print(table(["slice", "n"], [["short", 12], ["long_one", None]]))
    slice      n
    --------  --
    short     12
    long_one   -
    """
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(columns, *cells, strict=True)]
    right = [all(_is_number(row[k]) for row in rows) and bool(rows) for k in range(len(columns))]
    lines = [columns, ["-" * width for width in widths], *cells]
    return "\n".join(_line(line, widths, right) for line in lines)


def percent(share: float | None) -> str | None:
    """Return ``12.3 %``, or None where there is no share."""
    return None if share is None else f"{100 * share:.1f} %"


def interval(bounds: tuple[float, float]) -> str:
    """Return the two ends of an interval in percent.

    Examples
    --------
    >>> interval((0.1, 0.25))
    '10.0 .. 25.0'
    """
    return " .. ".join(f"{100 * bound:.1f}" for bound in bounds)


def reasons(counts: Mapping[str, int]) -> str:
    """Return ``3 KeyError, 1 junk answer``, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {reason}" for reason, count in ordered)


@contextmanager
def stages(command: str) -> Iterator[Progress]:
    """Yield a callback that shows stage and share done; silent when stderr is not a terminal."""
    from tqdm import tqdm

    layout = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}"
    with tqdm(total=100, desc=command, bar_format=layout, disable=not sys.stderr.isatty()) as bar:

        def show(stage: str, share: float) -> None:
            bar.set_description_str(stage, refresh=False)
            bar.n = round(100 * min(max(share, 0.0), 1.0))
            bar.refresh()

        yield show


@contextmanager
def rows_bar(command: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a callback that takes how many more rows are done; silent when stderr is not a terminal."""
    from tqdm import tqdm

    with tqdm(total=total, desc=command, unit="row", unit_scale=True, disable=not sys.stderr.isatty()) as bar:
        yield lambda rows: (bar.update(rows), None)[1]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text
    )  # no escape codes from data


def _is_number(value: Any) -> bool:
    text = _cell(value)
    return text == "-" or text[:1].isdigit() or text[:1] in "+-"


def _width(text: str) -> int:
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = []
    for cell, width, to_right in zip(cells, widths, right, strict=True):
        space = " " * (width - _width(cell))
        padded.append(space + cell if to_right else cell + space)
    return "  ".join(padded).rstrip()
