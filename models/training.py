"""Training of a bundle from a table, and evaluation of a bundle per slice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.batches import FeatureRows, Positions, Split
from models.bundle.model_bundle import ModelBundle
from models.bundle.records import (
    GOLDEN_ROWS,
    SAMPLE_ROWS,
    GoldenBatch,
    plain_records,
    sample_columns,
    sample_records,
)
from models.bundle.reference import family_counts, reference_counts
from models.classes import check_label_not_read, label_leaks, read_known_labels, read_labels, without_label
from models.config import TrainConfig
from models.errors import DataError, require_type
from models.features import Featurizer, check_columns
from models.function_labels import FunctionLabels, PartialLabels, label_rows
from models.inference import inference
from models.learners import Network
from models.model_search import search_models
from models.outputs import OutputRates
from models.registry import BUNDLE
from models.slice_report import SliceReport, slice_report
from models.splits import Hashes, SplitIndices, content_hashes
from models.table_season import TableSeason, utc_times
from models.trainer import single_threaded
from models.training_report import (
    SHIPPED,
    HeldOutEvaluation,
    TrainingReport,
    held_out_evaluation,
    training_report,
)
from sfs.apply import ApplyResult, apply_with_stats
from sfs.function import SlicingFunction
from sfs.matrix import SliceMatrix
from sfs.registry import FunctionSet
from sfs.schema import Schema
from sfs.validation import families

Progress: TypeAlias = Callable[[str, float], None]

_FUNCTIONS_FROM, _FEATURES_FROM, _LEARNING_FROM, _LEARNING_TO = 0.05, 0.15, 0.2, 0.95


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows in the types of their schema, their labels, split and memberships.

    ``described`` and ``fingerprints`` are the configuration and its functions before any of them was applied;
    a function's file or its resources may change later. ``by_functions`` has the labels of rows without one.
    """

    described: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    schema: Schema
    frame: pd.DataFrame
    labels: PartialLabels
    hashes: Hashes
    splits: SplitIndices
    applied: ApplyResult
    by_functions: FunctionLabels | None

    @property
    def classes(self) -> tuple[str, ...]:
        return self.labels.classes

    def truth(self, positions: Positions) -> list[str]:
        return [self.classes[k] for k in self.labels.y[positions]]

    def training(self, X: FeatureRows, wide: FeatureRows | None) -> Split:
        """Return the training rows; those with a label of functions once in each likely class, with its weight."""
        if self.by_functions is None:
            return self.split(X, wide, self.splits.train)
        more, train = self.by_functions.weighted_rows(), self.splits.train
        rows = self.split(X, wide, np.concatenate([train, more.positions]))
        y, weight = rows.y.copy(), np.ones(len(rows))
        y[len(train) :], weight[len(train) :] = more.y, more.weight
        return replace(rows, y=y, weight=weight)

    def split(self, X: FeatureRows, wide: FeatureRows | None, positions: Positions) -> Split:
        groups, S = self.hashes[positions].view(np.int64), self.applied.matrix.take(positions)
        part = None if wide is None else wide.subset(positions)
        return Split(X.subset(positions), self.labels.y[positions], S, groups, part)


