"""Pages of alarms: the change, its evidence, and its acknowledgement."""

from dataclasses import replace
from datetime import timedelta

import pytest
from page_factories import EVIL, NOW, accuracy_drift, alarm, drift, read, run

from service.console.pages.alarms import (
    AlarmList,
    alarm_row,
    detector_summary,
    render_alarm,
    render_alarms,
    render_incident,
)
from service.console.query_params import ListParams
from service.console.render import PageContext
from service.decisions import AccuracyFall, FallPart, Incident, ToleranceBand
from service.events import Freshness, Snapshot
from service.settings.schema import DriftSettings
from sfs.intervals import Rate


@pytest.fixture
def listing():
    """Renders the page of all alarms."""

    def make(unresolved=(), resolved=(), drifts=(), runs=(), older="", incidents=(), **params):
        alarmed = {(each.drift.slice, each.drift.kind) for each in unresolved}
        html = render_alarms(
            PageContext("alarms", len(unresolved)),
            "spam",
            ListParams("/alarms", **params),
            AlarmList(tuple(alarm_row(each, runs) for each in unresolved), older),
            AlarmList(tuple(alarm_row(each, runs) for each in resolved), ""),
            detector_summary(drifts, alarmed),
            DriftSettings(false_alarms_a_month=2.0, max_slices=50),
            NOW,
            incidents,
        )
        return read(html)

    return make


@pytest.fixture
def single():
    """Renders the page of one alarm."""

    def make(shown, runs=(), current=None, snapshot=None):
        context = PageContext("alarms", 1)
        html = render_alarm(context, shown, runs, current, DriftSettings(), NOW, snapshot=snapshot)
        return read(html)

    return make


def test_a_row_shows_the_whole_alarm(listing):
    """Slice, kind, sentence, times, observed rate with interval and n, expected rate, evidence and state."""
    said = listing([alarm()]).all("tbody")[0].words()
    for part in (
        "links coverage drift",
        "coverage of links is 8.1% since 11:39 UTC, expected 1.6% to 2.4%",
        "raised 11:48:07 UTC (data time), 12 min ago; version 4",
        "5.5–11.2% · 81 of 1,000",
        "since 11:39:07 UTC",
        "1.6–2.4%",
        "4.0 × the reference",
        "103% of the threshold",
        "open",
    ):
        assert part in said


def test_an_alarm_without_labels_is_unknown_since_the_last_one(single):
    """The sentence and the current status say so."""
    found, dry = accuracy_drift(), NOW - timedelta(hours=9)
    fresh = Freshness(found.fingerprint, 9, NOW, 60, 34, dry)
    snapshot = Snapshot(NOW, "spam", 4, "set", {}, dry, {found.slice: fresh})
    said = single(alarm(found=found), current=found, snapshot=snapshot).words()
    assert f"; unknown since {dry:%Y-%m-%d %H:%M} UTC." in said
    assert f"unknown since {dry:%Y-%m-%d %H:%M:%S} UTC" in said


def test_accuracy_has_no_upper_limit(listing):
    """The expected accuracy has a lower limit alone, and its change is in points."""
    said = listing([alarm(1, accuracy_drift())]).all("tbody")[0].words()
    assert "at least 86.2%" in said
    assert "−35.3 points from the reference" in said
    assert "34 of 60 labelled" in said


def test_an_alarm_about_a_target_shows_it(listing, single):
    """List and page name the target, the distance from it, and the labels that a fall needs."""
    missed = alarm(1, accuracy_drift(zone=ToleranceBand(Rate(28, 40), 0.75, 1.0, 0.01, 0.75), threshold=18.46))
    said = listing([missed]).all("tbody")[0].words()
    assert "at least 75.0% (target)" in said
    assert "−18.3 points from the target" in said
    page = single(missed, current=missed.drift)
    shown = page.words()
    assert "accuracy target of the slice; reference 70.0%, 28 of 40" in shown
    assert "a fall to 37.5% alarms after about 64 labels" in shown
    assert "expected 75.0% to 100% (target), reference 70.0%" in page.all("svg")[0].attributes["aria-label"]


def test_a_fall_is_shown_by_class_and_slice(single):
    """The page of a family's alarm has the wrong labels of the class, and the slices with their links."""
    fall = AccuracyFall("spam", 12, 40, 0.04, 1.25, (FallPart("links", 9, 20), FallPart("short", 3, 20)))
    family = replace(accuracy_drift(), slice="web", kind="family_accuracy", fall=fall, pooled=("__all__",))
    page = single(alarm(1, family), current=family)
    shown = page.words()
    assert "family web" in shown
    assert "12 of 40 of class spam expected at most 4.0%; dispersion 1.2" in shown
    assert "links 9 of 20, short 3 of 20" in shown
    assert "few labels: watched with all traffic" in shown


