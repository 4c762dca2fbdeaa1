"""``slicewatch check``: every problem that would stop training or serving, before either starts."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from service.cli.apply import ApplySummary
from service.cli.dataset_scan import scan
from service.cli.parser import Commands, Context, add_command, add_options
from service.cli.project import function_kind, load_settings, project_source
from service.cli.sfs import CHECKED_RECORDS, contract_checks
from service.cli.terminal import print_json
from service.errors import MisuseError, SettingsError
from service.settings.names import nearest

if TYPE_CHECKING:
    import pandas as pd

    from service.settings.schema import Settings
    from sfs.function import SlicingFunction
    from sfs.registry import FunctionSet


def declare(commands: Commands) -> None:
    """Declare the command."""
    summary = "check the settings, rows, labels and functions before training"
    parser = add_command(commands, "check", summary, "slicewatch check", run)
    add_options(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Check everything; raise MisuseError with every problem."""
    problems: list[str] = []
    try:
        settings = load_settings(args, context)
    except SettingsError as error:
        if args.json:
            print_json({"ok": False, "problems": error.problems, "rows": 0, "sampled": 0, "slices": []})
        raise
    dataset = scan(settings, problems)
    functions = _load_functions(settings, problems)
    summary = None
    if dataset is not None:
        columns = [str(name) for name in dataset.first.columns]
        problems += _column_problems(settings, dataset.first)
        problems += _service_problems(settings, columns, dataset.classes)
        if functions is not None:
            problems += [
                f"functions: slice {function.name!r} has the name of a column: rename it, or `apply --out` cannot "
                "write it"
                for function in functions
                if function.name in columns and function_kind(function) != "labeling"
            ]
            sample = project_source(settings).visible(dataset.sample)
            summary = _apply_to_sample(functions, sample, problems)
    rows = dataset.rows if dataset else 0
    if args.json:
        sampled, slices = (summary.rows, summary.to_json()) if summary else (0, [])
        print_json(
            {"ok": not problems, "problems": problems, "rows": rows, "sampled": sampled, "slices": slices}
        )
    else:
        _print_report(summary, problems, rows, functions)
    if problems:
        raise MisuseError(problems)
    return 0


def _print_report(
    summary: ApplySummary | None, problems: list[str], rows: int, functions: FunctionSet | None
) -> None:
    if summary and summary.slices:
        sample = "all" if summary.rows == rows else f"a random sample of {summary.rows:,} of"
        print(f"Slices on {sample} {rows:,} rows:\n\n{summary.to_text()}")
    if summary and not summary.slices:
        print("no slicing functions: list their files under `functions`")
    labeling = [function.name for function in functions or () if function_kind(function) == "labeling"]
    if summary and labeling:
        print(f"\nlabeling functions, monitored live but not slices of the model: {', '.join(labeling)}")
    if not problems:
        print("\nno problems: `slicewatch train` can start")


def _column_problems(settings: Settings, frame: pd.DataFrame) -> Iterator[str]:
    from models.errors import ModelError
    from models.features import FeatureSpec, Featurizer

    names = [str(name) for name in frame.columns]
    absent = [column for column in (*settings.features, settings.label) if column not in names]
    yield from (f"no column {column!r} in {settings.data}{nearest(column, names)}" for column in absent)
    if absent:
        yield f"the columns of {settings.data} are {names}"
    if settings.label in settings.features:
        yield f"features: {settings.label!r} is the label: remove it from the features"
    for column, kind in settings.features.items():
        if column not in absent:
            try:
                Featurizer((FeatureSpec(column, kind),)).fit(frame)  # type: ignore[arg-type]
            except ModelError as error:
                yield f"features: {error}"


def _service_problems(
    settings: Settings, columns: Collection[str], classes: Collection[str]
) -> Iterator[str]:
    """Yield problems with the settings of the service, given columns and classes of the project's table."""
    from service.settings.schema import address_problem

    if problem := address_problem(settings.serve):
        yield problem
    positive, known = settings.monitor.positive, settings.classes or classes
    if positive is not None and positive not in known:
        yield f"monitor.positive {positive!r} is not one of the classes {sorted(known)}{nearest(positive, known)}"
    if settings.log.features not in (("all",), ("none",)):
        for column in settings.log.features:
            if column not in columns:
                yield f"log.features: no column {column!r} in {settings.data}{nearest(column, columns)}"
    if settings.store.exists():
        from service.store.engine import schema_version
        from service.store.errors import StoreError
        from service.store.schema import refuse_unknown

        try:
            refuse_unknown(schema_version(settings.store))
        except StoreError as error:
            yield f"store: {error}"


def _load_functions(settings: Settings, problems: list[str]) -> FunctionSet | None:
    from sfs.errors import SliceError
    from sfs.function import LabelingFunctionSlice
    from sfs.registry import FunctionSet, labeling_functions_in

    functions: list[SlicingFunction] = []
    votes: list[SlicingFunction] = []
    for name in settings.functions:
        try:
            functions += FunctionSet.from_file(name)
            votes += map(LabelingFunctionSlice, labeling_functions_in(name))
        except SliceError as error:
            problems.append(f"functions: {error}")
    try:
        return FunctionSet([*functions, *votes])
    except SliceError as error:
        problems.append(f"functions: {error}")
        return None


def _apply_to_sample(
    functions: FunctionSet, sample: pd.DataFrame, problems: list[str]
) -> ApplySummary | None:
    from sfs.apply import apply_with_stats
    from sfs.errors import SliceError
    from sfs.record import Columns

    try:
        applied = apply_with_stats(functions, sample)
    except SliceError as error:
        problems.append(f"functions: {error}")
        return None
    summary = ApplySummary(functions.names)
    summary.add(applied)
    problems += [
        f"functions: {check['function']} is not {check['check']}: {check['detail']}"
        for check in contract_checks(functions, Columns(sample.head(CHECKED_RECORDS)).records)
        if not check["passed"]
    ]
    return summary
