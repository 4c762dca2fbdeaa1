"""``slicewatch drift``: state of the drift detectors, the alarms that they raised, and their incidents."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from service.cli import drift_replay
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
  slicewatch drift incidents
  slicewatch drift acknowledge --incident 3 --by ada --note 'a campaign, until Friday'
  slicewatch drift replay january.parquet --time at"""
PAGE_ROWS = 200
_OF_LABELS = ("accuracy", "family_accuracy", "votes")  # kinds whose evidence is labels


def declare(commands: Commands) -> None:
    """Declare the commands."""
    parser = add_command(commands, "drift", "list the drift state of every slice", EXAMPLES, run_list)
    add_options(parser, url=True)
    actions = add_subcommands(parser)
    example = "slicewatch drift alarms --all"
    alarms = add_command(actions, "alarms", "list the unresolved alarms", example, run_alarms)
    alarms.add_argument("--all", action="store_true", default=False, help="include resolved alarms")
    example = "slicewatch drift incidents --all"
    incidents = add_command(actions, "incidents", "list the incidents with their alarms", example, run_incidents)
    incidents.add_argument("--all", action="store_true", default=False, help="include resolved incidents")
    summary = "show one alarm with its evidence, or an incident"
    showing = add_command(actions, "show", summary, "slicewatch drift show 3", run_show)
    example = "slicewatch drift acknowledge 3 --by ada --note 'a campaign, until Friday'"
    acknowledging = add_command(actions, "acknowledge", "acknowledge an alarm or incident", example, run_acknowledge)
    example = "slicewatch drift resolve 3 --note 'the spam filter was repaired'"
    resolving = add_command(actions, "resolve", "resolve an alarm or incident by hand", example, run_resolve)
    for action in (showing, acknowledging, resolving):
        which = action.add_mutually_exclusive_group(required=True)
        which.add_argument(
            "alarm", type=integer_between(1), nargs="?", default=None, metavar="ALARM", help="number of the alarm"
        )
        help_text = "number of an incident, instead of an alarm: all of its alarms"
        which.add_argument("--incident", type=integer_between(1), default=None, metavar="N", help=help_text)
    example = "slicewatch drift accept 3 --by ada --note 'the new app sends shorter texts'"
    accepting = add_command(actions, "accept", "accept the rate since the change as normal", example, run_accept)
    accepting.add_argument("alarm", type=integer_between(1), metavar="ALARM", help="number of the alarm")
    for action in (acknowledging, resolving, accepting):
        add_author(action, "note", "note stored with the alarm")
    for action in (alarms, incidents, showing, acknowledging, resolving, accepting):
        add_options(action, url=True)
    drift_replay.declare(actions)


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
    for family in slices.get("families", ()):
        if family["drift"] is not None:
            alarm = alarms.get((family["name"], "family_accuracy"))
            drifts.append({"slice": family["name"], "kind": "family_accuracy", **family["drift"], "alarm": alarm})
    drifts.sort(key=lambda drift: -drift["share"])
    if args.json:
        header = {
            name: slices.get(name) for name in ("at", "model", "version", "settling_hours", "clock", "reference_table")
        }
        print_json({**header, "drifts": drifts})
        return 0
    if note := slices.get("clock"):
        print(f"note: {note}\n")
    if line := reference_table_line(slices):
        print(f"{line}\n")
    if not drifts:
        print(f"no slice is monitored for drift yet: {_why_unmonitored(slices['slices'])}")
        return 0
    has_unknown = any(drift.get("unknown_since") for drift in drifts)
    rows = [
        [
            drift["slice"],
            drift["kind"].replace("_", " "),
            _expected(drift),
            None if drift["observed"]["value"] is None else percent(drift["observed"]["value"]),
            drift["observed"]["n"],
            format_time(drift["since"]),
            f"{drift['share']:.0%}",
            drift["alarm"],
            _fall(drift),
            *([format_time(drift.get("unknown_since"))] if has_unknown else []),
        ]
        for drift in drifts
    ]
    columns = ("slice", "kind", "expected", "observed", "of", "since (UTC)", "evidence", "alarm", "labels to an alarm")
    print(format_table((*columns, "unknown since (UTC)") if has_unknown else columns, rows))
    hours = slices.get("settling_hours")
    for line in (*_baselines(drifts), *_gathering(slices["slices"]), *_settling(drifts, hours), *_pooled(drifts)):
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


