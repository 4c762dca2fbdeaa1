"""``slicewatch sfs``: list, check and count the slicing functions of a project."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.apply import apply_file
from service.cli.parser import Commands, Context, add_command, add_format, add_options
from service.cli.project import function_kind, load_functions, load_settings, other_source, project_source
from service.cli.terminal import format_table, print_json, stage_progress
from service.errors import MisuseError
from service.formatting import percent

if TYPE_CHECKING:
    from collections.abc import Collection

    from service.cli.terminal import Progress
    from sfs.registry import FunctionSet

CHECKED_RECORDS = 50


def declare(commands: Commands) -> None:
    """Declare the commands."""
    summary = "list, check or count the slicing functions"
    parser = add_command(commands, "sfs", summary, "slicewatch sfs stats")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    summary = "list the functions with their metadata and fingerprints"
    listing = add_command(actions, "list", summary, "slicewatch sfs list", run_list)
    summary = "check the contract of every function"
    checking = add_command(actions, "check", summary, "slicewatch sfs check", run_check)
    summary = "measure coverage, overlap and time"
    counting = add_command(actions, "stats", summary, "slicewatch sfs stats new.csv", run_stats)
    counting.add_argument("file", type=Path, nargs="?", metavar="FILE", help="rows (default: the project's data)")
    add_format(counting)
    for action in (listing, checking, counting):
        add_options(action)


def run_list(args: argparse.Namespace, context: Context) -> int:
    """Print every function with its metadata, labeling functions last."""
    functions = load_functions(load_settings(args, context).functions, votes=True)
    listed: list[dict[str, Any]] = [
        {
            "name": function.name,
            "kind": function_kind(function),
            "description": function.metadata.description,
            "owner": function.metadata.owner,
            "severity": function.metadata.severity,
            "target": function.metadata.target,
            "protected": function.metadata.protected,
            "family": function.metadata.family,
            "fingerprint": function.fingerprint,
        }
        for function in functions
    ]
    if args.json:
        print_json(listed)
        return 0
    columns = ("name", "kind", "owner", "severity", "target", "protected", "fingerprint")
    rows = [
        {
            **entry,
            "owner": entry["owner"] or None,
            "target": percent(entry["target"]),
            "protected": "yes" if entry["protected"] else "no",
            "fingerprint": entry["fingerprint"][:12],
        }
        for entry in listed
    ]
    print(format_table(columns, [[entry[column] for column in columns] for entry in rows]))
    return 0


def run_check(args: argparse.Namespace, context: Context) -> int:
    """Check every function on the first records of the data; 1 if one breaks its contract."""
    from sfs.record import Columns

    settings = load_settings(args, context)
    functions = load_functions(settings.functions, votes=True)
    source = project_source(settings, trained=True)
    records = Columns(source.visible(next(source.batches()).head(CHECKED_RECORDS))).records
    with stage_progress("sfs check") as progress:
        checks = contract_checks(functions, records, progress)
    failed = [check for check in checks if not check["passed"]]
    if args.json:
        print_json(checks)
        return int(bool(failed))
    results: dict[str, dict[str, str]] = {}
    for check in checks:
        results.setdefault(check["function"], {})[check["check"]] = "ok" if check["passed"] else "FAILED"
    names = list(dict.fromkeys(check["check"] for check in checks))
    rows = [[function, *(result[name] for name in names)] for function, result in results.items()]
    print(format_table(("function", *names), rows))
    for check in failed:
        print(f"{check['function']} is not {check['check']}: {check['detail']}")
    return int(bool(failed))


def run_stats(args: argparse.Namespace, context: Context) -> int:
    """Apply the functions to a file, and print their coverage, overlap and time."""
    settings = load_settings(args, context)
    functions = load_functions(settings.functions, votes=True)
    if args.format and not args.file:
        raise MisuseError("--format is the format of FILE: name it, or set `format` in the settings")
    own = project_source(settings, trained=True)
    source = other_source(args.file, settings, given=args.format) if args.file else own
    summary = apply_file(source, functions, command="stats", compare=True, settings=settings)
    if args.json:
        print_json({"rows": summary.rows, "slices": summary.to_json(), "warnings": [*summary.redundant().values()]})
    else:
        print(summary.to_text())
        for reason in summary.redundant().values():
            print(f"warning: {reason}")
    return 0


def contract_checks(
    functions: FunctionSet,
    records: list[Any],
    progress: Progress,
    never_missing: Collection[str] = (),
) -> list[dict[str, Any]]:
    """Run every contract check on every function, and return the results; see `sfs.checks.check_function`."""
    from sfs.checks import check_function

    results = []
    for k, function in enumerate(functions):
        progress("checking functions", k / len(functions))
        results += [
            {
                "function": function.name,
                "check": check.name,
                "passed": check.passed,
                "is_warning": check.is_warning,
                "detail": check.detail,
            }
            for check in check_function(function, records, never_missing)
        ]
    return results
