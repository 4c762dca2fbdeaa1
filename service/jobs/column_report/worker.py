"""The process that makes a report: the only place that knows Evidently.

It is run as a module with what to do and a folder. It ends when its standard input does, which nobody writes to:
its parent has gone then.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from service.jobs.column_report.columns import (
    Compared,
    PredictedRow,
    Value,
    chance_of_numbers,
    chance_of_shares,
    columns_of,
    counts_of,
    in_deviations,
    unique_name,
)
from service.jobs.column_report.job import KEPT, PAGE, REASON, ROWS, TASK, VALUES
from sfs.declarations import from_declaration
from sfs.registry import FunctionSet

if TYPE_CHECKING:
    from models.bundle.model_bundle import ModelBundle

NUMBERS, SHARES = "wasserstein", "jensenshannon"
"""What Evidently calls the two methods. Its own choice among methods changes at 1,000 rows."""
THRESHOLDS = {NUMBERS: 0.1, SHARES: 0.05}
"""A tenth of a standard deviation, and a half that becomes 57 %; more where few rows let chance do more."""
_METRIC = "evidently:metric_v2:ValueDrift"
_MOST_SHARES = 20
_NICER = 10


@dataclass(frozen=True, slots=True)
class ReportColumn:
    """A column as Evidently gets it: with a name and values that are safe in its page."""

    name: str
    numeric: bool
    threshold: float
    reference: Sequence[Value]
    live: Sequence[Value]

    @property
    def method(self) -> str:
        """What Evidently compares it by."""
        return NUMBERS if self.numeric else SHARES


def main(mode: str, folder: Path) -> None:
    """Do what is asked; if that fails, leave the reason and end with code 1."""
    Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_NICER)
    with suppress(OSError):  # if memory runs out, the kernel should take this process, not the service
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        {"values": write_values, "html": write_page}[mode](folder)
    except Exception as error:
        traceback.print_exc()
        (folder / REASON).write_text(str(error) or type(error).__name__)
        sys.exit(1)


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGKILL)


def write_values(folder: Path) -> None:
    """Compare the rows with the bundle's sample, and leave values and what a page can be made of."""
    from models.bundle.model_bundle import ModelBundle

    task = json.loads((folder / TASK).read_bytes())
    bundle = ModelBundle.load(task["bundle"])
    reference = _answered(bundle, _functions(task))
    with (folder / ROWS).open() as file:
        live = [PredictedRow(**json.loads(line)) for line in file]
    columns = columns_of(bundle.featurizer.specs, reference, live)
    records, kept = zip(*map(compare, columns), strict=True)
    with gzip.open(folder / KEPT, "wt") as file:
        json.dump([_to_json(each) for each in kept if each is not None], file)
    (folder / VALUES).write_text(json.dumps({"reference_rows": len(reference), "columns": records}))


def _to_json(shown: ReportColumn) -> list[Any]:
    return [shown.name, shown.numeric, shown.threshold, shown.reference, shown.live]


def write_page(folder: Path) -> None:
    """Make the page from what was kept."""
    with gzip.open(folder / KEPT, "rt") as file:
        columns = [ReportColumn(*each) for each in json.load(file)]
    if not columns:
        raise ValueError("no column could be compared")
    made = folder / f"{PAGE}.part"
    drift_of(columns).save_html(str(made))  # anything but a str is passed over in silence
    made.replace(folder / PAGE)


def _answered(bundle: ModelBundle, functions: FunctionSet) -> list[PredictedRow]:
    """Return the sample with what the model says of it, told of slices as it is in service."""
    if not bundle.sample:
        raise ValueError("the bundle keeps no held-out rows to compare with")
    probabilities = bundle.predict_proba(bundle.sample, bundle.memberships(functions, bundle.sample))
    labels = [bundle.classes[k] for k in probabilities.argmax(axis=1)]
    return [
        PredictedRow(record, label, row)
        for record, label, row in zip(bundle.sample, labels, probabilities.tolist(), strict=True)
    ]


def _functions(task: Mapping[str, Any]) -> FunctionSet:
    """Return the live functions; none if the files cannot be loaded, as all slices are unknown then."""
    try:
        of_files = FunctionSet.from_files(task["sources"])
        added = map(from_declaration, task["declarations"])
        return FunctionSet([*of_files, *(each for each in added if each.name not in of_files)])
    except Exception:  # files may raise anything
        traceback.print_exc()
        return FunctionSet([])


