"""Constructs every part of the service from its settings, and connects them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.middleware.trustedhost import TrustedHostMiddleware

from models.registry import CHAMPION, ModelRegistry
from service.api.app import ROUTES, routes
from service.api.parts import SHED_REASONS, STAGES, Limits, Parts
from service.app.loop import LoopParts, baseline_of, loop
from service.app.pages import console_parts
from service.app.service import Lines, Service
from service.app.switchboard import Fixed, Switchboard
from service.app.watching import JOBS, Watching, watch_logged, watching
from service.console.router import PAGES, router
from service.metrics.page import MetricsPage
from service.metrics.process import ProcessMetrics
from service.runtime.clock import read_clock
from service.runtime.functions import CHECKPOINT, FunctionDesk, merge_functions, origins_of, read_added
from service.serving.breaker import BreakerLimits as FunctionLimits
from service.serving.live_functions import LiveFunctions
from service.serving.prediction_factory import PredictionFactory, RecordFields
from service.serving.predictor import load
from service.store.engine import Store, Synchronous
from service.store.labels import LabelRules
from service.store.queries import checkpoint
from service.store.writer import Writer
from sfs.registry import FunctionSet
from sfs.template import Template

if TYPE_CHECKING:
    from fastapi import FastAPI

    from service.console.parts import ConsoleParts
    from service.settings.project import Settings
    from service.settings.sections import FunctionLimitSettings, ServeSettings

Clock: TypeAlias = Callable[[], datetime]
DAY_SECONDS = 86_400
_STAGES = (*STAGES, "features", "functions", "model", "record")

_log = logging.getLogger(__name__)


def build(settings: Settings, clock: Clock) -> Service:
    """Return the service, loaded and ready to start; nothing is left open where that fails.

    Parameters
    ----------
    settings
        The project's.
    clock
        The time, UTC.

    Raises
    ------
    StoreInUse
        If another process has the store.
    SliceError, ModelError, ServiceError
        If functions or the champion cannot be loaded.
    """
    import torch

    torch.set_num_threads(1)  # one thread runs the model: more would only wait for one another
    settings.store.parent.mkdir(parents=True, exist_ok=True)
    survives: Synchronous = "FULL" if settings.log.survives == "power" else "NORMAL"
    fast = None if settings.clock is None else read_clock(settings.clock)
    clock = clock if fast is None else fast.over(clock)
    with ExitStack() as undo:
        store = undo.enter_context(Store(settings.store, synchronous=survives))
        writer = Writer(store, rules=LabelRules(settings.monitor.label_days * DAY_SECONDS))
        undo.callback(writer.stop)
        of_files = FunctionSet.from_files(settings.functions, votes=True)
        limits = FunctionLimits(**_given(settings.function_limits))
        added = _added(store)
        live = LiveFunctions(merge_functions(of_files, added), limits, sources=settings.functions)
        undo.callback(live.close)
        live.start()
        ground = _Ground(store, writer, of_files, added, live, 1.0 if fast is None else fast.speed)
        service = _connected(settings, clock, ground)
        undo.pop_all()
    return service


@dataclass(frozen=True, slots=True)
class _Ground:
    """What is open and running, and has to be closed again; and how fast the clock runs."""

    store: Store
    writer: Writer
    of_files: FunctionSet
    added: tuple[Template, ...]
    live: LiveFunctions
    speed: float


def _connected(settings: Settings, clock: Clock, ground: _Ground) -> Service:
    store, writer = ground.store, ground.writer
    metrics = _metrics(settings.name, writer)
    switchboard = _switchboard(settings, clock, ground, metrics)
    registry = ModelRegistry(settings.registry, name=settings.name)
    put_champion(registry, switchboard)
    watch_logged(store, switchboard)
    page, lines = MetricsPage(metrics), Lines(switchboard, settings.serve.queue_rows)
    desk = FunctionDesk(ground.of_files, ground.added, switchboard, writer, clock)
    given = LoopParts(store, writer, switchboard.current, page, metrics, registry, desk.declarations)
    looping = loop(settings, clock, given)
    jobs = Watching(store, writer, switchboard, page, metrics, registry, looping)
    monitor, schedule = watching(settings, clock, jobs, ground.speed)
    service = Service(schedule, monitor, looping, lines, switchboard, writer, store)
    parts = Parts(
        current=switchboard.current,
        store=store,
        writer=writer,
        metrics=metrics,
        page=page,
        predict=lines.predict,
        observe=lines.observe,
        has_room=lines.has_room,
        classes=lambda: switchboard.current.in_force.classes,
        add_function=desk.add,
        remove_function=desk.remove,
        preview=desk.preview,
        registry=registry,
        clock=clock,
        limits=_limits(settings.serve),
        problems=service.problems,
        retrain=looping.ask_retrain,
        promote=looping.ask_promote,
        rollback=looping.ask_rollback,
        report=looping.ask_report,
        report_html=looping.ask_page,
    )
    service.asgi = _application(
        parts, console_parts(parts, switchboard, settings, ground.speed), settings.serve
    )
    return service


def _switchboard(settings: Settings, clock: Clock, ground: _Ground, metrics: ProcessMetrics) -> Switchboard:
    recorder = PredictionFactory(clock, kept=kept_features(settings.log.features))
    fixed = Fixed(
        model=settings.name,
        label=settings.label,
        classes=settings.classes,
        recorder=recorder,
        writer=ground.writer,
        metrics=metrics,
        clock=clock,
        baseline=lambda version: baseline_of(ground.store, settings.name, version),
    )
    return Switchboard(fixed, ground.live, origins_of(ground.live.functions, ground.of_files))


def _metrics(model: str, writer: Writer) -> ProcessMetrics:
    return ProcessMetrics(
        model,
        routes=(*ROUTES, *PAGES),
        stages=_STAGES,
        shed_reasons=SHED_REASONS,
        log_queue_rows=lambda: writer.backlog_rows,
        jobs=JOBS,
    )


def _application(parts: Parts, pages: ConsoleParts, serve: ServeSettings) -> FastAPI:
    app = routes(parts)
    app.include_router(router(pages))
    # A page of another site can let its own name mean this machine, and would then be answered as one of ours.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts_of(serve), www_redirect=False)
    return app


def hosts_of(serve: ServeSettings) -> list[str]:
    """Return the names under which the service may be asked; any name where others are let in.

    Examples
    --------
    >>> from service.settings.sections import ServeSettings
    >>> hosts_of(ServeSettings(hosts=("shop.example",)))[-1], hosts_of(ServeSettings(insecure=True))
    ('shop.example', ['*'])
    """
    if serve.insecure and not serve.hosts:
        return ["*"]
    return ["localhost", "127.0.0.1", "::1", "[::1]", serve.host, *serve.hosts]


def kept_features(kept: Sequence[str]) -> Callable[[RecordFields], RecordFields | None]:
    """Return the feature policy: what of a record is kept, for ``all``, ``none``, or some columns.

    Examples
    --------
    >>> kept_features(["text"])({"text": "hi", "name": "Ada"}), kept_features(["none"])({"text": "hi"})
    ({'text': 'hi'}, None)
    """
    if tuple(kept) == ("all",):
        return lambda record: record
    if tuple(kept) == ("none",):
        return lambda record: None
    columns = frozenset(kept)
    return lambda record: {column: value for column, value in record.items() if column in columns}


def put_champion(registry: ModelRegistry, switchboard: Switchboard) -> None:
    """Let the champion answer, if there is one."""
    version = registry.alias(CHAMPION)
    if version is None:
        _log.warning(
            "no version is in force: `slicewatch train` makes one, which is then served; until it does, "
            "only predictions made elsewhere are taken, if `classes` is set"
        )
        return
    switchboard.put_version(load(registry, switchboard.live, version), registry.history(CHAMPION))


def _added(store: Store) -> tuple[Template, ...]:
    with store.read() as connection:
        kept = checkpoint(connection, CHECKPOINT)
    return read_added(None if kept is None else kept.state)


def _given(settings: FunctionLimitSettings) -> dict[str, Any]:
    return {name: value for name, value in asdict(settings).items() if value is not None}


def _limits(serve: ServeSettings) -> Limits:
    return Limits(serve.body_bytes, serve.request_rows, serve.request_labels, serve.request_seconds)