def train(config: TrainConfig, data: pd.DataFrame, *, progress: Progress | None = None) -> ModelBundle:
    """Train a model, evaluate it on held-out rows, and return it as a bundle.

    A tenth of the rows, chosen by content, is held out and used by the report only. The same rows and seed give
    the same bundle, bit for bit. The computation uses one thread, whatever torch's setting.

    Parameters
    ----------
    config
        Settings; ``config.functions`` are applied once, to all rows, without the label column: a plain
        function that reads it is unknown, and the report has a warning.
    data
        N labelled rows, read by ``config.schema``; it is completed from the rows, and kept in the bundle. With
        ``config.labeling_functions`` rows may have no label: they are trained on with probabilities of the classes,
        and are neither validation nor held-out rows.
    progress
        Called with the current stage and the completed fraction, 0 to 1.

    Raises
    ------
    DataError
        If a column is missing or cannot be read, labels are blank, or a class has too few rows or is alone; with
        labeling functions, if too few rows have a label, or a function returns no class.
    SliceError
        If a template reads a column that the data does not have.
    """
    require_type(config, TrainConfig, "the configuration", "a TrainConfig")
    report_progress = progress or (lambda stage, share: None)
    with single_threaded():
        rows = _read(config, data, report_progress)
        report_progress("making features", _FEATURES_FROM)
        featurizer = Featurizer(config.features).fit(rows.frame.iloc[rows.splits.learned])
        X, wide = featurizer.transform(rows.frame), None
        if config.learner.kind == "auto" and any(spec.kind == "text" for spec in config.features):
            wide_featurizer = Featurizer(config.features, wide=True).fit(rows.frame.iloc[rows.splits.learned])
            wide = wide_featurizer.transform(rows.frame)
        fitted = search_models(
            config.learner,
            rows.training(X, wide),
            rows.split(X, wide, rows.splits.valid),
            len(rows.classes),
            lambda stage, share: report_progress(stage, _LEARNING_FROM + (_LEARNING_TO - _LEARNING_FROM) * share),
        )
        report_progress("evaluating on held-out rows", _LEARNING_TO)
        held = rows.splits.held_out
        truth = rows.truth(held)
        models = {SHIPPED: fitted.model}
        for name, peer in fitted.peers.items():  # without the shipped model itself, and each model once
            if all(peer is not model for model in models.values()):
                models[name] = peer
        own = wide if wide is not None and fitted.is_wide else X
        inputs = {name: (own if name in (SHIPPED, "base") else X).subset(held) for name in models}
        evaluation = held_out_evaluation(
            truth, inputs, rows.applied.matrix.take(held), rows.classes, models, rows.hashes[held]
        )
        sizes = dict(zip(rows.classes, np.bincount(rows.labels.y[rows.labels.known]).tolist(), strict=True))
        read = {spec.column for spec in config.features}
        columns = [str(name) in read for name in rows.frame.columns]
        once = rows.splits.train[np.unique(rows.hashes[rows.splits.train], return_index=True)[1]]
        leaks = label_leaks(rows.frame.loc[:, columns].iloc[once], rows.truth(once))
        metadata = {function.name: function.metadata for function in config.functions}
        by_functions = None if rows.by_functions is None else rows.by_functions.report
        report = training_report(evaluation, fitted, rows.splits, sizes, rows.applied, leaks, metadata, by_functions)
        if own is wide:
            featurizer = wide_featurizer
        bundle = _bundle(config, rows, featurizer, fitted.model, inputs[SHIPPED], evaluation, report)
        report_progress("done", 1.0)
        return bundle


def evaluate(
    bundle: ModelBundle, data: pd.DataFrame, functions: Iterable[SlicingFunction] | None = None
) -> SliceReport:
    """Evaluate a model on labelled rows, overall and per slice.

    Parameters
    ----------
    data
        N rows with the label and feature columns.
    functions
        The live functions, whose slices are reported; they do not see the label column. The model reads the
        slices of functions unchanged since its training. Without any, memberships are unknown to it, and the
        report is of all rows.

    Raises
    ------
    DataError
        If ``bundle`` or ``data`` is another object, there are no rows, a column is missing or cannot be read, or a
        label is blank or no class.
    ConfigError
        If a template reads the label.
    SliceError
        If a template reads a column that the data does not have.
    """
    require_type(bundle, ModelBundle, "the model to evaluate", BUNDLE)
    require_type(data, pd.DataFrame, "the rows to evaluate on", "a data frame with the label column")
    if not len(data):
        raise DataError("there are no rows to evaluate on")
    data = bundle.schema.parse_frame(data)
    truth = read_labels(data, bundle.label, bundle.classes)
    live = functions if isinstance(functions, FunctionSet) else FunctionSet(functions or ())
    check_label_not_read(live, bundle.label)
    S = apply_with_stats(live, without_label(data, bundle.label)).matrix
    predicted = bundle.predict(data, bundle.usable_memberships(S, live.fingerprints))
    return slice_report(truth, predicted, S, bundle.classes, content_hashes(data, bundle.featurizer.specs))


