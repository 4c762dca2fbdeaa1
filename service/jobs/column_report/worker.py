"""The report process: the only place that loads Evidently."""

from __future__ import annotations

import gzip
import json
import math
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from models.errors import BundleError
from models.features import FeatureSpec
from service.errors import ServiceError
from service.jobs.child_process import attach_to_parent
from service.jobs.column_report.columns import (
    ColumnPair,
    PredictedRow,
    Sizes,
    Value,
    build_columns,
    count_names,
    jensenshannon_by_chance,
    scale_small_deviation,
    unique_name,
    wasserstein_by_chance,
)
from service.jobs.column_report.process import COLUMNS, FIRST, PAGE, REASON, ROWS, SAMPLE, SPEC, VALUES
from sfs.declarations import from_declaration
from sfs.registry import FunctionSet
from sfs.schema import Schema

NUMBERS, SHARES = "wasserstein", "jensenshannon"
"""Evidently's names of the two methods. They are fixed: its own choice changes at 1,000 rows."""
THRESHOLDS = {NUMBERS: 0.1, SHARES: 0.05}
"""A tenth of a standard deviation; a share that grows from 50% to 57%. Chance raises them if rows are few."""

_METRIC = "evidently:metric_v2:ValueDrift"
_MAX_SHARES = 20


@dataclass(frozen=True, slots=True)
class ReportColumn:
    """A column as given to Evidently, with a name and values that are safe in its page."""

    name: str
    numeric: bool
    threshold: float
    reference: Sequence[Value]
    live: Sequence[Value]

    @property
    def method(self) -> str:
        """Evidently's method of comparison."""
        return NUMBERS if self.numeric else SHARES


def main(mode: str, folder: Path, timeout_seconds: float) -> None:
    """Write the values or the page; after an error, write the reason and exit with code 1."""
    attach_to_parent(timeout_seconds)
    try:
        {"values": write_values, "page": write_page}[mode](folder)
    except Exception as error:
        traceback.print_exc()
        (folder / REASON).write_text(_reason(error), encoding="utf-8", errors="replace")
        sys.exit(1)


def _reason(error: Exception) -> str:
    """Return the text of an own error, and the kind of any other: its text may quote a record."""
    is_own = isinstance(error, ServiceError | BundleError | OSError)
    return str(error) if is_own and str(error) else type(error).__name__


def write_values(folder: Path) -> None:
    """Compare the rows with the reference; write the values, and the columns for the page."""
    spec = json.loads((folder / SPEC).read_bytes())
    predicted: list[PredictedRow] | None = None
    if spec["bundle"] is None:
        features: Sequence[FeatureSpec] = [FeatureSpec(column, kind) for column, kind in spec["features"].items()]
        schema = Schema.from_json(spec["schema"])
        reference = [PredictedRow(**row, probabilities=None) for row in _json_lines(folder / SAMPLE)]
        first = list(_compared_rows(folder / FIRST, features, schema))
        if any(row.label is not None for row in reference):
            first = [replace(row, label=None) for row in first]  # of these, only the confidence is needed
        predicted = [*reference, *first]
    else:
        features, schema, reference = _bundle_reference(spec)
    live = list(_compared_rows(folder / ROWS, features, schema))
    records, columns = zip(*map(compare_column, build_columns(features, reference, live, predicted)), strict=True)
    with gzip.open(folder / COLUMNS, "wt") as file:
        json.dump(
            [
                [column.name, column.numeric, column.threshold, column.reference, column.live]
                for column in columns
                if column
            ],
            file,
        )
    (folder / VALUES).write_text(
        json.dumps({"reference_rows": len(reference), "current_rows": len(live), "columns": records})
    )


def _compared_rows(file: Path, features: Sequence[FeatureSpec], schema: Schema) -> Iterator[PredictedRow]:
    """Yield rows with the compared features only: others may be long."""
    names = {spec.column for spec in features}
    for row in _json_lines(file):
        kept = row["features"] and {name: value for name, value in row["features"].items() if name in names}
        yield PredictedRow(**{**row, "features": kept and schema.parse_record(kept)})


def _json_lines(file: Path) -> Iterator[Any]:
    with file.open() as lines:
        yield from map(json.loads, lines)


def _bundle_reference(spec: Mapping[str, Any]) -> tuple[Sequence[FeatureSpec], Schema, list[PredictedRow]]:
    """Return features, types of the columns, and the sample of a bundle as its model predicts it."""
    from models.bundle.model_bundle import ModelBundle

    bundle = ModelBundle.load(spec["bundle"])
    if not bundle.sample:
        raise ServiceError("the bundle has no held-out rows to compare with")
    try:
        of_files = FunctionSet.from_files(spec["functions"])
        added = map(from_declaration, spec["added"])
        functions = FunctionSet([*of_files, *(f for f in added if f.name not in of_files)])
    except Exception:  # files may raise anything; all slices are unknown then
        traceback.print_exc()
        functions = FunctionSet([])
    P = bundle.predict_proba(bundle.sample, bundle.memberships(functions, bundle.sample))  # [N, C]
    reference = [
        PredictedRow(record, bundle.classes[c], row)
        for record, c, row in zip(bundle.sample, P.argmax(axis=1), P.tolist(), strict=True)
    ]
    return bundle.featurizer.specs, bundle.schema, reference


