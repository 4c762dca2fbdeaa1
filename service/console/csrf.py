"""Protection against cross-site requests: only forms of the console itself may change anything.

A page of another site can submit a form to this service from the reader's browser. Browsers state the origin of a
request in headers that pages cannot set.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request

from service.errors import MisuseError, ServiceError

FORM_TYPE = "application/x-www-form-urlencoded"
MAX_FORM_BYTES = 16_384
"""A character takes up to nine bytes."""


class CrossSiteRequest(ServiceError):
    """A form was not sent by a page of this service."""


def reject_cross_site(headers: Headers) -> None:
    """Refuse a form from outside this service.

    Parameters
    ----------
    headers
        Headers of the request; the name in ``host`` must have been checked before.

    Raises
    ------
    CrossSiteRequest
        If another origin sent the form, or the headers name no origin.
    """
    site, host = headers.get("sec-fetch-site"), headers.get("host", "").lower()
    if site is None:  # a browser that does not send it states the origin
        try:
            origin = urlsplit(headers.get("origin", ""))
        except ValueError:
            origin = urlsplit("")
        own = bool(host) and origin.scheme in ("http", "https") and origin.netloc.lower() == host
    else:
        own = site == "same-origin"
    if not own:
        raise CrossSiteRequest(
            "this form was not sent by a page of this service; open that page here, or use the HTTP API"
        )


async def read_form(request: Request) -> Mapping[str, str]:
    """Return the fields of a form.

    Raises
    ------
    MisuseError
        If the body is not a form, is too long, or cannot be decoded.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != FORM_TYPE:
        raise MisuseError(f"the content type is {kind or 'missing'}; send the form as {FORM_TYPE}")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_FORM_BYTES:
            raise MisuseError(f"the form is longer than {MAX_FORM_BYTES} bytes; shorten the note")
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=10))
    except ValueError:
        raise MisuseError("the form cannot be decoded; send it from its page") from None
