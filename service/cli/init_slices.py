"""Example slices for a new project: a few Python functions and templates that have members in its rows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from service.cli.init_files import slug, yaml_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from service.cli.guess import Column

_PYTHON = '''\
"""Slices as Python functions: each one answers whether one row belongs. These are examples: change them.

A field is x["name"], or x.name where the name allows it. A missing value is None.
Severity is info, warning or critical; with protected=True a model that is worse on the slice is not promoted.
"""

from sfs import slicing_function

{functions}

SLICES = ({names})
'''

_FUNCTION = '''\

@slicing_function(owner="you", severity="warning")
def {name}(x):
    """{says}."""
    value = x[{column}]
    return {test}
'''

_YAML = """\
# Slices as templates: one line each, and faster than Python functions. These are examples: change them.
# Kinds: keyword {field, words}, regex {field, pattern}, one_of {field, values}, missing {field},
#   compare {field, below/above/at_least/at_most}, length {field, unit: words or characters, below/...};
#   all, any and not nest them. Every slice may also say its description, owner, family,
#   severity (info, warning or critical), target (the accuracy to keep) and protected.
"""


@dataclass(slots=True)
class _Names:
    """Hands out each name once."""

    taken: set[str] = field(default_factory=set)

    def new(self, wanted: str) -> str:
        name, number = wanted, 2
        while name in self.taken:
            name, number = f"{wanted}_{number}", number + 1
        self.taken.add(name)
        return name


def slices_texts(frame: pd.DataFrame, columns: Sequence[Column]) -> tuple[str, str]:
    """Return slices.py and slices.yaml for a sample of rows and what its columns were taken for."""
    names = _Names()
    functions = [_function(names, *parts) for parts in _python_parts(frame, columns)]
    python = _PYTHON.format(
        functions="\n".join(source for _, source in functions),
        names=_tuple_of([name for name, _ in functions]),
    )
    return python, _YAML + "slices:\n" + "\n".join(_template_lines(names, frame, columns)) + "\n"


def comment_lines() -> str:
    """Return the templates that find, in generated comments, what the ready-made functions do not."""
    from models.comments.profile import PATTERNS

    lines = []
    for name, pattern in PATTERNS.items():
        spec = f"{{field: text, pattern: {json.dumps(pattern, ensure_ascii=False)}}}"
        lines.append(f"  - {{name: {name}, regex: {spec}, owner: you}}\n")
    return "".join(lines)


def _function(names: _Names, wanted: str, says: str, column: str, test: str) -> tuple[str, str]:
    name = names.new(wanted)
    return name, _FUNCTION.format(name=name, says=says, column=_literal(column), test=test)


def _python_parts(frame: pd.DataFrame, columns: Sequence[Column]) -> Iterator[tuple[str, str, str, str]]:
    texts = [column for column in columns if column.kind == "text"]
    if texts:
        yield from _text_parts(texts[0].name, frame[texts[0].name].dropna().astype(str))
        return
    for column in [column for column in columns if column.kind == "number"][:2]:
        most = float(frame[column.name].quantile(0.1))
        test = f"isinstance(value, (int, float)) and value <= {_plain(most)}"
        yield f"low_{slug(column.name)}", "Among the lowest tenth", column.name, test
    for column in [column for column in columns if column.kind == "category"][:1]:
        value = _rare_value(frame[column.name])
        test = "value is True" if value in ("true", "false") else f"str(value) == {_literal(value)}"
        yield f"some_{slug(column.name)}", "One of the values", column.name, test


def _text_parts(name: str, texts: pd.Series[str]) -> Iterator[tuple[str, str, str, str]]:
    most = max(int(texts.str.split().str.len().quantile(0.2)), 1)
    is_text = "isinstance(value, str) and "
    yield f"short_{slug(name)}", f"At most {most} words", name, f"{is_text}len(value.split()) <= {most}"
    if texts.str.contains("!", regex=False).any():
        yield f"exclaiming_{slug(name)}", "Has an exclamation mark", name, f'{is_text}"!" in value'
    if texts.str.isupper().any():
        yield f"shouting_{slug(name)}", "Written in capitals", name, f"{is_text}value.isupper()"


def _template_lines(names: _Names, frame: pd.DataFrame, columns: Sequence[Column]) -> Iterator[str]:
    for column in columns:
        for wanted, kind, options, says in _templates(column, frame[column.name]):
            where = f"field: {yaml_text(column.name)}"
            spec = f"{{{', '.join([where, *options])}}}"
            yield f"  - {{name: {names.new(wanted)}, {kind}: {spec}, description: {says}, owner: you}}"


def _templates(column: Column, series: pd.Series[Any]) -> Iterator[tuple[str, str, list[str], str]]:
    name = slug(column.name)
    if column.kind == "text":
        most = int(series.dropna().astype(str).str.len().quantile(0.9))
        yield f"long_{name}", "length", ["unit: characters", f"at_least: {most}"], "among the longest tenth"
    if column.kind == "number":
        least = _round_within(float(series.quantile(0.9)), float(series.max()))
        yield f"high_{name}", "compare", [f"at_least: {_plain(least)}"], "among the highest tenth"
    if column.kind == "category":
        yield (
            f"few_{name}",
            "one_of",
            [f"values: [{yaml_text(_rare_value(series))}]"],
            "a less frequent value",
        )
    if column.kind and column.missing:
        yield f"no_{name}", "missing", [], "has no value"


def _rare_value(series: pd.Series[Any]) -> str:
    """Return the least frequent value with a twentieth of the rows or more, else the second most frequent."""
    from sfs.record import text_of

    shares = series.dropna().map(text_of).value_counts(normalize=True)
    enough = shares[shares >= 0.05]
    return str(enough.index[-1] if len(enough) > 1 else shares.index[min(1, len(shares) - 1)])


def _tuple_of(names: Sequence[str]) -> str:
    return ", ".join(names) + ("," if len(names) == 1 else "")


def _round_within(threshold: float, most: float) -> float:
    """Return the threshold to five digits, unless that would leave no row at or above it."""
    rounded = float(f"{threshold:.5g}")
    return rounded if rounded <= most else threshold


def _plain(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False) if text.isprintable() else repr(text)
