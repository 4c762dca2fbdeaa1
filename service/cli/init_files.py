"""The files of a new project, written from what its columns were taken for."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from service.cli.guess import shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from service.cli.guess import Column

_SETTINGS = """\
# The settings of this project; every path is relative to this file.
# A variable overrides a setting: SLICEWATCH_LEARNER_EPOCHS=5 overrides `epochs` under `learner`.
name: {name}                 # the model's name in the registry
data: {data}
{format}label: {label}

# What the model reads: text, number or category. Guessed from the first {rows:,} rows: correct it.
features:
{features}
{left_out}
# Which rows belong to which slice: Python and YAML files, or modules such as sfs.library.spam.
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
# log: {{features: all}}       # or none, or the columns to keep
"""


def settings_text(
    name: str, data: str, data_format: str, label: str, columns: Sequence[Column], functions: Sequence[str]
) -> str:
    """Return slicewatch.yaml, in which a comment says why each column was taken for what it is."""
    kept = [
        f"  {yaml_text(column.name)}: {column.kind}".ljust(28) + f" # {_said(column)}"
        for column in columns
        if column.kind
    ]
    left = [
        f"# {shortened(column.name)}: left out, {column.why} ({_seen(column)})"
        for column in columns
        if not column.kind
    ]
    return _SETTINGS.format(
        name=name,
        data=yaml_text(data),
        format=f"format: {data_format}\n" if data_format != "table" else "",
        label=yaml_text(label),
        rows=columns[0].rows,
        features="\n".join(kept),
        left_out="\n".join(left) + "\n" if left else "",
        functions=", ".join(map(yaml_text, functions)),
    )


def yaml_text(text: str) -> str:
    """Return text as one YAML scalar on one line, quoted where it has to be.

    Examples
    --------
    >>> yaml_text("price"), yaml_text("Price [eur]"), yaml_text("no")
    ('price', "'Price [eur]'", "'no'")
    """
    import yaml

    if not text.isprintable():
        return json.dumps(text)
    return str(yaml.safe_dump([text], default_flow_style=True, allow_unicode=True, width=10**9)).strip()[1:-1]


def slug(name: str) -> str:
    """Return a name of letters, digits and underscores, as a part of other names.

    Examples
    --------
    >>> slug("Price [EUR]"), slug("2nd")
    ('price_eur', 'c_2nd')
    """
    bare = re.sub(r"\W+", "_", name).strip("_").lower() or "column"
    return bare if bare.isidentifier() else f"c_{bare}"


def _said(column: Column) -> str:
    return f"{column.why}; {_seen(column)}"


def _seen(column: Column) -> str:
    if not column.example:
        return "no value"
    missing = f", {column.missing_share:.1%} missing" if column.missing else ""
    return f"{column.distinct:,} distinct{missing}, such as {shortened(column.example)}"
