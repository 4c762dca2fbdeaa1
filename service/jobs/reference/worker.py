"""The process that counts the slices on a reference table: from files to files, without access to the store."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from models.bundle.records import plain_records, sample_columns, sample_records
from models.bundle.reference import family_counts, reference_counts
from models.column_encoders import as_text
from models.errors import DataError, ModelError
from models.features import FeatureKind, FeatureSpec, check_columns
from models.splits import content_hashes
from models.training_rows import DataSource
from service.errors import ServiceError
from service.jobs.child_process import attach_to_parent, write_atomically
from service.jobs.reference.files import REASON, RESULT, SPEC
from service.serving.breaker import BreakerLimits
from service.serving.live_functions import LiveFunctions, stopped_reason
from service.serving.table_reference import SAMPLE
from sfs.declarations import from_declaration
from sfs.errors import SliceError
from sfs.matrix import SliceMatrix
from sfs.metering import OUT_OF_TIME
from sfs.record import Columns
from sfs.registry import FunctionSet
from sfs.schema import ClassReader, Schema

_BATCH_ROWS = 1000  # given to the functions at once
_SAMPLE_ROWS = 1000
_NEVER = 10**9
_LIMITS = BreakerLimits(budget_ms=20.0, least_ms=10_000, hold_ms=60_000, faults=_NEVER, slow_batches=_NEVER)
"""No function is set aside because of its errors or of a busy machine; one that never ends is left out."""


def main(folder: Path, timeout_seconds: float) -> None:
    """Write counts and sample; after an error, write the reason and exit with code 1."""
    attach_to_parent(timeout_seconds)
    try:
        spec = json.loads((folder / SPEC).read_bytes())
        result, sample = count_slices(spec)
        lines = [json.dumps({"features": record, "label": label}) for record, label in sample]
        (folder / SAMPLE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        write_atomically(folder / RESULT, json.dumps(result))
    except (ServiceError, ModelError, SliceError, OSError) as error:
        write_atomically(folder / REASON, str(error) or type(error).__name__)
        sys.exit(1)
    except Exception as error:  # its text may quote a row
        traceback.print_exc()
        write_atomically(folder / REASON, f"unexpected {type(error).__name__}")
        sys.exit(1)


def count_slices(
    spec: Mapping[str, Any], limits: BreakerLimits = _LIMITS
) -> tuple[dict[str, Any], list[tuple[Mapping[str, Any], str | None]]]:
    """Return the counts of slices on a table as JSON values, and random records with their predicted classes.

    A function that was stopped or set aside has a reason, ``stopped``, in place of counts.

    Parameters
    ----------
    spec
        ``path``, ``format``, ``label`` and ``predicted`` of a `ReferenceSource`; ``features`` (kind by column),
        ``hidden`` (the project's label), ``schema`` and ``classes`` of the settings; ``functions`` and ``added``,
        files and declarations of the live functions; ``names``, the functions to count; ``families``, the slices of
        each family.
    limits
        Limits of the functions.

    Raises
    ------
    ModelError, SliceError, ServiceError, OSError
        If the table or the functions cannot be read, a feature is missing, or a class is unknown.
    """
    specs = [FeatureSpec(column, cast("FeatureKind", kind)) for column, kind in spec["features"].items()]
    text = tuple(each.column for each in specs if each.kind == "text")
    source = DataSource(Path(spec["path"]), spec["format"], text, spec["label"], Schema.from_json(spec["schema"]))
    first = next(source.batches())
    check_columns(first, [each.column for each in specs])
    hidden = {spec["hidden"], spec["label"], spec["predicted"]}
    visible = [str(column) for column in first.columns if str(column) not in hidden]
    schema = Schema.from_json(spec["schema"]).completed(first[visible], spec["features"])
    of_files = FunctionSet.from_files(spec["functions"], votes=True)
    added = [function for function in map(from_declaration, spec["added"]) if function.name not in of_files]
    functions = FunctionSet([each for each in (*of_files, *added) if each.name in spec["names"]])
    live = LiveFunctions(functions, limits, sources=spec["functions"])
    live.start()
    stopped: dict[str, str] = {}
    reader, sample = ClassPairs(spec["label"], spec["predicted"], spec["classes"]), _Sample()
    hashes, matrices = [], []
    try:
        for batch in replace(source, schema=schema).batches():
            hashes.append(content_hashes(batch, specs))
            records = plain_records(batch, visible)
            sample.add(records, reader.add(batch))
            for start in range(0, len(records), _BATCH_ROWS):
                S, now = _apply(live, records[start : start + _BATCH_ROWS])
                matrices.append(S)
                if now:
                    stopped |= now
                    live = live.with_functions(FunctionSet(each for each in functions if each.name not in stopped))
    finally:
        live.close()
    names = [name for name in functions.names if name not in stopped]
    member, unknown = (
        np.vstack([getattr(S, part)[:, [S.names.index(name) for name in names]] for S in matrices])
        for part in ("member", "unknown")
    )
    S, labelled = SliceMatrix(names, member, unknown), np.array(reader.labelled, np.int64)
    true, predicted = ([pair[which] for pair in reader.pairs] for which in range(2))
    counted = np.concatenate(hashes), labelled, true, predicted
    related = {family: own for family, own in spec["families"].items() if {*own} <= {*names}}
    prints = {name: functions.fingerprints[name] for name in names}
    counts = reference_counts(S, *counted)
    drawn, labels = sample.rows()
    # in this process, without limits: not those that were stopped
    readers = [each for each in (*of_files, *added) if each.name not in stopped]
    shown = [name for name in sample_columns(first, spec["label"], specs, readers) if name in visible]
    kept = sample_records(drawn, shown)
    result = {
        "rows": len(S),
        "has_predictions": reader.predicted is not None,
        "fingerprints": prints,
        "families": {name: asdict(each) for name, each in family_counts(S, related, prints, *counted).items()},
        "stopped": stopped,
        "counts": {name: asdict(count) for name, count in counts.items()},
        "schema": schema.to_json(),
    }
    return result, list(zip(kept, labels, strict=False))


def _apply(live: LiveFunctions, records: Sequence[Mapping[str, Any]]) -> tuple[SliceMatrix, dict[str, str]]:
    """Return the memberships of N records, and the reasons of functions that were stopped or set aside."""
    applied, disabled = live.apply(records), live.disabled_reasons()
    member, unknown = applied.matrix.member.copy(), applied.matrix.unknown.copy()
    stopped = {}
    for k, (function, stats) in enumerate(zip(live.functions, applied.stats, strict=True)):
        reason = stopped_reason(stats)
        if reason == OUT_OF_TIME and len(applied.stats) > 1:  # another one may have used up the time of all
            alone, failed = _apply(live.with_functions(FunctionSet([function])), records)
            member[:, k], unknown[:, k] = alone.member[:, 0], alone.unknown[:, 0]
            reason = failed.get(function.name)
        if reason is not None:
            stopped[function.name] = disabled.get(function.name) or reason
    return SliceMatrix(applied.matrix.names, member, unknown), stopped


class ClassPairs:
    """True and predicted classes of all rows, batch after batch."""

    def __init__(self, label: str, predicted: str | None, classes: Sequence[str]) -> None:
        self.label, self.predicted, self._classes = label, predicted, classes
        self.labelled: list[int] = []  # positions of the rows with both classes
        self.pairs: list[tuple[str, str]] = []  # their true and predicted classes
        self._reader, self._rows = ClassReader(classes), 0

    def add(self, batch: pd.DataFrame) -> list[str | None]:
        """Add a batch of N rows, and return their predicted classes; None for a row or a table without one."""
        predicted: list[str | None] = [None] * len(batch)
        if self.predicted is not None:
            true, predicted = (self._read(batch, column) for column in (self.label, self.predicted))
            for row, pair in enumerate(zip(true, predicted, strict=True)):
                if pair[0] is not None and pair[1] is not None:
                    self.labelled.append(self._rows + row)
                    self.pairs.append((pair[0], pair[1]))
        self._rows += len(batch)
        return predicted

    def _read(self, batch: pd.DataFrame, column: str) -> list[str | None]:
        check_columns(batch, [column])
        values = [as_text(value, column, self._rows + row) for row, value in enumerate(Columns(batch).column(column))]
        read = [self._reader.read(value) if value is not None and value.strip() else None for value in values]
        for row, (value, name) in enumerate(zip(values, read, strict=True)):
            if name is None and value is not None and value.strip():
                listed = ", ".join(map(repr, self._classes[:20]))
                raise DataError(
                    f"column {column!r}, row {self._rows + row}: {value!r:.60} is not a class; the classes are {listed}"
                )
        return read


class _Sample:
    """Uniform sample of rows, batch after batch: those with the smallest of seeded random keys."""

    def __init__(self) -> None:
        self._random, self._rows = np.random.default_rng(0), 0
        self._kept: list[tuple[float, int, Mapping[str, Any], str | None]] = []
        self._limit = 1.0

    def add(self, records: Sequence[Mapping[str, Any]], labels: Sequence[str | None]) -> None:
        """Add N records with their labels."""
        keys = self._random.random(len(records))
        for row in np.flatnonzero(keys < self._limit).tolist():
            self._kept.append((float(keys[row]), self._rows + row, records[row], labels[row]))
        if len(self._kept) > _SAMPLE_ROWS:
            self._kept = sorted(self._kept, key=lambda entry: entry[:2])[:_SAMPLE_ROWS]
            self._limit = self._kept[-1][0]
        self._rows += len(records)

    def rows(self) -> tuple[list[Mapping[str, Any]], list[str | None]]:
        """Return records and labels, in the order of the table."""
        ordered = sorted(self._kept, key=lambda entry: entry[1])
        return [record for _, _, record, _ in ordered], [label for *_, label in ordered]


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
