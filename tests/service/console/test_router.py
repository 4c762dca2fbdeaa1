"""Routes of the console on a real runtime: pages, errors, links, forms and security headers."""

import asyncio
import re
import threading
from dataclasses import replace
from html import unescape
from urllib.parse import quote

import httpx
import pytest
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from page_factories import EVIL, NOW, drift

from service.console.router import router
from service.decisions import DriftDetected
from service.store.alarms import alarm, open_alarm, resolve_alarm
from service.store.audit import entries_about
from service.store.incidents import assign_alarms
from sfs.registry import FunctionSet
from sfs.template import template

OWN = {"sec-fetch-site": "same-origin"}


def test_the_overview_shows_the_figures_of_the_log(busy):
    """Rows, labels, members and the health of functions come from the runtime."""
    answer = busy.get("/", window="1h")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "420" in answer.text
    assert "47.6% of the predictions" in answer.text
    assert "it took 61 ms" in answer.text


def test_every_page_has_security_headers(busy):
    """Pages and errors load nothing, run no script, cannot be framed, and set no cookie."""
    for path in ("/", "/slices/short", "/slices/nothing", "/?window=1y", "/alarms", "/alarms/4", "/runs/99"):
        headers = busy.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'self';")
        assert "unsafe" not in policy
        assert "script" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "set-cookie" not in headers


def test_the_style_sheet_is_served(busy):
    """The address in the page leads to the style sheet, which can be cached forever."""
    address = busy.get("/").text.split('rel="stylesheet" href="')[1].split('"')[0]
    answer = busy.get(address)
    assert answer.headers["content-type"].startswith("text/css")
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize("name", ["short", "links", EVIL, "asks/what?", "__all__", "__none__"])
@pytest.mark.parametrize("kind", ["errors", "correct", "unlabelled", "unknown", "all"])
def test_every_slice_has_a_page(busy, name, kind):
    """A name with any characters has a page, on which foreign markup is escaped."""
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


def test_every_name_has_a_working_link(world):
    """The overview links to the page of a slice with any characters in its name."""
    made = world(rows=3, labels=0)
    made.activate(FunctionSet([template(name, missing={"field": "text"}) for name in NAMES]), references={})
    made.take_snapshot()
    links = set(re.findall(r'href="(/slices/[^"]*)"', made.get("/").text))
    headings = [re.search(r"<h1>(.*?)</h1>", made.get(unescape(link)).text, re.DOTALL)[1] for link in links]
    assert set(map(unescape, headings)) >= set(NAMES)


def test_an_unknown_slice_is_answered_with_a_page(busy):
    """The status is 404, with a link to the overview."""
    answer = busy.get("/slices/<b>none</b>")
    assert answer.status_code == 404
    assert "There is no slice &#39;&lt;b&gt;none&lt;/b&gt;&#39;" in answer.text
    assert '<a href="/">Back to the slices</a>' in answer.text


ELSEWHERE = re.compile(r"/metrics|/openapi.json|/v1/reports/\d+/html")


@pytest.mark.parametrize(
    "path",
    ["/", "/alarms", "/alarms/2", "/runs", "/runs/4", "/models", "/reports", "/reports/1", "/slices/short"],
)
def test_every_link_of_a_page_works(busy, path):
    """Every link of a page is answered with 200."""
    links = {unescape(link).split("#")[0] for link in re.findall(r'href="(/[^"]*)"', busy.get(path).text)}
    links = {link for link in links if not ELSEWHERE.fullmatch(link)}
    known = {quote(name, safe="") for name in busy.runtime.model.deployment.state.functions.names} | {"__all__"}
    links -= {link for link in links if link.startswith("/slices/") and link.split("/")[2].split("?")[0] not in known}
    links -= {link for link in links if link == "/alarms/7"}  # named by runs, but missing
    assert len(links) > 5
    assert {link: busy.get(link).status_code for link in links} == dict.fromkeys(links, 200)


@pytest.mark.parametrize(
    ("path", "heading"),
    [
        ("/alarms/99", "No such alarm"),
        ("/runs/99", "No such run"),
        ("/reports/99", "No such report"),
    ],
)
def test_an_unknown_id_is_answered_with_a_page(busy, path, heading):
    """The status is 404."""
    answer = busy.get(path)
    assert answer.status_code == 404
    assert f"<h1>{heading}</h1>" in answer.text