def write_page(folder: Path) -> None:
    """Render the page of the compared columns."""
    with gzip.open(folder / COLUMNS, "rt") as file:
        columns = [ReportColumn(*fields) for fields in json.load(file)]
    if not columns:
        raise ServiceError("no column could be compared")
    part = folder / f"{PAGE}.part"
    run_evidently(columns).save_html(str(part))  # a Path would be ignored silently
    part.replace(folder / PAGE)


def compare_column(column: ColumnPair) -> tuple[dict[str, Any], ReportColumn | None]:
    """Return the record of a column, and the column for the page; None if it cannot be compared."""
    sides = [[value for value in side if value is not None] for side in (column.reference, column.live)]
    method = NUMBERS if column.numeric else SHARES
    record = {
        "column": column.column,
        "kind": column.kind,
        "method": method,
        "threshold": THRESHOLDS[method],
        "value": None,
        "drifted": None,
        "rows": [len(side) for side in sides],
        "error": column.error,
    }
    if column.error:
        return record, None
    compare = _number_column if column.numeric else _category_column
    try:
        given, details = compare(column.column, sides[0], sides[1], column.independent)
        value = drift_values(run_evidently([given]))[given.name]
        if not all(map(math.isfinite, (value, given.threshold, *details.get("mean", ())))):
            raise ServiceError("its numbers are too large")
    except Exception as error:  # the other columns are still compared
        traceback.print_exc()
        return record | {"error": f"Evidently could not compare it: {_reason(error)}"}, None
    result = {"threshold": given.threshold, "value": value, "drifted": value >= given.threshold}
    return record | details | result, given


def _number_column(
    name: str, reference: Sequence[Value], live: Sequence[Value], sizes: Sizes
) -> tuple[ReportColumn, dict[str, Any]]:
    before = np.array(reference, np.float64), np.array(live, np.float64)
    sides = scale_small_deviation(*before)
    threshold = max(THRESHOLDS[NUMBERS], wasserstein_by_chance(*sides, sizes))
    title = name if sides[0] is before[0] else f"{name} (in standard deviations)"
    details = {"mean": [float(side.mean()) for side in before]}
    return ReportColumn(_escape(title), True, threshold, *(side.tolist() for side in sides)), details


def _category_column(
    name: str, reference: Sequence[Value], live: Sequence[Value], sizes: Sizes
) -> tuple[ReportColumn, dict[str, Any]]:
    sides = [[_spell(str(value)) for value in side] for side in (reference, live)]
    names, before, after = count_names(*sides)
    threshold = max(THRESHOLDS[SHARES], jensenshannon_by_chance(before, after, sizes))
    first, second = (part / part.sum() for part in (before, after))
    moved = np.argsort(-np.abs(first - second), kind="stable")[:_MAX_SHARES]
    shares = {names[k]: [float(first[k]), float(second[k])] for k in moved}
    escaped = [[_escape(value) for value in side] for side in sides]
    return ReportColumn(_escape(name), False, threshold, *escaped), {"shares": shares}


def _escape(text: str) -> str:
    """Return text that cannot end a script: Evidently writes names into its page as they are."""
    return text.replace("<", "‹").replace(">", "›")


def _spell(text: str) -> str:
    """Return text with control characters and lone surrogates spelled: NumPy drops a final NUL, UTF-8 has none."""
    return re.sub("[\x00-\x1f\x7f\ud800-\udfff]", lambda found: ascii(found[0])[1:-1], text)


def run_evidently(columns: Sequence[ReportColumn]) -> Any:
    """Return Evidently's comparison of columns."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    named: dict[str, ReportColumn] = {}
    for column in columns:
        named[unique_name(column.name, named)] = column
    definition = DataDefinition(
        numerical_columns=[name for name, column in named.items() if column.numeric],
        categorical_columns=[name for name, column in named.items() if not column.numeric],
    )

    def dataset(side: Callable[[ReportColumn], Sequence[Value]]) -> Any:
        series = {  # of different lengths; the frame pads them with missing values
            name: pd.Series(list(side(column)), dtype=float if column.numeric else object)
            for name, column in named.items()
        }
        return Dataset.from_pandas(pd.DataFrame(series), data_definition=definition)

    metrics = [ValueDrift(column=name, method=c.method, threshold=c.threshold) for name, c in named.items()]
    return Report(metrics, include_tests=False).run(
        dataset(lambda column: column.live), dataset(lambda column: column.reference)
    )


def drift_values(snapshot: Any) -> dict[str, float]:
    """Return the distances by column; the order of metrics and their names by method are not reliable."""
    metrics = json.loads(snapshot.json())["metrics"]  # the objects hold numpy numbers
    configs = [(metric["config"], metric["value"]) for metric in metrics]
    return {config["column"]: float(value) for config, value in configs if config["type"] == _METRIC}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
