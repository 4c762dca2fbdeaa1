"""``slicewatch drift``: where slices stand with their detectors, and the alarms that they raised."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from service.cli.command import Commands, Context, add_command
from service.cli.running import actions_under, add_reach, running_service
from service.cli.terminal import print_json, table

if TYPE_CHECKING:
    from service.client import Client

EXAMPLES = """slicewatch drift
  slicewatch drift alarms --all
  slicewatch drift acknowledge 3 --by ada --note 'a campaign, until Friday'"""
PAGE_ROWS = 200


def declare(commands: Commands) -> None:
    """Declare the commands."""
    parser = add_command(commands, "drift", "list where every watched slice stands", EXAMPLES, run_list)
    add_reach(parser)
    actions = actions_under(parser)
    alarms = add_command(
        actions, "alarms", "list the alarms that have not ended", "slicewatch drift alarms --all", run_alarms
    )
    alarms.add_argument("--all", action="store_true", default=False, help="also those that have ended")
    showing = add_command(
        actions, "show", "show one alarm with its evidence", "slicewatch drift show 3", run_show
    )
    knowing = add_command(
        actions,
        "acknowledge",
        "say that you know of an alarm",
        "slicewatch drift acknowledge 3 --by ada --note 'a campaign, until Friday'",
        run_acknowledge,
    )
    ending = add_command(
        actions,
        "resolve",
        "end an alarm by hand",
        "slicewatch drift resolve 3 --note 'the spam filter was repaired'",
        run_resolve,
    )
    for action in (showing, knowing, ending):
        action.add_argument("alarm", type=number, metavar="ALARM", help="its number")
    for action in (knowing, ending):
        action.add_argument("--by", default="", metavar="NAME", help="who you are")
        action.add_argument("--note", default="", metavar="TEXT", help="what is to be known of it")
    for action in (alarms, showing, knowing, ending):
        add_reach(action)


def run_list(args: argparse.Namespace, context: Context) -> int:
    """Print a line per detector, those nearest to an alarm first."""
    with running_service(args, context) as client:
        slices = client.slices()
        raised = {(each["slice"], each["kind"]): each["id"] for each in all_alarms(client, "unresolved")}
    drifts = [
        {"slice": each["name"], "kind": kind, **drift, "alarm": raised.get((each["name"], kind))}
        for each in slices["slices"]
        for kind, drift in (each["drift"] or {}).items()
    ]
    drifts.sort(key=lambda each: -each["share"])
    if args.json:
        print_json({**{name: slices[name] for name in ("at", "model", "version")}, "drifts": drifts})
    elif drifts:
        print(table(_COLUMNS, [_row(each) for each in drifts]))
    else:
        print("no slice is watched yet: it takes a model with references, and traffic")
    return 0


def run_alarms(args: argparse.Namespace, context: Context) -> int:
    """Print a line per alarm, newest first."""
    with running_service(args, context) as client:
        alarms = list(all_alarms(client, "all" if args.all else "unresolved"))
    if args.json:
        print_json({"alarms": alarms})
    elif alarms:
        rows = [[each["id"], time_of(each["at"]), each["state"], each["sentence"]] for each in alarms]
        print(table(("alarm", "at (UTC)", "state", "what"), rows))
    else:
        print("there are no alarms" if args.all else "no alarm stands")
    return 0


def run_show(args: argparse.Namespace, context: Context) -> int:
    """Print one alarm with its evidence."""
    with running_service(args, context) as client:
        return _told(args, client.alarm(args.alarm))


def run_acknowledge(args: argparse.Namespace, context: Context) -> int:
    """Acknowledge an alarm, and print it."""
    with running_service(args, context) as client:
        return _told(args, client.acknowledge(args.alarm, by=args.by, note=args.note))


def run_resolve(args: argparse.Namespace, context: Context) -> int:
    """End an alarm, and print it."""
    with running_service(args, context) as client:
        return _told(args, client.resolve(args.alarm, by=args.by, note=args.note))


def all_alarms(client: Client, state: str) -> Iterator[dict[str, Any]]:
    """Yield the alarms of a state, newest first."""
    before: int | None = None
    while True:
        page = client.alarms(state, before=before, limit=PAGE_ROWS)
        yield from page["alarms"]
        before = page["next"]
        if before is None:
            return


def number(text: str) -> int:
    """Return the number of an alarm or a run, from the command line."""
    if not text.isdecimal() or not 0 < int(text) < 2**53:
        raise argparse.ArgumentTypeError(f"a number counts from 1, got {text!r}")
    return int(text)


def time_of(told: str | None) -> str | None:
    """Return a time as it stands in tables; a dash stands for none."""
    return None if told is None else f"{datetime.fromisoformat(told):%Y-%m-%d %H:%M:%S}"


_COLUMNS = ("slice", "kind", "expected", "observed", "of", "since (UTC)", "evidence", "alarm")


def _row(drift: Mapping[str, Any]) -> list[Any]:
    from service.views.alarms import share_text

    observed, since = drift["observed"], time_of(drift["since"])
    seen = None if observed["value"] is None else share_text(observed["value"])
    evidence = f"{100 * drift['share']:.0f} %"
    expected = _expected(drift)
    return [drift["slice"], drift["kind"], expected, seen, observed["n"], since, evidence, drift["alarm"]]


def _expected(drift: Mapping[str, Any]) -> str | None:
    from service.views.alarms import share_text

    zone = drift["expected"]
    if zone is None:
        return None
    if drift["kind"] == "accuracy":
        return f"at least {share_text(zone['lower'])}"
    return f"{share_text(zone['lower'])} to {share_text(zone['upper'])}"


def _told(args: argparse.Namespace, alarm: Mapping[str, Any]) -> int:
    if args.json:
        print_json(alarm)
        return 0
    observed, zone = alarm["observed"], alarm["expected"]
    rows = [
        ("state", alarm["state"]),
        ("raised (UTC)", time_of(alarm["at"])),
        ("model version", alarm["version"]),
        ("began (UTC)", time_of(alarm["since"])),
        ("seen", f"{observed['count']:,} of {observed['n']:,}"),
        ("expected", _expected(alarm)),
        ("reference", None if zone is None else f"{zone['count']:,} of {zone['n']:,}"),
        ("evidence", f"{100 * alarm['share']:.0f} % of what alarms"),
        ("acknowledged (UTC)", time_of(alarm["acknowledged_at"])),
        ("acknowledged by", alarm["acknowledged_by"] or None),
        ("note", alarm["note"] or None),
        ("ended (UTC)", time_of(alarm["resolved_at"])),
        ("why it ended", alarm["resolution"] or None),
    ]
    print(f"alarm {alarm['id']}: {alarm['sentence']}\n")
    print(table(("what", "value"), [[name, value] for name, value in rows if value is not None]))
    return 0
