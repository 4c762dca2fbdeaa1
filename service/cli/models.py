"""``slicewatch models``: versions of the model, and which one is champion."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from service.cli.command import Commands, Context, add_command, add_config, add_json
from service.cli.project import load_settings, open_registry
from service.cli.terminal import print_json, table
from service.errors import MisuseError

if TYPE_CHECKING:
    from models.registry import ModelRegistry

CHAMPION = "champion"


def declare(commands: Commands) -> None:
    """Declare the commands."""
    parser = add_command(
        commands,
        "models",
        "list, show, promote or roll back versions",
        "slicewatch models promote 3 --reason 'better on links'",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = add_command(actions, "list", "list the versions", "slicewatch models list", run_list)
    showing = add_command(
        actions, "show", "show one version and its report", "slicewatch models show 3", run_show
    )
    showing.add_argument(
        "version", nargs="?", default=CHAMPION, metavar="VERSION", help="number or alias (default: champion)"
    )
    promoting = add_command(
        actions,
        "promote",
        "make a version champion",
        "slicewatch models promote 3 --reason 'better on links'",
        run_promote,
    )
    promoting.add_argument("version", metavar="VERSION", help="number of the version")
    promoting.add_argument("--expected", metavar="VERSION", help="fail unless this version is champion now")
    back = add_command(
        actions,
        "rollback",
        "make the previous champion champion again",
        "slicewatch models rollback",
        run_rollback,
    )
    for action in (promoting, back):
        action.add_argument("--reason", default="by hand", help="kept in the history (default: by hand)")
    for action in (listing, showing, promoting, back):
        add_config(action)
        add_json(action)


def run_list(args: argparse.Namespace, context: Context) -> int:
    """Print every version, the champion marked."""
    registry = open_registry(load_settings(args, context))
    champion = registry.alias(CHAMPION)
    rows = [{**summary(registry, version), "champion": version == champion} for version in registry.list()]
    if args.json:
        print_json(rows)
    else:
        print(
            table(
                ("version", "champion", "hash", "classes", "slices", "accuracy"), [_row(one) for one in rows]
            )
        )
    return 0


def run_show(args: argparse.Namespace, context: Context) -> int:
    """Print what one version is and how it did on held-out rows."""
    registry = open_registry(load_settings(args, context))
    version = find_version(registry, args.version)
    bundle = registry.get(version)
    print_json({"version": version, "hash": bundle.hash, "report": bundle.report})
    return 0


def run_promote(args: argparse.Namespace, context: Context) -> int:
    """Make a version champion, unless another writer was first."""
    registry = open_registry(load_settings(args, context))
    version = find_version(registry, args.version)
    current = registry.alias(CHAMPION)
    expected = find_version(registry, args.expected) if args.expected else current
    registry.promote(version, expected=expected, reason=args.reason, at=context.now())
    return _said(args, version, current)


def run_rollback(args: argparse.Namespace, context: Context) -> int:
    """Make the champion before this one champion again."""
    registry = open_registry(load_settings(args, context))
    current = registry.alias(CHAMPION)
    registry.rollback(reason=args.reason, at=context.now())
    return _said(args, registry.alias(CHAMPION), current)


def find_version(registry: ModelRegistry, asked: str) -> int:
    """Return the version that a number or an alias names.

    Raises
    ------
    MisuseError
        If there is no such version or alias.
    """
    versions = registry.list()
    if asked.isdecimal():
        if int(asked) in versions:
            return int(asked)
        raise MisuseError(
            f"no version {asked}; the versions are {', '.join(map(str, versions)) or 'none yet'}"
        )
    version = registry.alias(asked)
    if version is None:
        raise MisuseError(
            f"no alias {asked!r}; use `champion`, or one of the versions {', '.join(map(str, versions))}"
        )
    return version


def _said(args: argparse.Namespace, version: int | None, before: int | None) -> int:
    if args.json:
        print_json({"champion": version, "before": before})
    else:
        print(f"version {version} is the champion" + (f", before it was version {before}" if before else ""))
    return 0
