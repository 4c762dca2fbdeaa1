"""From records to predictions with their slices: features, slicing functions, model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice, repeat
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from models.classes import without_label
from models.errors import DataError
from models.registry import CHAMPION, ModelRegistry
from service.errors import RowsFailed, ServiceError
from service.metrics.process import ProcessMetrics, StageTimer
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
    bitmaps_of,
)
from sfs.matrix import SliceMatrix

if TYPE_CHECKING:
    from models.bundle.model_bundle import ModelBundle

WARM_UP_ROWS = (1, 16, 64)


class Predictor:
    """Computes the predictions of a batch and their slices; for one thread at a time per method.

    The state of the deployment is read once per batch. If it ``compares``, predictions have the slices of which an
    indicator of the model contradicts the function.
    """

    def __init__(
        self, deployment: Deployment, factory: PredictionFactory, metrics: ProcessMetrics, *, compares: bool = False
    ) -> None:
        self._deployment, self._factory, self._metrics = deployment, factory, metrics
        self._compares = compares
        self._comparison: _Comparison | None = None

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
        timer = StageTimer(len(requests))
        requests = [PredictionRequest(bundle.schema.parse_record(row.record), row.id) for row in requests]
        records = cast("list[RecordFields]", without_label([row.record for row in requests], bundle.label))
        try:
            X = bundle.featurizer.transform(records)  # first, to refuse unreadable records
        except DataError as error:
            raise _unreadable(bundle, records) or error from None
        timer.end("features")
        applied = active.live.apply(records)
        timer.end("functions")
        usable = active.usable_memberships(applied.matrix)
        disagreement: Iterable[bytes | None] = repeat(None, len(records))
        if self._compares and (comparison := self._comparison_of(active)).columns:
            P, inside = bundle.inference.predict_indicated(X, usable)  # [N, C]
            disagreement = comparison.disagreement(inside, applied.matrix)
        else:
            P = bundle.inference.predict_proba(X, usable)  # [N, C]
        timer.end("model")
        outputs = [
            ModelOutput(active.version, bundle.classes[best], tuple(row), wrong)
            for best, row, wrong in zip(P.argmax(axis=1).tolist(), P.tolist(), disagreement, strict=True)
        ]
        results = self._factory.results(
            requests, outputs, applied.matrix, bundle.name, bundle.classes, functions.hash, timer
        )
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
        state, timer = self._deployment.state, StageTimer(len(rows))
        if state.schema.columns:
            rows = [ExternalPrediction(state.schema.parse_record(row.record), *row[1:]) for row in rows]
        applied = state.live.apply(without_label([row.record for row in rows], self._deployment.label))
        timer.end("functions")
        outputs = [ModelOutput(row.version, row.label, row.probabilities) for row in rows]
        results = self._factory.results(
            rows, outputs, applied.matrix, state.model, state.classes, state.functions.hash, timer
        )
        timer.end("record")
        self._metrics.count_function_runs(applied.stats)
        timer.report(self._metrics)
        return results

    def _comparison_of(self, active: ActiveModel) -> _Comparison:
        if self._comparison is None or self._comparison.active is not active:
            self._comparison = _Comparison.of(active)
        return self._comparison


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Columns of the functions whose slices have an indicator, and of these indicators."""

    active: ActiveModel
    columns: list[int]
    indicators: list[int]

    @classmethod
    def of(cls, active: ActiveModel) -> _Comparison:
        names, indicated = active.indicated(), active.bundle.inference.indicated
        places = [{name: k for k, name in enumerate(each)} for each in (active.live.functions.names, indicated)]
        columns, indicators = ([place[name] for name in names] for place in places)
        return cls(active, columns, indicators)

    def disagreement(self, inside: NDArray[np.bool_], S: SliceMatrix) -> list[bytes]:
        """Return the bitmaps of ``Prediction.disagreement`` for N rows; of unknown memberships they say nothing."""
        wrong = np.zeros_like(S.member)
        wrong[:, self.columns] = inside[:, self.indicators] != S.member[:, self.columns]
        return bitmaps_of(wrong)


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
