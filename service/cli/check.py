"""``slicewatch check``: every problem that would stop training or serving, before either starts."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from service.cli.apply import ApplySummary
from service.cli.dataset_scan import excerpt, scan
from service.cli.parser import Commands, Context, add_command, add_options
from service.cli.project import (
    NO_LABELING_FUNCTIONS,
    function_kind,
    load_settings,
    project_source,
    require_writable,
)
from service.cli.sfs import CHECKED_RECORDS, contract_checks
from service.cli.terminal import format_table, print_json, printable, stage_progress
from service.errors import MisuseError, SettingsError

if TYPE_CHECKING:
    from service.cli.dataset_scan import DatasetScan
    from service.cli.terminal import Progress
    from service.settings.schema import Settings
    from sfs.function import SlicingFunction
    from sfs.registry import FunctionSet
    from sfs.schema import Schema


def declare(commands: Commands) -> None:
    """Declare the command."""
    summary = "check the settings, rows, labels and functions before training"
    parser = add_command(commands, "check", summary, "slicewatch check", run)
    add_options(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Check everything; raise MisuseError with every problem."""
    try:
        settings = load_settings(args, context)
    except SettingsError as error:
        if args.json:
            _print_json(error.problems, [], 0, None)
        raise
    with stage_progress("check") as progress:
        problems, warnings, summary, functions, rows, votes = _check(settings, progress)
    if args.json:
        _print_json(problems, warnings, rows, summary, votes)
    else:
        next_command = "up" if settings.classes else "train"  # with classes, the model is served elsewhere
        _print_report(summary, problems, warnings, rows, functions, next_command)
        if votes and not problems:
            print(f"\n{votes_text(votes)}")
    if problems:
        raise MisuseError(problems)
    return 0


def _check(
    settings: Settings, progress: Progress
) -> tuple[list[str], list[str], ApplySummary | None, FunctionSet | None, int, dict[str, Any]]:
    """Return problems, warnings, the slices of a sample, the functions, the number of rows, and the votes."""
    problems: list[str] = []
    warnings: list[str] = []
    dataset = scan(settings, problems, progress)
    functions = _load_functions(settings, problems)
    problems += _folder_problems(settings)
    summary, votes = None, dict[str, Any]()
    if dataset is not None:
        columns = [str(name) for name in dataset.first.columns]
        problems += _column_problems(settings, columns)
        problems += _service_problems(settings, columns, dataset.classes)
        warnings += dataset.remarks
        warnings += _other_classes(settings.classes, dataset.classes)
        warnings += _spelling_variants(settings, dataset)
        warnings += _leaks(settings, dataset)
        if functions is not None:
            problems += _name_problems(functions, columns, dataset.classes)
            summary = _apply_to_sample(settings, functions, dataset, problems, warnings, progress)
            if settings.labels_from_functions and not problems:
                votes = _sample_votes(settings, functions, dataset, problems)
    return problems, warnings, summary, functions, dataset.rows if dataset else 0, votes


def _sample_votes(
    settings: Settings, functions: FunctionSet, dataset: DatasetScan, problems: list[str]
) -> dict[str, Any]:
    """Return the rows that functions have to label, and the votes on those of the sample; empty after a problem."""
    from models.classes import class_names, read_known_labels
    from models.errors import ModelError
    from models.function_labels import label_matrix
    from sfs.analysis import LFAnalysis

    labeling = functions.labeling_functions
    if not labeling:
        problems.append(f"labels: {NO_LABELING_FUNCTIONS}")
        return {}
    classes = class_names(list(dataset.classes), settings.label)
    try:
        L, _ = label_matrix(labeling, project_source(settings).visible(dataset.sample), classes)
    except ModelError as error:
        problems.append(f"labels: {error}")
        return {}
    truth = read_known_labels(dataset.sample, settings.label)
    analysis = LFAnalysis(L, labeling)
    names = [
        {"function": each.name, "classes": [classes[k] for k in polarity], "votes": int(votes)}
        for each, polarity, votes in zip(labeling, analysis.lf_polarities(), (L >= 0).sum(axis=0), strict=True)
    ]
    return {
        "rows": dataset.rows,
        "unlabelled": dataset.unlabelled,
        "sampled": len(L),
        "sampled_unlabelled": truth.count(None),
        "coverage": analysis.label_coverage(),
        "overlap": analysis.label_overlap(),
        "conflict": analysis.label_conflict(),
        "functions": names,
    }


def votes_text(votes: Mapping[str, Any]) -> str:
    """Return the rows without a label, and the votes of each labeling function, as text."""
    columns = ("labeling function", "votes for", "votes")
    rows = [(each["function"], ", ".join(each["classes"]) or "-", each["votes"]) for each in votes["functions"]]
    return (
        f"labels from functions: {votes['unlabelled']:,} of {votes['rows']:,} rows have no label. Of "
        f"{votes['sampled']:,} sampled rows {votes['coverage']:.1%} have a vote, {votes['overlap']:.1%} several, and "
        f"{votes['conflict']:.1%} different ones.\n\n{format_table(columns, rows)}"
    )