def test_a_plot_is_named_by_its_content(listing):
    """The plot's name has rate, interval, tolerance band and reference."""
    names = [svg.attributes["aria-label"] for svg in listing([alarm()]).all("svg", "range")]
    assert names == [
        "coverage 8.1%, interval 5.5% to 11.2%; expected 1.6% to 2.4%, reference 2.0%",
    ]


def test_the_responding_run_is_linked(listing):
    """The newest run for the alarm is shown with its state; without one the page says so."""
    runs = [run(9, "held"), run(3, "failed")]
    page = listing([alarm(7), alarm(8)], runs=runs)
    assert [a.attributes["href"] for a in page.all("a") if a.words().startswith("run ")] == ["/runs/9"]
    first, second = page.all("tbody")[0].all("tr")
    assert "run 9: awaiting approval" in first.words()
    assert "no run yet" in second.words()


def test_states_show_the_acknowledgement_and_the_resolution(listing):
    """The name and note of an acknowledgement, and the resolution with its time."""
    known = alarm(1, state="acknowledged", acknowledged_at=NOW, acknowledged_by="Ada", note="a campaign")
    over = alarm(2, state="resolved", resolved_at=NOW, resolution="version 5 was promoted")
    page = listing([known], [over])
    first, second = (body.all("tr")[0].words() for body in page.all("tbody")[:2])
    assert "acknowledged by Ada: a campaign" in first
    assert "resolved version 5 was promoted 12:00:07 UTC" in second


@pytest.mark.parametrize("state", ["acknowledged", "resolved"])
def test_the_note_of_an_acknowledgement_without_a_name_is_listed(listing, state):
    """The API asks for no name; what was noted is shown all the same."""
    known = alarm(1, state=state, acknowledged_at=NOW, note="a campaign")
    shown = listing([known]) if state == "acknowledged" else listing(resolved=[known])
    assert "a campaign" in shown.all("tbody")[0].words()


def test_the_header_counts_unresolved_alarms(listing):
    """Every page links to all sections, and shows the number of unresolved alarms."""
    nav = listing([alarm(1), alarm(2)]).all("nav")[0]
    assert [a.words() for a in nav.all("a")] == ["Slices", "Alarms 2 unresolved", "Runs", "Models", "Reports"]
    assert [a.words() for a in nav.all("a") if "aria-current" in a.attributes] == ["Alarms 2 unresolved"]
    assert listing().all("nav")[0].all("span") == []


def test_without_alarms_the_detectors_are_summarised(listing):
    """The page has the number of monitored slices, their tolerances, and the budget of false alarms."""
    drifts = [
        drift("a", evidence=-1.0),
        drift("b", zone=None),
        accuracy_drift("a", evidence=0.0),
    ]
    said = listing(drifts=drifts).words()
    for part in (
        "No unresolved alarms. All monitored rates are within their tolerance bands",
        "Coverage 1 slices monitored for a change of more than 10%",
        "Accuracy 1 slices monitored for a drop of more than 1 point",
        "False alarms 2 per month at most, on average, over 50 slices without drift",
        "Not monitored 1 no reference: b",
        "No sign of drift.",
    ):
        assert part in said
    assert "No detectors yet" in listing().words()


def test_detectors_closest_to_an_alarm_are_shown(listing):
    """Detectors with some evidence and no alarm are listed with their fraction of the threshold."""
    drifts = [drift("links"), drift("b", evidence=9.05), drift("c", evidence=3.0)]
    page = listing([alarm()], drifts=drifts)
    rows = [row.words() for row in page.all("table", "watch")[0].all("tbody")[0].all("tr")]
    assert len(rows) == 1
    assert rows[0].startswith("b coverage drift")
    assert rows[0].endswith("50%")


def test_older_alarms_are_linked(listing):
    """Unresolved and resolved alarms have pages of their own."""
    page = listing([alarm()], older="/alarms?which=unresolved&before=7")
    hrefs = {a.words(): a.attributes["href"] for a in page.all("a")}
    assert hrefs["older →"] == "/alarms?which=unresolved&before=7"
    assert hrefs["resolved"] == "/alarms?which=resolved"
    assert hrefs["every 10 s"] == "/alarms?refresh=10"


def test_the_page_of_an_alarm_shows_its_evidence(single):
    """Sentence, plot with an axis, reference with n, tolerance, and the start of the change."""
    page = single(alarm())
    assert page.all("h1")[0].words() == "Alarm 7: links"
    assert len(page.all("svg", "zone-chart")) == 1
    for part in (
        "coverage of links is 8.1%",
        "reference 2.0%, 400 of 20,000; tolerance ±10% of the reference",
        "Direction up",
        "11:39:07 UTC 9 min before the alarm",
        "log evidence 18.6, threshold 18.1; the threshold allows 1 false alarm a month over 200 slices",
    ):
        assert part in page.words()


def test_the_times_of_an_alarm_and_its_run_are_named(single):
    """An alarm is raised at data time; the run that responds to it opens at clock time."""
    opened = replace(run(9, "held"), opened_at=NOW - timedelta(minutes=11))
    said = single(alarm(), [opened]).words()
    assert "Raised 11:48:07 UTC 12 min ago; data time: the end of its block of rows" in said
    assert "opened 11:49:07 UTC, clock time" in said


