"""Scope of every route, and the check of a request's caller before its body is read."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response
from starlette.routing import compile_path
from starlette.types import Scope

from service.api.errors import error_response
from service.api.requests import RequestContext
from service.runtime.access import Forbidden, TooManyRequests, Unauthorized

if TYPE_CHECKING:
    from service.runtime.runtime import Runtime

OPEN = ""
"""Scope of a route that needs no key."""
ROUTES_OF_SCOPES = {
    OPEN: (
        "GET /healthz", "GET /readyz", "GET /openapi.json", "GET /console/console.css",
        "GET /login", "POST /login", "POST /logout",
    ),
    "metrics": ("GET /metrics",),
    "predict": ("POST /v1/predict", "POST /v1/predictions"),
    "labels": ("POST /v1/labels",),
    "read": (
        "GET /", "GET /slices/{name:path}", "GET /alarms", "GET /alarms/{id}", "GET /incidents/{id}", "GET /runs",
        "GET /runs/{id}", "GET /models", "GET /reports", "GET /reports/{id}",
        "GET /v1/predictions/{id:path}", "GET /v1/slices", "GET /v1/slices/{name}", "GET /v1/slices/{name}/records",
        "GET /v1/functions", "GET /v1/models", "GET /v1/models/{version}", "GET /v1/alarms", "GET /v1/alarms/{id}",
        "GET /v1/runs", "GET /v1/runs/{id}", "GET /v1/reports", "GET /v1/reports/{id}", "GET /v1/reports/{id}/html",
        "GET /v1/incidents", "GET /v1/incidents/{id}", "GET /v1/audit",
    ),
    "write": (
        "POST /alarms/{id}/acknowledge", "POST /v1/alarms/{id}/acknowledge", "POST /v1/alarms/{id}/resolve",
        "POST /alarms/{id}/accept", "POST /v1/alarms/{id}/accept",
        "POST /incidents/{id}/acknowledge", "POST /v1/incidents/{id}/acknowledge", "POST /v1/incidents/{id}/resolve",
        "POST /v1/functions", "DELETE /v1/functions/{name}", "POST /v1/functions/preview", "POST /v1/retrain",
        "POST /v1/reports",
    ),
    "admin": ("POST /v1/models/{version}/promote", "POST /v1/models/rollback"),
}  # fmt: skip
"""Methods and paths of all routes, by the scope that they need."""

SCOPES_BY_ROUTE = {
    (method, path): scope
    for scope, routes in ROUTES_OF_SCOPES.items()
    for method, path in (route.split(" ") for route in routes)
}
_PATTERNS = [(method, compile_path(path)[0], scope) for (method, path), scope in SCOPES_BY_ROUTE.items() if "{" in path]
_SAFE = ("GET", "HEAD")


def scope_of(method: str, path: str) -> str:
    """Return the scope that a request needs; ``admin`` for any that no route answers.

    Examples
    --------
    >>> scope_of("GET", "/v1/slices/short"), scope_of("POST", "/v1/models/2/promote"), scope_of("PUT", "/v1/labels")
    ('read', 'admin', 'admin')
    """
    method = "GET" if method == "HEAD" else method
    scope = SCOPES_BY_ROUTE.get((method, path))
    if scope is None:
        found = (scope for each, pattern, scope in _PATTERNS if each == method and pattern.match(path))
        scope = next(found, "admin")
    return scope


class Guard:
    """Check of the caller of every request.

    Parameters
    ----------
    runtime
        Knows the callers.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._access = runtime.access

    def refuse(self, scope: Scope, headers: dict[bytes, bytes], context: RequestContext) -> Response | None:
        """Return the answer to a request whose caller may not send it; else record the caller, and return None."""
        if not self._access.is_on(context.began):
            return None
        method, path = scope["method"], scope["path"]
        needed = scope_of(method, path)
        if needed == OPEN:
            return None
        client = scope.get("client")
        try:
            caller = self._access.caller(headers, scope["headers"], client[0] if client else "", context.began)
            context.caller, scope["state"]["caller"] = caller.name, caller
            caller.require(needed)
            if caller.is_ambient and method not in _SAFE:
                _require_own_page(path, headers)
        except Unauthorized as error:
            context.caller = error.caller
            has_token = headers.get(b"authorization", b"")[:7].lower() == b"bearer "
            is_page = not path.startswith("/v1/") and needed in ("read", "write") and not has_token
            return _sign_in(scope) if is_page else error_response(error, context.id)
        except (Forbidden, TooManyRequests) as error:
            context.caller = context.caller or error.caller
            return error_response(error, context.id)
        return None


def _require_own_page(path: str, headers: dict[bytes, bytes]) -> None:
    """Raise Forbidden for a change that a browser may have been led to; forms of the console check it themselves."""
    if not path.startswith("/v1/"):
        return
    site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
    if site is None:  # a browser that does not send it states the origin; other clients send neither
        is_own = origin is None or origin.lower().partition(b"://")[2] == headers.get(b"host", b"").lower()
    else:
        is_own = site in (b"same-origin", b"none")
    if not is_own:
        raise Forbidden("a page of another site sent this request: use a key")


def _sign_in(scope: Scope) -> Response:
    target = "/"
    if scope["method"] in _SAFE:  # as it was sent: a name in it may have %3F
        target = b"?".join(filter(None, (scope["raw_path"], scope["query_string"]))).decode("latin-1")
    return RedirectResponse(f"/login?next={quote(target, safe='')}", 303, headers={"cache-control": "no-store"})
