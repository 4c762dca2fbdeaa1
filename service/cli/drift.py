"""``slicewatch drift``: state of the drift detectors, and the alarms that they raised."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from service.cli.parser import (
    Commands,
    Context,
    add_author,
    add_command,
    add_options,
    add_subcommands,
    integer_between,
)
from service.cli.project import running_service
from service.cli.reference import reference_table_line
from service.cli.terminal import format_table, format_time, print_json
from service.formatting import limit_text, percent

if TYPE_CHECKING:
    from service.client import Client

EXAMPLES = """slicewatch drift
  slicewatch drift alarms --all
  slicewatch drift acknowledge 3 --by ada --note 'a campaign, until Friday'"""
PAGE_ROWS = 200


def declare(commands: Commands) -> None:
    """Declare the commands."""
    parser = add_command(commands, "drift", "list the drift state of every slice", EXAMPLES, run_list)
    add_options(parser, url=True)
    actions = add_subcommands(parser)
    example = "slicewatch drift alarms --all"
    alarms = add_command(actions, "alarms", "list the unresolved alarms", example, run_alarms)
    alarms.add_argument("--all", action="store_true", default=False, help="include resolved alarms")
    summary = "show one alarm with its evidence"
    showing = add_command(actions, "show", summary, "slicewatch drift show 3", run_show)
    example = "slicewatch drift acknowledge 3 --by ada --note 'a campaign, until Friday'"
    acknowledging = add_command(actions, "acknowledge", "acknowledge an alarm", example, run_acknowledge)
    example = "slicewatch drift resolve 3 --note 'the spam filter was repaired'"
    resolving = add_command(actions, "resolve", "resolve an alarm by hand", example, run_resolve)
    for action in (showing, acknowledging, resolving):
        action.add_argument("alarm", type=integer_between(1), metavar="ALARM", help="number of the alarm")
    for action in (acknowledging, resolving):
        add_author(action, "note", "note stored with the alarm")
    for action in (alarms, showing, acknowledging, resolving):
        add_options(action, url=True)


def run_list(args: argparse.Namespace, context: Context) -> int:
    """Print a line per detector, the nearest to an alarm first."""

    with running_service(args, context) as client:
        slices = client.slices()
        alarms = {(alarm["slice"], alarm["kind"]): alarm["id"] for alarm in all_alarms(client, "unresolved")}
    drifts = [
        {"slice": entry["name"], "kind": kind, **drift, "alarm": alarms.get((entry["name"], kind))}
        for entry in slices["slices"]
        for kind, drift in (entry["drift"] or {}).items()
    ]
    drifts.sort(key=lambda drift: -drift["share"])
    if args.json:
        header = {name: slices.get(name) for name in ("at", "model", "version", "clock", "reference_table")}
        print_json({**header, "drifts": drifts})
        return 0
    if note := slices.get("clock"):
        print(f"note: {note}\n")
    if line := reference_table_line(slices):
        print(f"{line}\n")
    if not drifts:
        print(f"no slice is monitored for drift yet: {_why_unmonitored(slices['slices'])}")
        return 0
    rows = [
        [
            drift["slice"],
            drift["kind"],
            _expected(drift),
            None if drift["observed"]["value"] is None else percent(drift["observed"]["value"]),
            drift["observed"]["n"],
            format_time(drift["since"]),
            f"{drift['share']:.0%}",
            drift["alarm"],
            _fall(drift),
        ]
        for drift in drifts
    ]
    columns = ("slice", "kind", "expected", "observed", "of", "since (UTC)", "evidence", "alarm", "labels to an alarm")
    print(format_table(columns, rows))
    for line in _gathering(slices["slices"]):
        print(line)
    return 0


def run_alarms(args: argparse.Namespace, context: Context) -> int:
    """Print a line per alarm, newest first."""
    with running_service(args, context) as client:
        alarms = list(all_alarms(client, "all" if args.all else "unresolved"))
    if args.json:
        print_json({"alarms": alarms})
    elif alarms:
        rows = [[alarm["id"], format_time(alarm["at"]), alarm["state"], alarm["sentence"]] for alarm in alarms]
        print(format_table(("alarm", "raised (UTC, data time)", "state", "summary"), rows))
    else:
        print("no alarms" if args.all else "no unresolved alarms")
    return 0


def run_show(args: argparse.Namespace, context: Context) -> int:
    """Print one alarm with its evidence."""
    with running_service(args, context) as client:
        return _print_alarm(args, client.alarm(args.alarm))


def run_acknowledge(args: argparse.Namespace, context: Context) -> int:
    """Acknowledge an alarm, and print it."""
    with running_service(args, context) as client:
        return _print_alarm(args, client.acknowledge(args.alarm, by=args.by, note=args.note))


def run_resolve(args: argparse.Namespace, context: Context) -> int:
    """Resolve an alarm, and print it."""
    with running_service(args, context) as client:
        return _print_alarm(args, client.resolve(args.alarm, by=args.by, note=args.note))


def all_alarms(client: Client, state: str) -> Iterator[dict[str, Any]]:
    """Yield the alarms in a state, newest first, over all pages."""
    before: int | None = None
    while True:
        page = client.alarms(state, before=before, limit=PAGE_ROWS)
        yield from page["alarms"]
        before = page["next"]
        if before is None:
            return


def _why_unmonitored(slices: Sequence[Mapping[str, Any]]) -> str:
    """Return the reason why no slice has an expected coverage; with one, rows are missing."""
    reasons = [slice_["reference"].get("reason") for slice_ in slices if slice_["kind"] in ("slice", "labeling")]
    if not reasons:
        return "there are no slicing functions"
    return next(filter(None, reasons)) if all(reasons) else "the first complete block of traffic is awaited"


def _gathering(slices: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line on the slices whose expected accuracy is set by labels that have not arrived."""
    missing = {
        slice_["name"]: expected
        for slice_ in slices
        if (expected := slice_.get("accuracy_reference", {})).get("needed", 0) > 1
    }
    if missing:
        listed = ", ".join(f"{name} {expected['n']:,}" for name, expected in missing.items())
        needed = max(expected["needed"] for expected in missing.values())
        yield f"\n{needed:,} labels of a slice set its expected accuracy, which is then monitored; so far: {listed}"