def run_incidents(args: argparse.Namespace, context: Context) -> int:
    """Print the alarms of every incident, newest first."""
    with running_service(args, context) as client:
        incidents = list(_all_pages(client.incidents, "incidents", "all" if args.all else "unresolved"))
    if args.json:
        print_json({"incidents": incidents})
    elif incidents:
        print("\n\n".join(map(_incident_text, incidents)))
    else:
        print("no incidents" if args.all else "no unresolved incidents")
    return 0


def run_show(args: argparse.Namespace, context: Context) -> int:
    """Print one alarm with its evidence, or an incident."""
    with running_service(args, context) as client:
        if args.incident:
            return _print_incident(args, client.incident(args.incident))
        return _print_alarm(args, client.alarm(args.alarm))


def run_acknowledge(args: argparse.Namespace, context: Context) -> int:
    """Acknowledge an alarm or incident, and print it."""
    with running_service(args, context) as client:
        if args.incident:
            return _print_incident(args, client.acknowledge_incident(args.incident, by=args.by, note=args.note))
        return _print_alarm(args, client.acknowledge(args.alarm, by=args.by, note=args.note))


def run_resolve(args: argparse.Namespace, context: Context) -> int:
    """Resolve an alarm or incident, and print it."""
    with running_service(args, context) as client:
        if args.incident:
            return _print_incident(args, client.resolve_incident(args.incident, by=args.by, note=args.note))
        return _print_alarm(args, client.resolve(args.alarm, by=args.by, note=args.note))


def run_accept(args: argparse.Namespace, context: Context) -> int:
    """Accept the rate of an alarm as the new normal, and print the alarm."""
    with running_service(args, context) as client:
        return _print_alarm(args, client.accept(args.alarm, by=args.by, note=args.note))


def all_alarms(client: Client, state: str) -> Iterator[dict[str, Any]]:
    """Yield the alarms in a state, newest first, over all pages."""
    return _all_pages(client.alarms, "alarms", state)


def _all_pages(read: Callable[..., dict[str, Any]], items: str, state: str) -> Iterator[dict[str, Any]]:
    before: int | None = None
    while True:
        page = read(state, before=before, limit=PAGE_ROWS)
        yield from page[items]
        before = page["next"]
        if before is None:
            return


def _why_unmonitored(slices: Sequence[Mapping[str, Any]]) -> str:
    """Return the reason why no slice has an expected coverage; with one, rows are missing."""
    reasons = [slice_["reference"].get("reason") for slice_ in slices if slice_["kind"] in ("slice", "labeling")]
    if not reasons:
        return "there are no slicing functions"
    return next(filter(None, reasons)) if all(reasons) else "the first complete block of traffic is awaited"


