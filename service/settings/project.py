"""The settings of a project: slicewatch.yaml, then SLICEWATCH_* variables, read into one frozen value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yaml.nodes import Node

from service.errors import SettingsError
from service.settings.nodes import (
    NodeError,
    Pairs,
    Reader,
    by_column,
    choice,
    compose,
    many,
    nearest,
    pairs,
    positive,
    text,
    whole,
    word,
    yes_or_no,
)
from service.settings.sections import (
    FunctionLimitSettings,
    LearnerSettings,
    LogSettings,
    MonitorSettings,
    ServeSettings,
)

FILE_NAME = "slicewatch.yaml"
PREFIX = "SLICEWATCH_"
OTHER_VARIABLES = ("SLICEWATCH_CONFIG", "SLICEWATCH_DEBUG")
KINDS = ("text", "number", "category")
FORMATS = ("table", "youtube", "sms")
LEARNERS = ("slice_residual", "slice_aware", "erm", "weighted_erm")
SURVIVES = ("kill", "power")


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
    function_limits: FunctionLimitSettings = field(default_factory=FunctionLimitSettings)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: how its value is read, and what it says."""

    read: Reader
    says: str


SETTINGS: Mapping[str, Setting] = {
    "name": Setting(word, "name of the model in the registry (default: model)"),
    "data": Setting(text, "table to train on: CSV, TSV, Parquet or JSON lines; or what `format` names"),
    "format": Setting(choice(FORMATS), "table (default), youtube (folder of UCI files) or sms (UCI file)"),
    "label": Setting(text, "column that holds the class of each row"),
    "features": Setting(by_column(choice(KINDS)), "what the model reads: `column: text, number or category`"),
    "functions": Setting(many(text), "slicing functions: Python or YAML files, or dotted names of modules"),
    "learner.kind": Setting(choice(LEARNERS), "slice_residual (default), slice_aware, erm or weighted_erm"),
    "learner.epochs": Setting(whole(1), "passes over the training rows"),
    "learner.hidden": Setting(many(whole(1), least=1), "units of each hidden layer"),
    "learner.learning_rate": Setting(positive, "step size of the optimiser"),
    "learner.batch_rows": Setting(whole(1), "rows of one optimiser step"),
    "learner.search_rows": Setting(whole(1), "most rows that the search among candidates reads"),
    "learner.seed": Setting(whole(0), "the same seed gives the same model (default: 0)"),
    "registry": Setting(text, "folder of the model registry (default: .slicewatch/registry)"),
    "store": Setting(text, "database of predictions and labels (default: .slicewatch/store.sqlite3)"),
    "classes": Setting(
        many(text, least=2), "classes of a model served elsewhere, where none is trained here"
    ),
    "serve.host": Setting(text, "address to listen on (default: 127.0.0.1, which only this machine reaches)"),
    "serve.port": Setting(whole(0, 65_535), "port to listen on (default: 8000; 0 takes a free one)"),
    "serve.insecure": Setting(yes_or_no, "listen on an address that others reach: there are no keys yet"),
    "serve.hosts": Setting(many(text), "further names under which it may be asked, as behind a proxy"),
    "serve.body_bytes": Setting(whole(1024), "longest body of a request (default: 4194304)"),
    "serve.request_rows": Setting(whole(1), "most records in a request (default: 1000)"),
    "serve.request_labels": Setting(whole(1), "most labels in a request (default: 10000)"),
    "serve.request_seconds": Setting(positive, "time that a request may take (default: 10)"),
    "serve.queue_rows": Setting(whole(1), "records that may wait for the model; more are refused (2048)"),
    "serve.drain_seconds": Setting(positive, "time to finish what is in hand when stopping (default: 20)"),
    "log.features": Setting(many(text, least=1), "what is kept of a record: all (default), none, or columns"),
    "log.survives": Setting(
        choice(SURVIVES), "what a logged row outlives: kill (default), or power loss too"
    ),
    "monitor.tick_seconds": Setting(positive, "time between two snapshots (default: 10)"),
    "monitor.minimum_labels": Setting(whole(1), "labels below which no accuracy is shown (default: 20)"),
    "monitor.positive": Setting(text, "class whose F1 is shown (default: the second of two, else the mean)"),
    "monitor.label_days": Setting(positive, "age of a prediction up to which its labels count (default: 30)"),
    "function_limits.budget_ms": Setting(positive, "time of a plain function per row (default: 1)"),
    "function_limits.least_ms": Setting(positive, "time it may take of a batch of any size (default: 50)"),
    "function_limits.hold_ms": Setting(positive, "time of all plain functions in a batch (default: 200)"),
    "function_limits.faults": Setting(whole(1), "failures in a row that set a function aside (default: 20)"),
    "function_limits.slow_batches": Setting(whole(1), "slow batches in a row that set it aside (default: 5)"),
    "function_limits.back_off_seconds": Setting(positive, "time until it is tried again (default: 1)"),
    "function_limits.longest_back_off_seconds": Setting(positive, "the longest such time (default: 300)"),
}
REQUIRED = ("data", "label", "features")
SECTIONS: Mapping[str, Callable[..., Any]] = {
    "learner": LearnerSettings,
    "serve": ServeSettings,
    "log": LogSettings,
    "monitor": MonitorSettings,
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
