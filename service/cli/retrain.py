"""``slicewatch retrain``: train a candidate now, and what became of the ones before."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from service.cli.command import Commands, Context, add_command
from service.cli.drift import number, time_of
from service.cli.running import actions_under, add_reach, running_service
from service.cli.terminal import print_json, table

if TYPE_CHECKING:
    from service.decisions import Decision

EXAMPLES = """slicewatch retrain --reason 'new labels of links'
  slicewatch retrain list
  slicewatch retrain show 4"""


def declare(commands: Commands) -> None:
    """Declare the commands."""
    parser = add_command(
        commands, "retrain", "train a candidate now, and let the gate judge it", EXAMPLES, run_start
    )
    parser.add_argument("--reason", default="", metavar="TEXT", help="kept with the run")
    parser.add_argument("--by", default="", metavar="NAME", help="who you are")
    add_reach(parser)
    actions = actions_under(parser)
    listing = add_command(
        actions, "list", "list the retrainings, newest first", "slicewatch retrain list", run_list
    )
    listing.add_argument(
        "--limit", type=_limit, default=20, metavar="N", help="how many, 1 to 200 (default: 20)"
    )
    showing = add_command(
        actions,
        "show",
        "show one retraining, with what the gate said slice by slice",
        "slicewatch retrain show 4",
        run_show,
    )
    showing.add_argument("run_id", type=number, metavar="RUN", help="its number")
    for action in (listing, showing):
        add_reach(action)


def run_start(args: argparse.Namespace, context: Context) -> int:
    """Begin a retraining, and print its number."""
    with running_service(args, context) as client:
        run = client.retrain(args.reason, by=args.by)
    if args.json:
        print_json(run)
    else:
        print(
            f"run {run['id']} is {words(run['state'])}: `slicewatch retrain show {run['id']}` tells how it goes"
        )
    return 0


def run_list(args: argparse.Namespace, context: Context) -> int:
    """Print a line per retraining."""
    with running_service(args, context) as client:
        runs = client.runs(limit=args.limit)["runs"]
    if args.json:
        print_json({"runs": runs})
    elif runs:
        columns = ("run", "opened (UTC)", "state", "reason", "champion", "candidate", "outcome")
        print(table(columns, [_row(each) for each in runs]))
    else:
        print("nothing was retrained yet: `slicewatch retrain` begins, and so do alarms")
    return 0


def run_show(args: argparse.Namespace, context: Context) -> int:
    """Print one retraining: its cause, its data, and what the gate said."""
    with running_service(args, context) as client:
        run = client.run(args.run_id)
    if args.json:
        print_json(run)
        return 0
    shown = [[name, value] for name, value in _about(run).items() if value not in (None, "")]
    print(table(("what", "value"), shown))
    if run["decision"] is not None:
        from service.monitor import promotion_gate as gate_text

        print(f"\nthe gate says: {gate_text.table(decision_of(run['decision']))}")
    return 0


def decision_of(told: Mapping[str, Any]) -> Decision:
    """Return what the gate said as a value, from what the service tells of it."""
    from service.decisions import Decision, PairedCounts, SliceDecision

    judged = []
    for each in told["slices"]:
        one, other = each["only_champion"], each["only_candidate"]
        pairs = PairedCounts(each["slice"], each["n"], each["champion"]["count"] - one, one, other)
        said = [each[name] for name in ("protected", "difference", "lower", "upper", "outcome", "reason")]
        judged.append(SliceDecision(pairs, *said))
    reasons = tuple(told["reasons"])
    return Decision(told["outcome"], reasons, tuple(judged), told["margin"], told["confidence"])


def words(state: str) -> str:
    """Return a state as words.

    Examples
    --------
    >>> words("waiting_for_labels")
    'waiting for labels'
    """
    return state.replace("_", " ")


def _row(run: Mapping[str, Any]) -> list[Any]:
    names = ("reason", "champion", "candidate", "outcome")
    return [run["id"], time_of(run["opened_at"]), words(run["state"]), *(run[name] or None for name in names)]


def _about(run: Mapping[str, Any]) -> dict[str, Any]:
    numbers = {
        name.replace("_", " "): value
        for name, value in (run["data"] or {}).items()
        if isinstance(value, int | float | str)
    }
    return {
        "run": run["id"],
        "state": words(run["state"]),
        "reason": run["reason"],
        "outcome": run["outcome"],
        "opened (UTC)": time_of(run["opened_at"]),
        "last moved (UTC)": time_of(run["updated_at"]),
        "change began (UTC)": time_of(run["since"]),
        "slices": ", ".join(run["slices"]),
        "alarms": ", ".join(map(str, run["alarms"])),
        "attempts": run["attempts"],
        "champion": run["champion"],
        "candidate": run["candidate"],
        **numbers,
    }


def _limit(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 200:
        raise argparse.ArgumentTypeError(f"a limit is a number from 1 to 200, got {text!r}")
    return int(text)
