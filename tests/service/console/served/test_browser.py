"""In a real browser, on a phone and on a desk, pages fit, load nothing from elsewhere, and can be read."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from playwright.sync_api import Browser, Page, expect

from service.decisions import DriftDetected
from service.store.alarms import open_alarm

EVIL = '"><script>alert("1")</script>'
NOW = datetime(2026, 5, 1, 12, 0, 7, tzinfo=UTC)
WIDTHS = (390, 1280)
PAGES = {
    "overview": ("busy", "/"),
    "by name": ("busy", "/?window=1d&sort=name&q=s"),
    "no such": ("busy", "/?q=nothing"),
    "many": ("many", "/"),
    "quiet": ("quiet", "/"),
    "unlabelled": ("unlabelled", "/"),
    "bare": ("bare", "/"),
    "new": ("new", "/"),
    "untrained": ("untrained", "/"),
    "slice": ("busy", "/slices/short?kind=all"),
    "hostile": ("busy", f"/slices/{quote(EVIL, safe='')}?kind=all"),
    "all rows": ("busy", "/slices/__all__?kind=all&window=1d"),
    "no slice": ("busy", "/slices/__none__"),
    "quiet slice": ("quiet", "/slices/short"),
    "crowded": ("many", "/slices/short?kind=all"),
    "alarms": ("busy", "/alarms"),
    "alarms of many": ("many", "/alarms"),
    "no alarms": ("quiet", "/alarms"),
    "open alarm": ("busy", "/alarms/4"),
    "resolved alarm": ("busy", "/alarms/3"),
    "runs": ("busy", "/runs"),
    "no runs": ("quiet", "/runs"),
    "held run": ("busy", "/runs/4"),
    "promoted run": ("busy", "/runs/5"),
    "waiting run": ("busy", "/runs/6"),
    "models": ("busy", "/models"),
    "reports": ("busy", "/reports"),
    "no reports": ("quiet", "/reports"),
    "report": ("busy", "/reports/1"),
    "failed report": ("busy", "/reports/2"),
    "missing": ("busy", "/slices/nobody"),
    "wrong": ("busy", "/?window=1y"),
}

CLIPPED = """() => [...document.querySelectorAll('body *')].filter(each => {
  const style = getComputedStyle(each);
  return !each.closest('svg, .unseen, .skip, .cards thead') && style.display !== 'inline'
    && each.clientWidth > 0 && each.scrollWidth > each.clientWidth + 1
    && !['auto', 'scroll'].includes(style.overflowX);
}).map(each => `${each.tagName}.${each.className}: ${each.textContent.trim().slice(0, 60)}`)"""

SQUEEZED = """() => [...document.querySelectorAll('body *')].filter(each => {
  const box = each.getBoundingClientRect();
  return !each.closest('svg, .unseen, .skip, .cards thead') && getComputedStyle(each).display !== 'inline'
    && [...each.childNodes].some(node => node.nodeType === 3 && node.textContent.trim().length > 12)
    && box.height > 0 && box.width < 60;
}).map(each => `${each.tagName}.${each.className}: ${each.textContent.trim().slice(0, 60)}`)"""

NAMELESS = """() => [
  ...[...document.querySelectorAll('svg, img')].filter(each => !each.closest('[aria-hidden=true]')
    && !each.closest('[aria-label]')),
  ...[...document.querySelectorAll('th')].filter(each => !['row', 'col'].includes(each.scope)),
  ...[...document.querySelectorAll('a, button')].filter(each => !each.textContent.trim()),
  ...[...document.querySelectorAll('input:not([type=hidden]), select')].filter(each => !each.labels.length),
  ...[...document.querySelectorAll('h1')].slice(1),
].map(each => each.outerHTML.slice(0, 80))"""

TINY = """() => [...document.querySelectorAll('svg text, small, td, th, .badge')].filter(each =>
  parseFloat(getComputedStyle(each).fontSize) < 11).length"""


FAINT = """() => {
  const rgb = colour => (colour.match(/[0-9.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = colour => rgb(colour).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const ground = each => {
    const colour = getComputedStyle(each).backgroundColor;
    return (rgb(colour)[3] ?? 1) === 1 || !each.parentElement ? colour : ground(each.parentElement);
  };
  return [...document.querySelectorAll('body *')].filter(each => each.tagName !== 'OPTION'
    && !each.closest('title, .unseen, .skip, .cards thead')
    && [...each.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())).filter(each => {
    const style = getComputedStyle(each), front = each.closest('svg') ? style.fill : style.color;
    const [dim, bright] = [light(front), light(ground(each))].sort((a, b) => a - b);
    return (bright + 0.05) / (dim + 0.05) < 4.5;
  }).map(each => `${each.tagName}.${each.className}: ${each.textContent.trim().slice(0, 60)}`);
}"""


class Watched:
    """A page, and what it asked for and complained of."""

    def __init__(self, page: Page) -> None:
        self.page, self.asked, self.complaints = page, [], []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message) or dialog.dismiss())


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    """A page that is watched."""
    page = browser.new_page()
    yield Watched(page)
    page.close()


@pytest.mark.parametrize("name", PAGES)
def test_pages_fit_and_keep_to_themselves(name, served, watched):
    """At both widths nothing is cut, squeezed, or scrolls sideways, all is named, and only our origin is asked."""
    world, path = PAGES[name]
    origin, page = getattr(served, world), watched.page
    page.goto(origin + path)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CLIPPED) == []
        assert page.evaluate(SQUEEZED) == []
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(TINY) == 0
    assert {re.match(r"data:|https?://[^/]+", url)[0] for url in watched.asked} <= {origin, "data:"}
    # A page that says 404 or 422 is reported by the browser as such; nothing else is.
    unlike = "the server responded with a status of 4"
    assert [each for each in watched.complaints if unlike not in each] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_stands_out(scheme, served, browser):
    """Whatever a word stands on, its contrast is at least 4.5."""
    page = browser.new_page(color_scheme=scheme)
    for name in ("overview", "slice", "alarms", "open alarm", "held run", "runs", "models", "report"):
        world, path = PAGES[name]
        page.goto(getattr(served, world) + path)
        assert page.evaluate(FAINT) == [], name
    page.close()


def test_numbers_over_a_chart_stand_apart(served, watched):
    """However close together things happened, no number covers another, also on a phone."""
    page = watched.page
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"{served.many}/slices/short")
        numbers = page.locator("svg.chart").first.locator("text.flag")
        boxes = sorted((each.bounding_box() for each in numbers.all()), key=lambda box: box["x"])
        assert len(boxes) >= 1
        assert all(one["x"] + one["width"] <= other["x"] for one, other in pairwise(boxes))


def test_an_alarm_is_acknowledged_without_scripts(world, serving, browser, pages):
    """The form of the evidence page is sent by the browser itself, taken once, and gone afterwards."""
    made = world(rows=3, labels=0)
    opened = made.do(
        partial(open_alarm, model="spam", version=4, verdict=DriftDetected(NOW, pages.drift("links")))
    )
    origin, stop = serving(made.app)
    try:
        page = browser.new_page(java_script_enabled=False)
        page.goto(f"{origin}/alarms")
        page.get_by_role("link", name="acknowledge").click()
        page.get_by_label("Your name").fill("Ada Möller")
        page.get_by_label("Note").fill(EVIL)
        page.get_by_role("button", name="Acknowledge").click()
        expect(page.get_by_text(f"by Ada Möller: {EVIL}")).to_be_visible()
        expect(page.get_by_role("button", name="Acknowledge")).to_have_count(0)
        assert page.url == f"{origin}/alarms/{opened.id}"
        page.close()
    finally:
        stop()


def test_another_site_cannot_acknowledge(world, serving, browser, pages):
    """A form that a page of another origin sends on its own is refused, and the alarm stays open."""
    made = world(rows=3, labels=0)
    opened = made.do(
        partial(open_alarm, model="spam", version=4, verdict=DriftDetected(NOW, pages.drift("links")))
    )
    origin, stop = serving(made.app)
    elsewhere = FastAPI()

    @elsewhere.get("/", response_class=HTMLResponse)
    def _lure() -> str:
        return (
            f'<form method="post" action="{origin}/alarms/{opened.id}/acknowledge"><input name="by" value="x">'
            "</form><script>document.forms[0].submit()</script>"
        )

    other, stop_other = serving(elsewhere)
    try:
        page = browser.new_page()
        page.goto(other.replace("127.0.0.1", "localhost"))
        expect(page.get_by_role("heading", level=1)).to_have_text("Nothing was changed")
        page.goto(f"{origin}/alarms/{opened.id}")
        expect(page.get_by_role("button", name="Acknowledge")).to_have_count(1)
        page.close()
    finally:
        stop()
        stop_other()


def test_rows_become_cards_on_a_phone(served, watched):
    """Narrow, every cell is below the other with its label before it; wide, they are columns."""
    page = watched.page
    page.goto(served.busy)
    tops = "() => [...document.querySelectorAll('.slices tbody tr')][0].querySelectorAll('td')"
    for width, apart in ((390, True), (1280, False)):
        page.set_viewport_size({"width": width, "height": 900})
        places = page.evaluate(f"() => [...({tops})()].map(each => each.getBoundingClientRect().top)")
        assert (len(set(places)) == len(places)) is apart
    assert page.locator(".slices td").first.get_attribute("data-label") == "State"


def test_from_the_overview_to_a_slice_and_back(served, watched):
    """A reader chooses a window, opens a slice, its correct records, and comes back to the window."""
    page = watched.page
    page.goto(served.busy)
    page.get_by_role("link", name="1 day").click()
    page.get_by_role("link", name="asks/what?").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("asks/what?")
    page.get_by_role("link", name="correct", exact=True).click()
    expect(page.locator(".records tbody tr").first).to_contain_text("correct")
    page.get_by_role("link", name="all slices").click()
    expect(page.locator("strong[aria-current]").first).to_have_text("1 day")


def test_filters_work_without_scripts(served, browser):
    """The form is sent by the browser itself, and keeps the order."""
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"{served.busy}/?sort=name")
    page.get_by_label("Name contains").fill("LINK")
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".slices").first.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_label("Order").locator("strong")).to_have_text("name")
    page.close()


def test_the_dark_is_dark(served, browser):
    """The page follows what the reader's system prefers."""
    grounds = []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(served.busy)
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.close()
    assert grounds == ["rgb(246, 247, 248)", "rgb(18, 21, 24)"]


def test_plots_stretch_and_their_words_do_not(served, watched):
    """A chart is as wide as its box at any width, and its words keep their size."""
    page = watched.page
    page.goto(f"{served.busy}/slices/short")
    sizes = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        chart, words = page.locator("svg.chart").first, page.locator("svg.chart text").first
        sizes.append(
            (chart.bounding_box()["width"], words.evaluate("each => each.getBoundingClientRect().height"))
        )
    (narrow, small), (wide, large) = sizes
    assert 250 < narrow < 340 < wide
    assert small == large
