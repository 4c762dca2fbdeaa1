"""Load settings: read slicewatch.yaml, apply ``SLICEWATCH_*`` variables, and name the line of every problem."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import TypeAdapter, ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from service.errors import SettingsError
from service.settings import variable
from service.settings.schema import SECTIONS, SETTINGS, DriftSettings, Settings, TlsFiles, describe

Origins: TypeAlias = dict[tuple[str | int, ...], tuple[float, str]]
"""Place of each value by its path, as ``("learner", "hidden", 1)``: a number to sort by, and its name."""


def load(file: Path, environ: Mapping[str, str]) -> Settings:
    """Read a settings file, override it with ``SLICEWATCH_*`` variables, and validate every value.

    Parameters
    ----------
    file
        Path of the YAML file; relative paths in it are resolved against its folder.
    environ
        Environment variables; ``SLICEWATCH_LEARNER_EPOCHS=3`` overrides ``learner.epochs``.

    Raises
    ------
    SettingsError
        With every problem, each with its file and line or its variable.
    """
    try:
        content = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SettingsError(f"no {file}: run `slicewatch init DIR`, or pass --config FILE") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from None
    origins: Origins = {}
    values = _read_yaml(content, str(file), origins)
    if not isinstance(values, dict):
        raise SettingsError(f"{file} line 1: expected `key: value` lines, got {describe(values)}")
    values, origins = _nest_sections(values, origins)
    problems = _remove_unknown(values, origins)
    for name, key in overrides(environ).items():
        *section, last = path = tuple(key.split("."))
        inner = values.setdefault(section[0], {}) if section else values
        if isinstance(inner, dict):
            inner[last] = _read_yaml(environ[name], f"variable {name}", {})
            origins = {place: origin for place, origin in origins.items() if place[: len(path)] != path}
            origins[path] = (math.inf, f"variable {name}")
    try:
        settings = TypeAdapter(Settings).validate_python({**values, "file": file})
    except ValidationError as error:
        problems += [_problem(file, detail, origins) for detail in error.errors(include_url=False)]
    if problems:
        raise SettingsError([text for _, text in sorted(problems, key=lambda problem: problem[0])])
    folder, tls = file.parent, settings.serve.tls
    if tls is not None:
        tls = TlsFiles(folder / tls.cert, folder / tls.key)
    return replace(
        settings,
        serve=replace(settings.serve, tls=tls),
        data=folder / settings.data,
        registry=folder / settings.registry,
        store=_without_link(folder / settings.store),
        clock=None if settings.clock is None else folder / settings.clock,
        functions=tuple(
            str(folder / name) if name.endswith((".py", ".yaml", ".yml")) or "/" in name else name
            for name in settings.functions
        ),
    )


def with_options(drift: DriftSettings, options: Sequence[str]) -> DriftSettings:
    """Return settings of drift with other values, given as ``drift.tolerance=0.2``, each validated as in the file.

    Raises
    ------
    SettingsError
        With every problem.

    Examples
    --------
    >>> with_options(DriftSettings(), ["drift.tolerance=0.2"]).tolerance
    0.2
    """
    from sfs.errors import nearest

    known = [key for key in SETTINGS if key.startswith("drift.")]
    given, problems = {}, []
    for option in options:
        key, _, value = (part.strip() for part in option.partition("="))
        if key not in known:
            problems.append(f"--set {option}: expected a setting of drift, as drift.tolerance=0.2{nearest(key, known)}")
        else:
            given[key.removeprefix("drift.")] = _read_yaml(value, f"--set {key}", {}) if value else ""
    try:
        other = TypeAdapter(DriftSettings).validate_python(given)
    except ValidationError as error:
        problems += [
            f"--set drift.{each['loc'][0]}: {each.get('ctx', {}).get('error') or each['msg']}"
            for each in error.errors(include_url=False)
        ]
    if problems:
        raise SettingsError(problems)
    return replace(drift, **{key: getattr(other, key) for key in given})


def _without_link(file: Path) -> Path:
    """Return the file that a link refers to: its journal and lock are beside it."""
    return file.resolve() if file.is_symlink() else file


def overrides(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that variables override: variable -> key."""
    keys = {variable(key): key for key in SETTINGS}
    return {name: keys[name] for name in environ if name in keys}


