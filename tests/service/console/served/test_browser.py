"""In a real browser, on a phone and on a desk, pages fit, load nothing from elsewhere, and can be read."""

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, Page, expect

EVIL = '"><script>alert("1")</script>'
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
