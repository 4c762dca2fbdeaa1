"""The settings of a project: slicewatch.yaml, then SLICEWATCH_* variables, read into one frozen value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yaml.nodes import Node

from service.errors import SettingsError
from service.settings.known import SETTINGS
from service.settings.nodes import NodeError, Pairs, compose, nearest, pairs
from service.settings.sections import (
    DriftSettings,
    FunctionLimitSettings,
    LearnerSettings,
    LogSettings,
    MonitorSettings,
    ReportSettings,
    RetrainSettings,
    ServeSettings,
)

FILE_NAME = "slicewatch.yaml"
PREFIX = "SLICEWATCH_"
OTHER_VARIABLES = ("SLICEWATCH_CONFIG", "SLICEWATCH_DEBUG")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that a project says about itself; paths are resolved against the folder of its file."""

    file: Path
    data: Path
    label: str
    features: Mapping[str, str]
    registry: Path
    store: Path
    name: str = "model"
    format: str = "table"
    functions: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    learner: LearnerSettings = field(default_factory=LearnerSettings)
    serve: ServeSettings = field(default_factory=ServeSettings)
    log: LogSettings = field(default_factory=LogSettings)
    monitor: MonitorSettings = field(default_factory=MonitorSettings)
    drift: DriftSettings = field(default_factory=DriftSettings)
    retrain: RetrainSettings = field(default_factory=RetrainSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
    clock: Path | None = None
    function_limits: FunctionLimitSettings = field(default_factory=FunctionLimitSettings)


REQUIRED = ("data", "label", "features")
SECTIONS: Mapping[str, Callable[..., Any]] = {
    "learner": LearnerSettings,
    "serve": ServeSettings,
    "log": LogSettings,
    "monitor": MonitorSettings,
    "drift": DriftSettings,
    "retrain": RetrainSettings,
    "report": ReportSettings,
    "function_limits": FunctionLimitSettings,
}


def load(file: Path, environ: Mapping[str, str]) -> Settings:
    """Read a settings file, override it by ``SLICEWATCH_*`` variables, and check every value.

    Parameters
    ----------
    file
        Path of the YAML file.
    environ
        Variables; ``SLICEWATCH_LEARNER_EPOCHS=3`` overrides ``learner.epochs``.

    Raises
    ------
    SettingsError
        With every problem found, each naming its file and line or its variable.
    """
    found = _Found()
    _read_file(file, found)
    for name, key in overrides(environ).items():
        found.read(key, compose(environ[name], f"variable {name}"), f"variable {name}", line=False)
    absent = [key for key in REQUIRED if key not in found.seen]
    problems = [*found.problems, *(f"{file}: {key!r} is missing: {SETTINGS[key].says}" for key in absent)]
    if problems:
        raise SettingsError(problems)
    return _settings(file, found.values)


def overrides(environ: Mapping[str, str]) -> dict[str, str]:
    """Return which variables override which settings: variable -> key."""
    known = {variable(key): key for key in SETTINGS}
    return {name: known[name] for name in environ if name in known}


def is_function_file(name: str) -> bool:
    """Tell a file of functions from a dotted module name."""
    return name.endswith((".py", ".yaml", ".yml")) or "/" in name


def variable(key: str) -> str:
    """Return the variable that overrides a setting.

    Examples
    --------
    >>> variable("learner.epochs")
    'SLICEWATCH_LEARNER_EPOCHS'
    """
    return PREFIX + key.upper().replace(".", "_")


class _Found:
    """The values and problems found so far; ``seen`` holds keys that stand somewhere, rightly or wrongly."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.problems: list[str] = []
        self.seen: set[str] = set()

    def read(self, key: str, node: Node, where: str, line: bool = True) -> None:
        """Read one setting; what is wrong becomes a problem that names the line."""
        self.seen.add(key)
        try:
            self.values[key] = SETTINGS[key].read(node)
        except NodeError as error:
            at = f"{where} line {error.line}" if line else where
            self.problems.append(f"{at}: {key!r}: {error}")


def _read_file(file: Path, found: _Found) -> None:
    try:
        flat = _flatten(compose(_file_text(file), str(file)))
    except NodeError as error:
        raise SettingsError(f"{file} line {error.line}: {error}") from None
    for key, (key_node, node) in flat.items():
        if key in SETTINGS:
            found.read(key, node, str(file))
        else:
            line = key_node.start_mark.line + 1
            found.problems.append(f"{file} line {line}: unknown setting {key!r}{nearest(key, SETTINGS)}")


def _flatten(root: Node) -> Pairs:
    flat: Pairs = {}
    for key, (key_node, node) in pairs(root).items():
        inner = pairs(node) if key in SECTIONS else {}
        flat.update({f"{key}.{name}": pair for name, pair in inner.items()})
        if key not in SECTIONS:
            flat[key] = (key_node, node)
    return flat


def _settings(file: Path, values: Mapping[str, Any]) -> Settings:
    folder = file.parent
    sections = {name: make(**_section(values, name)) for name, make in SECTIONS.items()}
    optional = {key: values[key] for key in ("name", "format", "classes") if key in values}
    if "clock" in values:
        optional["clock"] = folder / values["clock"]
    return Settings(
        file=file,
        data=folder / values["data"],
        label=values["label"],
        features=values["features"],
        registry=folder / values.get("registry", ".slicewatch/registry"),
        store=folder / values.get("store", ".slicewatch/store.sqlite3"),
        functions=tuple(_resolved(folder, name) for name in values.get("functions", ())),
        **sections,
        **optional,
    )


def _section(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{name}.")}


def _resolved(folder: Path, function: str) -> str:
    return str(folder / function) if is_function_file(function) else function


def _file_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SettingsError(f"no {file}: run `slicewatch init DIR`, or pass --config FILE") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} cannot be read: {error}") from None
