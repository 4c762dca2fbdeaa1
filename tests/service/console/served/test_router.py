"""The routes answer with pages, also where something is wrong."""

import asyncio
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from urllib.parse import quote

import httpx
import pytest
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI

from service.console.parts import ConsoleParts
from service.console.router import router
from service.errors import ServiceError
from service.events import FunctionSetVersion
from sfs.registry import FunctionSet
from sfs.template import template

NOW = datetime(2026, 5, 1, 12, 0, 7, tzinfo=UTC)
EVIL = '"><script>alert("1")</script>'


def test_the_overview_shows_what_was_counted(busy):
    """Rows, labels and members are those of the log."""
    answer = busy.get("/", window="1h")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "420" in answer.text
    assert "47.6% of the predictions" in answer.text
    assert "it took 61 ms" in answer.text


def test_every_page_forbids_what_it_does_not_need(busy):
    """No page may load, run, send or be framed anywhere; none sets a cookie; errors are no exception."""
    for path in ("/", "/slices/short", "/slices/nothing", "/?window=1y"):
        headers = busy.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self';")
        assert "unsafe" not in policy
        assert "script" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "set-cookie" not in headers


def test_the_style_sheet_is_ours(busy):
    """The address in the page gives the style sheet, which may be kept for ever."""
    address = busy.get("/").text.split('rel="stylesheet" href="')[1].split('"')[0]
    answer = busy.get(address)
    assert answer.headers["content-type"].startswith("text/css")
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize("name", ["short", "links", EVIL, "asks/what?", "__all__", "__none__"])
@pytest.mark.parametrize("kind", ["errors", "correct", "unlabelled", "unknown", "all"])
def test_every_slice_has_a_page(busy, name, kind):
    """Whatever characters are in a name, its link leads to its page, and nothing on it is markup of others."""
    answer = busy.get(f"/slices/{quote(name, safe='')}", kind=kind)
    assert answer.status_code == 200
    assert "<script" not in answer.text
    assert "<img" not in answer.text


NAMES = (
    "two words",
    " spaced ",
    "größe 😀",
    "100%",
    "%2F",
    "%",
    "a?b=c",
    "#1",
    "a&b;c",
    "x+y",
    "...",
    "a/../b",
    "//",
    "back\\slash",
    "'\"<>",
)


def test_every_name_has_a_link_that_leads_to_it(world):
    """Whatever characters are in names, the overview's link leads to the page of that slice."""
    made = world(rows=3, labels=0)
    functions = FunctionSet([template(name, missing={"field": "text"}) for name in NAMES])
    prints = tuple(functions.fingerprints.values())
    kept = FunctionSetVersion(functions.hash, functions.names, prints, NOW)
    made.writer.record_functions(kept).result()
    made.current.in_force = replace(
        made.current.in_force,
        functions=functions,
        functions_version=kept,
        metadata={each.name: each.metadata for each in functions},
        origins=dict.fromkeys(NAMES, "file"),
        references={},
    )
    made.tick()
    links = set(re.findall(r'href="(/slices/[^"]*)"', made.get("/").text))
    headings = [re.search(r"<h1>(.*?)</h1>", made.get(unescape(link)).text, re.DOTALL)[1] for link in links]
    assert set(map(unescape, headings)) >= set(NAMES)


def test_an_unknown_slice_is_a_page_that_leads_back(busy):
    """A slice that is not there is 404, with a link."""
    answer = busy.get("/slices/<b>nobody</b>")
    assert answer.status_code == 404
    assert "No slice is called &#39;&lt;b&gt;nobody&lt;/b&gt;&#39;" in answer.text
    assert '<a href="/">Back to the slices</a>' in answer.text


def test_every_link_of_the_overview_leads_somewhere(busy):
    """No choice that the page offers is refused."""
    links = set(re.findall(r'href="(/[^"]*)"', busy.get("/").text)) - {"/metrics", "/openapi.json"}
    assert len(links) > 15
    assert {link: busy.get(link.replace("&amp;", "&")).status_code for link in links} == dict.fromkeys(
        links, 200
    )


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/?window=1y", "window"),
        ("/?sort=best", "sort"),
        ("/?refresh=1", "refresh"),
        ("/?refresh=often", "refresh"),
        ("/?q=" + "x" * 201, "q"),
        ("/slices/short?kind=wrong", "kind"),
        ("/slices/short?cursor=yesterday", "cursor"),
        ("/slices/short?cursor=9-99999999999999999999", "cursor"),
    ],
)
def test_an_address_that_cannot_be_is_explained(busy, path, field):
    """A wrong choice is 422, as a page that names it."""
    answer = busy.get(path)
    assert answer.status_code == 422
    assert f"<p>{field.capitalize()}: " in answer.text


def test_all_records_can_be_reached(busy):
    """Following the link to older records shows every prediction once."""
    path, seen = "/slices/__all__?kind=all", []
    while path:
        text = busy.get(path).text
        seen += [each.split("</code>")[0] for each in text.split("<code>row ")[1:]]
        before = text.split("older →")[0].rsplit('href="', 1)[1].split("#")[0]
        path = before.replace("&amp;", "&") if "older →" in text else ""
    assert sorted(map(int, seen)) == list(range(420))


def test_what_the_service_cannot_do_now_is_a_page(world):
    """A refusal of the parts is 503, with its words."""
    made = world(rows=0, labels=0)
    made.tick()

    def fail():
        raise ServiceError("the functions are being replaced: try again")

    made.current.health = fail
    answer = made.get("/")
    assert answer.status_code == 503
    assert "The functions are being replaced: try again" in answer.text
    assert answer.headers["content-security-policy"]


def test_pages_take_no_thread_of_others(world):
    """However many are asked for at once, those threads that everything else shares stay free."""
    made = world(rows=0, labels=0)
    made.tick()
    begun, let_go = threading.Semaphore(0), threading.Event()

    def clock():
        begun.release()
        assert let_go.wait(30)
        return NOW

    app = FastAPI()
    app.include_router(router(ConsoleParts(made.current, made.store, clock)))

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            pages = [asyncio.create_task(client.get(path)) for path in ["/", "/slices/short"] * 5]
            assert await asyncio.to_thread(begun.acquire, timeout=30)
            taken = current_default_thread_limiter().borrowed_tokens
            let_go.set()
            return taken, {(await page).status_code for page in pages}

    assert asyncio.run(ask()) == (0, {200})


def test_before_the_first_snapshot(world):
    """The pages say when the first figures come."""
    made = world(rows=0, labels=0)
    for path in ("/", "/slices/short"):
        answer = made.get(path)
        assert answer.status_code == 200
        assert "in at most 10 s" in answer.text
        assert '<meta http-equiv="refresh" content="10">' in answer.text


def test_without_a_model(world):
    """The page says how to train one, or to log another's predictions."""
    text = world(rows=0, labels=0, version=None).get("/").text
    assert "slicewatch train" in text
    assert "http://here/v1/predictions" in text


def test_a_window_that_is_not_there(world):
    """A version that was never promoted has no window since then."""
    made = world(rows=0, labels=0)
    made.current.in_force = replace(made.current.in_force, promoted_at=None)
    made.tick()
    for path in ("/", "/slices/short"):
        answer = made.get(path, window="since_promotion")
        assert answer.status_code == 200
        assert "was never promoted" in answer.text
        assert f'<a href="{path}">The last hour</a>' in answer.text


def test_the_label_to_send_is_of_a_prediction_that_is_there(world):
    """The command names a prediction without a label."""
    made = world(labels=0)
    made.tick()
    text = made.get("/").text
    assert "&#34;id&#34;: &#34;row " in text
