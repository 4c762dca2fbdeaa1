"""``slicewatch reference``: the rates expected of a model that is served elsewhere, and the file that sets them."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.parser import Commands, Context, add_command, add_format, add_options, integer_between
from service.cli.project import (
    CHAMPION,
    load_settings,
    open_registry,
    other_source,
    project_source,
    running_service,
)
from service.cli.terminal import format_table, print_json, row_progress
from service.errors import MisuseError
from service.formatting import percent

if TYPE_CHECKING:
    from service.settings.schema import Settings

PREDICTED = "predicted"
"""Column with the predicted classes, unless another one is named."""

EXAMPLES = """slicewatch reference
  slicewatch reference january.parquet
  slicewatch reference validation.csv --predicted-column verdict --label-column truth --version 7"""
DESCRIPTION = """\
For a model that is served elsewhere (`classes` is set, and no version was trained here).
The rows of FILE set the expected coverage of every slice, in place of the project's table; with predicted and
true classes they set the expected accuracy of a version, too. FILE is copied beside the store, and counted by
the running service. To return to the project's table, pass it. Without FILE, the expected rates are listed."""


def declare(commands: Commands) -> None:
    """Declare the command."""
    summary = "list or set the rates expected of a model that is served elsewhere"
    parser = add_command(commands, "reference", summary, EXAMPLES, run)
    parser.description = f"{parser.description}\n\n{DESCRIPTION}"
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="CSV, TSV, Parquet or JSON lines")
    parser.add_argument(
        "--predicted-column", metavar="NAME", help=f"column with the predicted classes (default: {PREDICTED}, if any)"
    )
    parser.add_argument("--label-column", metavar="NAME", help="column with the true classes (default: label)")
    about = "version that predicted the classes (default: the one that is followed)"
    parser.add_argument("--version", type=integer_between(0), metavar="VERSION", help=about)
    add_format(parser)
    add_options(parser, url=True)


def run(args: argparse.Namespace, context: Context) -> int:
    """List the expected rates, or set the file from which they are counted."""
    if args.file is None:
        return _list(args, context)
    settings = load_settings(args, context)
    _require_external(settings)
    folder = settings.store.parent / _folder_name()
    if args.file.resolve() == settings.data.resolve() and args.predicted_column is None:
        _remove(folder, keep=None)
        found: dict[str, Any] = {"file": str(args.file), "rows": None, "labelled": 0, "version": None}
        text = f"the reference is the project's table, {args.file}"
        columns = next(project_source(settings).batches()).columns
        if PREDICTED in columns and settings.label in columns and PREDICTED not in settings.features:
            text += f"; its predictions are not used without --predicted-column {PREDICTED}"
    else:
        found = _check(args, settings)
        _copy(args.file, folder, found, settings)
        text = _text(found)
    if args.json:
        print_json(found)
    else:
        print(f"{text}\nthe running service counts the slices within seconds: `slicewatch reference` lists them")
    return 0


def _folder_name() -> str:
    from service.serving.table_reference import FOLDER

    return FOLDER


def _require_external(settings: Settings) -> None:
    if not settings.classes:
        raise MisuseError("the classes are unknown: set `classes` in slicewatch.yaml")
    if settings.registry.is_dir() and (version := open_registry(settings).alias(CHAMPION)) is not None:
        raise MisuseError(f"version {version} is served here: its expected rates are those of its training")


