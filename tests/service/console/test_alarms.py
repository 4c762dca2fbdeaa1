"""The pages of alarms say what moved, on which evidence, and who knows of it."""

from datetime import timedelta

import pytest

from service.console import alarms as page_of
from service.console.alarms import AlarmList, alarm_row, watched
from service.console.choices import ListChoices
from service.console.parts import Promises
from service.console.render import Frame

EVIL = '"><script>alert(1)</script>'


@pytest.fixture
def listing(pages):
    """Renders the page of all alarms."""

    def make(unresolved=(), resolved=(), drifts=(), runs=(), older="", **choices):
        standing = {(each.drift.slice, each.drift.kind) for each in unresolved}
        quiet = [each for each in drifts if (each.slice, each.kind) not in standing]
        html = page_of.alarms(
            Frame("alarms", len(unresolved)),
            "spam",
            ListChoices("/alarms", **choices),
            AlarmList(tuple(alarm_row(each, runs) for each in unresolved), older),
            AlarmList(tuple(alarm_row(each, runs) for each in resolved), ""),
            watched(drifts, quiet),
            Promises(false_alarms_a_month=2.0, max_slices=50),
            pages.now,
        )
        return pages.read(html)

    return make


@pytest.fixture
def single(pages):
    """Renders the page of one alarm."""

    def make(shown, runs=(), current=None, answerable=True):
        frame = Frame("alarms", 1)
        html = page_of.alarm(frame, shown, runs, current, Promises(), pages.now, answerable=answerable)
        return pages.read(html)

    return make


def test_a_row_has_everything_that_is_known(pages, listing):
    """Slice, kind, sentence, times, what was seen with interval and n, what was expected, evidence, and state."""
    said = listing([pages.alarm()]).all("tbody")[0].words()
    for part in (
        "links coverage drift",
        "links holds 8.1 % of rows since 11:39 UTC, expected 1.6 to 2.4 %",
        "raised 11:48:07 UTC, 12 min ago; version 4",
        "5.5% to 11.2% · 81 of 1,000",
        "since 11:39:07 UTC",
        "1.6–2.4%",
        "4.0 × the reference",
        "103% of the threshold",
        "open",
    ):
        assert part in said


def test_accuracy_has_no_upper_limit(pages, listing):
    """What is expected of an accuracy is said as at least so much, and its change in points."""
    said = listing([pages.alarm(1, pages.accuracy_drift())]).all("tbody")[0].words()
    assert "at least 86.2%" in said
    assert "−35.3 points beside the reference" in said
    assert "34 of 60 labelled" in said


def test_a_plot_says_what_it_shows(pages, listing):
    """The plot is named by rate, interval, zone and reference."""
    names = [svg.attributes["aria-label"] for svg in listing([pages.alarm()]).all("svg", "range")]
    assert names == [
        "coverage 8.1%, interval 5.5% to 11.2%; expected 1.6% to 2.4%, reference 2.0%",
    ]


def test_the_run_that_answers_is_a_link(pages, listing):
    """The newest run with the alarm is named with its state; without one the page says so."""
    runs = [pages.run(9, "held"), pages.run(3, "failed")]
    page = listing([pages.alarm(7), pages.alarm(8)], runs=runs)
    assert [a.attributes["href"] for a in page.all("a") if a.words().startswith("run ")] == ["/runs/9"]
    first, second = page.all("tbody")[0].all("tr")
    assert "run 9: held for approval" in first.words()
    assert "no run answers it" in second.words()


def test_states_say_who_knows_and_why_it_ended(pages, listing):
    """Who acknowledged with which note, and the resolution with its time."""
    known = pages.alarm(
        1, state="acknowledged", acknowledged_at=pages.now, acknowledged_by="Ada", note="a campaign"
    )
    over = pages.alarm(2, state="resolved", resolved_at=pages.now, resolution="version 5 was promoted")
    page = listing([known], [over])
    first, second = (body.all("tr")[0].words() for body in page.all("tbody")[:2])
    assert "acknowledged by Ada: a campaign" in first
    assert "resolved version 5 was promoted 12:00:07 UTC" in second


def test_the_header_counts_what_stands(pages, listing):
    """Every page leads to all others, and says how many alarms are unresolved."""
    nav = listing([pages.alarm(1), pages.alarm(2)]).all("nav")[0]
    assert [a.words() for a in nav.all("a")] == ["Slices", "Alarms 2 unresolved", "Runs", "Models", "Reports"]
    assert [a.words() for a in nav.all("a") if "aria-current" in a.attributes] == ["Alarms 2 unresolved"]
    assert listing().all("nav")[0].all("span") == []


def test_without_alarms_it_is_said_what_is_watched(pages, listing):
    """No alarms is a sentence, with how many slices are watched, the tolerance, and the budget of false alarms."""
    drifts = [
        pages.drift("a", evidence=-1.0),
        pages.drift("b", zone=None),
        pages.accuracy_drift("a", evidence=0.0),
    ]
    said = listing(drifts=drifts).words()
    for part in (
        "No alarms. Nothing that is watched has left",
        "Coverage 1 slices; a change of more than 10%",
        "Accuracy 1 slices; a drop of more than 1 point",
        "False alarms 2 a month at most, on average, over 50 slices together",
        "Not watched 1 without a reference: b",
        "Nothing points to a change now.",
    ):
        assert part in said
    assert "Nothing is watched yet" in listing().words()


