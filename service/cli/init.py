"""``slicewatch init``: write a commented configuration and example slices, guessed from a file."""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.dataset_scan import excerpt, guess_columns, guess_label
from service.cli.parser import Commands, Context, add_command, add_options
from service.cli.project import blank_rows, other_source
from service.cli.terminal import format_table, print_json, print_message
from service.errors import MisuseError
from service.settings import FILE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from service.cli.dataset_scan import ColumnGuess

DEMO_FILE = "comments.csv"
DEMO_ROWS = 5000
PYTHON_FILE, YAML_FILE = "slices.py", "slices.yaml"
COMMENT_SLICES = "sfs.library.spam"

SETTINGS_TEXT = """\
# Settings of this project; paths are relative to this file.
# An environment variable overrides a setting: SLICEWATCH_LEARNER_EPOCHS=5 sets `epochs` under `learner`.
name: {name}                 # name of the model in the registry
data: {data}
{format}label: {label}

# Columns that the model reads: text, number or category. Guessed from the first {rows:,} rows: please check.
features:
{features}
{left_out}
# Slicing functions: Python files, YAML files, or modules such as sfs.library.spam.
functions: [{functions}]

learner:
  kind: slice_residual       # or slice_aware, erm, weighted_erm
  epochs: 12
  hidden: [32]               # units of each hidden layer
  seed: 0                    # the same seed gives the same model

registry: .slicewatch/registry

# The service, `slicewatch up`: these are the defaults.
# serve: {{host: 127.0.0.1, port: 8000}}
# monitor: {{tick_seconds: 10, minimum_labels: 20}}
# log: {{features: all}}       # or none, or a list of columns to keep
"""

PYTHON_TEXT = '''\
"""Slices as Python functions: a function returns true for the rows of its slice. Edit these examples.

Read a column with x["name"], or with x.name if the name is an identifier. A missing value is None.
`severity` is info, warning or critical. With protected=True, a new model that is worse on the slice is not promoted.
"""

from sfs import slicing_function

{functions}

SLICES = ({names})
'''

FUNCTION_TEXT = '''\

@slicing_function(owner="you", severity="warning")
def {name}(x):
    """{summary}."""
    value = x[{column}]
    return {test}
'''

YAML_TEXT = """\
# Slices as templates: one line per slice, and faster than Python functions. Edit these examples.
# Kinds: keyword {field, words}, regex {field, pattern}, one_of {field, values}, missing {field},
#   compare {field, below/above/at_least/at_most}, length {field, unit: words or characters, below/...};
#   combine them with all, any and not. Optional for every slice: description, owner, family,
#   severity (info, warning or critical), target (minimum accuracy) and protected (true or false).
slices:
"""


def declare(commands: Commands) -> None:
    """Declare the command."""
    examples = "slicewatch init demo\n  slicewatch init shop --data orders.csv --label returned"
    summary = "write a commented slicewatch.yaml and example slices"
    parser = add_command(commands, "init", summary, examples, run)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the project; created if absent")
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="table to start from (default: generated comments)"
    )
    parser.add_argument("--label", metavar="COLUMN", help="column with the class (default: guessed)")
    add_options(parser, config=False)


