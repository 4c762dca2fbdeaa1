"""How bodies are read."""

import asyncio
import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from service.api.errors import TooLarge
from service.api.requests import CONTAINER_VALUES, LONG_BYTES, RequestContext, require_few_values, run_off_loop


@pytest.mark.parametrize(("body_bytes", "in_a_thread"), [(LONG_BYTES, False), (LONG_BYTES + 1, True)])
def test_a_long_body_is_read_in_a_thread(body_bytes, in_a_thread):
    """Other requests go on meanwhile; a short one would only take longer for it."""
    here = RequestContext("id", 0.0, body_bytes=body_bytes)
    request = Request({"type": "http", "state": {"context": here}})
    thread = asyncio.run(run_off_loop(request, threading.get_ident))
    assert (thread != threading.get_ident()) is in_a_thread


def values_of(value):
    """Return the count of values as the documentation says it, by reading them."""
    if isinstance(value, (list, dict)):
        inner = value.values() if isinstance(value, dict) else value
        return CONTAINER_VALUES + sum(map(values_of, inner)) + max(0, len(value) - 1)
    return 0


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('a,[{"\\\\}]', max_size=9),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text('b,{"\\\\', max_size=5), inner, max_size=5),
    max_leaves=40,
)


@given(JSON_VALUES)
def test_values_are_counted_outside_of_strings(value):
    """Commas and brackets in texts and names are no values, whatever is escaped around them."""
    body, count = json.dumps(value).encode(), values_of(value)
    require_few_values(body, count)
    if count:
        with pytest.raises(TooLarge):
            require_few_values(body, count - 1)


@pytest.mark.parametrize(
    ("body", "refused"),
    [
        (b"[" + b"[]," * 1_300_000 + b"[]]", True),
        (b"[" + b"1," * 700_000 + b"1]", True),
        (b"[" + b'"",' * 700_000 + b"1]", True),
        (b'{"text":"' + b"a, b [c], " * 400_000 + b'"}', False),
        (b'{"text":"' + b'\\"[],[],' * 400_000 + b'"}', False),
        (b'{"text":"' + b"," * 65_536 * 2 + b'","n":[' + b"1," * 700_000 + b"1]}", True),
        (b"[" + b",".join([b"[" + b"1.5," * 499 + b"1]"] * 1_000) + b"]", False),
    ],
)
def test_a_body_of_too_many_values_is_refused_unread(body, refused):
    """A long text is not, whatever is in it."""
    if refused:
        with pytest.raises(TooLarge, match=r"more than 600000 JSON values.*serve.body_values"):
            require_few_values(body, 600_000)
    else:
        require_few_values(body, 600_000)


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predictions", "/v1/labels", "/v1/functions", "/v1/runs"])
def test_every_body_is_counted(service, path):
    """The limit is a setting, and the answer names it."""
    path = "/v1/retrain" if path == "/v1/runs" else path
    service.limit(body_values=20)
    answer = service.post(path, {"instances": [[]] * 5})
    assert (answer.status_code, "serve.body_values" in answer.json()["detail"]) == (413, True)


def test_deep_json_is_refused_by_its_depth(service):
    """The reader stops at a depth before it makes any value."""
    body = b'{"instances":' + b"[" * 30_000 + b"]" * 30_000 + b"}"
    answer = service.post("/v1/predict", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "recursion limit" in answer.json()["detail"]