def _read_yaml(content: str, where: str, origins: Origins) -> Any:
    """Return a YAML text as mappings, lists and text, and record the line of each value."""
    try:
        root = yaml.compose(content, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{where}{line}: not YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(root, Node):
        raise SettingsError(f"{where} is empty: expected a value")
    try:
        return _read_node(root, where, (), origins)
    except RecursionError:
        raise SettingsError(f"{where}: an alias refers to itself: write the value out") from None


def _read_node(node: Node, where: str, path: tuple[str | int, ...], origins: Origins) -> Any:
    if isinstance(node, SequenceNode):
        for k, item in enumerate(node.value):
            origins[*path, k] = _origin(item, where)
        return [_read_node(item, where, (*path, k), origins) for k, item in enumerate(node.value)]
    if not isinstance(node, MappingNode):
        # Kept as it is written: a column may be called no or 2024.
        return "" if node.tag.endswith(":null") else node.value
    mapping: dict[str, Any] = {}
    for key_node, value in node.value:
        line, place = _origin(key_node, where)
        if not isinstance(key_node, ScalarNode) or not key_node.value.strip():
            raise SettingsError(f"{place}: expected a name before the colon, as in `key: value`")
        key = str(key_node.value)
        if key in mapping:
            raise SettingsError(f"{place}: duplicate key {key!r}: remove one of the two")
        origins[*path, key] = line, place
        mapping[key] = _read_node(value, where, (*path, key), origins)
    return mapping


def _nest_sections(values: dict[str, Any], origins: Origins) -> tuple[dict[str, Any], Origins]:
    """Move a setting that is written as ``learner.epochs`` at the top into its section."""
    moved = {key: tuple(key.split(".")) for key in values if "." in key and key in SETTINGS}
    for key, (section, name) in moved.items():
        inner = values.setdefault(section, {})
        if isinstance(inner, dict):
            inner[name] = values[key]
    nested = {key: value for key, value in values.items() if key not in moved}
    return nested, {(*moved.get(str(first), (first,)), *rest): at for (first, *rest), at in origins.items()}


def _origin(node: Node, where: str) -> tuple[float, str]:
    line = node.start_mark.line + 1
    return line, f"{where} line {line}"


def _remove_unknown(values: dict[str, Any], origins: Origins) -> list[tuple[float, str]]:
    """Remove keys that are not settings, and return a problem for each."""
    from sfs.errors import nearest

    problems = []
    for path, (line, where) in origins.items():
        key, *_ = path
        holder = values[str(key)] if len(path) == 2 and key in SECTIONS else values
        name = ".".join(map(str, path))
        known = name in SETTINGS or name in SECTIONS
        if isinstance(holder, dict) and len(path) == (1 if holder is values else 2) and not known:
            problems.append((line, f"{where}: unknown setting {name!r}{nearest(name, SETTINGS)}"))
            del holder[str(path[-1])]
    return problems


def _problem(file: Path, error: Mapping[str, Any], origins: Origins) -> tuple[float, str]:
    path = tuple(error["loc"])
    key = ".".join(map(str, path[: 2 if path[0] in (*SECTIONS, "schema") else 1]))
    if error["type"] == "missing":
        return math.inf, f"{file}: {key!r} is missing: {SETTINGS[key]}"
    line, where = next(origins[path[:n]] for n in range(len(path), 0, -1) if path[:n] in origins)
    cause = error.get("ctx", {}).get("error") or f"expected `key: value` lines, got {describe(error['input'])}"
    return line, f"{where}: {key!r}: {cause}"