def _print_json(
    problems: Sequence[str],
    warnings: list[str],
    rows: int,
    summary: ApplySummary | None,
    votes: Mapping[str, Any] | None = None,
) -> None:
    found = {"ok": not problems, "problems": problems, "warnings": warnings, "rows": rows}
    sampled, slices = (summary.rows, summary.to_json()) if summary else (0, [])
    print_json(found | {"sampled": sampled, "slices": slices} | ({"labels": votes} if votes else {}))


def _print_report(
    summary: ApplySummary | None,
    problems: list[str],
    warnings: list[str],
    rows: int,
    functions: FunctionSet | None,
    next_command: str,
) -> None:
    if summary and summary.counts.slices:
        sample = "all" if summary.rows == rows else f"a random sample of {summary.rows:,} of"
        print(f"Slices on {sample} {rows:,} rows:\n\n{summary.to_text()}")
    if summary and not len(functions or ()) and not problems:
        print("no slicing functions: list their files under `functions`")
    labeling = [function.name for function in functions or () if function_kind(function) == "labeling"]
    if summary and labeling:
        print(f"\nlabeling functions, monitored live but not slices of the model: {', '.join(labeling)}")
    if warnings:
        print("\n" + "\n".join(f"warning: {printable(warning)}" for warning in warnings))
    if not problems:
        print(f"\nno problems: `slicewatch {next_command}` can start")


def _column_problems(settings: Settings, names: Sequence[str]) -> Iterator[str]:
    from sfs.errors import nearest

    absent = [c for c in (*settings.features, settings.label, *settings.schema) if c not in names]
    yield from (f"no column {column!r} in {settings.data}{nearest(column, names)}" for column in absent)
    if absent:
        yield f"the columns of {settings.data} are {names}"
    if settings.label in settings.features:
        yield f"features: {settings.label!r} is the label: remove it from the features"


def _name_problems(functions: FunctionSet, columns: Collection[str], classes: Collection[str]) -> Iterator[str]:
    """Yield problems of names that `apply` cannot write."""
    taken = {*columns, "predicted", "split", *(f"p_{name}" for name in classes)}
    for function in functions:
        if function.name in taken and function_kind(function) != "labeling":
            kind = "a column" if function.name in columns else "a column that `apply` adds"
            yield f"functions: slice {function.name!r} has the name of {kind}: rename it, or `apply` cannot write it"


def _folder_problems(settings: Settings) -> Iterator[str]:
    for key, folder in (("registry", settings.registry), ("store", settings.store.parent)):
        try:
            require_writable(folder)
        except OSError as error:
            yield f"{key}: {folder} cannot be written: {error.strerror or error}"


def _leaks(settings: Settings, dataset: DatasetScan) -> list[str]:
    """Return a warning for every feature that alone predicts the label almost perfectly, each content once."""
    import numpy as np

    from models.classes import label_leaks, read_known_labels, read_labels
    from models.errors import ModelError

    sample = dataset.sample
    if dataset.contents is not None:
        sample = sample.iloc[np.unique(dataset.contents, return_index=True)[1]]
    columns = set(map(str, sample.columns))
    features = [column for column in settings.features if column in columns and column != settings.label]
    try:
        if settings.labels_from_functions:
            known = [label is not None for label in read_known_labels(sample, settings.label)]
            sample = sample.loc[known]
        return label_leaks(sample[features], read_labels(sample, settings.label))
    except ModelError:
        return []  # the labels are a problem already


def _spelling_variants(settings: Settings, dataset: DatasetScan) -> Iterator[str]:
    """Yield a warning for the label and for every category with values that differ in spelling only."""
    from sfs.schema import canonical

    columns = {settings.label: set(dataset.classes)}
    for column, kind in settings.features.items():
        if kind == "category" and column in dataset.sample:
            columns[column] = {value for value in dataset.sample[column].tolist() if isinstance(value, str)}
    for column, spellings in columns.items():
        by_text: dict[str, list[str]] = {}
        for spelling in sorted(spellings):
            by_text.setdefault(canonical(spelling).casefold(), []).append(excerpt(spelling))
        if variants := [each for each in by_text.values() if len(each) > 1]:
            listed = " and ".join(map(repr, variants[0]))
            more = f" (and {len(variants) - 1:,} more)" * (len(variants) > 1)
            kind = "classes" if column == settings.label else "categories"
            yield (
                f"{column}: {listed} differ by case or number format only, and are different {kind}{more}: unify "
                "them if they are one"
            )