def _baselines(drifts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each source of expected coverages, with its missing parts."""
    groups: dict[tuple[str, str], list[str | None]] = {}
    for drift in drifts:
        if baseline := (drift["expected"] or {}).get("baseline"):
            groups.setdefault((baseline["source"], baseline["learning"]), []).append(baseline["since"])
    for i, ((source, learning), starts) in enumerate(sorted(groups.items())):
        since = min((start for start in starts if start), default=None)
        learned = f"; live traffic is learned since {format_time(since)} UTC" if since else ""
        count = f"{len(starts):,} slice{'s' if len(starts) > 1 else ''}"
        more = f" ({learning})" if learning else ""
        yield f"{'' if i else chr(10)}expected coverage of {count}: by {source}{learned}{more}"


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


def _settling(drifts: Sequence[Mapping[str, Any]], hours: float | None) -> Iterator[str]:
    """Yield a line if labels are not evidence at once; services of earlier releases do not tell."""
    if hours and any(drift["kind"] in _OF_LABELS for drift in drifts):
        yield f"\naccuracy: labels are evidence {hours:g} h after they arrive (drift.settling_hours)"


def _pooled(drifts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line for each group that watches slices with few labels."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for drift in drifts:
        if drift.get("pooled"):
            groups.setdefault(tuple(drift["pooled"]), []).append(drift["slice"])
    for pooled, names in groups.items():
        named = ["all traffic" if name == "__all__" else f"family {name}" for name in pooled]
        yield f"\nfew labels for an accuracy alarm of their own, watched with {' and '.join(named)}: {', '.join(names)}"


def _expected(drift: Mapping[str, Any]) -> str | None:
    band = drift["expected"]
    if band is None:
        return None
    if drift["kind"] in _OF_LABELS:
        return f"at least {limit_text(band['lower'], band['target'])}"
    return f"{percent(band['lower'])} to {percent(band['upper'])}"


def _of_fall(fall: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the labels behind an alarm on accuracy, by class and slice."""
    parts = [f"{part['slice']} {part['errors']:,} of {part['labels']:,}" for part in fall["parts"]]
    limit = "" if fall["limit"] is None else f", expected at most {percent(fall['limit'])}"
    of_class = "" if fall["true_class"] is None else f" of {fall['true_class']}"
    return {
        "wrong labels": f"{fall['errors']:,} of {fall['labels']:,}{of_class}{limit}",
        "by slice": ", ".join(parts) or None,
        "dispersion of labels": f"{fall['dispersion']:.2g}",
    }


def _unknown_since(alarm: Mapping[str, Any]) -> str | None:
    """Return the time of the last label or row of an alarm's slice, if that is long ago."""
    if (at := alarm.get("unknown_since")) is None:
        return None
    of_slice = dict.fromkeys(("accuracy", "votes"), "label of the slice")
    last = {"coverage": "row of known membership", "family_accuracy": "label", **of_slice}.get(alarm["kind"], "row")
    return f"{format_time(at)}, the last {last}"


def _fall(drift: Mapping[str, Any]) -> str | None:
    """Return the labels that an alarm takes at half of the expected accuracy."""
    fall = drift["labels_to_alarm"]
    return None if fall is None else f"about {fall['labels']:,} at {percent(fall['accuracy'])}"


def _print_incident(args: argparse.Namespace, incident: Mapping[str, Any]) -> int:
    print_json(incident) if args.json else print(_incident_text(incident))
    return 0


def _incident_text(incident: Mapping[str, Any]) -> str:
    """Return an incident with a line per alarm, the cause first."""
    by = incident["acknowledged_by"]
    state = incident["state"] + (f" by {by}" if incident["acknowledged_at"] and by else "")
    rows = [
        [alarm["id"], alarm["slice"], alarm["kind"], alarm["state"], alarm["moved"] or None, alarm["sentence"]]
        for alarm in incident["alarms"]
    ]
    table = format_table(("alarm", "slice", "kind", "state", "moved", "summary"), rows)
    return f"incident {incident['id']}: {incident['cause']}, {state}, since {format_time(incident['at'])} UTC\n{table}"


def _print_alarm(args: argparse.Namespace, alarm: Mapping[str, Any]) -> int:
    if args.json:
        print_json(alarm)
        return 0
    observed, band, fall = alarm["observed"], alarm["expected"], alarm.get("fall")
    effective = f", effective n {band['effective_n']:,}" if band and band["effective_n"] < band["n"] else ""
    fields = {
        "state": alarm["state"],
        "incident": alarm["incident"],
        "moved": alarm["moved"] or None,
        "raised (UTC, data time)": format_time(alarm["at"]),
        "model version": alarm["version"],
        "change began (UTC, data time)": format_time(alarm["since"]),
        "observed": f"{observed['count']:,} of {observed['n']:,}",
        **({} if fall is None else _of_fall(fall)),
        "expected": _expected(alarm),
        "reference": f"{band['count']:,} of {band['n']:,}{effective}" if band and band["n"] else None,
        "expected by": band["baseline"]["source"] if band and band.get("baseline") else None,
        "evidence": f"{alarm['share']:.0%} of the alarm threshold",
        "unknown since (UTC)": _unknown_since(alarm),
        "acknowledged (UTC)": format_time(alarm["acknowledged_at"]),
        "acknowledged by": alarm["acknowledged_by"] or None,
        "note": alarm["note"] or None,
        "resolved (UTC)": format_time(alarm["resolved_at"]),
        "resolution": alarm["resolution"] or None,
    }
    rows = [[name, value] for name, value in fields.items() if value is not None]
    print(f"alarm {alarm['id']}: {alarm['sentence']}\n\n{format_table(('field', 'value'), rows)}")
    return 0
