"""What the routes are given: every part of the service that they speak to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from models.registry import AliasChange, ModelRegistry
    from service.decisions import Run
    from service.events import Estimate, InsufficientData
    from service.metrics.page import MetricsPage
    from service.metrics.process import ProcessMetrics
    from service.serving.batcher import Failed
    from service.serving.prediction_factory import ExternalPrediction, PredictionRequest, PredictionResult
    from service.store.engine import Store
    from service.store.writer import Writer
    from service.views.current import Current
    from service.views.functions import FunctionView

STAGES = ("decode", "log", "encode")
"""The steps of a request that the API times; the predictor times those between."""

SHED_REASONS = ("queue", "log", "deadline")
"""Why requests are refused under load."""

STOPPING = "stopping"
"""The name among ``Parts.problems`` by which a service says that it stops."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for.

    Parameters
    ----------
    body_bytes
        Of the request's body.
    rows
        Records to be predicted, logged or tried at once.
    labels
        Labels at once.
    request_seconds
        From the first byte to the answer.
    flight_bytes
        Of the bodies of all requests that are being answered; one that is as long as it may be is always taken.
    """

    body_bytes: int = 4 * 2**20
    rows: int = 1000
    labels: int = 10_000
    request_seconds: float = 10.0
    flight_bytes: int = 64 * 2**20


@dataclass(frozen=True, slots=True)
class PreviewView:
    """What a function would do, tried on some records and registered nowhere.

    Parameters
    ----------
    name, fingerprint
        Of the function.
    source
        Where the records came from: the request, or the sample kept with the model.
    rows, members, unknown
        How many records, members, and records whose membership is unknown.
    coverage
        Members of the rows whose membership is known.
    reasons
        Why memberships are unknown, and how many rows each.
    examples
        Some of the members.
    """

    name: str
    fingerprint: str
    source: Literal["given", "sample"]
    rows: int
    members: int
    unknown: int
    coverage: Estimate | InsufficientData
    reasons: Mapping[str, int]
    examples: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that routes need.

    Parameters
    ----------
    current
        What is in force.
    store, writer
        The log: read from a thread, written through the writer.
    metrics, page
        This process's counters, and the page that Prometheus reads. The names of routes to be registered with
        the counters are those of `service.api.app.ROUTES`; stages and reasons are above.
    predict
        From rows, and the seconds that they may wait, to an answer or a `Failed` for each. Raises Overloaded,
        DeadlinePassed, Stopping, or NoModel.
    observe
        The same for what another server has predicted. Raises as ``predict``, and DataError.
    has_room
        Whether so many rows would be taken; asked before a request is read.
    classes
        Those of the model in force; none where they are not known: nothing is logged or labelled then, for
        what is counted grows with the square of the classes.
    add_function
        From a declaration, as in a YAML file, to the function that is now applied. Raises FunctionConflict, or
        ``sfs.errors.InvalidFunction``.
    remove_function
        By name. Raises UnknownFunction, or FunctionConflict where a file defines it.
    preview
        From a declaration, and records or None for a sample, to what it would do. Raises
        ``sfs.errors.InvalidFunction``.
    registry
        None where models are served elsewhere.
    clock
        The time, UTC.
    limits
        What one request may ask for.
    problems
        Named reasons why the service is not ready, none when it is; ``stopping`` among them when it stops.
        Cheap: it is asked on the event loop.
    retrain
        From a reason and who asks to the run that was opened. Raises ``RunActive`` where one goes on already.
    promote
        From a version, the champion that is expected or None for any, a reason and who asks, to the change;
        it approves the run that holds the version, if one does. Raises RegistryError where somebody was first,
        BundleError where the version is damaged.
    rollback
        From a reason and who asks to the change. Raises RegistryError where nothing is left to go back to.
    report
        Begins to make a report of live traffic now. Raises ReportRunning where one is being made, NotHere
        where no version of the registry answers here.
    report_html
        From a report's id to its page, which is made where it is not there yet. Raises NoPage where it
        cannot be, ReportRunning while a page is being made.
    """

    current: Current
    store: Store
    writer: Writer
    metrics: ProcessMetrics
    page: MetricsPage
    predict: Callable[[Sequence[PredictionRequest], float], Awaitable[list[PredictionResult | Failed]]]
    observe: Callable[[Sequence[ExternalPrediction]], Awaitable[list[PredictionResult]]]
    has_room: Callable[[int], bool]
    classes: Callable[[], tuple[str, ...]]
    add_function: Callable[[Mapping[str, Any]], Awaitable[FunctionView]]
    remove_function: Callable[[str], Awaitable[None]]
    preview: Callable[[Mapping[str, Any], Sequence[Mapping[str, Any]] | None], Awaitable[PreviewView]]
    registry: ModelRegistry | None
    clock: Callable[[], datetime]
    limits: Limits
    problems: Callable[[], Mapping[str, str]]
    retrain: Callable[[str, str], Awaitable[Run]] | None = None
    promote: Callable[[int, int | None, str, str], Awaitable[AliasChange]] | None = None
    rollback: Callable[[str, str], Awaitable[AliasChange]] | None = None
    report: Callable[[], Awaitable[None]] | None = None
    report_html: Callable[[int], Awaitable[Path]] | None = None
