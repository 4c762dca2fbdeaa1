"""The web application: API and console over one runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.middleware.trustedhost import TrustedHostMiddleware

from service.api.app import create_api
from service.console.router import PAGES, router

if TYPE_CHECKING:
    from fastapi import FastAPI

    from service.runtime.runtime import Runtime
    from service.settings.schema import ServeSettings


def create_app(runtime: Runtime) -> FastAPI:
    """Return the application; starting and stopping the runtime is up to the caller."""
    app = create_api(runtime)
    app.include_router(router(runtime))
    runtime.metrics.add_routes(PAGES)
    # DNS rebinding: a page of another site can resolve its own host name to this machine.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=allowed_hosts(runtime.settings.serve), www_redirect=False)
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
