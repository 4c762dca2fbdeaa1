"""Pages in Chromium at the widths of a phone and a desktop: layout, contrast, requests and forms."""

import re
from collections.abc import Iterator
from itertools import pairwise
from urllib.parse import quote

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from page_factories import EVIL
from playwright.sync_api import Browser, Page, expect

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
    "missing": ("busy", "/slices/unknown"),
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


class ObservedPage:
    """A page with its requests and errors."""

    def __init__(self, page: Page) -> None:
        self.page, self.requests, self.errors = page, [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda entry: self.errors.append(entry.text) if entry.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append(dialog.message) or dialog.dismiss())


@pytest.fixture
def observed(browser: Browser) -> Iterator[ObservedPage]:
    """A page that records its requests and errors."""
    page = browser.new_page()
    yield ObservedPage(page)
    page.close()


@pytest.mark.parametrize("name", PAGES)
def test_pages_fit_and_load_nothing_external(name, served, observed):
    """At both widths nothing is clipped, squeezed or scrolls sideways, and all requests are of the same origin."""
    world, path = PAGES[name]
    origin, page = served[world], observed.page
    page.goto(origin + path)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CLIPPED) == []
        assert page.evaluate(SQUEEZED) == []
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(TINY) == 0
    assert {re.match(r"data:|https?://[^/]+", url)[0] for url in observed.requests} <= {origin, "data:"}
    # The browser reports the status of error pages.
    expected = "the server responded with a status of 4"
    assert [each for each in observed.errors if expected not in each] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(scheme, served, browser):
    """Text has a contrast of at least 4.5 to its background."""
    page = browser.new_page(color_scheme=scheme)
    for name in ("overview", "slice", "alarms", "open alarm", "held run", "runs", "models", "report"):
        world, path = PAGES[name]
        page.goto(served[world] + path)
        assert page.evaluate(FAINT) == [], name
    page.close()


def test_event_labels_do_not_overlap(served, observed):
    """Labels of close events do not overlap at either width."""
    page = observed.page
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"{served['many']}/slices/short")
        numbers = page.locator("svg.chart").first.locator("text.flag")
        boxes = sorted((each.bounding_box() for each in numbers.all()), key=lambda box: box["x"])
        assert len(boxes) >= 1
        assert all(one["x"] + one["width"] <= other["x"] for one, other in pairwise(boxes))


def test_an_alarm_is_acknowledged_without_scripts(served, desk, browser):
    """The browser submits the form of the alarm's page, which is gone afterwards."""
    opened = desk.open_alarm("acknowledged in the browser")
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"{served['desk']}/alarms")
    page.locator(f"#alarm-{opened.id}").get_by_role("link", name="acknowledge", exact=True).click()
    form = page.get_by_role("region", name="Acknowledge")
    form.get_by_label("Your name").fill("Ada Möller")
    form.get_by_label("Note").fill(EVIL)
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_text(f"by Ada Möller: {EVIL}")).to_be_visible()
    expect(page.get_by_role("button", name="Acknowledge")).to_have_count(0)
    assert page.url == f"{served['desk']}/alarms/{opened.id}"
    page.close()


def test_another_site_cannot_acknowledge(served, desk, serving, browser):
    """A form submitted by a page of another origin is rejected, and the alarm stays open."""
    opened = desk.open_alarm("attacked in the browser")
    address = f"{served['desk']}/alarms/{opened.id}"
    elsewhere = FastAPI()

    @elsewhere.get("/", response_class=HTMLResponse)
    def _lure() -> str:
        return (
            f'<form method="post" action="{address}/acknowledge"><input name="by" value="x">'
            "</form><script>document.forms[0].submit()</script>"
        )

    page = browser.new_page()
    page.goto(serving(elsewhere).replace("127.0.0.1", "localhost"))
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing was changed")
    page.goto(address)
    expect(page.get_by_role("button", name="Acknowledge")).to_have_count(1)
    page.close()


def test_rows_become_cards_on_a_phone(served, observed):
    """Cells are stacked with their labels on a narrow page, and are columns on a wide one."""
    page = observed.page
    page.goto(served["busy"])
    tops = "() => [...document.querySelectorAll('.slices tbody tr')][0].querySelectorAll('td')"
    for width, apart in ((390, True), (1280, False)):
        page.set_viewport_size({"width": width, "height": 900})
        places = page.evaluate(f"() => [...({tops})()].map(each => each.getBoundingClientRect().top)")
        assert (len(set(places)) == len(places)) is apart
    assert page.locator(".slices td").first.get_attribute("data-label") == "State"


def test_from_the_overview_to_a_slice_and_back(served, observed):
    """Links lead to a window, a slice, its correct records, and back to the window."""
    page = observed.page
    page.goto(served["busy"])
    page.get_by_role("link", name="1 day").click()
    page.get_by_role("link", name="asks/what?").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("asks/what?")
    page.get_by_role("link", name="correct", exact=True).click()
    expect(page.locator(".records tbody tr").first).to_contain_text("correct")
    page.get_by_role("link", name="all slices").click()
    expect(page.locator("strong[aria-current]").first).to_have_text("1 day")


def test_filters_work_without_scripts(served, browser):
    """The browser submits the filter, and the order is kept."""
    page = browser.new_page(java_script_enabled=False)
    page.goto(f"{served['busy']}/?sort=name")
    page.get_by_label("Name contains").fill("LINK")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator(".slices").first.locator("tbody tr")).to_have_count(1)
    expect(page.get_by_label("Order").locator("strong")).to_have_text("name")
    page.close()


def test_pages_follow_the_colour_scheme(served, browser):
    """The background depends on the preferred colour scheme."""
    grounds = []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)
        page.goto(served["busy"])
        grounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.close()
    assert grounds == ["rgb(246, 247, 248)", "rgb(18, 21, 24)"]


def test_charts_stretch_but_their_text_does_not(served, observed):
    """A chart fills its box at any width, and its text keeps its size."""
    page = observed.page
    page.goto(f"{served['busy']}/slices/short")
    sizes = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        chart, words = page.locator("svg.chart").first, page.locator("svg.chart text").first
        sizes.append((chart.bounding_box()["width"], words.evaluate("each => each.getBoundingClientRect().height")))
    (narrow, small), (wide, large) = sizes
    assert 250 < narrow < 340 < wide
    assert small == large