def compare(column: Compared) -> tuple[dict[str, Any], ReportColumn | None]:
    """Return the record of a column, and what its page is made of if it could be compared."""
    known = replace(column, reference=_known(column.reference), live=_known(column.live))
    record = {
        "column": column.column,
        "kind": column.kind,
        "method": NUMBERS if column.numeric else SHARES,
        "threshold": THRESHOLDS[NUMBERS if column.numeric else SHARES],
        "value": None,
        "drifted": None,
        "rows": [len(known.reference), len(known.live)],
        "error": column.error,
    }
    if column.error:
        return record, None
    shown, seen = (_numbers if column.numeric else _shares)(known)
    try:
        value = values_of(drift_of([shown]))[shown.name]
        if not all(map(math.isfinite, (value, shown.threshold, *seen.get("mean", ())))):
            raise ValueError("its numbers are too great")
    except Exception as error:  # one column never takes the others with it
        traceback.print_exc()
        return record | {"error": f"Evidently could not compare it: {error}"}, None
    told = {"threshold": shown.threshold, "value": value, "drifted": value >= shown.threshold}
    return record | seen | told, shown


def _known(values: Sequence[Value]) -> tuple[Value, ...]:
    return tuple(value for value in values if value is not None)


def _numbers(column: Compared) -> tuple[ReportColumn, dict[str, Any]]:
    sides = [np.array(side, np.float64) for side in (column.reference, column.live)]
    reference, live = in_deviations(*sides)
    threshold = max(THRESHOLDS[NUMBERS], chance_of_numbers(reference, live))
    title = column.column if live is sides[1] else f"{column.column} (in standard deviations)"
    shown = ReportColumn(_safe(title), True, threshold, reference.tolist(), live.tolist())
    return shown, {"mean": [float(side.mean()) for side in sides]}


def _shares(column: Compared) -> tuple[ReportColumn, dict[str, Any]]:
    names, reference, live = counts_of([*map(str, column.reference)], [*map(str, column.live)])
    threshold = max(THRESHOLDS[SHARES], chance_of_shares(reference, live))
    first, second = (part / part.sum() for part in (reference, live))
    moved = np.argsort(-np.abs(first - second), kind="stable")[:_MOST_SHARES]
    shares = {names[k]: [float(first[k]), float(second[k])] for k in moved}
    safe = {name: _safe(name) for name in names}
    sides = [[safe[str(value)] for value in side] for side in (column.reference, column.live)]
    return ReportColumn(_safe(column.column), False, threshold, *sides), {"shares": shares}


def _safe(text: str) -> str:
    """Return text that can end no script: Evidently writes names into its page as they are."""
    return text.replace("<", "‹").replace(">", "›")


def drift_of(columns: Sequence[ReportColumn]) -> Any:
    """Return Evidently's comparison of columns, by method and threshold of each."""
    from evidently import DataDefinition, Dataset, Report  # type: ignore[import-untyped]
    from evidently.metrics import ValueDrift  # type: ignore[import-untyped]

    named: dict[str, ReportColumn] = {}
    for each in columns:
        named[unique_name(each.name, named)] = each
    definition = DataDefinition(
        numerical_columns=[name for name, each in named.items() if each.numeric],
        categorical_columns=[name for name, each in named.items() if not each.numeric],
    )
    live, reference = (
        Dataset.from_pandas(_frame(named, side), data_definition=definition)
        for side in (lambda each: each.live, lambda each: each.reference)
    )
    metrics = [
        ValueDrift(column=name, method=each.method, threshold=each.threshold) for name, each in named.items()
    ]
    return Report(metrics, include_tests=False).run(live, reference)


def _frame(
    named: Mapping[str, ReportColumn], side: Callable[[ReportColumn], Sequence[Value]]
) -> pd.DataFrame:
    """Return one side as a frame, in which shorter columns are filled up with missing values."""
    columns = {name: (list(side(each)), float if each.numeric else object) for name, each in named.items()}
    return pd.DataFrame({name: pd.Series(values, dtype=dtype) for name, (values, dtype) in columns.items()})


def values_of(snapshot: Any) -> dict[str, float]:
    """Return the distances by column; metrics have no order to rely on, and names that change with methods."""
    metrics = json.loads(snapshot.json())["metrics"]  # the objects hold numpy's numbers
    configs = [(each["config"], each["value"]) for each in metrics]
    return {config["column"]: float(value) for config, value in configs if config["type"] == _METRIC}


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
