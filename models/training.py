"""From a table to a bundle, and from a bundle and a table to a report per slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeAlias, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.bundle import ModelBundle
from models.bundle_parts import Network
from models.classes import class_codes, class_names, read_labels, without_label
from models.config import TrainConfig, refuse_label_readers
from models.errors import DataError
from models.features import Featurizer
from models.golden import MAX_ROWS, GoldenBatch
from models.judge import SHIPPED, Judged, judge, training_report
from models.learners import Split, fit_learner
from models.reference import reference_counts
from models.report import TrainingReport
from models.rows import FeatureRows, Positions
from models.sample import SAMPLE_ROWS, plain_records, sample_columns, sample_records
from models.seeding import one_thread
from models.slice_report import SliceReport, slice_report
from models.splits import Hashes, Splits, content_hashes, split
from sfs.apply import ApplyResult, apply_with_stats
from sfs.matrix import SliceMatrix
from sfs.record import Rows
from sfs.registry import FunctionSet

Progress: TypeAlias = Callable[[str, float], None]

_FUNCTIONS_FROM, _FEATURES_FROM, _LEARNING_FROM, _LEARNING_TO = 0.05, 0.15, 0.2, 0.95


@dataclass(frozen=True, slots=True)
class _Rows:
    """Labelled rows, where each belongs, and what the functions say of them.

    ``described`` and ``fingerprints`` say what the configuration and its functions were before any of them was
    applied; later a function's file or its resources may be others.
    """

    described: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    frame: pd.DataFrame
    labels: list[str]
    classes: tuple[str, ...]
    y: NDArray[np.int64]
    hashes: Hashes
    splits: Splits
    applied: ApplyResult

    def part(self, X: FeatureRows, positions: Positions) -> Split:
        groups = self.hashes[positions].view(np.int64)
        return Split(X.subset(positions), self.y[positions], self.applied.matrix.take(positions), groups)


def train(config: TrainConfig, data: pd.DataFrame, *, progress: Progress | None = None) -> ModelBundle:
    """Train a model, judge it on held-out rows, and return it as a bundle.

    A tenth of the rows, chosen by their content, is held out and seen by the report only. The same rows and
    seed give the same bundle, bit for bit. It is computed on one thread, whatever torch was set to.

    Parameters
    ----------
    config
        What to train; ``config.functions`` are applied once, to all rows, without the label column: a plain
        function that reads it is unknown, and the report says so.
    data
        N labelled rows.
    progress
        Told what is being done and the share of the whole that is done.

    Raises
    ------
    DataError
        If a column is missing or cannot be read, labels are blank, or a class has too few rows or is alone.
    SliceError
        If a template reads a column that the data does not have.
    """
    tell = progress or (lambda stage, share: None)
    with one_thread():
        return _trained(config, _read(config, data, tell), tell)


def _trained(config: TrainConfig, rows: _Rows, tell: Progress) -> ModelBundle:
    tell("making features", _FEATURES_FROM)
    featurizer = Featurizer(config.features).fit(rows.frame.iloc[rows.splits.train])
    X = featurizer.transform(rows.frame)
    fitted = fit_learner(
        config.learner,
        rows.part(X, rows.splits.train),
        rows.part(X, rows.splits.valid),
        len(rows.classes),
        lambda stage, share: tell(stage, _LEARNING_FROM + (_LEARNING_TO - _LEARNING_FROM) * share),
    )
    tell("judging on held-out rows", _LEARNING_TO)
    held = rows.splits.held_out
    truth = [rows.labels[row] for row in held]
    models = cast("dict[str, Network]", {SHIPPED: fitted.model, **fitted.peers})
    judged = judge(truth, X.subset(held), rows.applied.matrix.take(held), rows.classes, models)
    sizes = dict(zip(rows.classes, np.bincount(rows.y).tolist(), strict=True))
    report = training_report(judged, fitted, rows.splits, sizes, rows.applied)
    bundle = _bundle(config, rows, featurizer, models[SHIPPED], judged, report)
    tell("done", 1.0)
    return bundle


def evaluate(bundle: ModelBundle, data: pd.DataFrame, functions: FunctionSet | None = None) -> SliceReport:
    """Judge a model on labelled rows, overall and slice by slice.

    Parameters
    ----------
    bundle
        The model.
    data
        N rows with the label and feature columns.
    functions
        The live functions, whose slices are reported; they do not see the label column. Those that compute
        what the model was trained with are also read by the model. Without any, memberships are unknown to
        it, and the report is of all rows.

    Raises
    ------
    DataError
        If there are no rows, a column is missing or cannot be read, or a label is blank or no class.
    ConfigError
        If a template reads the label.
    SliceError
        If a template reads a column that the data does not have.
    """
    if not len(data):
        raise DataError("there are no rows to evaluate on")
    truth = read_labels(data, bundle.label)
    live = functions if functions is not None else FunctionSet(())
    refuse_label_readers(live, bundle.label)
    S = apply_with_stats(live, without_label(data, bundle.label)).matrix
    predicted = bundle.predict(data, bundle.trusted(S, live.fingerprints))
    return slice_report(truth, predicted, S, bundle.classes)


def _read(config: TrainConfig, data: pd.DataFrame, tell: Progress) -> _Rows:
    if not isinstance(data, pd.DataFrame):
        raise DataError(f"rows to train on must be a data frame, got {type(data).__name__}")
    if not len(data):
        raise DataError("there are no rows to train on")
    fingerprints, described = dict(config.functions.fingerprints), config.to_json()
    tell("reading labels", 0.0)
    labels = read_labels(data, config.label)
    classes = class_names(labels, config.label)
    y = class_codes(labels, classes)
    hashes = content_hashes(data, config.features)
    splits = split(hashes, y, classes)
    applied = _applied(config.functions, without_label(data, config.label), tell)
    return _Rows(described, fingerprints, data, labels, classes, y, hashes, splits, applied)


def _applied(functions: FunctionSet, data: Rows, tell: Progress) -> ApplyResult:
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        share = done / len(data)
        tell("applying functions", min(_FEATURES_FROM, _FUNCTIONS_FROM + 0.1 * share))

    count(0)
    return apply_with_stats(functions, data, progress=count)


def _bundle(
    config: TrainConfig,
    rows: _Rows,
    featurizer: Featurizer,
    model: Network,
    judged: Judged,
    report: TrainingReport,
) -> ModelBundle:
    """Put everything together; the golden batch is answered from records, as a request would be."""
    correct = np.array(judged.truth, dtype=object) == np.array(judged.predicted[SHIPPED], dtype=object)
    sampled = _sampled(rows)
    columns = sample_columns(rows.frame, config.label, config.features, list(config.functions))
    few = sampled[:MAX_ROWS] if len(sampled) else rows.splits.train[:MAX_ROWS]
    golden_records = plain_records(rows.frame.iloc[few], [spec.column for spec in config.features])

    def predict(records: Any, S: SliceMatrix | None) -> NDArray[np.float64]:
        return model.predict_proba(featurizer.transform(records), S)

    return ModelBundle(
        name=config.name,
        label=config.label,
        classes=rows.classes,
        featurizer=featurizer,
        model=model,
        function_fingerprints=rows.fingerprints,
        lineage=_lineage(rows, config.learner.seed),
        reference=reference_counts(rows.applied.matrix, rows.hashes, rows.splits.held_out, correct),
        sample=sample_records(rows.frame.iloc[sampled], columns),
        golden=GoldenBatch.record(predict, golden_records, rows.applied.matrix.take(few)),
        report=report,
    )


def _sampled(rows: _Rows) -> Positions:
    """Return held-out positions in an order that is random but always the same: that of their hashes."""
    held = rows.splits.held_out
    return held[np.argsort(rows.hashes[held], kind="stable")[:SAMPLE_ROWS]]


def _lineage(rows: _Rows, seed: int) -> dict[str, Any]:
    digest = sha256(rows.hashes.tobytes() + rows.y.tobytes()).hexdigest()
    splits = rows.splits
    sizes = {"train": len(splits.train), "valid": len(splits.valid), "held_out": len(splits.held_out)}
    return {"config": dict(rows.described), "seed": seed, "rows": sizes, "data_sha256": digest}
