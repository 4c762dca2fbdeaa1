"""``slicewatch check``: everything that would stop a training, found before it starts."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from service.cli.command import Commands, Context, add_command, add_config, add_json
from service.cli.project import blank_rows, load_settings, project_source
from service.cli.sfs import CHECKED_RECORDS, contract_checks
from service.cli.tally import Tally
from service.cli.terminal import print_json
from service.errors import MisuseError, SettingsError
from service.settings.nodes import nearest

if TYPE_CHECKING:
    import pandas as pd

    from service.settings.project import Settings
    from sfs.registry import FunctionSet

SAMPLE_ROWS = 1000


def declare(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "check", "check settings, rows, labels and functions", "slicewatch check", run
    )
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Check everything; MisuseError with every problem found."""
    problems: list[str] = []
    try:
        settings = load_settings(args, context)
    except SettingsError as error:
        _finish(args, None, list(error.problems))
        raise
    frame = _first_rows(settings, problems)
    if frame is not None:
        problems += _column_problems(settings, frame)
        problems += _label_problems(settings) if settings.label in map(str, frame.columns) else ()
    functions = _functions(settings, problems)
    tally = _tried(functions, frame, problems) if functions is not None and frame is not None else None
    _finish(args, tally, problems)
    if problems:
        raise MisuseError(problems)
    return 0


def _finish(args: argparse.Namespace, tally: Tally | None, problems: list[str]) -> None:
    if args.json:
        slices = tally.to_json() if tally else []
        print_json({"ok": not problems, "problems": problems, "slices": slices})
        return
    if tally:
        print(tally.to_text())
    if not problems:
        print("\nno problems: `slicewatch train` may start")


def _first_rows(settings: Settings, problems: list[str]) -> pd.DataFrame | None:
    from models.errors import ModelError
    from sfs.errors import SliceError

    try:
        return next(project_source(settings).batches())
    except (SliceError, ModelError, OSError) as error:
        problems.append(f"data: {error}")
        return None


def _column_problems(settings: Settings, frame: pd.DataFrame) -> Iterator[str]:
    names = [str(name) for name in frame.columns]
    absent = [column for column in (*settings.features, settings.label) if column not in names]
    yield from (f"no column {column!r} in {settings.data}{nearest(column, names)}" for column in absent)
    if absent:
        yield f"the columns of {settings.data} are {names}"
    if settings.label in settings.features:
        yield f"features: {settings.label!r} is the label: a model that reads it has nothing to predict"
    for column in settings.features:
        if column not in absent:
            yield from _feature_problems(settings, frame, column)


def _feature_problems(settings: Settings, frame: pd.DataFrame, column: str) -> Iterator[str]:
    from models.errors import ModelError
    from models.features import FeatureSpec, Featurizer

    try:
        Featurizer((FeatureSpec(column, settings.features[column]),)).fit(frame)  # type: ignore[arg-type]
    except ModelError as error:
        yield f"features: {error}"


def _label_problems(settings: Settings) -> Iterator[str]:
    from models.classes import class_names, read_labels
    from models.errors import ModelError

    classes: dict[str, None] = {}
    blank: list[int] = []
    rows = 0
    try:
        for batch in project_source(settings).batches():
            here = blank_rows(batch[settings.label])
            classes |= dict.fromkeys(read_labels(batch.drop(index=batch.index[here]), settings.label))
            blank += [rows + row for row in here]
            rows += len(batch)
        class_names(list(classes), settings.label)
    except ModelError as error:
        yield f"label: {error}"
    if blank:
        yield f"label: {len(blank):,} of {rows:,} rows have no {settings.label!r}, first in row {blank[0]}"


def _functions(settings: Settings, problems: list[str]) -> FunctionSet | None:
    from sfs.errors import SliceError
    from sfs.registry import FunctionSet

    found = []
    for name in settings.functions:
        try:
            found += list(FunctionSet.from_file(name))
        except SliceError as error:
            problems.append(f"functions: {error}")
    try:
        return FunctionSet(found)
    except SliceError as error:
        problems.append(f"functions: {error}")
        return None


def _tried(functions: FunctionSet, frame: pd.DataFrame, problems: list[str]) -> Tally | None:
    from sfs.apply import run as run_functions
    from sfs.errors import SliceError
    from sfs.record import Columns

    try:
        applied = run_functions(functions, frame.head(SAMPLE_ROWS))
    except SliceError as error:
        problems.append(f"functions: {error}")
        return None
    tally = Tally(functions.names)
    tally.add(applied)
    for one in contract_checks(functions, Columns(frame.head(CHECKED_RECORDS)).records):
        if not one["passed"]:
            problems.append(f"functions: {one['function']} is not {one['check']}: {one['detail']}")
    return tally
