"""The active model version and functions of one model, replaced atomically."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from service.decisions import ClockStep, DriftStatus, RateKey
from service.errors import NoModel
from service.events import FunctionSetVersion, Snapshot
from service.metrics.process import ProcessMetrics
from service.monitor.estimates import EstimateConfig
from service.serving.live_functions import LiveFunctions
from service.serving.references import baseline_of_run, reference_accuracy, reference_coverage
from service.serving.table_reference import TableReference
from service.settings.schema import Settings
from service.store.engine import Store
from service.store.queries import last_row, leads_since, most_logged_version
from service.store.runs import run_that_made
from service.store.writer import Writer
from sfs.declarations import to_declaration
from sfs.function import ALL_ROWS, LabelingFunctionSlice
from sfs.intervals import Rate
from sfs.registry import FunctionSet
from sfs.schema import Schema
from sfs.template import Template
from sfs.validation import Metadata, families

if TYPE_CHECKING:
    from models.bundle.model_bundle import ModelBundle
    from models.bundle.reference import SliceCounts
    from models.features import FeatureKind, FeatureSpec
    from models.registry import AliasChange
    from sfs.matrix import SliceMatrix

Origin: TypeAlias = Literal["file", "http"]

_LEAD = timedelta(minutes=5)  # of an external version, before it is followed in place of another
DAMAGED = "the champion cannot be loaded"
"""Reason why a slice has no expected rate, in short; ``DeploymentState.fault`` has the cause."""

_NO_SCHEMA = Schema()


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

    def indicated(self) -> list[str]:
        """Return the slices of which the model has an indicator, and whose function is the one it was trained with."""
        indicated, trained = {*self.bundle.inference.indicated}, self.bundle.function_fingerprints
        live = self.live.functions.fingerprints
        return [name for name in live if name in indicated and trained.get(name) == live[name]]


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
    classes, features
        The C classes, and the kind of each feature as in the settings.
    active
        The loaded model; None if no version of the registry is active.
    references, accuracies
        Expected coverage and accuracy by slice, only for functions that the counts belong to; ``accuracies`` has
        ``__all__``, too. They are those of the loaded model, else of ``table`` and ``first_labels``.
    table, table_note
        Reference of an external version, and the reason why slices of it are not counted yet.
    first_labels, label_counts, reference_labels
        Accuracy of an external version on the first labels of a rate; the number of labels so far of rates that
        lack some, and the number that they need.
    settling_hours
        Time from a label until it is evidence on accuracy.
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
    features: Mapping[str, str] = field(default_factory=dict)
    active: ActiveModel | None = None
    references: Mapping[str, Rate] = field(default_factory=dict)
    accuracies: Mapping[str, Rate] = field(default_factory=dict)
    table: TableReference | None = None
    table_note: str = ""
    first_labels: Mapping[RateKey, Rate] = field(default_factory=dict)
    label_counts: Mapping[RateKey, int] = field(default_factory=dict)
    reference_labels: int = 0
    settling_hours: float = 0.0
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
    def families(self) -> dict[str, dict[str, str]]:
        """Fingerprint by slice, of every family of several slices."""
        prints = self.fingerprints
        live = {name: facts for name, facts in self.metadata.items() if name in prints}
        return {family: {name: prints[name] for name in names} for family, names in families(live).items()}

    @property
    def declarations(self) -> list[dict[str, Any]]:
        """The functions added over HTTP, as declared in a YAML file."""
        return [
            to_declaration(function)
            for function in self.functions
            if isinstance(function, Template) and self.origins.get(function.name) == "http"
        ]

    @property
    def is_external(self) -> bool:
        """Whether the version is served elsewhere; not so the champion while it cannot be loaded."""
        return self.active is None and self.version is not None and not self.fault

    @property
    def awaits_repair(self) -> bool:
        """Whether the champion cannot be loaded, and no earlier version is active: nothing is expected meanwhile."""
        return self.active is None and bool(self.fault)

    @property
    def schema(self) -> Schema:
        """Types of the columns, by which records are read; empty without a model or a table."""
        if self.active is not None:
            return self.active.bundle.schema
        return _NO_SCHEMA if self.table is None else self.table.schema

    @property
    def specs(self) -> Sequence[FeatureSpec]:
        """The features, by which repeated records are recognised."""
        if self.active is not None:
            return self.active.bundle.featurizer.specs
        from models.features import FeatureSpec  # imports pandas

        return [FeatureSpec(column, cast("FeatureKind", kind)) for column, kind in self.features.items()]

    @property
    def sample(self) -> tuple[Mapping[str, Any], ...]:
        """Records of the reference."""
        if self.active is not None:
            return self.active.bundle.sample
        return () if self.table is None else tuple(record for record, _ in self.table.sample)

    def missing_reference(self, name: str) -> str:
        """Return the reason why a slice has no expected coverage."""
        if self.active is not None:
            return "no reference for this version of the function"
        if self.fault:
            return DAMAGED
        table = self.table
        if table is not None and table.fingerprints.get(name) == self.fingerprints.get(name):
            return f"known on fewer than two distinct rows of {table.name}"
        return self.table_note or "not counted on the reference table yet"

    @property
    def class_counts(self) -> dict[RateKey, SliceCounts]:
        """Reference counts by class of all rows, and of slices and families whose functions they belong to."""
        prints, table = self.fingerprints, self.table
        if self.active is not None:
            bundle = self.active.bundle
            counted, known, unions = bundle.reference, bundle.function_fingerprints, bundle.families
        elif table is not None and self.is_external and table.has_predictions and table.version == self.version:
            counted, known, unions = table.counts, table.fingerprints, table.families
        else:
            return {}
        keys = [RateKey(name, print_, "accuracy") for name, print_ in prints.items() if known.get(name) == print_]
        counts = {
            key: counted[key.slice] for key in (RateKey(ALL_ROWS, None, "accuracy"), *keys) if key.slice in counted
        }
        for family, own in self.families.items():
            if family in unions and unions[family].fingerprints == own:
                counts[RateKey.of_family(family, own)] = unions[family].counts
        return counts

    @property
    def vote_accuracies(self) -> dict[RateKey, tuple[str, Rate]]:
        """Class and accuracy on labels of the training of every unchanged labelling function that votes for one."""
        labels = None if self.active is None else self.active.bundle.report.labels
        if self.active is None or labels is None:
            return {}
        trained = self.active.bundle.lineage["config"]["labeling_functions"]
        live = {each.name for each in self.functions.labeling_functions if each.fingerprint == trained.get(each.name)}
        prints, rates = self.fingerprints, dict[RateKey, tuple[str, Rate]]()
        for each in labels.functions:
            rate = Rate(each.correct, each.labelled, each.effective_n)
            if each.name in live and len(each.classes) == 1 and rate.is_informative:
                rates[RateKey(each.name, prints[each.name], "votes")] = each.classes[0], rate
        return rates

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
    clock_step
        Last step of the clock since the start; None without one.
    behind_until
        Time until which rows are evidence in order of arrival, since the clock was set back; usually None.
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
            features=settings.features,
            reference_labels=settings.drift.reference_labels,
            settling_hours=settings.drift.settling_hours,
        )
        self.snapshot: Snapshot | None = None
        self.drift_statuses: tuple[DriftStatus, ...] = ()
        self.clock_step: ClockStep | None = None
        self.behind_until: datetime | None = None
        self._rival: tuple[int, datetime, int] | None = None  # leading version, since when, and the last row then

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
            external = self.state.version
            reason = "no version is active" if external is None else f"version {external} is served elsewhere"
            raise NoModel(f"{reason}: to predict here, train a version with `slicewatch train`, or promote one")
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
                first_labels={},
                label_counts={},
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
            logged = most_logged_version(connection, state.model, now=self._clock()) if champion is None else None
        version, since = logged or (champion, None)
        with self._lock:
            self.state = replace(self.state, fault=fault)
            if self.state.active is None:
                classes = classes or self.state.classes
                state = replace(self.state, version=version, classes=classes, history=changes)
                self.state = replace(state, first_labels={}, label_counts={})
                if version is not None:
                    self._metrics.set_version(version, classes)
                    promoted_at = _promoted_at(changes, version) or since
                    self.state = replace(self.state, promoted_at=promoted_at)
                self.state = with_table_rates(self.state)

    def clear_fault(self) -> None:
        """Record that the champion is active, or that there is none."""
        if self.state.fault:
            with self._lock:
                self.state = with_table_rates(replace(self.state, fault=""))

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
                before, now = self.state.fingerprints, functions.fingerprints
                counted = {name: rate for name, rate in self.state.references.items() if before[name] == now.get(name)}
                references = self._references(active, counted)
                accuracies = reference_accuracy(active.bundle, live)
            self.state = with_table_rates(
                replace(
                    self.state,
                    live=live,
                    functions_version=functions_version,
                    metadata={function.name: function.metadata for function in functions},
                    origins=origins,
                    active=active,
                    references=references,
                    accuracies=accuracies,
                )
            )

    def activate_external(self, version: int, since: datetime) -> None:
        """Track an external version; without effect while a local model is active."""
        with self._lock:
            if self.state.active is None and self.state.version != version:
                self._metrics.set_version(version, self._settings.classes)
                state = replace(self.state, version=version, promoted_at=since, first_labels={}, label_counts={})
                self.state = with_table_rates(state)

    def set_table(self, table: TableReference | None, note: str = "") -> None:
        """Set the reference of external versions, and the reason why slices of it are not counted."""
        with self._lock:
            self.state = with_table_rates(replace(self.state, table=table, table_note=note))

    def record_first_labels(self, version: int, rates: Mapping[RateKey, Rate], counts: Mapping[RateKey, int]) -> None:
        """Record the accuracy on the first labels of an external version, and the number of labels of other rates."""
        with self._lock:
            state = self.state
            if state.version == version and (state.first_labels, state.label_counts) != (rates, counts):
                self.state = with_table_rates(replace(state, first_labels=dict(rates), label_counts=dict(counts)))

    def follow_external_version(self, now: datetime, stored: tuple[int, datetime] | None = None) -> None:
        """Track the external version most logged until now, at first the stored one, given with its first time.

        Another one takes its place after it led at every call for five minutes, and among the rows that arrived in
        them: one request may log many rows, with any times. Without effect while a local model is active, or waited
        for.
        """
        if self.state.active is not None or self.state.fault:
            return
        if self.state.version is None and stored is not None:
            self.activate_external(*stored)
        current = self.state.version
        with self._store.read() as connection:
            logged = most_logged_version(connection, self.state.model, current, now)
            if logged is None or current in (None, logged[0]):
                self._rival = None
            elif self._rival is None or self._rival[0] != logged[0] or now < self._rival[1]:
                self._rival, logged = (logged[0], now, last_row(connection)), None
            elif now < self._rival[1] + _LEAD or not leads_since(
                connection, self.state.model, logged[0], self._rival[2]
            ):
                logged = None
        if logged is not None:
            self.activate_external(*logged)

    def _references(self, active: ActiveModel, counted: Mapping[str, Rate] | None = None) -> dict[str, Rate]:
        """Return the expected coverage: the baseline of the run that made the version, else its training rows.

        Functions that were ``counted`` on them before are not applied again.
        """
        with self._store.read() as connection:
            run = run_that_made(connection, self.state.model, active.version)
        references = reference_coverage(active.bundle, active.live, counted)
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


def with_table_rates(state: DeploymentState) -> DeploymentState:
    """Return a state with the rates that are expected of an external version; unchanged if a model is active.

    An accuracy in the table is preferred to that on the first labels. Nothing is expected of a champion that cannot
    be loaded.
    """
    if state.active is not None:
        return state
    if state.fault:
        return replace(state, references={}, accuracies={})
    fingerprints, table = state.fingerprints, state.table
    accuracies = {
        key.slice: rate for key, rate in state.first_labels.items() if fingerprints.get(key.slice) == key.fingerprint
    }
    if table is None:
        return replace(state, references={}, accuracies=accuracies)
    accuracies |= table.accuracies(fingerprints, state.version)
    return replace(state, references=table.coverages(fingerprints), accuracies=accuracies)


def _promoted_at(history: tuple[AliasChange, ...], version: int) -> datetime | None:
    return next((change.at for change in reversed(history) if change.version == version), None)
