"""``slicewatch doctor``: what is installed, found, readable and writable."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from service.cli.command import Commands, Context, add_command, add_config, add_json, config_file
from service.cli.project import CHAMPION, load_functions, load_settings, open_registry, writable
from service.cli.terminal import print_json, table
from service.errors import SettingsError
from service.settings.project import OTHER_VARIABLES, PREFIX, overrides

if TYPE_CHECKING:
    from service.settings.project import Settings

PACKAGES = (
    "slicewatch",
    "torch",
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "google-re2",
    "fastapi",
    "evidently",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: ``ok``, ``note`` (harmless) or ``broken``."""

    what: str
    state: str
    detail: str


def declare(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "doctor", "check the installation and the project", "slicewatch doctor", run
    )
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Look at everything; 1 if something is broken."""
    findings = list(_findings(args, context))
    broken = any(finding.state == "broken" for finding in findings)
    if args.json:
        print_json({"ok": not broken, "findings": [asdict(finding) for finding in findings]})
    else:
        print(table(("what", "state", "detail"), [[one.what, one.state, one.detail] for one in findings]))
    return int(broken)


def _findings(args: argparse.Namespace, context: Context) -> Iterator[Finding]:
    yield Finding("python", "ok", platform.python_version())
    yield from (_package(name) for name in PACKAGES)
    yield _try("threads", _threads)
    yield from _variables(context)
    file = config_file(args, context)
    if not file.exists():
        yield Finding("settings", "note", f"no {file} here: `slicewatch init DIR` writes one")
        return
    try:
        settings = load_settings(args, context)
    except SettingsError as error:
        yield from (Finding("settings", "broken", problem) for problem in error.problems)
        return
    yield Finding("settings", "ok", str(file.resolve()))
    yield from _project(settings)


def _project(settings: Settings) -> Iterator[Finding]:
    state = "ok" if settings.data.exists() else "broken"
    yield Finding("data", state, f"{settings.data}" + ("" if state == "ok" else " is not there"))
    yield _try("functions", lambda: f"{len(load_functions(settings.functions))} functions")
    yield _try("disk", lambda: f"{writable(settings.registry)} is writable")
    yield _try("sqlite", _sqlite)
    yield _try("store", lambda: _store(settings))
    if settings.registry.is_dir():
        yield _try("registry", lambda: _champion(settings))
    else:
        yield Finding("registry", "note", f"nothing trained yet: no {settings.registry}")


def _package(name: str) -> Finding:
    try:
        return Finding(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "broken", "not installed: install slicewatch with its dependencies")


def _variables(context: Context) -> Iterator[Finding]:
    for name in sorted(overrides(context.environ)):
        yield Finding("variable", "note", f"{name} overrides {overrides(context.environ)[name]!r}")
    others = {*OTHER_VARIABLES, *overrides(context.environ)}
    unknown = [name for name in sorted(context.environ) if name.startswith(PREFIX) and name not in others]
    if unknown:
        yield Finding("variable", "note", f"not ours, ignored: {', '.join(unknown)}")


def _threads() -> str:
    import torch

    return f"torch uses {torch.get_num_threads()}, the machine has {os.cpu_count()}"


def _sqlite() -> str:
    import sqlite3

    return f"{sqlite3.sqlite_version}; one process writes a store, which every version does safely"


def _store(settings: Settings) -> str:
    from service.store.engine import schema_version
    from service.store.schema import newest

    found = schema_version(settings.store)
    if found is None:
        return f"no {settings.store} yet: `slicewatch up` makes it"
    advice = "" if found == newest() else f"; `slicewatch migrate` brings it to step {newest()}"
    return f"{settings.store} is at step {found}{advice}"


def _champion(settings: Settings) -> str:
    registry = open_registry(settings)
    version = registry.alias(CHAMPION)
    if version is None:
        return "no champion yet: `slicewatch models promote VERSION` makes one"
    bundle = registry.get(version)
    return f"champion is version {version}, hash {bundle.hash[:12]}, golden batch reproduced"


def _try(what: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(what, "ok", look())
    except Exception as error:  # whatever is wrong is the finding
        return Finding(what, "broken", str(error) or type(error).__name__)
