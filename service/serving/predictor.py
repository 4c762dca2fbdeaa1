"""From records to predictions with their slices: featurize, functions, model, all of one loaded version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from models.classes import without_label
from models.registry import CHAMPION, ModelRegistry
from service.errors import ServiceError
from service.serving.live_functions import LiveFunctions
from service.serving.prediction_factory import (
    ExternalPrediction,
    ModelOutput,
    PredictionFactory,
    PredictionRequest,
    PredictionResult,
    PredictionSource,
)
from sfs.apply import FunctionRun

if TYPE_CHECKING:
    from models.bundle import ModelBundle
    from sfs.matrix import SliceMatrix

Record: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """What answers a batch, whole: a verified bundle, its version, and the live functions."""

    bundle: ModelBundle
    version: int
    live: LiveFunctions
    _same_slices: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        then, now = self.bundle.function_fingerprints, self.live.functions.fingerprints
        object.__setattr__(self, "_same_slices", list(then.items()) == list(now.items()))

    def known(self, S: SliceMatrix) -> SliceMatrix:
        """Return what the model may know of the live functions' memberships: those that it was trained with."""
        if self._same_slices:  # as a rule; sorting them out would take longer than some models
            return S
        return self.bundle.trusted(S, self.live.functions.fingerprints)


@dataclass(frozen=True, slots=True)
class BatchReport:
    """How a batch went, for counters.

    Parameters
    ----------
    model, version
        Who answered; no version where another server has predicted.
    answers
        The N answers.
    stage_seconds
        Time of each stage: ``features``, ``functions``, ``model``, ``record``, as far as there were such.
    runs
        How each function fared.
    """

    model: str
    version: int | None
    answers: Sequence[PredictionResult]
    stage_seconds: Mapping[str, float]
    runs: tuple[FunctionRun, ...]


class Predictor:
    """The one place where the version in force is exchanged.

    Every batch is answered by what ``loaded`` was when it began. For one thread at a time.

    Parameters
    ----------
    loaded
        What answers at first.
    recorder
        Stamps predictions.
    report
        Told of every batch that was answered.
    """

    def __init__(
        self,
        loaded: ActiveModel,
        recorder: PredictionFactory,
        report: Callable[[BatchReport], object] = lambda report: None,
    ) -> None:
        self.loaded = loaded
        self._recorder = recorder
        self._report = report

    def swap(self, loaded: ActiveModel) -> ActiveModel:
        """Answer the following batches by another version, and return what answered until now."""
        before, self.loaded = self.loaded, loaded
        return before

    def predict(self, requests: Sequence[PredictionRequest]) -> list[PredictionResult]:
        """Return the answers to N requests, in order.

        Raises
        ------
        DataError
            If a record lacks a feature column, or holds what cannot be read or written as JSON.
        ModelError
            If the model has no finite answer.
        """
        loaded, laps = self.loaded, StageTimer()
        bundle, functions = loaded.bundle, loaded.live.functions
        records = cast("list[Record]", without_label([each.record for each in requests], bundle.label))
        X = bundle.featurizer.transform(records)  # first, for it refuses what cannot be read
        laps.end("features")
        applied = loaded.live.apply(records)
        laps.end("functions")
        P = bundle.model.predict_proba(X, loaded.known(applied.matrix))  # [N, C]
        laps.end("model")
        answerer = PredictionSource(bundle.name, bundle.classes, functions.hash)
        answers = self._recorder.answers(requests, _model_outputs(loaded, P), applied.matrix, answerer)
        laps.end("record")
        self._report(BatchReport(bundle.name, loaded.version, answers, laps.seconds, applied.runs))
        return answers


class StageTimer:
    """A stopwatch: the seconds that each stage took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = perf_counter()

    def end(self, stage: str) -> None:
        """End a stage, and begin the next."""
        now = perf_counter()
        self.seconds[stage], self._since = now - self._since, now


def _model_outputs(loaded: ActiveModel, P: NDArray[np.float64]) -> Iterator[ModelOutput]:
    classes = loaded.bundle.classes
    for best, row in zip(P.argmax(axis=1).tolist(), P.tolist(), strict=True):
        yield ModelOutput(loaded.version, classes[best], tuple(row))


class ExternalLogger:
    """Finds the slices of what was predicted elsewhere.

    Parameters
    ----------
    model, classes
        What the model is called, and its classes in the order of the probabilities that come with records.
    label
        The column that is predicted; functions do not see it.
    live
        The functions; the attribute may be exchanged, and is read once for every batch.
    recorder
        Stamps predictions.
    report
        Told of every batch that was observed.
    """

    def __init__(
        self,
        model: str,
        classes: Sequence[str],
        label: str,
        live: LiveFunctions,
        recorder: PredictionFactory,
        report: Callable[[BatchReport], object] = lambda report: None,
    ) -> None:
        self.live = live
        self._model, self._classes, self._label = model, tuple(classes), label
        self._recorder, self._report = recorder, report

    def observe(self, logged: Sequence[ExternalPrediction]) -> list[PredictionResult]:
        """Return N predictions with their slices, in order.

        Raises
        ------
        DataError
            If a record is not made of JSON values.
        """
        live, laps = self.live, StageTimer()
        records = without_label([each.record for each in logged], self._label)
        applied = live.apply(records)
        laps.end("functions")
        verdicts = [ModelOutput(each.version, each.label, each.probabilities) for each in logged]
        answerer = PredictionSource(self._model, self._classes, live.functions.hash)
        answers = self._recorder.answers(logged, verdicts, applied.matrix, answerer)
        laps.end("record")
        self._report(BatchReport(self._model, None, answers, laps.seconds, applied.runs))
        return answers


WARM_UP_ROWS = (1, 16, 64)


def load(registry: ModelRegistry, live: LiveFunctions, version: int | str = CHAMPION) -> ActiveModel:
    """Return a version, ready to answer: every digest checked, its golden batch repeated, all of it run once.

    Parameters
    ----------
    registry
        Where the versions are.
    live
        The functions that are applied to traffic.
    version
        Its number, or an alias.

    Raises
    ------
    ServiceError
        If the alias is not on any version.
    RegistryError
        If there is no such version.
    BundleError
        If the bundle is not what it was when it was stored, or does not give the answers that it gave then.
    """
    alias = None if isinstance(version, int) or version.isdecimal() else version
    number = int(version) if alias is None else _number_of(registry, alias)
    bundle = registry.get(version)
    if alias is not None and registry.alias(alias) != number:
        return load(registry, live, alias)  # the alias moved between the two looks
    warm_up(bundle, live)
    return ActiveModel(bundle, number, live)


def warm_up(bundle: ModelBundle, live: LiveFunctions) -> None:
    """Run features, templates and model once at each size of batch; plain functions are left alone."""
    records: Sequence[Mapping[str, Any]] = bundle.sample or bundle.golden.records
    for rows in WARM_UP_ROWS:
        batch = list(islice(cycle(records), rows))
        S = bundle.memberships(live.templates, batch)
        bundle.predict_proba(batch, S)


def _number_of(registry: ModelRegistry, alias: str) -> int:
    number = registry.alias(alias)
    if number is None:
        raise ServiceError(
            f"model {registry.name!r} has no {alias}: train one with `slicewatch train`, or promote a version"
        )
    return number
