"""The active model version and functions of one model, replaced atomically."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from service.decisions import DriftStatus
from service.errors import NoModel
from service.events import FunctionSetVersion, Snapshot
from service.metrics.process import ProcessMetrics
from service.monitor.estimates import EstimateConfig
from service.serving.live_functions import LiveFunctions
from service.serving.references import baseline_of_run, reference_accuracy, reference_coverage
from service.settings.schema import Settings
from service.store.engine import Store
from service.store.queries import most_logged_version
from service.store.runs import run_that_made
from service.store.writer import Writer
from sfs.declarations import to_declaration
from sfs.function import LabelingFunctionSlice
from sfs.intervals import Rate
from sfs.registry import FunctionSet
from sfs.template import Template
from sfs.validation import Metadata

if TYPE_CHECKING:
    from models.bundle.model_bundle import ModelBundle
    from models.registry import AliasChange
    from sfs.matrix import SliceMatrix

Origin: TypeAlias = Literal["file", "http"]


@dataclass(frozen=True, slots=True)
class FunctionHealth:
    """State of a function's breaker; an ``open`` one keeps the function off the request path."""

    name: str
    state: Literal["ok", "open"]
    reason: str | None


@dataclass(frozen=True, slots=True)
class ActiveModel:
    """Verified bundle, its version, and the live functions; a batch uses exactly one."""

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


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """One consistent view of a deployment; replaced as a whole, never changed.

    Parameters
    ----------
    model
        Name of the model.
    version
        The champion, or the most-logged external version; None if there is neither.
    live, functions_version
        The live functions, and the meaning of their hash in the log.
    metadata, origins
        By function name: its metadata; whether it is defined in a file, or was added over HTTP.
    classes
        The C classes.
    active
        The loaded model; None if no version of the registry is active.
    references, accuracies
        Expected coverage, and held-out accuracy, by slice; only for functions that the counts belong to.
        ``accuracies`` has ``__all__``, too.
    promoted_at
        Time of the promotion, or of the first row of an external version; None without a version.
    history
        Every change of the champion alias, oldest first.
    fault
        Reason why the champion cannot be loaded; empty if it is active, or there is none.
    """

    model: str
    version: int | None
    live: LiveFunctions
    functions_version: FunctionSetVersion
    metadata: Mapping[str, Metadata]
    origins: Mapping[str, Origin]
    classes: tuple[str, ...]
    active: ActiveModel | None = None
    references: Mapping[str, Rate] = field(default_factory=dict)
    accuracies: Mapping[str, Rate] = field(default_factory=dict)
    promoted_at: datetime | None = None
    history: tuple[AliasChange, ...] = ()
    fault: str = ""

    @property
    def functions(self) -> FunctionSet:
        """The live functions, in order."""
        return self.live.functions

    @property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprint by function name."""
        return dict(zip(self.functions_version.names, self.functions_version.fingerprints, strict=True))

    @property
    def declarations(self) -> list[dict[str, Any]]:
        """The functions added over HTTP, as declared in a YAML file."""
        return [
            to_declaration(function)
            for function in self.functions
            if isinstance(function, Template) and self.origins.get(function.name) == "http"
        ]

    @property
    def promotion(self) -> AliasChange | None:
        """Promotion of the active version; None for an external version, whose number alone may match."""
        return next((change for change in reversed(self.history) if change.version == self.version), None)


class Deployment:
    """The active version, its functions, and the latest figures about them.

    Changes are serialised and atomic: the store records a function set before the first
    prediction with it, and a reader of ``state`` never sees a partial change.

    Attributes
    ----------
    state
        The active version and functions.
    snapshot
        The latest committed snapshot; None before the first.
    drift_statuses
        Status of every monitored slice of the active version.
    """

    def __init__(
        self,
        settings: Settings,
        live: LiveFunctions,
        origins: Mapping[str, Origin],
        *,
        store: Store,
        writer: Writer,
        metrics: ProcessMetrics,
        clock: Callable[[], datetime],
    ) -> None:
        self._settings, self._clock = settings, clock
        self._store, self._writer, self._metrics = store, writer, metrics
        self._lock = threading.Lock()
        self.state = DeploymentState(
            model=settings.name,
            version=None,
            live=live,
            functions_version=self._record(live.functions),
            metadata={function.name: function.metadata for function in live.functions},
            origins=origins,
            classes=settings.classes,
        )
        self.snapshot: Snapshot | None = None
        self.drift_statuses: tuple[DriftStatus, ...] = ()

    @property
    def label(self) -> str:
        """Name of the label column."""
        return self._settings.label

    @property
    def estimate_config(self) -> EstimateConfig:
        """Settings of the estimates; the second of two classes is positive by default."""
        monitor, classes = self._settings.monitor, self.state.classes
        positive = monitor.positive
        if positive is None and len(classes) == 2:
            positive = classes[1]
        return EstimateConfig(minimum_labels=monitor.minimum_labels, positive=positive)

    def require_active(self) -> ActiveModel:
        """Return the active model.

        Raises
        ------
        NoModel
            If no local model is active.
        """
        if self.state.active is None:
            if self.state.fault:
                raise NoModel(self.state.fault)
            raise NoModel("no version is active: train one with `slicewatch train`, or promote one")
        return self.state.active

    def require_classes(self) -> tuple[str, ...]:
        """Return the classes.

        Raises
        ------
        NoModel
            If they are unknown: every text would become a class, and memory grows with their square.
        """
        if not self.state.classes:
            raise NoModel(
                "the classes are unknown: set `classes` in slicewatch.yaml, or train a model with `slicewatch train`"
            )
        return self.state.classes

    def health(self) -> dict[str, FunctionHealth]:
        """Return the health of the Python functions and of disabled templates, by name."""
        return {
            name: FunctionHealth(name, "ok" if reason is None else "open", reason)
            for name, reason in self.state.live.disabled_reasons().items()
        }

    def activate_version(self, loaded: ActiveModel, history: Iterable[AliasChange]) -> None:
        """Predict by another version; ``history`` is that of the champion alias, oldest first."""
        changes = tuple(history)
        with self._lock:
            live = self.state.live  # the functions may have changed since the version was loaded
            active = ActiveModel(loaded.bundle, loaded.version, live)
            references = self._references(active)  # steps that can fail come before the change
            self._metrics.set_version(active.version, active.bundle.classes)
            self.state = replace(
                self.state,
                version=active.version,
                active=active,
                references=references,
                accuracies=reference_accuracy(active.bundle, live),
                classes=active.bundle.classes,
                promoted_at=_promoted_at(changes, active.version),
                history=changes,
            )

    def record_fault(
        self, fault: str, champion: int | None, classes: tuple[str, ...], history: Iterable[AliasChange]
    ) -> None:
        """Record why the champion cannot be loaded.

        If no version is active, the rows and labels of the champion are monitored as before, without a reference;
        those of the most-logged version if it is unknown.
        """
        changes, state = tuple(history), self.state
        with self._store.read() as connection:
            logged = most_logged_version(connection, state.model) if champion is None else None
        version, since = logged or (champion, None)
        with self._lock:
            self.state = replace(self.state, fault=fault)
            if self.state.active is None:
                classes = classes or self.state.classes
                self.state = replace(self.state, version=version, classes=classes, history=changes)
                if version is not None:
                    self._metrics.set_version(version, classes)
                    promoted_at = _promoted_at(changes, version) or since
                    self.state = replace(self.state, promoted_at=promoted_at)

    def clear_fault(self) -> None:
        """Record that the champion is active, or that there is none."""
        if self.state.fault:
            with self._lock:
                self.state = replace(self.state, fault="")

    def record_history(self, history: Iterable[AliasChange]) -> None:
        """Update the history of the champion alias while the active version stays the same."""
        changes = tuple(history)
        with self._lock:
            if self.state.version is not None:
                promoted_at = _promoted_at(changes, self.state.version)
                self.state = replace(self.state, promoted_at=promoted_at, history=changes)

    def activate_functions(self, functions: FunctionSet, origins: Mapping[str, Origin]) -> None:
        """Apply another set of functions."""
        with self._lock:
            functions_version, live = self._record(functions), self.state.live.with_functions(functions)
            active, references, accuracies = self.state.active, {}, {}
            if active is not None:
                active = ActiveModel(active.bundle, active.version, live)
                references = self._references(active)
                accuracies = reference_accuracy(active.bundle, live)
            self.state = replace(
                self.state,
                live=live,
                functions_version=functions_version,
                metadata={function.name: function.metadata for function in functions},
                origins=origins,
                active=active,
                references=references,
                accuracies=accuracies,
            )

    def activate_external(self, version: int, since: datetime) -> None:
        """Track an external version; without effect while a local model is active."""
        with self._lock:
            if self.state.active is None and self.state.version != version:
                self._metrics.set_version(version, self._settings.classes)
                self.state = replace(self.state, version=version, promoted_at=since)

    def follow_external_version(self) -> None:
        """Track the most-logged external version while no local model is active, nor waited for."""
        if self.state.active is None and not self.state.fault:
            with self._store.read() as connection:
                logged = most_logged_version(connection, self.state.model)
            if logged is not None:
                self.activate_external(*logged)

    def _references(self, active: ActiveModel) -> dict[str, Rate]:
        """Return the expected coverage: the baseline of the run that made the version, else its training rows."""
        with self._store.read() as connection:
            run = run_that_made(connection, self.state.model, active.version)
        references = reference_coverage(active.bundle, active.live)
        fingerprints = active.live.functions.fingerprints
        for (name, fingerprint), rate in baseline_of_run(run).items():
            if fingerprints.get(name) == fingerprint:
                references[name] = rate
        return {name: rate for name, rate in references.items() if rate.is_informative}

    def _record(self, functions: FunctionSet) -> FunctionSetVersion:
        """Record a function set in the store and the counters, and return its version."""
        version = FunctionSetVersion(
            functions.hash,
            functions.names,
            tuple(functions.fingerprints.values()),
            self._clock(),
            tuple(function.name for function in functions if isinstance(function, LabelingFunctionSlice)),
        )
        self._writer.record_functions(version).result()
        self._metrics.set_functions(version)
        return version


def _promoted_at(history: tuple[AliasChange, ...], version: int) -> datetime | None:
    return next((change.at for change in reversed(history) if change.version == version), None)
