"""``slicewatch models``: versions of the model, and which one is champion."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from service.cli.command import Commands, Context, add_command, add_config, add_json
from service.cli.project import CHAMPION, load_settings, open_registry
from service.cli.running import service_of
from service.cli.terminal import print_json, say, table
from service.errors import MisuseError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from models.bundle import ModelBundle
    from models.registry import AliasChange, ModelRegistry, Version


CLI = "the command line"
"""Who asks, as it stands in the audit log."""


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
    """Print every version, the champion marked, and how the champion changed."""
    registry = open_registry(load_settings(args, context))
    changes = registry.history(CHAMPION)
    if missing := _missing_champion(registry, registry.list()):
        say(f"slicewatch: warning: {missing}")
    if args.json:
        versions = [_version_json(version) for version in registry.list()]
        print_json(
            {"name": registry.name, "versions": versions, "history": [_change_json(one) for one in changes]}
        )
        return 0
    rows = [[one.number, ", ".join(one.aliases), one.hash[:12], one.path] for one in registry.list()]
    print(table(("version", "alias", "hash", "folder"), rows))
    for one in registry.list():
        if one.damaged:
            say(f"slicewatch: warning: version {one.number} is damaged: {one.damaged}")
    if changes:
        print()
        print(table(("at (UTC)", "champion", "by", "reason"), [_change_row(one) for one in changes]))
    return 0


def run_show(args: argparse.Namespace, context: Context) -> int:
    """Print what one version is, and how it did on held-out rows."""
    registry = open_registry(load_settings(args, context))
    number = find_version(registry, args.version)
    bundle = registry.get(number)
    shown = _bundle_json(number, bundle)
    if args.json:
        print_json({**shown, "lineage": dict(bundle.lineage), "report": bundle.report.to_json()})
        return 0
    print(table(("what", "value"), [[key, _listed(value)] for key, value in shown.items()]))
    print()
    print(bundle.report.to_text())
    return 0


def run_promote(args: argparse.Namespace, context: Context) -> int:
    """Make a version champion, unless another writer was first."""
    settings, at = load_settings(args, context), context.now()
    registry = open_registry(settings)
    number = find_version(registry, args.version)
    before = registry.alias(CHAMPION)
    expected = find_version(registry, args.expected) if args.expected else before
    if number == before == expected:
        registry.get(number)
        say(f"version {number} is the champion already: nothing to do")
        return 0
    with service_of(settings, registry) as service:
        if service is not None:
            return _answered(args, service.promote(number, expected=expected, reason=args.reason, by=CLI))
    registry.get(number)  # proves that it loads: a broken version must not become champion
    registry.promote(number, expected=expected, reason=args.reason, at=at)
    return _said(args, number, before)


def run_rollback(args: argparse.Namespace, context: Context) -> int:
    """Make the champion before this one champion again."""
    settings = load_settings(args, context)
    registry = open_registry(settings)
    before = registry.alias(CHAMPION)
    if before is None:
        raise MisuseError("there is no champion yet: `slicewatch models promote VERSION` makes one")
    with service_of(settings, registry) as service:
        if service is not None:
            return _answered(args, service.rollback(args.reason, by=CLI))
    return _said(args, registry.rollback(reason=args.reason, at=context.now()).version, before)


def find_version(registry: ModelRegistry, asked: str) -> int:
    """Return the version that a number or an alias names.

    Raises
    ------
    MisuseError
        If there is no such version or alias.
    """
    versions = registry.list()
    missing = _missing_champion(registry, versions)
    if asked == CHAMPION and missing:
        raise ServiceError(missing)
    names = {alias: version.number for version in versions for alias in version.aliases}
    names |= {str(version.number): version.number for version in versions}
    if asked not in names:
        raise MisuseError(
            f"model {registry.name!r} has no version {asked!r}; it has {', '.join(names) or 'none'}"
        )
    return names[asked]


def _missing_champion(registry: ModelRegistry, versions: Sequence[Version]) -> str | None:
    champion = registry.alias(CHAMPION)
    if champion is None or champion in [version.number for version in versions]:
        return None
    return (
        f"the {CHAMPION} of {registry.name!r} is version {champion}, which is missing: restore its folder, or "
        "`slicewatch models promote VERSION` another"
    )


def _answered(args: argparse.Namespace, told: Mapping[str, Any]) -> int:
    return _said(args, told["champion"], told["before"])


def _said(args: argparse.Namespace, champion: int, before: int | None) -> int:
    if args.json:
        print_json({"champion": champion, "before": before})
    else:
        print(f"version {champion} is the champion" + (f"; before it was version {before}" if before else ""))
    return 0


def _version_json(version: Version) -> dict[str, Any]:
    aliases = list(version.aliases)
    about = {"hash": version.hash, "folder": str(version.path), "damaged": version.damaged}
    return {"version": version.number, "aliases": aliases, **about}


def _change_json(change: AliasChange) -> dict[str, Any]:
    return {**asdict(change), "at": change.at.isoformat()}


def _change_row(change: AliasChange) -> list[Any]:
    return [f"{change.at:%Y-%m-%d %H:%M:%S}", change.version, change.change, change.reason]


def _bundle_json(number: int, bundle: ModelBundle) -> dict[str, Any]:
    return {
        "version": number,
        "name": bundle.name,
        "hash": bundle.hash,
        "form": bundle.report.form,
        "label": bundle.label,
        "classes": list(bundle.classes),
        "features": {spec.column: spec.kind for spec in bundle.featurizer.specs},
        "slices": list(bundle.slice_names),
    }


def _listed(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{column}: {kind}" for column, kind in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)
