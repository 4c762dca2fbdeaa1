"""``slicewatch models``: list, show, promote and roll back versions of the model."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from service.cli.parser import Commands, Context, add_author, add_command, add_key_file, add_options, api_key
from service.cli.project import CHAMPION, load_settings, open_registry, service_of
from service.cli.terminal import format_table, print_json, print_message
from service.cli.train import outlook, outlook_text
from service.errors import MisuseError, ServiceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from models.registry import ModelRegistry, Version


ACTOR = "the command line"
"""Name of these commands in the audit log."""


BY_HAND = "by hand"


def declare(commands: Commands) -> None:
    """Declare the commands."""
    summary = "list, show, promote or roll back versions"
    example = "slicewatch models promote 3 --reason 'better on links'"
    parser = add_command(commands, "models", summary, example)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = add_command(actions, "list", "list the versions", "slicewatch models list", run_list)
    summary = "show one version and its report"
    showing = add_command(actions, "show", summary, "slicewatch models show 3", run_show)
    showing.add_argument(
        "version", nargs="?", default=CHAMPION, metavar="VERSION", help="number or alias (default: champion)"
    )
    promoting = add_command(actions, "promote", "promote a version to champion", example, run_promote)
    promoting.add_argument("version", metavar="VERSION", help="number of the version")
    promoting.add_argument("--expected", metavar="VERSION", help="fail unless this version is champion now")
    summary = "promote the previous champion again"
    back = add_command(actions, "rollback", summary, "slicewatch models rollback", run_rollback)
    for action in (promoting, back):
        add_author(action, "reason", "reason stored in the history (default: by hand)")
        add_key_file(action)
    for action in (listing, showing, promoting, back):
        add_options(action)


def run_list(args: argparse.Namespace, context: Context) -> int:
    """Print every version with its aliases, and the history of the champion."""
    registry = open_registry(load_settings(args, context))
    versions, changes = registry.list(), registry.readable_history(CHAMPION)
    if missing := _missing_champion(registry, versions):
        print_message(f"slicewatch: warning: {missing}")
    if args.json:
        listed = [
            {
                "version": version.number,
                "aliases": list(version.aliases),
                "hash": version.hash,
                "folder": str(version.path),
                "damaged": version.damaged,
            }
            for version in versions
        ]
        history = [{**asdict(change), "at": change.at.isoformat()} for change in changes]
        print_json({"name": registry.name, "versions": listed, "history": history})
        return 0
    rows = [[version.number, ", ".join(version.aliases), version.hash[:12], version.path] for version in versions]
    print(format_table(("version", "alias", "hash", "folder"), rows))
    for version in versions:
        if version.damaged:
            print_message(f"slicewatch: warning: version {version.number} is damaged: {version.damaged}")
    if changes:
        rows = [[f"{change.at:%Y-%m-%d %H:%M:%S}", change.version, change.change, change.reason] for change in changes]
        print(f"\n{format_table(('at (UTC)', 'champion', 'change', 'reason'), rows)}")
    return 0


def run_show(args: argparse.Namespace, context: Context) -> int:
    """Print one version and its report on held-out rows."""
    settings = load_settings(args, context)
    registry = open_registry(settings)
    number = find_version(registry, args.version)
    bundle = registry.get(number)
    features = {spec.column: spec.kind for spec in bundle.featurizer.specs}
    details: dict[str, Any] = {
        "version": number,
        "name": bundle.name,
        "hash": bundle.hash,
        "form": bundle.report.form,
        "label": bundle.label,
        "classes": list(bundle.classes),
        "features": features,
        "slices": list(bundle.slice_names),
    }
    if args.json:
        report = {"report": bundle.report.to_json(), "outlook": outlook(bundle, settings)}
        print_json({**details, "lineage": dict(bundle.lineage), **report})
        return 0
    details["features"] = [f"{column}: {kind}" for column, kind in features.items()]
    rows = [[name, ", ".join(value) if isinstance(value, list) else str(value)] for name, value in details.items()]
    print(f"{format_table(('field', 'value'), rows)}\n\n{bundle.report.to_text()}")
    print(f"\n{outlook_text(outlook(bundle, settings))}")
    return 0


def run_promote(args: argparse.Namespace, context: Context) -> int:
    """Promote a version to champion, unless another change came first."""
    settings, at = load_settings(args, context), context.now()
    registry = open_registry(settings)
    number = find_version(registry, args.version)
    before = registry.alias(CHAMPION)
    expected = find_version(registry, args.expected) if args.expected else before
    if number == before == expected:
        registry.get(number)
        print_message(f"version {number} is already the champion: nothing to do")
        return 0
    with service_of(settings, registry, api_key(args, context)) as service:
        if service is not None:
            change = service.promote(number, expected=expected, reason=args.reason or BY_HAND, by=args.by or ACTOR)
            return _print_change(args, change["champion"], change["before"])
    registry.get(number)  # a version that does not load must not become champion
    registry.promote(number, expected=expected, reason=_reason(args), at=at)
    return _print_change(args, number, before)


def run_rollback(args: argparse.Namespace, context: Context) -> int:
    """Promote the previous champion again."""
    settings = load_settings(args, context)
    registry = open_registry(settings)
    before = registry.alias(CHAMPION)
    if before is None:
        raise MisuseError("there is no champion yet: promote one with `slicewatch models promote VERSION`")
    with service_of(settings, registry, api_key(args, context)) as service:
        if service is not None:
            change = service.rollback(args.reason or BY_HAND, by=args.by or ACTOR)
            return _print_change(args, change["champion"], change["before"])
    return _print_change(args, registry.rollback(reason=_reason(args), at=context.now()).version, before)


def _reason(args: argparse.Namespace) -> str:
    """Return the reason for the history, which has no author of its own."""
    return (args.reason or BY_HAND) + (f" ({args.by})" if args.by else "")


def find_version(registry: ModelRegistry, name: str) -> int:
    """Return the version with a number or an alias.

    Raises
    ------
    MisuseError
        If there is no such version or alias.
    ServiceError
        If the champion is missing.
    """
    versions = registry.list()
    missing = _missing_champion(registry, versions)
    if name == CHAMPION and missing:
        raise ServiceError(missing)
    numbers = {alias: version.number for version in versions for alias in version.aliases}
    numbers |= {str(version.number): version.number for version in versions}
    if name not in numbers:
        raise MisuseError(f"model {registry.name!r} has no version {name!r}; it has {', '.join(numbers) or 'none'}")
    return numbers[name]


def _missing_champion(registry: ModelRegistry, versions: Sequence[Version]) -> str | None:
    from models.errors import RegistryUnavailable

    try:
        champion = registry.alias(CHAMPION)
    except RegistryUnavailable as error:
        return str(error)
    if champion is None or champion in [version.number for version in versions]:
        return None
    return (
        f"the {CHAMPION} of {registry.name!r} is version {champion}, which is missing: restore its folder, or "
        "promote another version with `slicewatch models promote VERSION`"
    )


def _print_change(args: argparse.Namespace, champion: int, before: int | None) -> int:
    if args.json:
        print_json({"champion": champion, "before": before})
    else:
        print(f"version {champion} is the champion" + (f", in place of version {before}" if before else ""))
    return 0