@pytest.mark.parametrize(
    "path",
    ["/alarms/0", "/alarms/x", "/alarms/99999999999999999999", "/alarms?before=0", "/alarms?which=some"],
)
def test_an_invalid_number_is_answered_with_a_page(busy, path):
    """The status is 422."""
    answer = busy.get(path)
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("text/html")


def test_older_alarms_are_reached_page_by_page(world):
    """Following the links to older alarms shows every alarm once, resolved or not."""
    made = world(rows=0, labels=0)

    def work(connection):
        for k in range(130):
            opened = open_alarm(connection, "spam", 4, DriftDetected(NOW, drift(f"s{k}")))
            if k % 2:
                resolve_alarm(connection, opened.id, NOW, "by hand")

    made.write(work)
    for which, rest in (("unresolved", 1), ("resolved", 0)):
        path, seen = f"/alarms?which={which}", []
        while path:
            text = made.get(path).text
            seen += map(int, re.findall(r'<tr id="alarm-(\d+)"', text))
            older = re.search(r'<a href="([^"]+)">older', text)
            path = unescape(older[1]) if older else ""
        assert seen == [each for each in range(130, 0, -1) if each % 2 == rest]


def test_alarms_are_filtered_by_state(busy):
    """Each filter shows its own alarms; without one, unresolved alarms come first."""
    ids = {
        which: re.findall(r'<tr id="alarm-(\d+)"', busy.get("/alarms", which=which).text)
        for which in ("all", "unresolved", "resolved")
    }
    assert ids == {"all": ["4", "2", "3", "1"], "unresolved": ["4", "2"], "resolved": ["3", "1"]}


def test_the_form_acknowledges_an_alarm(desk):
    """Name and note are stored on one line each, and the response redirects to the alarm."""
    opened = desk.open_alarm()
    path = f"/alarms/{opened.id}/acknowledge"
    answer = desk.post(path, {"by": " Ada \r\n Möller\x00", "note": "a\tb"}, **OWN)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/alarms/{opened.id}")
    with desk.runtime.store.read() as connection:
        kept, told = alarm(connection, opened.id), entries_about(connection, f"alarm {opened.id}")
    assert (kept.state, kept.acknowledged_by, kept.note) == ("acknowledged", "Ada Möller", "a b")
    assert [each.action for each in told] == ["alarm.opened", "alarm.acknowledged"]


def test_the_form_acknowledges_an_incident(desk):
    """With all its alarms; forms of other sites change nothing, and an unknown incident is not found."""
    opened = [desk.open_alarm(name).id for name in ("cause", "effect")]
    moved = dict.fromkeys(opened, "by itself")
    number = desk.write(lambda c: assign_alarms(c, "spam", opened, moved)).id
    path = f"/incidents/{number}/acknowledge"
    assert desk.post(path, {"by": "Ada"}).status_code == 403
    answer = desk.post(path, {"by": "Ada", "note": "mine"}, **OWN)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/incidents/{number}")
    page = desk.get(f"/incidents/{number}").text
    assert "by Ada: mine" in page
    with desk.runtime.store.read() as connection:
        assert {alarm(connection, id_).acknowledged_by for id_ in opened} == {"Ada"}
    assert (
        desk.get("/incidents/99").status_code == desk.post("/incidents/99/acknowledge", {"by": "A"}, **OWN).status_code
    )
    assert "No such incident" in desk.get("/incidents/99").text


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
def test_only_valid_forms_of_the_console_are_accepted(desk, request, fields, headers, status):
    """Forms of other sites, and invalid ones, change nothing."""
    opened = desk.open_alarm(request.node.name)
    assert desk.post(f"/alarms/{opened.id}/acknowledge", fields, **headers).status_code == status
    with desk.runtime.store.read() as connection:
        assert (alarm(connection, opened.id).state == "open") is (status != 303)


def test_resolved_and_unknown_alarms_are_not_acknowledged(busy):
    """The status is 409 for a resolved alarm, 404 for an unknown one, and 405 for GET."""
    assert busy.post("/alarms/1/acknowledge", {"by": "Ada"}, **OWN).status_code == 409
    assert busy.post("/alarms/99/acknowledge", {"by": "Ada"}, **OWN).status_code == 404
    assert busy.get("/alarms/1/acknowledge").status_code == 405