def run(args: argparse.Namespace, context: Context) -> int:
    """Guess the columns, then write every file, or none."""
    folder, generated = args.folder, args.data is None
    data = folder / DEMO_FILE if generated else args.data
    if folder.exists() and not folder.is_dir():
        raise MisuseError(f"{folder} is a file: pass a folder for the project")
    names = [FILE_NAME, PYTHON_FILE, YAML_FILE, *([DEMO_FILE] if generated else [])]
    if existing := [name for name in names if (folder / name).exists()]:
        raise MisuseError(
            f"{folder} already has {', '.join(existing)}: nothing was written; use another folder"
        )
    if generated:
        from models.comments.generate import generate

        frame, data_format = generate(DEMO_ROWS), "table"
    else:
        source = other_source(data)
        frame, data_format = next(source.batches()), source.format
    label = guess_label(frame, args.label)
    columns = guess_columns(frame, label)
    functions = [PYTHON_FILE, YAML_FILE]
    if generated or data_format != "table":
        functions.insert(0, COMMENT_SLICES)
    beside = data.resolve().is_relative_to(folder.resolve().parent)
    path = os.path.relpath(data.resolve(), folder.resolve()) if beside else str(data.resolve())
    name = to_identifier(folder.resolve().name)
    python, templates = slices_texts(frame, columns)
    texts = {
        FILE_NAME: settings_text(name, path, data_format, label, columns, functions),
        PYTHON_FILE: python,
        YAML_FILE: templates + (_comment_templates() if generated else ""),
    }
    if generated:
        texts[DEMO_FILE] = frame.to_csv(index=False)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with (folder / name).open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    if args.json:
        kinds = {column.name: {"kind": column.kind, "why": column.reason} for column in columns}
        print_json({"folder": str(folder), "files": list(texts), "label": label, "columns": kinds})
    else:
        rows = [[column.name, column.kind or "left out", column.reason] for column in columns]
        print(format_table(("column", "kind", "reason"), [[label, "label", "the class to predict"], *rows]))
        print(f"\nwrote {', '.join(texts)} to {folder}: check the guesses, then run")
        print(f"  cd {folder} && slicewatch check && slicewatch train && slicewatch up")
    if blank := blank_rows(frame[label]):
        print_message(
            f"note: {len(blank):,} rows have no {label!r}; `train` refuses them: fill them in or remove them first"
        )
    return 0


def settings_text(
    name: str,
    data: str,
    data_format: str,
    label: str,
    columns: Sequence[ColumnGuess],
    functions: Sequence[str],
) -> str:
    """Return slicewatch.yaml, with the reason for each guess as a comment."""
    kept, left_out = [], []
    for column in columns:
        values = "no value"
        if column.example:
            missing = f", {column.missing / column.rows:.1%} missing" if column.missing else ""
            values = f"{column.distinct:,} distinct{missing}, such as {excerpt(column.example)}"
        if column.kind:
            line = f"  {to_yaml(column.name)}: {column.kind}"
            kept.append(f"{line:28} # {column.reason}; {values}")
        else:
            left_out.append(f"# {excerpt(column.name)}: left out, {column.reason} ({values})\n")
    return SETTINGS_TEXT.format(
        name=name,
        data=to_yaml(data),
        format=f"format: {data_format}\n" if data_format != "table" else "",
        label=to_yaml(label),
        rows=columns[0].rows,
        features="\n".join(kept),
        left_out="".join(left_out),
        functions=", ".join(map(to_yaml, functions)),
    )


def to_yaml(text: str) -> str:
    """Return text as a YAML scalar on one line, quoted if necessary.

    Examples
    --------
    >>> to_yaml("price"), to_yaml("Price [eur]"), to_yaml("no")
    ('price', "'Price [eur]'", "'no'")
    """
    import yaml

    if not text.isprintable():
        return json.dumps(text)
    return str(yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=10**9)).strip()[1:-1]


def to_identifier(name: str) -> str:
    """Return a name of letters, digits and underscores, to be part of other names.

    Examples
    --------
    >>> to_identifier("Price [EUR]"), to_identifier("2nd")
    ('price_eur', 'c_2nd')
    """
    bare = re.sub(r"\W+", "_", name).strip("_").lower() or "column"
    return bare if bare.isidentifier() else f"c_{bare}"


