"""The story in words: what the service shows, as lines for a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from models.slice_report import aligned
from service.demo.check import Result, share
from service.demo.script import Goal, Phase
from service.demo.truth import Standing
from service.demo.watch import Document, News

WIDTH = 110
_INDENT = " " * 7
_LEFT = {True: "yes", False: "", None: "too few rows"}


def entry(at: datetime, text: str) -> str:
    """Return a sentence under the time of the service's clock, in lines that fit."""
    head = f"{at.astimezone(UTC):%H:%M}  "
    return textwrap.fill(text, WIDTH, initial_indent=head, subsequent_indent=_INDENT, break_long_words=False)


def block(text: str) -> str:
    """Return lines moved in under an entry."""
    return textwrap.indent(text, _INDENT)


def told(news: News) -> Iterator[str]:
    """Yield what there is to say of a piece of news: a sentence first, then blocks."""
    of = news.document
    if news.kind == "alarm":
        yield alarm_text(of)
    elif news.kind == "resolved":
        yield f"Alarm {of['id']} on {of['slice']} is over: {of['resolution']}."
    elif news.kind == "version":
        yield f"Version {of['version']} answers now."
    elif news.kind == "opened":
        yield _opened(of)
    elif news.kind == "gate":
        made = f"Run {of['id']} has trained version {of['candidate']} on {_data(of['data'])}"
        yield f"{made}. The gate, on held-out rows:"
        yield block(gate_text(of["decision"]))
    else:
        yield _run(of)


def alarm_text(alarm: Document) -> str:
    """Return an alarm with the evidence for it.

    Examples
    --------
    >>> alarm = {"id": 1, "kind": "coverage", "evidence": 19.24, "threshold": 18.5, "slice": "links"}
    >>> alarm_text(alarm | {"sentence": "links holds 8.1 % of rows since 12:40 UTC, expected 1.7 to 2.5 %"})
    'ALARM 1, coverage: links holds 8.1 % of rows since 12:40 UTC, expected 1.7 to 2.5 % (log evidence 19.2 of 18.5).'
    """
    evidence = "-" if alarm["evidence"] is None else f"{alarm['evidence']:.1f}"
    against = f"log evidence {evidence} of {alarm['threshold']:.1f}"
    return f"ALARM {alarm['id']}, {alarm['kind']}: {alarm['sentence']} ({against})."


def trained_text(document: Document) -> str:
    """Return the report of a training, a line per slice."""
    head = ["slice", "held-out rows", "coverage", "accuracy"]
    rows = [[each["slice"], f"{each['n']:,}", _percent(each["coverage"]), _percent(each["accuracy"])]
            for each in document["report"]["shipped"]]  # fmt: skip
    return aligned([head, *rows])


def gate_text(decision: Document) -> str:
    """Return what the gate said, slice by slice."""
    head = ["slice", "protected", "n", "champion", "candidate", "difference", "limits", "says"]
    rows = [
        [
            each["slice"],
            "yes" if each["protected"] else "",
            f"{each['n']:,}",
            _percent(each["champion"]["value"]),
            _percent(each["candidate"]["value"]),
            f"{100 * each['difference']:+.1f}",
            f"{100 * each['lower']:+.1f} .. {100 * each['upper']:+.1f}",
            each["outcome"].replace("_", " "),
        ]
        for each in decision["slices"]
    ]
    return aligned([head, *rows])


def truth_text(standings: Sequence[Standing], phases: Iterable[Phase]) -> str:
    """Return, per slice, its zone, where its coverage truly was in each phase, and who says that it left."""
    versions = sorted({each.version for each in standings})
    return "\n\n".join(
        f"under version {version}:\n"
        + _truth([each for each in standings if each.version == version], phases)
        for version in versions
    )


def ending(result: Result, failures: Sequence[str], goal: Goal | None, seconds: float) -> Iterator[str]:
    """Yield the last lines: what came of it, and what did not happen."""
    if goal is not None:
        yield f"Accuracy on {goal.slice}: {share(*result.before)} before, {share(*result.after)} after."
    if failures:
        yield f"The story did not happen, after {seconds:.0f} s:"
        yield from (f"  - {each}" for each in failures)
    else:
        end = "promoted" if result.run is None else result.run["state"]
        yield f"The story happened: {end}, alarmed slices are those that left their zones. It took {seconds:.0f} s."


def _opened(run: Document) -> str:
    by = {"coverage": "a coverage alarm", "accuracy": "an accuracy alarm", "age": "age", "request": "request"}
    waits = "; it waits for labels" if run["state"] == "waiting_for_labels" else ""
    return f"Run {run['id']} is opened by {by[run['trigger']]}{waits}: {run['reason']}."


def _run(run: Document) -> str:
    name, state = f"Run {run['id']}", run["state"]
    if state == "training":
        why = f": {run['outcome']}" if run["outcome"] else ""
        return (
            f"{name} trains, attempt {run['attempts']}." if run["attempts"] else f"{name} is to train{why}."
        )
    if state == "gated":
        return f"{name} is gated: the gate says {run['decision']['outcome']}."
    return f"{name} is {state}: {run['outcome']}."


def _data(data: Mapping[str, Any] | None) -> str:
    counts = {key: value for key, value in (data or {}).items() if key.endswith("_rows")}
    said = [f"{value:,} {key.removesuffix('_rows').replace('_', '-')} rows" for key, value in counts.items()]
    return ", ".join(said) or "what was there"


def _truth(standings: Sequence[Standing], phases: Iterable[Phase]) -> str:
    names = [phase.name for phase in phases if any(phase.name in each.coverages for each in standings)]
    rows = [["slice", "zone", *names, "left", "alarmed"]]
    for each in standings:
        zone = f"{100 * each.lower:.2f} .. {100 * each.upper:.2f} %"
        seen = [_percent(each.coverages.get(name), digits=2) for name in names]
        rows.append([each.slice, zone, *seen, _LEFT[each.left], "yes" if each.alarmed else ""])
    return aligned(rows)


def _percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"