def test_an_open_alarm_can_be_acknowledged(single):
    """The forms are sent to this service; a resolved alarm has none, and one is acknowledged once."""
    form, accepting = single(alarm()).all("form")
    assert (form.attributes["method"], form.attributes["action"]) == ("post", "/alarms/7/acknowledge")
    assert [field.attributes["name"] for field in form.all("input")] == ["by", "note"]
    assert accepting.attributes["action"] == "/alarms/7/accept"
    (left,) = single(alarm(state="acknowledged")).all("form")
    assert left.attributes["action"] == "/alarms/7/accept"
    assert single(alarm(state="resolved")).all("form") == []


def test_the_current_status_is_beside_the_evidence(single):
    """The detector's status since an unresolved alarm is shown as well."""
    current = drift(evidence=1.8)
    assert "Current status" in single(alarm(), current=current).words()
    over = alarm(state="resolved", resolved_at=NOW, resolution="by hand")
    said = single(over, current=current).words()
    assert "Current status" not in said
    assert "Resolved 12:00:07 UTC: by hand." in said


def test_an_alarm_without_band_count_or_start_is_readable(single):
    """Missing values are not drawn, and leave the page readable."""
    empty = drift(zone=None, since=None, direction=None, observed=Rate(0, 0))
    page = single(alarm(found=empty))
    assert page.all("svg", "zone-chart") == []
    assert "no rows yet" in page.words()
    assert "no reference yet" in page.words()
    page = single(alarm(found=replace(empty, kind="accuracy")))
    assert "no settled labels yet" in page.words()


def test_hostile_text_is_escaped(listing, single):
    """Names, notes and resolutions cannot become elements, nor leave the attributes of plots."""
    evil = alarm(
        1, drift(EVIL), acknowledged_at=NOW, acknowledged_by=EVIL, note=EVIL, resolution=EVIL,
        state="resolved", resolved_at=NOW,
    )  # fmt: skip
    runs = [run(1, alarms=(1,), reason=EVIL, outcome=EVIL)]
    for page in (listing([], [evil], [drift(EVIL, zone=None)], runs), single(evil, runs)):
        assert page.all("script") == []
        assert EVIL in page.text
        assert "/slices/%22%3E%3Cscript%3Ealert%28%221%22%29%3C%2Fscript%3E" in {
            a.attributes["href"] for a in page.all("a")
        }


def test_of_many_slices_some_are_named(listing):
    """The five detectors closest to an alarm are shown, and some slices without a reference are named."""
    drifts = [drift(f"s{k:03d}", evidence=10.0 - k / 50) for k in range(200)]
    blind = [drift(f"blind {k:03d}", zone=None, evidence=0.0) for k in range(40)]
    page = listing(drifts=[*drifts, *blind])
    assert len(page.all("table", "watch")[0].all("tbody")[0].all("tr")) == 5
    assert "blind 005 and 34 more" in page.words()


def test_an_old_change_has_its_date(listing):
    """Times of another day have a date."""
    before = NOW - timedelta(days=2)
    said = listing([alarm(at=before, found=drift(since=before - timedelta(hours=1)))]).words()
    assert "raised 2026-04-29 12:00:07 UTC (data time), 2 days ago" in said
    assert "since 2026-04-29 11:00:07 UTC" in said


def incident(count=3, **changes):
    """Return an incident, the first alarm as the cause."""
    moved = ["by itself", *(["with slice 0"] * (count - 1))]
    alarms = tuple(alarm(k + 1, drift(f"slice {k}"), incident=4, moved=moved[k]) for k in range(count))
    return Incident(4, "spam", alarms, **changes)


def test_incidents_come_before_their_alarms(listing):
    """Cause, state and slices, at most twelve of them; each says how it moved, and links to its alarm."""
    page = listing([*incident().alarms], incidents=[incident(), incident(14)])
    said = page.words()
    assert "4: slice 0" in said
    assert "slice 1 coverage drift, moved with slice 0" in said
    assert "2 more" in said
    assert said.index("4: slice 0") < said.index("coverage of slice 0")
    assert "incident 4: moved by itself" in said
    assert "Incidents" not in listing([alarm()]).words()


def test_an_incident_shows_all_slices_and_the_form():
    """Every alarm with its figures and how it moved; one form for all of them."""
    page = read(render_incident(PageContext("alarms", 1), incident(14), NOW))
    said = page.words()
    assert "Incident 4: slice 0" in said
    assert "; 13 moved with it" in said
    assert len(page.all("tbody")[0].all("tr")) == 14
    assert len(page.all("form")) == 1
    done = read(render_incident(PageContext("alarms", 1), incident(acknowledged_at=NOW, acknowledged_by="ada"), NOW))
    assert "by ada" in done.words()
    assert "Alarms that join are acknowledged, too" in done.words()
    assert not done.all("form")
