"""``slicewatch check``: everything that would stop a training, found before it starts."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from service.cli.check_service import service_problems
from service.cli.command import Commands, Context, add_command, add_config, add_json
from service.cli.project import function_kind, load_settings, project_source
from service.cli.sfs import CHECKED_RECORDS, contract_checks
from service.cli.survey import survey
from service.cli.tally import Tally
from service.cli.terminal import print_json
from service.errors import MisuseError, SettingsError
from service.settings.nodes import nearest

if TYPE_CHECKING:
    import pandas as pd

    from service.settings.project import Settings
    from sfs.function import SlicingFunction
    from sfs.registry import FunctionSet


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
        _finish(args, None, list(error.problems), 0)
        raise
    found = survey(settings, problems)
    functions = _functions(settings, problems)
    if found is not None:
        problems += _column_problems(settings, found.first)
        problems += service_problems(settings, [str(name) for name in found.first.columns], found.classes)
    tally = None
    if found is not None and functions is not None:
        problems += _name_problems(functions, found.first)
        tally = _tried(functions, project_source(settings).visible(found.sample), problems)
    _finish(args, tally, problems, found.rows if found else 0, functions)
    if problems:
        raise MisuseError(problems)
    return 0


def _finish(
    args: argparse.Namespace,
    tally: Tally | None,
    problems: list[str],
    rows: int,
    functions: FunctionSet | None = None,
) -> None:
    if args.json:
        slices = tally.to_json() if tally else []
        sampled = tally.rows if tally else 0
        print_json(
            {"ok": not problems, "problems": problems, "rows": rows, "sampled": sampled, "slices": slices}
        )
        return
    if tally and tally.slices:
        of = f"{tally.rows:,} rows at random of {rows:,}" if tally.rows < rows else f"all {rows:,} rows"
        print(f"The slices on {of}:\n\n{tally.to_text()}")
    if tally and functions and (labeling := [each.name for each in functions if _is_labeling(each)]):
        print(f"\nlabelling functions, watched live but no slices of the model: {', '.join(labeling)}")
    if tally and not tally.slices:
        print("no slicing functions: name their files under `functions`")
    if not problems:
        print("\nno problems: `slicewatch train` may start")


def _is_labeling(function: SlicingFunction) -> bool:
    return function_kind(function) == "labeling"


def _name_problems(functions: FunctionSet, frame: pd.DataFrame) -> Iterator[str]:
    columns = set(map(str, frame.columns))
    for each in functions:
        if each.name in columns and not _is_labeling(each):
            yield (
                f"functions: slice {each.name!r} has the name of a column: "
                "rename it, or `apply --out` cannot write it"
            )


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


def _functions(settings: Settings, problems: list[str]) -> FunctionSet | None:
    from sfs.errors import SliceError
    from sfs.function import LabelingFunctionSlice
    from sfs.registry import FunctionSet, labeling_functions_in

    found: list[SlicingFunction] = []
    votes: list[SlicingFunction] = []
    for name in settings.functions:
        try:
            found += FunctionSet.from_file(name)
            votes += map(LabelingFunctionSlice, labeling_functions_in(name))
        except SliceError as error:
            problems.append(f"functions: {error}")
    try:
        return FunctionSet([*found, *votes])
    except SliceError as error:
        problems.append(f"functions: {error}")
        return None


def _tried(functions: FunctionSet, sample: pd.DataFrame, problems: list[str]) -> Tally | None:
    from sfs.apply import apply_with_stats
    from sfs.errors import SliceError
    from sfs.record import Columns

    try:
        applied = apply_with_stats(functions, sample)
    except SliceError as error:
        problems.append(f"functions: {error}")
        return None
    tally = Tally(functions.names)
    tally.add(applied)
    for one in contract_checks(functions, Columns(sample.head(CHECKED_RECORDS)).records):
        if not one["passed"]:
            problems.append(f"functions: {one['function']} is not {one['check']}: {one['detail']}")
    return tally
