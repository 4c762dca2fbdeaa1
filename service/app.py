"""The web application: API and console over one runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.api.app import create_api
from service.console.router import PAGES, router
from service.settings.schema import is_loopback

if TYPE_CHECKING:
    from fastapi import FastAPI

    from service.runtime.runtime import Runtime
    from service.settings.schema import ServeSettings


def create_app(runtime: Runtime) -> FastAPI:
    """Return the application; starting and stopping the runtime is up to the caller."""
    app = create_api(runtime, allowed_hosts(runtime.settings.serve))
    app.include_router(router(runtime))
    runtime.metrics.add_routes(PAGES)
    return app


def allowed_hosts(serve: ServeSettings) -> list[str]:
    """Return the host names that requests may use; any name if the service is open to other machines.

    A page of another site that resolves its name to this machine has no key, and its cookies are its own; but it may
    reach the service from the address of a trusted proxy, and name a user.

    Examples
    --------
    >>> from service.settings.schema import ServeSettings
    >>> allowed_hosts(ServeSettings(hosts=("shop.example",)))[-1], allowed_hosts(ServeSettings(insecure=True))
    ('shop.example', ['*'])
    >>> allowed_hosts(ServeSettings(host="10.0.0.5", trust_proxy={"address": "10.0.0.5"}))[-1]
    '10.0.0.5'
    """
    if not serve.hosts and (serve.insecure or not (serve.trust_proxy or is_loopback(serve.host))):
        return ["*"]
    return ["localhost", "127.0.0.1", "::1", "[::1]", serve.host, *serve.hosts]
