"""``slicewatch retrain``: start a retraining, and list and show its runs."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

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
from service.cli.terminal import format_table, format_time, print_json
from service.formatting import percent, points

EXAMPLES = """slicewatch retrain --reason 'new labels of links'
  slicewatch retrain list
  slicewatch retrain show 4"""


def declare(commands: Commands) -> None:
    """Declare the commands."""
    summary = "train a candidate now, and let the promotion gate decide"
    parser = add_command(commands, "retrain", summary, EXAMPLES, run_start)
    add_author(parser, "reason", "reason stored with the run")
    add_options(parser, url=True)
    actions = add_subcommands(parser)
    summary = "list the retraining runs, newest first"
    listing = add_command(actions, "list", summary, "slicewatch retrain list", run_list)
    listing.add_argument(
        "--limit",
        type=integer_between(1, 200),
        default=20,
        metavar="N",
        help="maximum number of runs, 1 to 200 (default: 20)",
    )
    summary = "show one run, with the gate's decision by slice"
    showing = add_command(actions, "show", summary, "slicewatch retrain show 4", run_show)
    showing.add_argument("run_id", type=integer_between(1), metavar="RUN", help="number of the run")
    for action in (listing, showing):
        add_options(action, url=True)


def run_start(args: argparse.Namespace, context: Context) -> int:
    """Start a retraining, and print its number."""
    with running_service(args, context) as client:
        run = client.retrain(args.reason, by=args.by)
    if args.json:
        print_json(run)
    else:
        print(f"run {run['id']} is {_spaced(run['state'])}: follow it with `slicewatch retrain show {run['id']}`")
    return 0


def run_list(args: argparse.Namespace, context: Context) -> int:
    """Print a line per run."""
    with running_service(args, context) as client:
        runs = client.runs(limit=args.limit)["runs"]
    if args.json:
        print_json({"runs": runs})
    elif runs:
        names = ("reason", "champion", "candidate", "outcome")
        rows = [
            [
                run["id"],
                format_time(run["opened_at"]),
                _spaced(run["state"]),
                *(run[name] or None for name in names),
            ]
            for run in runs
        ]
        print(format_table(("run", "opened (UTC, clock time)", "state", *names), rows))
    else:
        print("no retraining runs yet: alarms start them, and so does `slicewatch retrain`")
    return 0


def run_show(args: argparse.Namespace, context: Context) -> int:
    """Print one run: its trigger, its data, and the decision of the gate."""
    with running_service(args, context) as client:
        run = client.run(args.run_id)
    if args.json:
        print_json(run)
        return 0
    fields = {
        "run": run["id"],
        "state": _spaced(run["state"]),
        "reason": run["reason"],
        "outcome": run["outcome"],
        "opened (UTC, clock time)": format_time(run["opened_at"]),
        "updated (UTC, clock time)": format_time(run["updated_at"]),
        "change began (UTC, data time)": format_time(run["since"]),
        "slices": ", ".join(run["slices"]),
        "alarms": ", ".join(map(str, run["alarms"])),
        "attempts": run["attempts"],
        "champion": run["champion"],
        "candidate": run["candidate"],
        **{_spaced(key): v for key, v in (run["data"] or {}).items() if isinstance(v, int | float | str)},
    }
    rows = [[name, value] for name, value in fields.items() if value not in (None, "")]
    print(format_table(("field", "value"), rows))
    if run["decision"] is not None:
        print(f"\ndecision of the gate: {decision_text(run['decision'])}")
    return 0


def decision_text(decision: Mapping[str, Any]) -> str:
    """Return the outcome of the gate, its reasons, and a line per slice; protected slices are marked with a star."""
    columns = ("slice", "effective n", "champion", "candidate", "difference", "interval", "outcome", "reason")
    rows = [
        [
            entry["slice"] + " *" * entry["protected"],
            entry["n"],
            percent(entry["champion"]["value"]),
            percent(entry["candidate"]["value"]),
            points(entry["difference"]),
            f"{points(entry['lower'])} to {points(entry['upper'])}",
            _spaced(entry["outcome"]),
            entry["reason"],
        ]
        for entry in decision["slices"]
    ]
    reasons = [f"- {reason}" for reason in decision["reasons"]]
    return "\n".join([decision["outcome"], *reasons, format_table(columns, rows), "* protected"])


def _spaced(state: str) -> str:
    return state.replace("held_out", "held-out").replace("_", " ")