def _check(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Read all rows, and return their number with the columns of the classes."""
    from models.features import check_columns
    from service.jobs.reference.worker import ClassPairs
    from sfs.errors import did_you_mean

    if args.file.is_dir():
        raise MisuseError(f"{args.file} is a folder: pass a file of rows")
    source = other_source(args.file, settings, given=args.format)
    columns = [str(column) for column in next(source.batches()).columns]
    label, predicted = args.label_column or settings.label, args.predicted_column
    if predicted is None and PREDICTED in columns and label in columns:
        predicted = PREDICTED
    named = [] if predicted is None else [predicted, label]
    problems = [
        f"{args.file}: no column {column!r}{did_you_mean(column, columns)}" for column in named if column not in columns
    ]
    if problems:
        raise MisuseError(problems)
    if predicted is None and (args.label_column or args.version is not None):
        raise MisuseError("--label-column and --version belong to predictions: name them with --predicted-column")
    pairs, rows = ClassPairs(label, predicted, settings.classes), 0
    with row_progress("reference", source.total()) as progress:
        for batch in source.batches():
            check_columns(batch, [*settings.features])
            pairs.add(batch)
            rows += len(batch)
            progress(len(batch))
    return {
        "file": str(args.file),
        "format": source.format,
        "rows": rows,
        "predicted_column": predicted,
        "label_column": label if predicted is not None else None,
        "labelled": len(pairs.labelled),
        "correct": sum(true == predicted for true, predicted in pairs.pairs),
        "version": args.version,
    }


def _copy(file: Path, folder: Path, found: Mapping[str, Any], settings: Settings) -> None:
    """Copy a file into the folder, readable for its owner only, and make it the reference."""
    from service.jobs.child_process import write_atomically
    from service.serving.table_reference import GIVEN

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    copy = folder / f"given-{digest[:16]}{''.join(file.suffixes[-2:])}"
    part = copy.with_name(f".{copy.name}.part")
    part.touch(mode=0o600)
    shutil.copyfile(file, part)
    part.replace(copy)
    given = {
        "path": copy.name,
        "name": file.name,
        "format": found["format"],
        "label": found["label_column"] or settings.label,
        "predicted": found["predicted_column"],
        "version": found["version"],
    }
    write_atomically(folder / GIVEN, json.dumps(given))
    _remove(folder, keep=copy)


def _remove(folder: Path, keep: Path | None) -> None:
    """Delete the copies of earlier files; without one to keep, the project's table is the reference again."""
    from service.serving.table_reference import GIVEN

    if keep is None:
        (folder / GIVEN).unlink(missing_ok=True)
    for copy in folder.glob("given-*"):
        if copy != keep:
            copy.unlink()


def _text(found: Mapping[str, Any]) -> str:
    text = f"the reference is {found['file']}, {found['rows']:,} rows"
    if found["predicted_column"] is None:
        return f"{text} without predictions: accuracy is expected from the first labels of each version"
    version = "the version that is followed" if found["version"] is None else f"version {found['version']}"
    columns = f"columns {found['predicted_column']} and {found['label_column']}"
    return (
        f"{text}; {found['correct']:,} of {found['labelled']:,} with both classes ({columns}) are correct, of {version}"
    )


def _list(args: argparse.Namespace, context: Context) -> int:
    """Print a line per slice with its expected rates."""
    with running_service(args, context) as client:
        view = client.slices()
    entries = [
        {name: entry[name] for name in ("name", "reference", "accuracy_reference")}
        for entry in view["slices"]
        if entry["kind"] != "none"
    ]
    if args.json:
        print_json({**{name: view.get(name) for name in ("model", "version", "reference_table")}, "slices": entries})
        return 0
    if line := reference_table_line(view):
        print(f"{line}\n")
    rows = [[entry["name"], *_cells(entry["reference"]), *_cells(entry["accuracy_reference"])] for entry in entries]
    columns = ("slice", "expected coverage", "effective n", "expected accuracy", "effective n")
    print(format_table(columns, rows))
    return 0


def reference_table_line(view: Mapping[str, Any]) -> str:
    """Return the table from which the coverage is expected, and why it lacks counts, in words; empty without one."""
    if not (table := view.get("reference_table")):
        return ""
    counted = [] if table["name"] is None else [f"{table['name']}, {table['rows']:,} rows"]
    return f"reference table: {'; '.join([*counted, *filter(None, [table['note']])])}"


def _cells(expected: Mapping[str, Any]) -> list[Any]:
    if "value" in expected:
        return [percent(expected["value"]), expected["effective_n"]]
    if expected["needed"] > 1:
        return [f"after {expected['needed']:,} labels, so far {expected['n']:,}", None]
    return [expected["reason"], None]
