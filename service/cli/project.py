"""A project at work: its settings, its rows, its functions, its registry."""

from __future__ import annotations

import argparse
import difflib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.command import Context, config_file
from service.cli.terminal import say
from service.errors import MisuseError
from service.settings.known import SETTINGS
from service.settings.project import OTHER_VARIABLES, PREFIX, Settings, load, variable

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from models.project_rows import Source
    from models.registry import ModelRegistry
    from sfs.function import SlicingFunction
    from sfs.registry import FunctionSet

CHAMPION = "champion"
SMS_FILE = "SMSSpamCollection"


def load_settings(args: argparse.Namespace, context: Context) -> Settings:
    """Read the settings that ``--config`` and the variables name; warn of variables that look misspelt."""
    known = [variable(key) for key in SETTINGS]
    for name in sorted(set(context.environ) - {*known, *OTHER_VARIABLES}):
        if name.startswith(PREFIX) and (close := difflib.get_close_matches(name, known, n=1, cutoff=0.9)):
            say(f"slicewatch: warning: variable {name} is not a setting; did you mean {close[0]}?")
    return load(config_file(args, context), context.environ)


def project_source(settings: Settings) -> Source:
    """Return where the project's own rows are."""
    from models.project_rows import Source

    return Source(settings.data, settings.format, text_columns(settings), settings.label)


def other_source(path: Path, settings: Settings | None = None) -> Source:
    """Return rows elsewhere; the columns that the project declares as text stay text there too."""
    if path.is_dir() and not any(path.glob("Youtube*.csv")):
        raise MisuseError(f"{path} is a folder: name a file of rows, or the folder of the UCI YouTube files")
    data_format = "youtube" if path.is_dir() else "sms" if path.name == SMS_FILE else "table"
    from models.project_rows import Source

    if settings is None:
        return Source(path, data_format)
    return Source(path, data_format, text_columns(settings), settings.label)


def text_columns(settings: Settings) -> tuple[str, ...]:
    """Return the columns that stay as they are written, whatever they hold."""
    return tuple(column for column, kind in settings.features.items() if kind == "text")


def blank_rows(labels: pd.Series[Any]) -> list[int]:
    """Return the positions (from 0) of rows whose label is missing or only spaces."""
    values, missing = labels.tolist(), labels.isna().tolist()
    return [row for row, value in enumerate(values) if missing[row] or not str(value).strip()]


def load_functions(names: Iterable[str], *, votes: bool = False) -> FunctionSet:
    """Load functions from Python and YAML files and from dotted modules, in order.

    With ``votes`` those of labelling functions follow the slices: what is watched live, beside the slices
    that a model is trained with.
    """
    from sfs.registry import FunctionSet

    return FunctionSet.from_files(names, votes=votes)


def function_kind(function: SlicingFunction) -> str:
    """Return how a function was made: ``template``, ``python``, or ``labeling`` for one that labels rows."""
    from sfs.function import LabelingFunctionSlice
    from sfs.template import Template

    if isinstance(function, LabelingFunctionSlice):
        return "labeling"
    return "template" if isinstance(function, Template) else "python"


def writable(folder: Path) -> Path:
    """Return the nearest folder there is, after proving that files can be written into it, else OSError."""
    there = next(path for path in (folder, *folder.resolve().parents) if path.is_dir())
    with tempfile.TemporaryFile(dir=there) as file:
        file.write(b"slicewatch")
    return there


def open_registry(settings: Settings) -> ModelRegistry:
    """Return the project's registry.

    Raises
    ------
    MisuseError
        If nothing has been trained yet.
    """
    from models.registry import ModelRegistry

    if not settings.registry.is_dir():
        raise MisuseError(f"no registry at {settings.registry}: run `slicewatch train` first")
    return ModelRegistry(settings.registry, name=settings.name)
