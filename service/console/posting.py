"""What forms of our own pages may do, and that only they may.

A page of another site can send a form here, and the reader's browser takes it along; it cannot say that it is
one of ours. Browsers say where a request comes from in headers that pages cannot set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request

from service.console.parts import ConsoleParts
from service.console.turns import Turns
from service.decisions import Alarm
from service.errors import MisuseError, ServiceError
from service.store.alarms import acknowledge_alarm
from service.views.alarms import alarm_view

FORM = "application/x-www-form-urlencoded"
MOST_BYTES = 16_384
"""Of a form; encoded, a character may take nine."""
NAME_CHARACTERS, NOTE_CHARACTERS = 100, 1000


class NotOurs(ServiceError):
    """A form that none of our pages has sent."""


def refuse_others(headers: Headers) -> None:
    """Refuse a form that did not come from a page of this service.

    Parameters
    ----------
    headers
        Of the request; that the name in ``host`` is one of ours has been looked at before.

    Raises
    ------
    NotOurs
        If a page of another origin sent it, or nothing says that one of ours did.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin", "")
    host = headers.get("host", "").lower()
    ours = site == "same-origin" if site is not None else bool(host) and _place(origin) == host
    if not ours:
        raise NotOurs(
            "this form was not sent by a page of this service, so nothing was changed; "
            "open the alarm here, or use POST /v1/alarms/ID/acknowledge"
        )


async def form_of(request: Request) -> Mapping[str, str]:
    """Return the fields of a form.

    Raises
    ------
    MisuseError
        If it is no form, too long, or cannot be read.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != FORM:
        raise MisuseError(f"a form is sent as {FORM}, not as {kind or 'nothing that is named'}")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise MisuseError(f"the form is longer than {MOST_BYTES} bytes: say it in fewer words")
    try:
        return dict(
            parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=10)
        )
    except ValueError:
        raise MisuseError("the form cannot be read: send it from the page of the alarm") from None


async def acknowledge(parts: ConsoleParts, turns: Turns, alarm_id: int, fields: Mapping[str, str]) -> Alarm:
    """Keep that somebody knows of an alarm, and return it.

    Raises
    ------
    MisuseError
        If the form does not say who it is, or says too much.
    UnknownAlarm, AlarmResolved
        If there is no such alarm, or it has ended.
    ServiceError
        If alarms cannot be acknowledged here.
    """
    by = _text("your name", fields.get("by", ""), NAME_CHARACTERS)
    note = _text("the note", fields.get("note", ""), NOTE_CHARACTERS)
    if not by:
        raise MisuseError("say who acknowledges the alarm: the name is empty")
    if parts.writer is None:
        raise ServiceError("alarms cannot be acknowledged here: use POST /v1/alarms/ID/acknowledge")
    model = parts.deployment.state.model
    await turns.run(lambda: alarm_view(parts.store, model, alarm_id))  # another model's are not known here
    work = partial(acknowledge_alarm, alarm_id=alarm_id, at=parts.clock(), by=by, note=note)
    return await asyncio.wrap_future(parts.writer.submit(work))


def _place(origin: str) -> str:
    """Return host and port of an origin; empty where it is none, such as ``null``."""
    try:
        found = urlsplit(origin)
    except ValueError:
        return ""
    return found.netloc.lower() if found.scheme in ("http", "https") else ""


def _text(name: str, value: str, most: int) -> str:
    text = " ".join("".join(each if each.isprintable() else " " for each in value).split())
    if len(text) > most:
        raise MisuseError(f"{name} has {len(text)} characters, and may have {most}")
    return text
