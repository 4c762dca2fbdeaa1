"""From records to predictions with their slices: features, slicing functions, model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from models.classes import without_label
from models.registry import CHAMPION, ModelRegistry
from service.errors import ServiceError
from service.metrics.process import ProcessMetrics
from service.serving.errors import NoModel
from service.serving.live_functions import LiveFunctions
from service.serving.prediction_factory import (
    ExternalPrediction,
    ModelOutput,
    PredictionFactory,
    PredictionRequest,
    PredictionResult,
)

if TYPE_CHECKING:
    from models.bundle.model_bundle import ModelBundle
    from service.serving.deployment import Deployment
    from sfs.matrix import SliceMatrix

Record: TypeAlias = Mapping[str, Any]

WARM_UP_ROWS = (1, 16, 64)


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """A verified bundle, its version, and the live functions; one batch is answered by one of these."""

    bundle: ModelBundle
    version: int
    live: LiveFunctions
    _same_functions: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        trained, live = self.bundle.function_fingerprints, self.live.functions.fingerprints
        object.__setattr__(self, "_same_functions", list(trained.items()) == list(live.items()))

    def usable_memberships(self, S: SliceMatrix) -> SliceMatrix:
        """Return the memberships that the model was trained with; those of changed functions are unknown."""
        if self._same_functions:  # the usual case; selecting columns would take longer than some models
            return S
        return self.bundle.usable_memberships(S, self.live.functions.fingerprints)


class Predictor:
    """Computes the predictions of a batch and their slices; for one thread at a time per method.

    Parameters
    ----------
    deployment
        Its state is read once per batch.
    factory
        Makes the predictions for the log.
    metrics
        Counters of this process.
    """

    def __init__(self, deployment: Deployment, factory: PredictionFactory, metrics: ProcessMetrics) -> None:
        self._deployment, self._factory, self._metrics = deployment, factory, metrics

    def predict(self, requests: Sequence[PredictionRequest]) -> list[PredictionResult]:
        """Return the results of N requests, in order.

        Raises
        ------
        NoModel
            If no local model is active.
        DataError
            If a record lacks a feature column, or is not made of JSON values.
        ModelError
            If the model has no finite answer.
        """
        active = self._deployment.state.active
        if active is None:
            raise NoModel("no version is active: train one with `slicewatch train`, or promote one")
        bundle, functions = active.bundle, active.live.functions
        timer = StageTimer()
        records = cast("list[Record]", without_label([each.record for each in requests], bundle.label))
        X = bundle.featurizer.transform(records)  # first, since it refuses unreadable records
        timer.end("features")
        applied = active.live.apply(records)
        timer.end("functions")
        P = bundle.model.predict_proba(X, active.usable_memberships(applied.matrix))  # [N, C]
        timer.end("model")
        outputs = [
            ModelOutput(active.version, bundle.classes[best], tuple(row))
            for best, row in zip(P.argmax(axis=1).tolist(), P.tolist(), strict=True)
        ]
        results = self._factory.results(
            requests, outputs, applied.matrix, bundle.name, bundle.classes, functions.hash
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
        state, timer = self._deployment.state, StageTimer()
        applied = state.live.apply(without_label([each.record for each in rows], self._deployment.label))
        timer.end("functions")
        outputs = [ModelOutput(each.version, each.label, each.probabilities) for each in rows]
        results = self._factory.results(
            rows, outputs, applied.matrix, state.model, state.classes, state.functions.hash
        )
        timer.end("record")
        self._metrics.count_function_runs(applied.stats)
        timer.report(self._metrics)
        return results


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
    """Return a version, verified and warm: every digest checked, the golden batch repeated, all of it run once.

    Parameters
    ----------
    registry
        The versions.
    live
        Functions applied to traffic.
    version
        A number, or an alias.

    Raises
    ------
    ServiceError
        If the alias points to no version.
    RegistryError
        If there is no such version.
    BundleError
        If the stored bundle has changed, or repeats its golden batch with other answers.
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
    records: Sequence[Record] = bundle.sample or bundle.golden.records
    for rows in WARM_UP_ROWS:
        batch = list(islice(cycle(records), rows))
        bundle.predict_proba(batch, bundle.memberships(live.templates, batch))
