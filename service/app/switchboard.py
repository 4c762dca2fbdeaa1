"""The one place where the version and the functions in force are exchanged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from service.app.references import accuracies, references
from service.events import FunctionSetVersion
from service.metrics.process import ProcessMetrics
from service.serving.live_functions import LiveFunctions
from service.serving.prediction_factory import PredictionFactory
from service.serving.predictor import ActiveModel, BatchReport, ExternalLogger, Predictor
from service.store.writer import Writer
from service.views.current import Current, FunctionHealth, InForce, Origin
from sfs.intervals import Rate
from sfs.registry import FunctionSet
from sfs.votes import VoteSlice

if TYPE_CHECKING:
    from models.registry import AliasChange


@dataclass(frozen=True, slots=True)
class Fixed:
    """What does not change while the service runs: names, the parts that are told, and the clock.

    Parameters
    ----------
    model, label
        What the model is called, and the column that it predicts.
    classes
        Those of a model served elsewhere, used while there is no version here.
    recorder
        Stamps predictions.
    writer, metrics
        Told of function sets before they are applied.
    clock
        The time, UTC.
    baseline
        What is expected of a version that a run made, by slice and fingerprint; nothing of others.
    """

    model: str
    label: str
    classes: tuple[str, ...]
    recorder: PredictionFactory
    writer: Writer
    metrics: ProcessMetrics
    clock: Callable[[], datetime]
    baseline: Callable[[int], Mapping[tuple[str, str], Rate]]


class Switchboard:
    """What answers now: the version in force, if any, and the functions.

    Every change is made here, whole: the store learns of a function set before the first prediction with
    it, and readers of ``current`` never see half of a change.

    Parameters
    ----------
    fixed
        What does not change.
    live
        The functions at first.
    origins
        Where each is defined.
    """

    def __init__(self, fixed: Fixed, live: LiveFunctions, origins: Mapping[str, Origin]) -> None:
        self._fixed = fixed
        self._changing = threading.Lock()
        self.live = live
        self.predictor: Predictor | None = None
        self.observer = self._observer(live, fixed.classes)
        version = self._known(live.functions)
        in_force = InForce(
            model=fixed.model,
            version=None,
            functions=live.functions,
            functions_version=version,
            metadata={each.name: each.metadata for each in live.functions},
            origins=origins,
            references={},
            classes=fixed.classes,
            promoted_at=None,
        )
        self.current = Current(in_force, self.health)

    @property
    def label(self) -> str:
        """The column that is predicted."""
        return self._fixed.label

    def health(self) -> Mapping[str, FunctionHealth]:
        """Return how the plain functions are."""
        return {
            name: FunctionHealth(name, "open" if is_open else "ok", reason)
            for name, (is_open, reason) in self.live.health().items()
        }

    def put_version(self, loaded: ActiveModel, history: Iterable[AliasChange]) -> None:
        """Answer by another version from now on; ``history`` is that of the alias, oldest first."""
        changes = tuple(history)
        with self._changing:
            loaded = ActiveModel(
                loaded.bundle, loaded.version, self.live
            )  # functions may have changed meanwhile
            expected = self._expected(loaded)  # all that may fail comes before the change
            self._fixed.metrics.serve(loaded.version, loaded.bundle.classes)
            if self.predictor is None:
                self.predictor = Predictor(loaded, self._fixed.recorder, self._report)
            else:
                self.predictor.swap(loaded)
            self.observer = self._observer(self.live, loaded.bundle.classes)
            self.current.in_force = replace(
                self.current.in_force,
                version=loaded.version,
                references=expected,
                accuracies=accuracies(loaded.bundle, self.live),
                classes=loaded.bundle.classes,
                promoted_at=_promoted_at(changes, loaded.version),
                history=changes,
            )

    def put_history(self, history: Iterable[AliasChange]) -> None:
        """Take over how the champion came to be, where the version that answers is the same."""
        changes = tuple(history)
        with self._changing:
            in_force = self.current.in_force
            if in_force.version is not None:
                at = _promoted_at(changes, in_force.version)
                self.current.in_force = replace(in_force, promoted_at=at, history=changes)

    def put_functions(self, functions: FunctionSet, origins: Mapping[str, Origin]) -> None:
        """Apply another set of functions from now on."""
        with self._changing:
            version, live = self._known(functions), self.live.with_functions(functions)
            expected: Mapping[str, Rate] = {}
            right: Mapping[str, Rate] = {}
            if self.predictor is not None:
                loaded = ActiveModel(self.predictor.loaded.bundle, self.predictor.loaded.version, live)
                expected, right = self._expected(loaded), accuracies(loaded.bundle, live)
                self.predictor.swap(loaded)
            self.live, self.observer = live, self._observer(live, self.current.in_force.classes)
            self.current.in_force = replace(
                self.current.in_force,
                functions=functions,
                functions_version=version,
                metadata={each.name: each.metadata for each in functions},
                origins=origins,
                references=expected,
                accuracies=right,
            )

    def put_observed(self, version: int, since: datetime) -> None:
        """Watch a version that is served elsewhere, where none answers here."""
        with self._changing:
            if self.predictor is None and self.current.in_force.version != version:
                self._fixed.metrics.serve(version, self._fixed.classes)
                self.current.in_force = replace(self.current.in_force, version=version, promoted_at=since)

    def _expected(self, loaded: ActiveModel) -> dict[str, Rate]:
        """Return the expected coverage: of the run that made the version, else of the rows it was made from."""
        now = loaded.live.functions.fingerprints
        left = self._fixed.baseline(loaded.version)
        of_run = {name: rate for (name, fingerprint), rate in left.items() if now.get(name) == fingerprint}
        return {**references(loaded.bundle, loaded.live), **of_run}

    def _observer(self, live: LiveFunctions, classes: tuple[str, ...]) -> ExternalLogger:
        fixed = self._fixed
        return ExternalLogger(fixed.model, classes, fixed.label, live, fixed.recorder, self._report)

    def _known(self, functions: FunctionSet) -> FunctionSetVersion:
        """Return what a set's hash stands for, once the store and the counters know it."""
        fixed = self._fixed
        prints = tuple(functions.fingerprints.values())
        votes = tuple(each.name for each in functions if isinstance(each, VoteSlice))
        version = FunctionSetVersion(functions.hash, functions.names, prints, fixed.clock(), votes)
        fixed.writer.record_functions(version).result()
        fixed.metrics.watch(version)
        return version

    def _report(self, report: BatchReport) -> None:
        self._fixed.metrics.applied(report.runs)
        for stage, seconds in report.stage_seconds.items():
            self._fixed.metrics.stage_took(stage, seconds)


def _promoted_at(history: Sequence[AliasChange], version: int) -> datetime | None:
    return next((each.at for each in reversed(history) if each.version == version), None)