def _choice_spellings(functions: FunctionSet, schema: Schema) -> Iterator[str]:
    """Yield a warning for every value of `one_of` that its column spells otherwise."""
    from sfs.grammar import leaves
    from sfs.record import text_of
    from sfs.template import Template

    specs = [(each.name, leaf) for each in functions if isinstance(each, Template) for leaf in leaves(each.spec)]
    for name, body in [(name, leaf["one_of"]) for name, leaf in specs if "one_of" in leaf]:
        for value in body["values"] if body["field"] in schema else ():
            read = schema.columns[body["field"]].parse(value)
            if read is None or (spelled := text_of(read)) != value:
                advice = "use `missing`" if read is None else f'write "{spelled}"'
                meant = "a missing value" if read is None else repr(spelled)
                yield f"slice {name!r}: {value!r} is read as {meant} in column {body['field']!r}: {advice}"


def _service_problems(settings: Settings, columns: Collection[str], classes: Collection[str]) -> Iterator[str]:
    """Yield problems with the settings of the service, given columns and classes of the project's table."""
    from service.settings.schema import address_problem
    from sfs.errors import nearest

    if problem := address_problem(settings.serve):
        yield problem
    positive, known = settings.monitor.positive, {*classes, *settings.classes}
    yield from _class_problems(sorted(known))
    if positive is not None and positive not in known:
        yield f"monitor.positive {positive!r} is not one of the classes {sorted(known)}{nearest(positive, known)}"
    if settings.log.features not in (("all",), ("none",)):
        for column in settings.log.features:
            if column not in columns:
                yield f"log.features: no column {column!r} in {settings.data}{nearest(column, columns)}"
    if settings.clock is not None and not settings.clock.is_file():
        yield f"clock: no file {settings.clock}: remove `clock` to use the wall clock"
    if settings.store.exists():
        from service.store.engine import refuse_unknown, schema_version
        from service.store.errors import StoreError

        try:
            refuse_unknown(schema_version(settings.store))
        except StoreError as error:
            yield f"store: {error}"


def _other_classes(stated: Sequence[str], classes: Sequence[str]) -> Iterator[str]:
    """Yield a warning if the classes in the settings are not those of the table."""
    if stated and set(stated) != set(classes):
        yield (
            f"classes: {sorted(stated)} in the settings, {sorted(classes)} in the table: a trained model has the "
            "classes of the table, and labels of other classes are rejected"
        )


def _class_problems(classes: Collection[str]) -> Iterator[str]:
    """Yield the classes that labels sent to the service could not name."""
    from pydantic import TypeAdapter, ValidationError

    from service.api.schemas.fields import ClassName

    name = TypeAdapter(ClassName)
    for each in classes:
        try:
            name.validate_python(each)
        except ValidationError as error:
            reason = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
            yield f"label: the class {excerpt(each)!r} cannot be sent as a label: {reason}; rename it"


def _load_functions(settings: Settings, problems: list[str]) -> FunctionSet | None:
    from sfs.errors import SliceError
    from sfs.registry import FunctionSet
    from sfs.template import Template
    from sfs.template_limits import TemplateLimits

    functions: list[SlicingFunction] = []
    for name in settings.functions:
        try:
            functions += FunctionSet.from_files([name], votes=True)
        except SliceError as error:
            problems.append(f"functions: {error}")
    try:
        TemplateLimits(**settings.template_limits.given).require(
            each.spec for each in functions if isinstance(each, Template)
        )
        return FunctionSet(functions)
    except SliceError as error:
        problems.append(f"functions: {error}")
        return None


def _apply_to_sample(
    settings: Settings,
    functions: FunctionSet,
    dataset: DatasetScan,
    problems: list[str],
    warnings: list[str],
    progress: Progress,
) -> ApplySummary | None:
    from models.bundle.records import plain_records
    from models.classes import check_label_not_read
    from models.errors import ModelError
    from sfs.apply import apply_with_stats
    from sfs.checks import WITHIN_BUDGET
    from sfs.errors import SliceError
    from sfs.registry import FunctionSet

    sample = project_source(settings).visible(dataset.sample)
    records = plain_records(sample.head(CHECKED_RECORDS), [str(name) for name in sample.columns])  # as requests are
    checks = contract_checks(functions, records, progress, dataset.never_missing)
    slow = {check["function"] for check in checks if check["check"] == WITHIN_BUDGET and not check["passed"]}
    functions = FunctionSet(function for function in functions if function.name not in slow)
    warnings += _choice_spellings(functions, settings.table_schema.completed(dataset.sample, settings.features))
    progress("applying functions", 0.0)
    try:
        check_label_not_read(functions, settings.label)
        applied = apply_with_stats(functions, sample)
    except (ModelError, SliceError) as error:
        problems.append(f"functions: {error}")
        return None
    summary = ApplySummary(functions.names, compare=True)
    summary.add(applied, dataset.contents)
    for check in checks:
        if not check["passed"]:
            problems.append(f"functions: {check['function']} is not {check['check']}: {check['detail']}")
        elif check["is_warning"]:
            warnings.append(f"function {check['function']}: {check['detail']}")
    warnings += summary.redundant().values()
    return summary
