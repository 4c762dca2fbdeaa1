"""From records to predictions with their slices: features, slicing functions, model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import cycle, islice
from time import perf_counter
from typing import TYPE_CHECKING, cast

from models.classes import without_label
from models.errors import DataError
from models.registry import CHAMPION, ModelRegistry
from service.errors import RowsFailed, ServiceError
from service.metrics.process import ProcessMetrics
from service.serving.batcher import MAX_FAILED_ROWS
from service.serving.deployment import ActiveModel, Deployment
from service.serving.live_functions import LiveFunctions
from service.serving.prediction_factory import (
    ExternalPrediction,
    ModelOutput,
    PredictionFactory,
    PredictionRequest,
    PredictionResult,
    RecordFields,
)

if TYPE_CHECKING:
    from models.bundle.model_bundle import ModelBundle

WARM_UP_ROWS = (1, 16, 64)


class Predictor:
    """Computes the predictions of a batch and their slices; for one thread at a time per method.

    The state of the deployment is read once per batch.
    """

    def __init__(self, deployment: Deployment, factory: PredictionFactory, metrics: ProcessMetrics) -> None:
        self._deployment, self._factory, self._metrics = deployment, factory, metrics

    def predict(self, requests: Sequence[PredictionRequest]) -> list[PredictionResult]:
        """Return the results of N requests, in order.

        Raises
        ------
        NoModel
            If no local model is active.
        RowsFailed
            If records lack a feature column, or have values that it cannot read.
        DataError
            If a record is not made of JSON values.
        ModelError
            If the model has no finite answer.
        """
        active = self._deployment.require_active()
        bundle, functions = active.bundle, active.live.functions
        timer = StageTimer()
        requests = [PredictionRequest(bundle.schema.parse_record(row.record), row.id) for row in requests]
        records = cast("list[RecordFields]", without_label([row.record for row in requests], bundle.label))
        try:
            X = bundle.featurizer.transform(records)  # first, to refuse unreadable records
        except DataError as error:
            raise _unreadable(bundle, records) or error from None
        timer.end("features")
        applied = active.live.apply(records)
        timer.end("functions")
        P = bundle.model.predict_proba(X, active.usable_memberships(applied.matrix))  # [N, C]
        timer.end("model")
        outputs = [
            ModelOutput(active.version, bundle.classes[best], tuple(row))
            for best, row in zip(P.argmax(axis=1).tolist(), P.tolist(), strict=True)
        ]
        results = self._factory.results(requests, outputs, applied.matrix, bundle.name, bundle.classes, functions.hash)
        timer.end("record")
        self._metrics.count_function_runs(applied.stats)
        timer.report(self._metrics)
        return results

    def slice_external(self, rows: Sequence[ExternalPrediction]) -> list[PredictionResult]:
        """Return N external predictions with their slices, in order.

        Raises
        ------
        DataError
            If a record is not made of JSON values.
        """
        state, timer = self._deployment.state, StageTimer()
        if state.schema.columns:
            rows = [replace(row, record=state.schema.parse_record(row.record)) for row in rows]
        applied = state.live.apply(without_label([row.record for row in rows], self._deployment.label))
        timer.end("functions")
        outputs = [ModelOutput(row.version, row.label, row.probabilities) for row in rows]
        results = self._factory.results(rows, outputs, applied.matrix, state.model, state.classes, state.functions.hash)
        timer.end("record")
        self._metrics.count_function_runs(applied.stats)
        timer.report(self._metrics)
        return results


def _unreadable(bundle: ModelBundle, records: Sequence[RecordFields]) -> RowsFailed | None:
    """Return the error that names the records of a batch that cannot be read; only the first ones of many."""
    errors: dict[int, Exception] = {}
    for row, record in enumerate(records):
        try:
            bundle.featurizer.check(record)
        except DataError as error:
            errors[row] = error
            if len(errors) == MAX_FAILED_ROWS:
                return RowsFailed(errors, row + 1)
    return RowsFailed(errors, len(records)) if errors else None


class StageTimer:
    """Stopwatch: seconds per stage."""

    def __init__(self) -> None:
        self._seconds: list[tuple[str, float]] = []
        self._since = perf_counter()

    def end(self, stage: str) -> None:
        """End a stage, and begin the next."""
        now = perf_counter()
        self._seconds.append((stage, now - self._since))
        self._since = now

    def report(self, metrics: ProcessMetrics) -> None:
        """Add the stages to the histograms."""
        for stage, seconds in self._seconds:
            metrics.observe_stage(stage, seconds)


def load(registry: ModelRegistry, live: LiveFunctions, version: int | str = CHAMPION) -> ActiveModel:
    """Return a version, by number or alias, verified and warm: digests and golden batch checked, all of it run once.

    Raises
    ------
    ServiceError
        If the alias points to no version.
    RegistryError
        If there is no such version.
    BundleError
        If the stored bundle has changed, or returns other predictions for its golden batch.
    """
    if isinstance(version, str) and not version.isdecimal():
        number = registry.alias(version)
        if number is None:
            raise ServiceError(
                f"model {registry.name!r} has no {version}: train one with `slicewatch train`, or promote a version"
            )
        bundle = registry.get(version)
        if registry.alias(version) != number:
            return load(registry, live, version)  # the alias moved between the two reads
    else:
        number, bundle = int(version), registry.get(version)
    warm_up(bundle, live)
    return ActiveModel(bundle, number, live)


def warm_up(bundle: ModelBundle, live: LiveFunctions) -> None:
    """Run features, templates and model once per batch size; Python functions are not called."""
    records: Sequence[RecordFields] = bundle.sample or bundle.golden.records
    for rows in WARM_UP_ROWS:
        batch = list(islice(cycle(records), rows))
        S = live.apply_templates(without_label(batch, bundle.label), update_breakers=False).matrix
        bundle.predict_proba(batch, bundle.usable_memberships(S, live.templates.fingerprints))