def test_failures_of_a_function_are_shown(busy):
    """The page of a slice has the reasons, most frequent first; other pages have none."""
    text = busy.get("/slices/short").text
    assert text.index("KeyError") < text.index("&gt;&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;</th>")
    assert "Function failures" not in busy.get("/slices/links").text


def test_a_damaged_version_does_not_disclose_its_path(busy):
    """Paths of the server are not on the page."""
    text = busy.get("/models").text
    assert "versions/000001/config.json is missing" in text
    assert str(busy.runtime.model.registry.path(1)) not in text


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
def test_invalid_query_parameters_are_named(busy, path, field):
    """The status is 422, and the page names the parameter."""
    answer = busy.get(path)
    assert answer.status_code == 422
    assert f"<p>{field.capitalize()}: " in answer.text


def test_all_records_are_reached_page_by_page(busy):
    """Following the links to older records shows every prediction once."""
    path, seen = "/slices/__all__?kind=all", []
    while path:
        text = busy.get(path).text
        seen += [each.split("</code>")[0] for each in text.split("<code>row ")[1:]]
        before = text.split("older →")[0].rsplit('href="', 1)[1].split("#")[0]
        path = before.replace("&amp;", "&") if "older →" in text else ""
    assert sorted(map(int, seen)) == list(range(420))


def test_an_error_of_the_service_is_answered_with_a_page(world):
    """An unreadable registry is 503, with the reason and the security headers."""
    made = world(rows=0, labels=0)
    folder = made.runtime.settings.registry / "spam"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("no folder")
    answer = made.get("/models")
    assert answer.status_code == 503
    assert "The registry cannot be read: " in answer.text
    assert answer.headers["content-security-policy"]


def test_pages_leave_the_shared_threads_free(world):
    """Many pages at once occupy no thread of the default pool."""
    made = world(rows=0, labels=0)
    made.take_snapshot()
    started, released = threading.Semaphore(0), threading.Event()

    def clock():
        started.release()
        assert released.wait(600)
        return NOW

    made.runtime.clock = clock
    app = FastAPI()
    app.include_router(router(made.runtime))

    async def ask():
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            pages = [asyncio.create_task(client.get(path)) for path in ["/", "/slices/short"] * 5]
            assert await asyncio.to_thread(started.acquire, timeout=300)
            taken = current_default_thread_limiter().borrowed_tokens
            released.set()
            return taken, {(await page).status_code for page in pages}

    assert asyncio.run(ask()) == (0, {200})


def test_before_the_first_snapshot(world):
    """The pages announce the first figures, and reload."""
    made = world(rows=0, labels=0)
    for path in ("/", "/slices/short"):
        answer = made.get(path)
        assert answer.status_code == 200
        assert "within 10 s" in answer.text
        assert '<meta http-equiv="refresh" content="10">' in answer.text


def test_without_a_model(world):
    """The page shows how to train one, and how to log predictions of another."""
    text = world(rows=0, labels=0, version=None).get("/").text
    assert "slicewatch train" in text
    assert "http://here/v1/predictions" in text


def test_a_missing_window_is_explained(world):
    """A version that was never promoted has no window since its promotion."""
    made = world(rows=0, labels=0)
    deployment = made.runtime.model.deployment
    deployment.state = replace(deployment.state, promoted_at=None)
    made.take_snapshot()
    for path in ("/", "/slices/short"):
        answer = made.get(path, window="since_promotion")
        assert answer.status_code == 200
        assert "was never promoted" in answer.text
        assert f'<a href="{path}">Show the last hour</a>' in answer.text


def test_the_label_command_names_an_existing_prediction(world):
    """The command has the id of an unlabelled prediction."""
    made = world(labels=0)
    made.take_snapshot()
    text = made.get("/").text
    assert "&#34;id&#34;: &#34;row " in text


def test_a_champion_that_awaits_repair_is_no_version_served_elsewhere(world):
    """No prediction is suggested, the cause is shown once, and nothing is said of rates within their bands."""
    made = world(rows=0, labels=0)
    made.runtime.model.deployment.record_fault("the champion cannot be loaded: weights were altered", 4, (), ())
    made.take_snapshot()
    overview, alarms = made.get("/").text, made.get("/alarms").text
    assert overview.count("weights were altered") == 1
    assert "no expected coverage: the champion cannot be loaded<" in overview
    assert "/v1/predict" not in overview
    assert "Nothing is monitored until the champion is repaired." in alarms
    assert "All monitored rates" not in alarms
