"""Training rows: a project's table or a public data set, and labelled rows of traffic."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from models.classes import read_known_labels
from models.column_encoders import as_number, as_text
from models.errors import DataError
from models.features import FeatureSpec, check_columns
from models.splits import content_hashes, held_out
from sfs.registry import FunctionSet
from sfs.schema import ClassReader, Schema
from sfs.template import Template

PUBLIC_FORMATS = ("youtube", "sms")
NEW_CLASS_CONTENTS = 20
"""Minimum number of distinct contents, held-out rows excluded, for a class seen only in traffic."""

_NO_SCHEMA = Schema()

LabelledRecord: TypeAlias = tuple[Mapping[str, Any], str]
"""A record of traffic, and its label."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """Rows in a table, with a ``format`` of `sfs.tables.read_table`, or in a public data set (youtube or sms).

    Columns of ``schema`` are read by it; of the others, ``text`` columns stay text.
    """

    path: Path
    format: str = "table"
    text: tuple[str, ...] = ()
    label: str | None = None
    schema: Schema = field(default_factory=Schema)

    def read(self) -> pd.DataFrame:
        """Return all rows."""
        if self.format not in PUBLIC_FORMATS:
            return pd.concat(self.batches(), ignore_index=True)
        from models.comments import public

        load = public.load_youtube if self.format == "youtube" else public.load_sms
        return self.schema.parse_frame(load(self.path))

    def batches(self) -> Iterator[pd.DataFrame]:
        """Yield the rows a batch at a time; a table is read with bounded memory."""
        if self.format in PUBLIC_FORMATS:
            yield self.read()
            return
        from sfs.tables import read_batches

        yield from read_batches(self.path, text=self.text, schema=self.schema, format=self.format)

    def visible(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return rows without the project's label, as slicing functions may see them."""
        return frame if self.label is None else frame.loc[:, [str(c) != self.label for c in frame.columns]]

    def total(self) -> int | None:
        """Return the number of rows for a progress bar, or None where counting is not cheap."""
        if self.format in PUBLIC_FORMATS:
            return None
        from sfs.tables import count_rows

        return count_rows(self.path, self.format)


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """A table's rows and, after them, those of traffic.

    Parameters
    ----------
    frame
        All rows, with the table's columns, and further columns of traffic that functions read.
    base, traffic
        Number of rows of the table and of traffic.
    left_out
        Dropped rows of traffic: those without all features, or of a new class that is too rare.
    schema
        Types of the table's columns, by which all rows are read.
    """

    frame: pd.DataFrame
    base: int
    traffic: int
    left_out: int
    schema: Schema


def with_traffic(
    base: pd.DataFrame,
    traffic: Sequence[LabelledRecord],
    label: str,
    features: Sequence[FeatureSpec],
    functions: FunctionSet,
    schema: Schema = _NO_SCHEMA,
) -> TrainingRows:
    """Return a table's rows and those of traffic in one table, read by one schema.

    Columns that the table lacks are kept where functions may read them: those of templates, and with a plain
    function, which may read any column, all. Values that a row lacks are missing.

    Parameters
    ----------
    base
        The table's N rows; a blank label stays missing.
    traffic
        M records and labels. A record is left out if it lacks a feature column or has an unreadable value
        there, or if the table lacks its class and the class has few contents in traffic.
    label
        The label's column.
    schema
        Types of columns; those of the table's other columns are settled from the table.

    Raises
    ------
    DataError
        If the table lacks the label or a feature.
    """
    check_columns(base, [spec.column for spec in features])
    schema = schema.completed(base, {spec.column: spec.kind for spec in features})
    base = schema.parse_frame(base)
    labels = read_known_labels(base, label)
    known = {each for each in labels if each is not None}
    reader = ClassReader([*known])
    read = [(schema.parse_record(record), reader.read(given) or given) for record, given in traffic]
    fitting: list[LabelledRecord] = [row for row in read if _has_features(row[0], features)]
    kept = _without_rare_classes(fitting, known, features)
    if not kept:
        return TrainingRows(base, len(base), 0, len(traffic), schema)
    columns: dict[str, pd.Series[Any]] = {}
    for place, name in enumerate(map(str, base.columns)):
        values = [*base.iloc[:, place].tolist(), *(record.get(name) for record, _ in kept)]
        columns[name] = pd.Series(values, dtype=object)
    needed = None
    if all(isinstance(each, Template) for each in functions):
        needed = {field for each in functions if isinstance(each, Template) for field in each.fields}
    for name in dict.fromkeys(name for record, _ in kept for name in record):
        if name not in columns and name != label and (needed is None or name in needed):
            values = [None] * len(base) + [record.get(name) for record, _ in kept]
            columns[name] = pd.Series(values, dtype=object)
    frame = schema.parse_frame(pd.DataFrame(columns))
    frame[label] = pd.Series([*labels, *(label_of_row for _, label_of_row in kept)], dtype=object)
    return TrainingRows(frame, len(base), len(kept), len(traffic) - len(kept), schema)


def _has_features(record: Mapping[str, Any], features: Sequence[FeatureSpec]) -> bool:
    """Return True if every feature is present and readable, or null."""
    try:
        for spec in features:
            (as_number if spec.kind == "number" else as_text)(record[spec.column], spec.column, 0)
    except (KeyError, DataError):
        return False
    return True


def _without_rare_classes(
    rows: list[LabelledRecord], known: set[str], features: Sequence[FeatureSpec]
) -> list[LabelledRecord]:
    """Drop rows of new classes with too few contents, which would fail the training."""
    new = [row for row in rows if row[1] not in known]
    if not new:
        return rows
    hashes = content_hashes([record for record, _ in new], features)
    contents: dict[str, set[int]] = {}
    for (_, label), content, out in zip(new, hashes.tolist(), held_out(hashes).tolist(), strict=True):
        if not out:
            contents.setdefault(label, set()).add(content)
    kept = known | {label for label, group in contents.items() if len(group) >= NEW_CLASS_CONTENTS}
    return [row for row in rows if row[1] in kept]
