"""The web application: API and console over one runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.middleware.trustedhost import TrustedHostMiddleware

from service.api.app import create_api
from service.console.parts import ConsoleParts, Promises
from service.console.router import PAGES, router

if TYPE_CHECKING:
    from fastapi import FastAPI

    from service.runtime.runtime import Runtime
    from service.settings.schema import ServeSettings


def create_app(runtime: Runtime) -> FastAPI:
    """Return the application; starting and stopping the runtime is up to the caller."""
    app = create_api(runtime)
    app.include_router(router(_console_parts(runtime)))
    runtime.metrics.add_routes(PAGES)
    # A page of another site can resolve its own host name to this machine, and would be answered as if it were ours.
    app.add_middleware(
        TrustedHostMiddleware, allowed_hosts=allowed_hosts(runtime.settings.serve), www_redirect=False
    )
    return app


def allowed_hosts(serve: ServeSettings) -> list[str]:
    """Return the host names that requests may use; any name if the service is open to other machines.

    Examples
    --------
    >>> from service.settings.schema import ServeSettings
    >>> allowed_hosts(ServeSettings(hosts=("shop.example",)))[-1], allowed_hosts(ServeSettings(insecure=True))
    ('shop.example', ['*'])
    """
    if serve.insecure and not serve.hosts:
        return ["*"]
    return ["localhost", "127.0.0.1", "::1", "[::1]", serve.host, *serve.hosts]


def _console_parts(runtime: Runtime) -> ConsoleParts:
    drift, model = runtime.settings.drift, runtime.model

    def example() -> Mapping[str, Any] | None:
        active = model.deployment.state.active
        if active is None:
            return None
        record = active.bundle.sample[0] if active.bundle.sample else {}
        return {column: record.get(column) for column in active.bundle.feature_columns}

    return ConsoleParts(
        deployment=model.deployment,
        store=runtime.store,
        clock=runtime.clock,
        writer=runtime.writer,
        registry=model.registry,
        failures=runtime.metrics.unknown_rows,
        example=example,
        promises=Promises(
            tolerance=drift.tolerance,
            accuracy_tolerance=drift.accuracy_tolerance,
            false_alarms_a_month=drift.false_alarms_a_month,
            max_slices=drift.max_slices,
            report_hours=runtime.settings.report.every_hours,
        ),
        speed=runtime.speed,
    )
