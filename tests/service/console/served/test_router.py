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
from service.decisions import DriftDetected
from service.errors import ServiceError
from service.events import FunctionSetVersion
from service.store.alarms import alarm, open_alarm, resolve_alarm
from service.store.audit import entries_about
from sfs.registry import FunctionSet
from sfs.template import template

NOW = datetime(2026, 5, 1, 12, 0, 7, tzinfo=UTC)
OURS = {"sec-fetch-site": "same-origin"}
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
    for path in ("/", "/slices/short", "/slices/nothing", "/?window=1y", "/alarms", "/alarms/4", "/runs/99"):
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


ELSEWHERE = re.compile(r"/metrics|/openapi.json|/v1/reports/\d+/html")


@pytest.mark.parametrize(
    "path",
    ["/", "/alarms", "/alarms/2", "/runs", "/runs/4", "/models", "/reports", "/reports/1", "/slices/short"],
)
def test_every_link_of_a_page_leads_somewhere(busy, path):
    """No choice that a page offers is refused."""
    links = {unescape(link).split("#")[0] for link in re.findall(r'href="(/[^"]*)"', busy.get(path).text)}
    links = {link for link in links if not ELSEWHERE.fullmatch(link)}
    known = {quote(name, safe="") for name in busy.current.in_force.functions.names} | {"__all__"}
    links -= {
        link
        for link in links
        if link.startswith("/slices/") and link.split("/")[2].split("?")[0] not in known
    }
    links -= {link for link in links if link == "/alarms/7"}  # which the made-up runs name, and is not there
    assert len(links) > 5
    assert {link: busy.get(link).status_code for link in links} == dict.fromkeys(links, 200)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/alarms/99", "No such alarm"),
        ("/runs/99", "No such run"),
        ("/reports/99", "No such report"),
    ],
)
def test_what_is_not_there_is_a_page(busy, path, said):
    """An id that nothing has is 404."""
    answer = busy.get(path)
    assert answer.status_code == 404
    assert f"<h1>{said}</h1>" in answer.text


@pytest.mark.parametrize(
    "path",
    ["/alarms/0", "/alarms/x", "/alarms/99999999999999999999", "/alarms?before=0", "/alarms?which=some"],
)
def test_a_number_that_cannot_be_is_explained(busy, path):
    """It is 422, as a page."""
    answer = busy.get(path)
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("text/html")


def test_pages_of_lists_follow_each_other(world, pages):
    """Going on by the link to older ones shows every alarm once, resolved or not."""
    made = world(rows=0, labels=0)

    def work(connection):
        for k in range(130):
            opened = open_alarm(connection, "spam", 4, DriftDetected(NOW, pages.drift(f"s{k}")))
            if k % 2:
                resolve_alarm(connection, opened.id, NOW, "by hand")

    made.do(work)
    for which, rest in (("unresolved", 1), ("resolved", 0)):
        path, seen = f"/alarms?which={which}", []
        while path:
            text = made.get(path).text
            seen += map(int, re.findall(r'<tr id="alarm-(\d+)"', text))
            older = re.search(r'<a href="([^"]+)">older', text)
            path = unescape(older[1]) if older else ""
        assert seen == [each for each in range(130, 0, -1) if each % 2 == rest]


def test_resolved_and_standing_alarms_are_told_apart(busy):
    """Each choice shows its own; the first page shows both, what stands first."""
    ids = {
        which: re.findall(r'<tr id="alarm-(\d+)"', busy.get("/alarms", which=which).text)
        for which in ("all", "unresolved", "resolved")
    }
    assert ids == {"all": ["4", "2", "3", "1"], "unresolved": ["4", "2"], "resolved": ["3", "1"]}


def test_an_alarm_is_acknowledged_by_our_form(desk, pages):
    """The form is kept with who sent it, in one line each, in the audit as well, and leads back to the alarm."""
    opened = desk.do(lambda c: open_alarm(c, "spam", 4, DriftDetected(NOW, pages.drift())))
    path = f"/alarms/{opened.id}/acknowledge"
    answer = desk.post(path, {"by": " Ada \r\n Möller\x00", "note": "a\tb"}, **OURS)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/alarms/{opened.id}")
    with desk.store.read() as connection:
        kept, told = alarm(connection, opened.id), entries_about(connection, f"alarm {opened.id}")
    assert (kept.state, kept.acknowledged_by, kept.note) == ("acknowledged", "Ada Möller", "a b")
    assert [each.action for each in told] == ["alarm.opened", "alarm.acknowledged"]


@pytest.mark.parametrize(
    ("fields", "headers", "status"),
    [
        ({"by": "Ada"}, {}, 403),
        ({"by": "Ada"}, {"sec-fetch-site": "cross-site"}, 403),
        ({"by": "Ada"}, {"origin": "http://here"}, 303),
        ({"by": "Ada"}, {"origin": "http://there"}, 403),
        ({"by": " \n"}, {"sec-fetch-site": "same-origin"}, 422),
        ({}, {"sec-fetch-site": "same-origin"}, 422),
        ({"by": "A" * 101}, {"sec-fetch-site": "same-origin"}, 422),
        ({"by": "Ada", "note": "n" * 1001}, {"sec-fetch-site": "same-origin"}, 422),
        ({"by": "Ada", "note": "n" * 20_000}, {"sec-fetch-site": "same-origin"}, 422),
        ({"by": "Ada", "note": "😀" * 1000}, {"sec-fetch-site": "same-origin"}, 303),
        ({f"f{k}": "x" for k in range(20)}, {"sec-fetch-site": "same-origin"}, 422),
        ({"by": "Ada"}, {"sec-fetch-site": "same-origin", "content-type": "text/plain"}, 422),
        ({"by": "Ada"}, {"sec-fetch-site": "same-origin", "content-type": "application/json"}, 422),
    ],
)
def test_only_good_forms_of_ours_are_taken(desk, pages, request, fields, headers, status):
    """Forms of others, and those that say too little or too much, change nothing."""
    found = pages.drift(request.node.name)
    opened = desk.do(lambda c: open_alarm(c, "spam", 4, DriftDetected(NOW, found)))
    assert desk.post(f"/alarms/{opened.id}/acknowledge", fields, **headers).status_code == status
    with desk.store.read() as connection:
        assert (alarm(connection, opened.id).state == "open") is (status != 303)


def test_what_has_ended_or_is_not_there_is_not_acknowledged(busy):
    """A resolved alarm is 409, one that is not there is 404, and other methods than POST are none."""
    assert busy.post("/alarms/1/acknowledge", {"by": "Ada"}, **OURS).status_code == 409
    assert busy.post("/alarms/99/acknowledge", {"by": "Ada"}, **OURS).status_code == 404
    assert busy.get("/alarms/1/acknowledge").status_code == 405


def test_why_a_function_fails_is_said(busy):
    """The page of a slice counts the reasons, largest first; that of another has no such part."""
    text = busy.get("/slices/short").text
    assert text.index("KeyError") < text.index("&gt;&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;</th>")
    assert "Why its function gave no answer" not in busy.get("/slices/links").text


def test_a_damaged_version_does_not_say_where_it_lies(busy):
    """Folders of this machine are not on the page."""
    text = busy.get("/models").text
    assert "versions/000001/config.json is missing" in text
    assert str(busy.registry.path(1)) not in text


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