def test_the_nearest_to_an_alarm_are_shown(pages, listing):
    """Detectors with some evidence are listed with their share of what alarms, without those that have alarmed."""
    drifts = [pages.drift("links"), pages.drift("b", evidence=9.05), pages.drift("c", evidence=3.0)]
    page = listing([pages.alarm()], drifts=drifts)
    rows = [row.words() for row in page.all("table", "watch")[0].all("tbody")[0].all("tr")]
    assert len(rows) == 1
    assert rows[0].startswith("b coverage drift")
    assert rows[0].endswith("50%")


def test_older_ones_are_a_link(pages, listing):
    """Each part can be gone through on its own."""
    page = listing([pages.alarm()], older="/alarms?which=unresolved&before=7")
    hrefs = {a.words(): a.attributes["href"] for a in page.all("a")}
    assert hrefs["older →"] == "/alarms?which=unresolved&before=7"
    assert hrefs["resolved"] == "/alarms?which=resolved"
    assert hrefs["every 10 s"] == "/alarms?refresh=10"


def test_the_page_of_an_alarm_shows_its_evidence(pages, single):
    """Sentence, plot with an axis, reference with n, tolerance, when it began and how long before the alarm."""
    page = single(pages.alarm())
    assert page.all("h1")[0].words() == "Alarm 7: links"
    assert len(page.all("svg", "zone-chart")) == 1
    for part in (
        "links holds 8.1 % of rows",
        "reference 2.0%, 400 of 20,000; tolerance 10% of it",
        "upwards",
        "11:39:07 UTC 9 min before the alarm",
        "logarithms 18.6 of 18.1; the threshold allows 1 false alarm a month over 200 slices",
    ):
        assert part in page.words()


def test_an_open_alarm_can_be_acknowledged(pages, single):
    """The form is sent to this service alone; others than open ones, and places without a writer, have none."""
    (form,) = single(pages.alarm()).all("form")
    assert (form.attributes["method"], form.attributes["action"]) == ("post", "/alarms/7/acknowledge")
    assert [field.attributes["name"] for field in form.all("input")] == ["by", "note"]
    assert single(pages.alarm(), answerable=False).all("form") == []
    for state in ("acknowledged", "resolved"):
        assert single(pages.alarm(state=state)).all("form") == []


def test_where_the_slice_stands_now_is_beside_it(pages, single):
    """While the alarm stands, what the detector says since is shown as well."""
    current = pages.drift(evidence=1.8)
    assert "Where the slice stands now" in single(pages.alarm(), current=current).words()
    over = pages.alarm(state="resolved", resolved_at=pages.now, resolution="by hand")
    said = single(over, current=current).words()
    assert "Where the slice stands now" not in said
    assert "Ended 12:00:07 UTC: by hand." in said


def test_an_alarm_without_zone_count_or_start_is_said(pages, single):
    """What is missing of an alarm is not drawn, and leaves the page readable."""
    empty = pages.drift(zone=None, since=None, direction=None, observed=type(pages.drift().observed)(0, 0))
    page = single(pages.alarm(found=empty))
    assert page.all("svg", "zone-chart") == []
    assert "nothing counted yet" in page.words()
    assert "no reference yet" in page.words()


def test_hostile_words_are_only_text(pages, listing, single):
    """Slices, people, notes and resolutions cannot become elements, nor leave the attributes of plots."""
    evil = pages.alarm(
        1, pages.drift(EVIL), acknowledged_at=pages.now, acknowledged_by=EVIL, note=EVIL, resolution=EVIL,
        state="resolved", resolved_at=pages.now,
    )  # fmt: skip
    runs = [pages.run(1, alarms=(1,), reason=EVIL, outcome=EVIL)]
    for page in (listing([], [evil], [pages.drift(EVIL, zone=None)], runs), single(evil, runs)):
        assert page.all("script") == []
        assert EVIL in page.text
        assert "/slices/%22%3E%3Cscript%3Ealert%281%29%3C%2Fscript%3E" in {
            a.attributes["href"] for a in page.all("a")
        }


def test_many_slices_are_watched(pages, listing):
    """Of 200 slices that drift, the nearest five are shown, and of those that are blind, some are named."""
    drifts = [pages.drift(f"s{k:03d}", evidence=10.0 - k / 50) for k in range(200)]
    blind = [pages.drift(f"blind {k:03d}", zone=None, evidence=0.0) for k in range(40)]
    page = listing(drifts=[*drifts, *blind])
    assert len(page.all("table", "watch")[0].all("tbody")[0].all("tr")) == 5
    assert "blind 005 and 34 more" in page.words()


def test_a_change_of_long_ago_has_its_day(pages, listing):
    """Times of another day are said with it."""
    before = pages.now - timedelta(days=2)
    said = listing([pages.alarm(at=before, found=pages.drift(since=before - timedelta(hours=1)))]).words()
    assert "raised 2026-04-29 12:00:07 UTC, 2 days ago" in said
    assert "since 2026-04-29 11:00:07 UTC" in said
