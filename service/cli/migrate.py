"""``slicewatch migrate``: migrate the store to the schema of this version."""

from __future__ import annotations

import argparse

from service.cli.parser import Commands, Context, add_command, add_options
from service.cli.project import load_settings
from service.cli.terminal import print_json


def declare(commands: Commands) -> None:
    """Declare the command."""
    summary = "migrate the store to the schema of this version"
    parser = add_command(commands, "migrate", summary, "slicewatch migrate", run)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 if a migration is needed")
    add_options(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Migrate, or with ``--check`` report whether a migration is needed."""
    from service.store.engine import Store, latest_revision, schema_version

    path, latest = load_settings(args, context).store, latest_revision()
    current = schema_version(path)
    outdated = current != latest
    if outdated and not args.check:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Store(path):
            pass
    if args.json:
        changed = outdated and not args.check
        print_json({"store": str(path), "found": current, "newest": latest, "changed": changed})
    elif not outdated:
        print(f"{path}: at step {latest}, the latest: nothing to do")
    else:
        before = "no store yet" if current is None else f"at step {current}"
        verb = "create" if current is None else "migrate"
        after = f"`slicewatch migrate` will {verb} it to" if args.check else f"{verb}d, now at"
        print(f"{path}: {before}; {after} step {latest}")
    return int(args.check and outdated)