def _read(config: TrainConfig, data: pd.DataFrame, report_progress: Progress) -> _Rows:
    if not isinstance(data, pd.DataFrame):
        raise DataError(f"rows to train on must be a data frame, got {type(data).__name__}")
    if not len(data):
        raise DataError("there are no rows to train on")
    fingerprints, described = dict(config.functions.fingerprints), config.to_json()
    report_progress("reading labels", 0.0)
    check_columns(data, [config.label, *(spec.column for spec in config.features)])
    schema = config.schema.completed(data, {spec.column: spec.kind for spec in config.features})
    data = schema.parse_frame(data)
    read = read_known_labels if config.labeling_functions else read_labels
    labels = PartialLabels.of(read(data, config.label), config.label)
    hashes = content_hashes(data, config.features)
    splits = labels.split(hashes)
    visible = without_label(data, config.label)
    done, passes = 0, 2 if config.labeling_functions else 1

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        share = _FUNCTIONS_FROM + 0.1 * done / len(data) / passes
        report_progress("applying functions", min(_FEATURES_FROM, share))

    count(0)
    applied = apply_with_stats(config.functions, visible, progress=count)
    by_functions = None
    if config.labeling_functions:
        by_functions = label_rows(
            config.labeling_functions, visible, labels, hashes, splits, count, vote_classes=config.vote_classes
        )
        splits = replace(splits, by_functions=by_functions.positions)
    return _Rows(described, fingerprints, schema, data, labels, hashes, splits, applied, by_functions)


def _bundle(
    config: TrainConfig,
    rows: _Rows,
    featurizer: Featurizer,
    model: Network,
    held: FeatureRows,
    evaluation: HeldOutEvaluation,
    report: TrainingReport,
) -> ModelBundle:
    """Assemble the bundle; the golden batch is predicted from records, as a request would be."""
    predicted = evaluation.predicted[SHIPPED]
    splits, matrix = rows.splits, rows.applied.matrix
    # Held-out rows in the order of their hashes: random, but always the same.
    sampled = splits.held_out[np.argsort(rows.hashes[splits.held_out], kind="stable")[:SAMPLE_ROWS]]
    columns = sample_columns(rows.frame.iloc[sampled], config.label, config.features, list(config.functions))
    golden = sampled[:GOLDEN_ROWS] if len(sampled) else splits.train[:GOLDEN_ROWS]
    golden_records = plain_records(rows.frame.iloc[golden], [spec.column for spec in config.features])

    network = inference(model)
    known = matrix.take(splits.held_out)
    P, inside = network.predict_indicated(held, known)
    contents = rows.hashes[splits.held_out]
    season = None
    if config.time is not None and [*rows.frame.columns].count(config.time) == 1:
        season = TableSeason.of(utc_times(rows.frame[config.time]), config.time_zone, matrix)
    outputs = OutputRates.of(P, inside, known.align(network.indicated), contents) if len(held) else None
    kinds = families({function.name: function.metadata for function in config.functions})
    counted = rows.hashes, splits.held_out, evaluation.truth, predicted

    def predict(records: Any, S: SliceMatrix | None) -> NDArray[np.float64]:
        return network.predict_proba(featurizer.transform(records), S)

    return ModelBundle(
        name=config.name,
        label=config.label,
        classes=rows.classes,
        schema=rows.schema,
        featurizer=featurizer,
        model=model,
        function_fingerprints=rows.fingerprints,
        lineage={
            "config": dict(rows.described),
            "seed": config.learner.seed,
            "rows": {
                "train": len(splits.train),
                "valid": len(splits.valid),
                "held_out": len(splits.held_out),
                **({} if rows.by_functions is None else {"by_functions": len(splits.by_functions)}),
            },
            "data_sha256": sha256(rows.hashes.tobytes() + rows.labels.to_bytes()).hexdigest(),
        },
        reference=reference_counts(matrix, *counted),
        sample=sample_records(rows.frame.iloc[sampled], columns),
        golden=GoldenBatch.record(predict, golden_records, matrix.take(golden)),
        report=report,
        outputs=outputs,
        season=season,
        families=family_counts(matrix, kinds, rows.fingerprints, *counted),
    )
