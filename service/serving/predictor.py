"""From records to predictions with their slices: featurize, functions, model, all of one loaded version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from models.classes import without_label
from service.serving.functions import LiveFunctions
from service.serving.recording import Answer, Answerer, Recorder, Request, Verdict
from sfs.apply import FunctionRun

if TYPE_CHECKING:
    from models.bundle import ModelBundle
    from sfs.matrix import SliceMatrix

Record: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Loaded:
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
    answers: Sequence[Answer]
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
        loaded: Loaded,
        recorder: Recorder,
        report: Callable[[BatchReport], object] = lambda report: None,
    ) -> None:
        self.loaded = loaded
        self._recorder = recorder
        self._report = report

    def swap(self, loaded: Loaded) -> Loaded:
        """Answer the following batches by another version, and return what answered until now."""
        before, self.loaded = self.loaded, loaded
        return before

    def predict(self, requests: Sequence[Request]) -> list[Answer]:
        """Return the answers to N requests, in order.

        Raises
        ------
        DataError
            If a record lacks a feature column, or holds what cannot be read or written as JSON.
        ModelError
            If the model has no finite answer.
        """
        loaded, laps = self.loaded, Laps()
        bundle, functions = loaded.bundle, loaded.live.functions
        records = cast("list[Record]", without_label([each.record for each in requests], bundle.label))
        X = bundle.featurizer.transform(records)  # first, for it refuses what cannot be read
        laps.end("features")
        applied = loaded.live.apply(records)
        laps.end("functions")
        P = bundle.model.predict_proba(X, loaded.known(applied.matrix))  # [N, C]
        laps.end("model")
        answerer = Answerer(bundle.name, bundle.classes, functions.hash)
        answers = self._recorder.answers(requests, _verdicts(loaded, P), applied.matrix, answerer)
        laps.end("record")
        self._report(BatchReport(bundle.name, loaded.version, answers, laps.seconds, applied.runs))
        return answers


class Laps:
    """A stopwatch: the seconds that each stage took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = perf_counter()

    def end(self, stage: str) -> None:
        """End a stage, and begin the next."""
        now = perf_counter()
        self.seconds[stage], self._since = now - self._since, now


def _verdicts(loaded: Loaded, P: NDArray[np.float64]) -> Iterator[Verdict]:
    classes = loaded.bundle.classes
    for best, row in zip(P.argmax(axis=1).tolist(), P.tolist(), strict=True):
        yield Verdict(loaded.version, classes[best], tuple(row))
