"""How bodies are read."""

import asyncio
import threading

import pytest
from starlette.requests import Request

from service.api.requests import LONG_BYTES, RequestContext, run_off_loop


@pytest.mark.parametrize(("body_bytes", "in_a_thread"), [(LONG_BYTES, False), (LONG_BYTES + 1, True)])
def test_a_long_body_is_read_in_a_thread(body_bytes, in_a_thread):
    """Other requests go on meanwhile; a short one would only take longer for it."""
    here = RequestContext("id", 0.0, body_bytes=body_bytes)
    request = Request({"type": "http", "state": {"context": here}})
    thread = asyncio.run(run_off_loop(request, threading.get_ident))
    assert (thread != threading.get_ident()) is in_a_thread
