"""``slicewatch backup`` and ``slicewatch restore``: copy the store to a file, and put it back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.parser import Commands, Context, add_command, add_options
from service.cli.project import CHAMPION, load_settings
from service.cli.terminal import print_json
from service.errors import MisuseError, ServiceError

if TYPE_CHECKING:
    from service.settings.schema import Settings
    from service.store.backup import Contents

CHECK_SECONDS = 600.0
"""Maximum time of the check of a new backup."""


def declare(commands: Commands) -> None:
    """Declare both commands."""
    summary = "copy the store to a file, also while the service runs"
    parser = add_command(commands, "backup", summary, "slicewatch backup monday.sqlite3", run_backup)
    parser.description = f"{parser.description} The registry is a folder of its own: copy it too."
    parser.add_argument("file", type=Path, metavar="FILE", help="new file")
    add_options(parser)
    summary = "replace the store by a backup, while the service is stopped"
    parser = add_command(commands, "restore", summary, "slicewatch restore monday.sqlite3", run_restore)
    parser.description = f"{parser.description} The backup is checked first, and the old store is kept."
    parser.add_argument("file", type=Path, metavar="FILE", help="file made by `slicewatch backup`")
    add_options(parser)


def run_backup(args: argparse.Namespace, context: Context) -> int:
    """Copy the store, check the copy, and print its contents."""
    from service.store.backup import back_up, read_contents

    settings = load_settings(args, context)
    if not settings.store.exists():
        raise MisuseError(f"no store at {settings.store}: `slicewatch up` creates it")
    try:
        back_up(settings.store, args.file)
    except FileExistsError:
        raise MisuseError(f"{args.file} exists: name a new file") from None
    contents = read_contents(args.file, CHECK_SECONDS)
    if contents.findings:
        raise ServiceError(f"the store is damaged, and so is its copy {args.file}: {'; '.join(contents.findings)}")
    _show(args, settings, contents, f"{args.file}: a copy of {settings.store}", {"backup": str(args.file)})
    return 0


def run_restore(args: argparse.Namespace, context: Context) -> int:
    """Restore a backup, and print the contents of the store."""
    from service.store.backup import read_contents, restore

    settings = load_settings(args, context)
    if not args.file.is_file():
        raise MisuseError(f"no file {args.file}: name a file made by `slicewatch backup`")
    settings.store.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    old = restore(args.file, settings.store, context.now())
    kept = "there was no store before" if old is None else f"the store before is kept as {old}"
    facts = {"restored": str(args.file), "kept": None if old is None else str(old)}
    contents = read_contents(settings.store, CHECK_SECONDS)
    if contents.findings:
        raise ServiceError(f"the restored {settings.store} is damaged: {'; '.join(contents.findings)}; {kept}")
    _show(args, settings, contents, f"{settings.store}: restored from {args.file}; {kept}", facts)
    return 0


def _show(
    args: argparse.Namespace, settings: Settings, contents: Contents, headline: str, facts: dict[str, Any]
) -> None:
    versions, missing, champion = _versions(settings, contents)
    if args.json:
        counts = {"predictions": contents.predictions, "labels": contents.label_events}
        registry = {"versions": versions, "missing_versions": missing, "champion": champion}
        until = None if contents.last_at is None else contents.last_at.isoformat()
        facts["checked"] = contents.findings is not None
        print_json({**facts, "step": contents.revision, **counts, "last_prediction_at": until, **registry})
        return
    print(f"{headline}\n{describe(contents)}")
    print(f"model versions with predictions: {', '.join(map(str, versions)) or 'none'}; champion: {champion or 'none'}")
    if contents.findings is None:
        print(f"not checked whole: the check takes longer than {CHECK_SECONDS:g} s")
    if missing:
        print(f"not in the registry {settings.registry}: {', '.join(map(str, missing))} (served elsewhere, or lost)")
    print(f"not contained: the registry {settings.registry}, the settings and the data; copy these folders too")


def describe(contents: Contents) -> str:
    """Return the counts of a store as one line."""
    span = (
        ""
        if contents.last_at is None
        else f" from {contents.first_at:%Y-%m-%d %H:%M} to {contents.last_at:%Y-%m-%d %H:%M} UTC"
    )
    waiting = ""
    if contents.oldest_pending is not None:
        ids = "id" if contents.pending == 1 else "ids"
        since = f"{contents.oldest_pending:%Y-%m-%d %H:%M} UTC"
        waiting = f", {contents.pending:,} labelled {ids} without a prediction (since {since})"
    return f"{contents.predictions:,} predictions{span}, {contents.label_events:,} labels{waiting}"


def _versions(settings: Settings, contents: Contents) -> tuple[list[int], list[int], int | None]:
    """Return the versions of the predictions, those that the registry lacks, and the champion."""
    versions = [version for model, version in contents.versions if model == settings.name]
    if not settings.registry.is_dir():
        return versions, versions, None
    from models.registry import ModelRegistry

    registry = ModelRegistry(settings.registry, name=settings.name)
    there = {version.number for version in registry.list()}
    return versions, [version for version in versions if version not in there], registry.alias(CHAMPION)
