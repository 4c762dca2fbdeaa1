"""``slicewatch doctor``: check the installation, and the settings, data and files of the project."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import import_module, metadata
from typing import TYPE_CHECKING

from service.cli.parser import Commands, Context, add_command, add_options, config_file
from service.cli.project import CHAMPION, load_functions, load_settings, open_registry, require_writable
from service.cli.terminal import format_table, print_json
from service.errors import ServiceError, SettingsError
from service.settings import OTHER_VARIABLES, PREFIX

if TYPE_CHECKING:
    from service.settings.schema import Settings

PACKAGES = (
    "slicewatch", "torch", "numpy", "pandas", "pyarrow", "scikit-learn", "google-re2", "fastapi", "evidently",
)  # fmt: skip


CHECK_SECONDS = 60.0
"""Maximum time of the check of the store."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one check; the state is ``ok``, ``note`` (harmless) or ``broken``."""

    what: str
    state: str
    detail: str


def declare(commands: Commands) -> None:
    """Declare the command."""
    summary = "check the installation and the project"
    parser = add_command(commands, "doctor", summary, "slicewatch doctor", run)
    add_options(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Check everything; 1 if something is broken."""
    findings = list(_check_all(args, context))
    broken = any(finding.state == "broken" for finding in findings)
    if args.json:
        print_json({"ok": not broken, "findings": [asdict(finding) for finding in findings]})
    else:
        rows = [[finding.what, finding.state, finding.detail] for finding in findings]
        print(format_table(("check", "state", "detail"), rows))
    return int(broken)


def _check_all(args: argparse.Namespace, context: Context) -> Iterator[Finding]:
    yield Finding("python", "ok", platform.python_version())
    for name in PACKAGES:
        try:
            yield Finding(name, "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(name, "broken", "not installed: install slicewatch with its dependencies")
    yield _check("threads", _torch_threads)
    yield from _variables(context)
    file = config_file(args, context)
    if not file.exists():
        yield Finding("settings", "note", f"no {file}: create one with `slicewatch init DIR`")
        return
    try:
        settings = load_settings(args, context)
    except SettingsError as error:
        yield from (Finding("settings", "broken", problem) for problem in error.problems)
        return
    yield Finding("settings", "ok", str(file.resolve()))
    exists = settings.data.exists()
    yield Finding("data", "ok" if exists else "broken", f"{settings.data}{'' if exists else ' does not exist'}")
    yield _check("functions", lambda: f"{len(load_functions(settings.functions))} loaded")
    yield _check("disk", lambda: f"{require_writable(settings.registry)} is writable")
    yield _check("sqlite", lambda: f"{import_module('sqlite3').sqlite_version}, one writing process")
    yield _check("store", lambda: _store(settings))
    yield _check("keys", lambda: _keys(settings, context))
    if settings.registry.is_dir():
        yield _check("registry", lambda: _champion(settings))
    else:
        yield Finding("registry", "note", f"no model trained yet: no {settings.registry}")


def _check(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, "ok", check())
    except Exception as error:  # any error is a finding
        return Finding(what, "broken", str(error) or type(error).__name__)


def _variables(context: Context) -> Iterator[Finding]:
    from service.settings.loading import overrides

    overridden = overrides(context.environ)
    for name in sorted(overridden):
        yield Finding("variable", "note", f"{name} overrides {overridden[name]!r}")
    known = {*OTHER_VARIABLES, *overridden}
    unknown = [name for name in sorted(context.environ) if name.startswith(PREFIX) and name not in known]
    if unknown:
        yield Finding("variable", "note", f"not a setting, ignored: {', '.join(unknown)}")


def _torch_threads() -> str:
    import torch

    return f"torch: {torch.get_num_threads()}, CPUs: {os.cpu_count()}"


def _store(settings: Settings) -> str:
    from service.cli.backup import describe
    from service.store.backup import read_contents
    from service.store.engine import REMEDY, latest_revision
    from service.store.store_files import recorded_last_row, require_existing

    require_existing(settings.store)
    if not settings.store.exists():
        return f"no {settings.store} yet: `slicewatch up` creates it"
    recorded = recorded_last_row(settings.store)  # first: a running service goes on writing
    contents = read_contents(settings.store, CHECK_SECONDS)
    if contents.findings:
        raise ServiceError(f"{settings.store} is damaged: {'; '.join(contents.findings)}; {REMEDY}")
    if missing := max(0, recorded - contents.last_row):
        raise ServiceError(
            f"the latest {missing:,} rows of {settings.store} are missing: its journal was lost; {REMEDY}"
        )
    latest = latest_revision()
    behind = contents.revision != latest
    advice = f"; migrate it to step {latest} with `slicewatch migrate`" if behind else ""
    checked = "no damage found" if contents.findings is not None else f"not checked whole within {CHECK_SECONDS:g} s"
    return f"{settings.store} is at step {contents.revision}{advice}; {checked}; {describe(contents)}"


def _keys(settings: Settings, context: Context) -> str:
    from service.keys import KeyFile

    keys, now = KeyFile(settings.keys_file).read(), context.now()
    return f"{sum(key.state(now) == 'active' for key in keys)} of {len(keys)} active in {settings.keys_file}"


def _champion(settings: Settings) -> str:
    registry = open_registry(settings)
    version = registry.alias(CHAMPION)
    if version is None:
        return "no champion yet: promote one with `slicewatch models promote VERSION`"
    return f"champion is version {version}, hash {registry.get(version).hash[:12]}, golden batch reproduced"