def slices_texts(frame: pd.DataFrame, columns: Sequence[ColumnGuess]) -> tuple[str, str]:
    """Return slices.py and slices.yaml, with slices that have members among some rows."""
    used: set[str] = set()

    def unique(wanted: str) -> str:
        name, number = wanted, 2
        while name in used:
            name, number = f"{wanted}_{number}", number + 1
        used.add(name)
        return name

    names, sources = [], []
    for wanted, summary, column, test in _python_slices(frame, columns):
        names.append(unique(wanted))
        sources.append(
            FUNCTION_TEXT.format(name=names[-1], summary=summary, column=_literal(column), test=test)
        )
    listed = ", ".join(names) + ("," if len(names) == 1 else "")
    lines = []
    for guess in columns:
        for wanted, kind, options, summary in _templates(guess, frame[guess.name]):
            spec = f"{{{', '.join([f'field: {to_yaml(guess.name)}', *options])}}}"
            lines.append(
                f"  - {{name: {unique(wanted)}, {kind}: {spec}, description: {summary}, owner: you}}\n"
            )
    return PYTHON_TEXT.format(functions="\n".join(sources), names=listed), YAML_TEXT + "".join(lines)


def _comment_templates() -> str:
    """Return templates for slices of generated comments that the function library lacks."""
    from models.comments.profile import PATTERNS

    lines = []
    for name, pattern in PATTERNS.items():
        spec = f"{{field: text, pattern: {json.dumps(pattern, ensure_ascii=False)}}}"
        lines.append(f"  - {{name: {name}, regex: {spec}, owner: you}}\n")
    return "".join(lines)


def _python_slices(
    frame: pd.DataFrame, columns: Sequence[ColumnGuess]
) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, summary, column and test of example functions."""
    by_kind = {kind: [c.name for c in columns if c.kind == kind] for kind in ("text", "number", "category")}
    if by_kind["text"]:
        column = by_kind["text"][0]
        name, texts = to_identifier(column), frame[column].dropna().astype(str)
        most = max(int(texts.str.split().str.len().quantile(0.2)), 1)
        is_text = "isinstance(value, str) and "
        yield f"short_{name}", f"At most {most} words", column, f"{is_text}len(value.split()) <= {most}"
        if texts.str.contains("!", regex=False).any():
            yield f"exclaiming_{name}", "Has an exclamation mark", column, f'{is_text}"!" in value'
        if texts.str.isupper().any():
            yield f"shouting_{name}", "Written in capitals", column, f"{is_text}value.isupper()"
        return
    for column in by_kind["number"][:2]:
        test = f"isinstance(value, (int, float)) and value <= {_number(float(frame[column].quantile(0.1)))}"
        yield f"low_{to_identifier(column)}", "Among the lowest tenth", column, test
    for column in by_kind["category"][:1]:
        value = _infrequent_value(frame[column])
        test = "value is True" if value in ("true", "false") else f"str(value) == {_literal(value)}"
        yield f"some_{to_identifier(column)}", "Has one of the values", column, test


def _templates(guess: ColumnGuess, series: pd.Series[Any]) -> Iterator[tuple[str, str, list[str], str]]:
    """Yield name, kind, options and description of example templates for a column."""
    name = to_identifier(guess.name)
    if guess.kind == "text":
        most = int(series.dropna().astype(str).str.len().quantile(0.9))
        yield f"long_{name}", "length", ["unit: characters", f"at_least: {most}"], "among the longest tenth"
    if guess.kind == "number":
        # Rounded to five digits, unless that would leave no row.
        least = float(series.quantile(0.9))
        rounded = float(f"{least:.5g}")
        least = rounded if rounded <= float(series.max()) else least
        yield f"high_{name}", "compare", [f"at_least: {_number(least)}"], "among the highest tenth"
    if guess.kind == "category":
        values = f"values: [{to_yaml(_infrequent_value(series))}]"
        yield f"few_{name}", "one_of", [values], "a less frequent value"
    if guess.kind and guess.missing:
        yield f"no_{name}", "missing", [], "has no value"


def _infrequent_value(series: pd.Series[Any]) -> str:
    """Return the least frequent value with at least 5% of the rows, else the second most frequent."""
    from sfs.record import text_of

    shares = series.dropna().map(text_of).value_counts(normalize=True)
    enough = shares[shares >= 0.05]
    return str(enough.index[-1] if len(enough) > 1 else shares.index[min(1, len(shares) - 1)])


def _number(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else repr(text)
