"""``slicewatch init``: write a commented configuration and example slices, guessed from a file."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import unicodedata
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.dataset_scan import MAX_NAME_CHARACTERS, excerpt, guess_columns, guess_label
from service.cli.parser import Commands, Context, add_command, add_format, add_options
from service.cli.project import blank_rows, other_source
from service.cli.terminal import format_table, print_json, print_message
from service.errors import MisuseError
from service.settings import FILE_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from service.cli.dataset_scan import ColumnGuess
    from sfs.matrix import SliceMatrix
    from sfs.schema import Schema

DEMO_FILE = "comments.csv"
DEMO_ROWS = 5000
PYTHON_FILE, YAML_FILE = "slices.py", "slices.yaml"
COMMENT_SLICES = "sfs.library.spam"
IGNORE_FILE, IGNORED = ".gitignore", ".slicewatch/"
MAX_SLICES = 40
MAX_IDENTIFIER = 50
MIN_MEMBERS, MIN_SHARE, MAX_SHARE = 2, 0.01, 0.5
MIN_COUNT = 5
"""Minimum rows of a value that is written into a slice: a rarer one may name a person."""
TAIL, MAX_TAIL = 0.1, 0.3

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
# Types of columns, settled from the table: every file and request is read by them. Options in docs/data.md.
schema:
{schema}

# Slicing functions: Python files, YAML files, or modules such as sfs.library.spam.
{without}functions: [{functions}]

learner:
  kind: auto                 # the best of all, or a network: slice_residual, slice_aware, erm, weighted_erm
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
    parser.add_argument("--data", type=Path, metavar="FILE", help="table to start from (default: generated comments)")
    parser.add_argument("--label", metavar="COLUMN", help="column with the class (default: guessed)")
    add_format(parser)
    add_options(parser, config=False)


def run(args: argparse.Namespace, context: Context) -> int:
    """Guess the columns, then write every file, or none."""
    from sfs.schema import Schema

    folder, generated = args.folder, args.data is None
    data = folder / DEMO_FILE if generated else args.data
    if folder.exists() and not folder.is_dir():
        raise MisuseError(f"{folder} is a file: pass a folder for the project")
    if generated and args.format:
        raise MisuseError("--format is the format of a file: name it with --data FILE")
    names = [FILE_NAME, PYTHON_FILE, YAML_FILE, *([DEMO_FILE] if generated else [])]
    if existing := [name for name in names if (folder / name).exists()]:
        raise MisuseError(f"{folder} already has {', '.join(existing)}: nothing was written; use another folder")
    total: int | None = DEMO_ROWS
    if generated:
        from models.comments.generate import generate

        frame = table = generate(DEMO_ROWS)
        data_format = "table"
    else:
        source = other_source(data, given=args.format)
        frame, data_format, total = next(source.batches()), source.format, source.total()
        table = frame if total == len(frame) else source.read()
    label = guess_label(frame, args.label)
    columns = guess_columns(table, label, total)
    libraries = [COMMENT_SLICES] if generated or data_format in ("youtube", "sms") else []
    beside = data.resolve().is_relative_to(folder.resolve().parent)
    path = os.path.relpath(data.resolve(), folder.resolve()) if beside else str(data.resolve())
    name = to_identifier(unicodedata.normalize("NFKD", folder.resolve().name).encode("ascii", "ignore").decode())
    schema = Schema().completed(table, {column.name: column.kind for column in columns if column.kind})
    visible = schema.parse_frame(frame.loc[:, [str(column) != label for column in frame.columns]])
    slices, guessed = slices_texts(visible, columns, libraries, _comment_templates() if generated else "")
    functions = [*libraries, *guessed]
    texts = {FILE_NAME: settings_text(name, path, data_format, label, columns, functions, schema), **slices}
    if generated:
        texts[DEMO_FILE] = frame.to_csv(index=False)
    notes = _notes(folder, data, columns)
    if not (folder / IGNORE_FILE).exists():
        texts[IGNORE_FILE] = f"# Registry, store and other files that the commands write.\n{IGNORED}\n"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with (folder / name).open("x", encoding="utf-8", newline="") as file:
            file.write(text)
    if args.json:
        kinds = {column.name: {"kind": column.kind, "why": column.reason} for column in columns}
        print_json({"folder": str(folder), "files": list(texts), "label": label, "columns": kinds, "notes": notes})
    else:
        rows = [[c.name if c.name.strip() else "(no name)", c.kind or "left out", c.reason] for c in columns]
        print(format_table(("column", "kind", "reason"), [[label, "label", "the class to predict"], *rows]))
        print(f"\nwrote {', '.join(texts)} to {folder}: check the guesses, then run")
        print(f"  cd {shlex.quote(str(folder))} && slicewatch check && slicewatch train && slicewatch up")
        print("".join(f"\nnote: {note}" for note in notes), end="\n" if notes else "")
    if blank := blank_rows(frame[label]):
        print_message(
            f"note: {len(blank):,} rows have no {label!r}; `train` refuses them: fill them in, remove them, or set "
            "`labels: from functions`"
        )
    return 0


def _notes(folder: Path, data: Path, columns: Sequence[ColumnGuess]) -> list[str]:
    """Return notes on the written project for its user."""
    notes = []
    if not data.resolve().is_relative_to(folder.resolve()):
        notes.append(
            f"{data} is outside {folder}: deploy/compose.yaml mounts the folder only; copy the data into it and edit "
            "`data` before you use Compose"
        )
    ignore = folder / IGNORE_FILE
    if ignore.exists() and IGNORED not in ignore.read_text(encoding="utf-8", errors="replace").splitlines():
        notes.append(f"{ignore} was left as it is: add {IGNORED} to it, which holds the registry and the store")
    numeric = [column.name for column in columns if re.fullmatch(r"[+-]?\d+(\.\d+)?", column.name.strip())]
    if len(numeric) > 1 and numeric != [str(k) for k in range(len(numeric))]:
        notes.append(
            f"columns are named {', '.join(map(repr, numeric[:3]))}: if the first line holds values, add a header"
        )
    return notes


def settings_text(
    name: str,
    data: str,
    data_format: str,
    label: str,
    columns: Sequence[ColumnGuess],
    functions: Sequence[str],
    schema: Schema,
) -> str:
    """Return slicewatch.yaml, with the reason for each guess as a comment."""
    kept, left_out = [], []
    without = [file for file in (PYTHON_FILE, YAML_FILE) if file not in functions]
    for column in columns:
        missing = f", {column.missing / column.rows:.1%} missing" if column.missing else ""
        values = f"{column.distinct:,} distinct{missing}"
        if column.kind:
            line = f"  {to_yaml(column.name)}: {column.kind}"
            kept.append(f"{line:28} # {column.reason}; {values}")
        else:
            name_shown = excerpt(column.name) or "(no name)"
            left_out.append(f"# {name_shown}: left out, {column.reason} ({values})\n")
    return SETTINGS_TEXT.format(
        name=name,
        data=to_yaml(data),
        format=f"format: {data_format}\n" if data_format != "table" else "",
        label=to_yaml(label),
        rows=columns[0].rows,
        features="\n".join(kept),
        schema="\n".join(_schema_lines(schema)),
        left_out="".join(left_out),
        functions=", ".join(map(to_yaml, functions)),
        without=f"# Without slices yet: {' and '.join(without)}; list a file here once it has one.\n"
        if without
        else "",
    )


def _schema_lines(schema: Schema) -> Iterator[str]:
    for column in schema.to_json():
        name, kind = column.pop("name"), column["type"]
        options = ", ".join(f"{key}: {_yaml_value(value)}" for key, value in column.items())
        if name.strip() and len(name) <= MAX_NAME_CHARACTERS:
            yield f"  {to_yaml(name)}: {f'{{{options}}}' if len(column) > 1 else kind}"


def to_yaml(text: str) -> str:
    """Return text as a YAML scalar on one line, quoted if necessary.

    Examples
    --------
    >>> to_yaml("price"), to_yaml("Price [eur]"), to_yaml("no")
    ('price', "'Price [eur]'", "'no'")
    """
    import yaml

    plain, style = text.isprintable(), None if text.isprintable() else '"'
    dumped = yaml.safe_dump([text], default_flow_style=True, width=10**9, allow_unicode=plain, default_style=style)
    return str(dumped).strip()[1:-1]


def to_identifier(name: str) -> str:
    """Return a name of letters, digits and underscores, to be part of other names.

    Examples
    --------
    >>> to_identifier("Price [EUR]"), to_identifier("2nd")
    ('price_eur', 'c_2nd')
    """
    letters = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).lower())
    kept = "".join(letter if f"a{letter}".isidentifier() else "_" for letter in letters)
    bare = re.sub("_+", "_", kept).strip("_")[:MAX_IDENTIFIER] or "column"
    return bare if bare.isidentifier() else f"c_{bare}"


def slices_texts(
    frame: pd.DataFrame, columns: Sequence[ColumnGuess], libraries: Sequence[str] = (), more: str = ""
) -> tuple[dict[str, str], list[str]]:
    """Return slices.py and slices.yaml, and which of the two have slices.

    There are at most 40 slices, neither nearly constant nor redundant.

    Parameters
    ----------
    frame
        Rows that show the members of a slice.
    columns
        The guessed columns.
    libraries
        Files or modules of further functions, whose names and members are not repeated.
    more
        Lines of further templates.
    """
    from sfs.apply import apply
    from sfs.registry import FunctionSet

    known = FunctionSet.from_files(libraries)
    chosen = _ChosenSlices([*map(str, frame.columns)], apply(known, frame))
    sources, names, lines = [], [], []
    for wanted, summary, column, test, member in _python_slices(frame, columns):
        if name := chosen.add(wanted, member):
            names.append(name)
            sources.append(FUNCTION_TEXT.format(name=name, summary=summary, column=_literal(column), test=test))
    for wanted, kind, spec, summary in _templates(frame, columns):
        if len(chosen) >= MAX_SLICES:
            break
        if name := chosen.add(wanted, _members(frame, kind, spec)):
            options = ", ".join(f"{key}: {_yaml_value(value)}" for key, value in spec.items())
            lines.append(f"  - {{name: {name}, {kind}: {{{options}}}, description: {summary}, owner: you}}\n")
    listed = ", ".join(names) + ("," if len(names) == 1 else "")
    listing = "".join([*lines, more]) or "  []\n"
    texts = {
        PYTHON_FILE: PYTHON_TEXT.format(functions="\n".join(sources), names=listed),
        YAML_FILE: YAML_TEXT + listing,
    }
    return texts, [file for file, own in ((PYTHON_FILE, names), (YAML_FILE, lines or more)) if own]


class _ChosenSlices:
    """Names and members of the slices chosen before, to choose others."""

    def __init__(self, taken: Sequence[str], known: SliceMatrix) -> None:
        self._taken = {*taken, *known.names}
        self._members = [column for column in known.member.T if _is_slice(column)]
        self._own = 0

    def __len__(self) -> int:
        return self._own

    def add(self, wanted: str, member: NDArray[np.bool_] | None) -> str | None:
        """Return a free name for a slice, or None if its members are too few, too many, or say nothing new."""
        import numpy as np

        from sfs.analysis import redundant_slices, shared_members

        if member is None or not _is_slice(member):
            return None
        members = np.stack([*self._members, member], axis=1)  # [N, K]
        rows = np.full(members.shape[1], len(member))
        if redundant_slices([*map(str, range(members.shape[1]))], rows, shared_members(members)):
            return None
        self._members.append(member)
        self._own += 1
        name, number = wanted, 2
        while name in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name)
        return name


def _is_slice(member: NDArray[np.bool_]) -> bool:
    return max(MIN_MEMBERS, MIN_SHARE * len(member)) <= int(member.sum()) <= MAX_SHARE * len(member)


def _members(frame: pd.DataFrame, kind: str, spec: Mapping[str, Any]) -> NDArray[np.bool_] | None:
    """Return bool[N], or None if the template cannot read a row."""
    from sfs.apply import apply
    from sfs.template import Template

    S = apply([Template("guessed", {kind: spec})], frame[[spec["field"]]])
    return None if S.unknown.any() else S.member[:, 0]


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
) -> Iterator[tuple[str, str, str, str, NDArray[np.bool_]]]:
    """Yield name, summary, column, test and members of example functions."""
    import numpy as np

    def members(column: str, test: Callable[[Any], bool]) -> NDArray[np.bool_]:
        values, missing = frame[column].tolist(), frame[column].isna().tolist()
        return np.array([not none and test(value) for value, none in zip(values, missing, strict=True)])

    by_kind = {kind: [c.name for c in columns if c.kind == kind] for kind in ("text", "number", "category")}
    if by_kind["text"]:
        column = by_kind["text"][0]
        name, is_text = to_identifier(column), "isinstance(value, str) and "
        texts = [value for value in frame[column].tolist() if isinstance(value, str)]
        if (tail := _tail([-len(text.split()) for text in texts], len(frame))) is not None:
            most = -int(tail)
            test = f"{is_text}len(value.split()) <= {most}"
            short = members(column, lambda value: isinstance(value, str) and len(value.split()) <= most)
            yield f"short_{name}", f"At most {most} words", column, test, short
        exclaiming = members(column, lambda value: isinstance(value, str) and "!" in value)
        yield f"exclaiming_{name}", "Has an exclamation mark", column, f'{is_text}"!" in value', exclaiming
        shouting = members(column, lambda value: isinstance(value, str) and value.isupper())
        yield f"shouting_{name}", "Written in capitals", column, f"{is_text}value.isupper()", shouting
        return
    for column in by_kind["number"][:2]:
        values = frame[column].to_numpy(dtype=np.float64, na_value=np.nan)
        if (tail := _tail((-values[np.isfinite(values)]).tolist(), len(frame))) is not None:
            test = f"isinstance(value, (int, float)) and value <= {_number(-tail)}"
            yield f"low_{to_identifier(column)}", "Among the lowest values", column, test, values <= -tail
    for column in by_kind["category"][:1]:
        if (value := _infrequent_value(frame[column], str)) is not None:
            test = f"value is not None and str(value) == {_literal(value)}"
            some = members(column, lambda each: str(each) == value)
            yield f"some_{to_identifier(column)}", "Has one of the values", column, test, some


def _templates(frame: pd.DataFrame, columns: Sequence[ColumnGuess]) -> Iterator[tuple[str, str, dict[str, Any], str]]:
    """Yield name, kind, specification and description of example templates."""
    import numpy as np

    from sfs.record import text_of

    for guess in columns:
        name, series, field = to_identifier(guess.name), frame[guess.name], {"field": guess.name}
        if guess.kind == "text":
            lengths = [len(value) for value in series.tolist() if isinstance(value, str)]
            if (least := _tail(lengths, len(frame))) is not None:
                spec = {**field, "unit": "characters", "at_least": int(least)}
                yield f"long_{name}", "length", spec, "among the longest"
        if guess.kind == "number":
            values = series.to_numpy(dtype=np.float64, na_value=np.nan)
            if (least := _tail(values[np.isfinite(values)].tolist(), len(frame))) is not None:
                yield f"high_{name}", "compare", {**field, "at_least": least}, "among the highest values"
        if guess.kind == "category" and (value := _infrequent_value(series, text_of)) is not None:
            yield f"few_{name}", "one_of", {**field, "values": [value]}, "a less frequent value"
        if guess.kind and guess.missing:
            yield f"no_{name}", "missing", field, "has no value"


def _tail(values: Sequence[float], rows: int) -> float | None:
    """Return the threshold whose values at or above it are nearest to a tenth of the rows, at most three tenths."""
    import numpy as np

    distinct, counts = np.unique(np.array(values, dtype=np.float64), return_counts=True)
    shares = np.cumsum(counts[::-1])[::-1] / rows
    enough = np.flatnonzero(shares <= MAX_TAIL)
    if not len(enough):
        return None
    k = enough[np.abs(shares[enough] - TAIL).argmin()]
    least, rounded = float(distinct[k]), float(f"{distinct[k]:.5g}")
    is_same = rounded <= least and (k == 0 or distinct[k - 1] < rounded)
    return rounded if is_same else least


def _infrequent_value(series: pd.Series[Any], spell: Callable[[Any], str]) -> str | None:
    """Return the least frequent value with at least 5% of the rows; None if only the most frequent has."""
    least = max(MIN_COUNT, 0.05 * len(series))
    counts = Counter(map(spell, series.dropna().tolist()))
    enough = [value for value, count in counts.most_common() if count >= least]
    return enough[-1] if len(enough) > 1 else None


def _yaml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml_value, value))}]"
    return to_yaml(value) if isinstance(value, str) else _number(value)


def _number(number: float) -> str:
    """Return a number that Python and YAML both read as one: YAML needs a point before an exponent."""
    if float(number).is_integer() and abs(number) < 1e15:
        return str(int(number))
    digits, exponent, power = repr(float(number)).partition("e")
    return f"{digits}{'' if '.' in digits else '.0'}{exponent}{power}"


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else repr(text)
