"""``slicewatch sfs``: list, check and count the slicing functions of a project."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.apply import apply_file
from service.cli.command import Commands, Context, add_command, add_config, add_json
from service.cli.project import (
    function_kind,
    load_functions,
    load_settings,
    other_source,
    project_source,
)
from service.cli.terminal import percent, print_json, table

if TYPE_CHECKING:
    from service.settings.project import Settings
    from sfs.function import SlicingFunction
    from sfs.registry import FunctionSet

CHECKED_RECORDS = 50


def declare(commands: Commands) -> None:
    """Declare the commands."""
    parser = add_command(
        commands, "sfs", "list, check or count the slicing functions", "slicewatch sfs stats"
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = add_command(
        actions, "list", "list the functions with owner and fingerprint", "slicewatch sfs list", run_list
    )
    checking = add_command(
        actions, "check", "check the contract of every function", "slicewatch sfs check", run_check
    )
    counting = add_command(
        actions, "stats", "count coverage, overlap and time", "slicewatch sfs stats new.csv", run_stats
    )
    counting.add_argument(
        "file", type=Path, nargs="?", metavar="FILE", help="rows (default: the project's data)"
    )
    for action in (listing, checking, counting):
        add_config(action)
        add_json(action)


def run_list(args: argparse.Namespace, context: Context) -> int:
    """Print every function and its metadata, labelling functions last."""
    functions = load_functions(load_settings(args, context).functions, votes=True)
    rows = [_listed(function) for function in functions]
    if args.json:
        print_json(rows)
    else:
        print(
            table(
                ("name", "kind", "owner", "severity", "target", "protected", "fingerprint"),
                [_row(one) for one in rows],
            )
        )
    return 0


def run_check(args: argparse.Namespace, context: Context) -> int:
    """Check every function; 1 if one breaks its contract."""
    settings = load_settings(args, context)
    found = contract_checks(load_functions(settings.functions, votes=True), sample_records(settings))
    if args.json:
        print_json(found)
    else:
        print(_checks_text(found))
    return int(not all(one["passed"] for one in found))


def run_stats(args: argparse.Namespace, context: Context) -> int:
    """Count what the functions answer on a file."""
    settings = load_settings(args, context)
    functions = load_functions(settings.functions, votes=True)
    source = other_source(args.file, settings) if args.file else project_source(settings)
    tally = apply_file(source, functions, command="stats")
    if args.json:
        print_json({"rows": tally.rows, "slices": tally.to_json()})
    else:
        print(tally.to_text())
    return 0


def contract_checks(functions: FunctionSet, records: list[Any]) -> list[dict[str, Any]]:
    """Run every contract check on every function and return what came out."""
    from sfs.checks import check_function

    return [
        {"function": function.name, "check": check.name, "passed": check.passed, "detail": check.detail}
        for function in functions
        for check in check_function(function, records)
    ]


def sample_records(settings: Settings, rows: int = CHECKED_RECORDS) -> list[Any]:
    """Return the first records of the project's data, as functions see them."""
    from sfs.record import Columns

    source = project_source(settings)
    return Columns(source.visible(next(source.batches()).head(rows))).records


def _checks_text(found: list[dict[str, Any]]) -> str:
    """Return a line per function and a column per check, then what failed and why."""
    marks: dict[str, dict[str, str]] = {}
    for one in found:
        marks.setdefault(one["function"], {})[one["check"]] = "ok" if one["passed"] else "FAILED"
    checks = list(dict.fromkeys(one["check"] for one in found))
    rows = [[name, *(of_one[check] for check in checks)] for name, of_one in marks.items()]
    failed = [one for one in found if not one["passed"]]
    said = [f"{one['function']} is not {one['check']}: {one['detail']}" for one in failed]
    return "\n".join([table(("function", *checks), rows), *said])


def _listed(function: SlicingFunction) -> dict[str, Any]:
    said = function.metadata
    return {
        "name": function.name,
        "kind": function_kind(function),
        "description": said.description,
        "owner": said.owner,
        "severity": said.severity,
        "target": said.target,
        "protected": said.protected,
        "family": said.family,
        "fingerprint": function.fingerprint,
    }


def _row(one: dict[str, Any]) -> list[Any]:
    protected = "yes" if one["protected"] else "no"
    short = one["fingerprint"][:12]
    return [
        one["name"],
        one["kind"],
        one["owner"] or None,
        one["severity"],
        percent(one["target"]),
        protected,
        short,
    ]
