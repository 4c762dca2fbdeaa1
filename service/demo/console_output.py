"""Terminal output of the demo: the story in sentences and tables."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from models.slice_report import align_table
from service.demo.checks import SliceTruth, StoryResult
from service.demo.client import Document, StoryEvent
from service.demo.scenario import Goal, Phase
from service.formatting import percent, percent_of

WIDTH = 110
INDENT = " " * 7
TRIGGERS = {
    "coverage": "a coverage alarm",
    "accuracy": "an accuracy alarm",
    "age": "the age of the champion",
    "request": "a request",
}
LEFT = {True: "yes", False: "", None: "too few rows"}


def format_entry(at: datetime, text: str) -> str:
    """Return a paragraph after the time of the service's clock, wrapped to the width."""
    time = f"{at.astimezone(UTC):%H:%M}  "
    return textwrap.fill(text, WIDTH, initial_indent=time, subsequent_indent=INDENT, break_long_words=False)


def indented(text: str) -> str:
    """Return lines indented under an entry."""
    return textwrap.indent(text, INDENT)


def describe_event(event: StoryEvent) -> Iterator[str]:
    """Yield a sentence on an event, then its tables."""
    document = event.document
    if event.kind == "alarm":
        yield alarm_text(document)
    elif event.kind == "resolved":
        yield f"Alarm {document['id']} on {document['slice']} is resolved: {document['resolution']}."
    elif event.kind == "version":
        yield f"Version {document['version']} is now serving."
    elif event.kind == "opened":
        waits = "; it waits for labels" if document["state"] == "waiting_for_labels" else ""
        trigger = TRIGGERS[document["trigger"]]
        yield f"Run {document['id']} is opened by {trigger}{waits}: {document['reason']}."
    elif event.kind == "gate":
        rows = [
            f"{value:,} {key.removesuffix('_rows').replace('_', '-')} rows"
            for key, value in (document["data"] or {}).items()
            if key.endswith("_rows")
        ]
        yield (
            f"Run {document['id']} has trained version {document['candidate']} on "
            f"{', '.join(rows) or 'the available rows'}. The promotion gate, on held-out rows:"
        )
        yield indented(gate_table(document["decision"]))
    else:
        yield _run_text(document)


def alarm_text(alarm: Document) -> str:
    """Return a sentence on an alarm with its evidence.

    Examples
    --------
    >>> alarm = {"id": 1, "evidence": 19.24, "threshold": 18.5, "slice": "links"}
    >>> alarm_text(alarm | {"sentence": "coverage of links is 8.1% since 12:40 UTC, expected 1.7% to 2.5%"})
    'ALARM 1: coverage of links is 8.1% since 12:40 UTC, expected 1.7% to 2.5% (log evidence 19.2 of 18.5).'
    """
    evidence = "-" if alarm["evidence"] is None else f"{alarm['evidence']:.1f}"
    against = f"log evidence {evidence} of {alarm['threshold']:.1f}"
    return f"ALARM {alarm['id']}: {alarm['sentence']} ({against})."


def _run_text(run: Document) -> str:
    name, state = f"Run {run['id']}", run["state"]
    if state == "training" and run["attempts"]:
        return f"{name} is training, attempt {run['attempts']}."
    if state == "training":
        return f"{name} is about to train" + (f": {run['outcome']}." if run["outcome"] else ".")
    if state == "gated":
        return f"{name} is gated: the gate's decision is {run['decision']['outcome']}."
    return f"{name} is {state}: {run['outcome']}."


def training_table(document: Document) -> str:
    """Return the report of a training, a line per slice."""
    rows = [["slice", "held-out rows", "coverage", "accuracy"]]
    for entry in document["report"]["shipped"]:
        coverage, accuracy = percent(entry["coverage"]), percent(entry["accuracy"])
        rows.append([entry["slice"], f"{entry['n']:,}", coverage, accuracy])
    return align_table(rows)


def gate_table(decision: Document) -> str:
    """Return the decision of the gate, a line per slice."""
    names = "slice,protected,effective n,champion,candidate,difference,interval,outcome"
    rows = [names.split(",")]
    for entry in decision["slices"]:
        rows.append(
            [
                entry["slice"],
                "yes" if entry["protected"] else "",
                f"{entry['n']:,}",
                percent(entry["champion"]["value"]),
                percent(entry["candidate"]["value"]),
                f"{100 * entry['difference']:+.1f}",
                f"{100 * entry['lower']:+.1f} .. {100 * entry['upper']:+.1f}",
                entry["outcome"].replace("_", " "),
            ]
        )
    return align_table(rows)


def truth_tables(truths: Sequence[SliceTruth], phases: Iterable[Phase]) -> str:
    """Return a table per version: tolerance band, true coverage in each phase, and whether the slice alarmed."""
    tables, phases = [], list(phases)
    for version in sorted({truth.version for truth in truths}):
        of_version = [truth for truth in truths if truth.version == version]
        served = [p.name for p in phases if any(p.name in truth.coverages for truth in of_version)]
        rows = [["slice", "tolerance band", *served, "left", "alarmed"]]
        for truth in of_version:
            band = f"{percent(truth.lower)} to {percent(truth.upper)}"
            coverages = [percent(truth.coverages.get(phase)) for phase in served]
            rows.append([truth.slice, band, *coverages, LEFT[truth.left], "yes" if truth.alarmed else ""])
        tables.append(f"under version {version}:\n{align_table(rows)}")
    return "\n\n".join(tables)


def ending(result: StoryResult, failures: Sequence[str], goal: Goal | None, seconds: float) -> Iterator[str]:
    """Yield the last lines: the accuracy before and after, and the verdict."""
    if goal is not None:
        before, after = (percent_of(*rate, "labels") for rate in (result.before, result.after))
        yield f"Accuracy on {goal.slice}: {before} before, {after} after."
    if failures:
        yield f"The story did not happen, after {seconds:.0f} s:"
        yield from (f"  - {failure}" for failure in failures)
    else:
        end = "promoted" if result.run is None else result.run["state"]
        yield (
            f"The story happened: {end}, and the slices that alarmed are the slices that left their band. "
            f"It took {seconds:.0f} s."
        )
