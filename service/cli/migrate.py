"""``slicewatch migrate``: bring the store to the schema of this version."""

from __future__ import annotations

import argparse

from service.cli.command import Commands, Context, add_command, add_config, add_json
from service.cli.project import load_settings
from service.cli.terminal import print_json


def declare(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "migrate", "bring the store to the schema of this version", "slicewatch migrate", run
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if there is something to do"
    )
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Migrate, or say what there is to do."""
    from service.store.engine import Store, schema_version
    from service.store.schema import newest

    path, wanted = load_settings(args, context).store, newest()
    found = schema_version(path)
    if not args.check and found != wanted:
        path.parent.mkdir(parents=True, exist_ok=True)
        with Store(path):
            pass
    if args.json:
        print_json(
            {
                "store": str(path),
                "found": found,
                "newest": wanted,
                "changed": not args.check and found != wanted,
            }
        )
    else:
        print(f"{path}: {_said(found, wanted, args.check)}")
    return int(args.check and found != wanted)


def _said(found: str | None, wanted: str | None, only_look: bool) -> str:
    if found == wanted:
        return f"at step {wanted}, the newest: nothing to do"
    before = "there is no store yet" if found is None else f"at step {found}"
    return f"{before}; {'`slicewatch migrate` brings it' if only_look else 'brought'} to step {wanted}"