def _expected(drift: Mapping[str, Any]) -> str | None:
    band = drift["expected"]
    if band is None:
        return None
    if drift["kind"] == "accuracy":
        return f"at least {limit_text(band['lower'], band['target'])}"
    return f"{percent(band['lower'])} to {percent(band['upper'])}"


def _fall(drift: Mapping[str, Any]) -> str | None:
    """Return the labels that an alarm takes at half of the expected accuracy."""
    fall = drift["labels_to_alarm"]
    return None if fall is None else f"about {fall['labels']:,} at {percent(fall['accuracy'])}"


def _print_alarm(args: argparse.Namespace, alarm: Mapping[str, Any]) -> int:
    if args.json:
        print_json(alarm)
        return 0
    observed, band = alarm["observed"], alarm["expected"]
    effective = f", effective n {band['effective_n']:,}" if band and band["effective_n"] < band["n"] else ""
    fields = {
        "state": alarm["state"],
        "raised (UTC, data time)": format_time(alarm["at"]),
        "model version": alarm["version"],
        "change began (UTC, data time)": format_time(alarm["since"]),
        "observed": f"{observed['count']:,} of {observed['n']:,}",
        "expected": _expected(alarm),
        "reference": f"{band['count']:,} of {band['n']:,}{effective}" if band and band["n"] else None,
        "evidence": f"{alarm['share']:.0%} of the alarm threshold",
        "acknowledged (UTC)": format_time(alarm["acknowledged_at"]),
        "acknowledged by": alarm["acknowledged_by"] or None,
        "note": alarm["note"] or None,
        "resolved (UTC)": format_time(alarm["resolved_at"]),
        "resolution": alarm["resolution"] or None,
    }
    rows = [[name, value] for name, value in fields.items() if value is not None]
    print(f"alarm {alarm['id']}: {alarm['sentence']}\n\n{format_table(('field', 'value'), rows)}")
    return 0
