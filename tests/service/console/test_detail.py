"""A slice's page says what the slice is, how it does in every window, and shows its records."""

from dataclasses import replace
from datetime import timedelta

import pytest

from service.console.detail import SliceLoop
from service.views.alarms import alarm_sentence
from service.views.current import FunctionHealth
from service.views.records import RecordsView
from service.views.series import SeriesEvent


@pytest.fixture
def short(pages):
    """A slice with everything known about it."""
    return pages.slice_view(
        pages.estimate("short", 240, 2000, 46, 50, unknown=10),
        reference=(480, 4000),
        owner="growth",
        severity="critical",
        target=0.95,
        protected=True,
        family="length",
        description="Comments of few words.",
    )


def section(page, heading):
    """The section under a heading."""
    (found,) = [s for s in page.all("section") if [h.words() for h in s.all("h2")] == [heading]]
    return found


def test_what_is_known_of_the_slice_is_said(pages, short):
    """Description, owner, severity, target, protection, family, origin, and a short fingerprint."""
    said = pages.detail(short).words()
    for part in (
        "Comments of few words.",
        "growth",
        "critical",
        "95.0%",
        "yes: a new model",
        "length",
        "from a file",
    ):
        assert part in said
    assert short.fingerprint[:12] in said
    assert short.fingerprint not in said


def test_a_missing_reference_is_explained(pages, short):
    """Where no coverage is expected, the page says why."""
    without = pages.slice_view(short.estimate)
    assert "the model was not trained with this function" in pages.detail(without).words()


def test_windows_stand_side_by_side(pages, short):
    """Each window has coverage, the accuracies in and outside of the slice, F1, and failures."""
    (table, *_) = section(pages.detail(short), "Windows").all("table")
    lines = [row.words() for row in table.all("tbody")[0].all("tr")]
    assert [line[:6] for line in lines] == ["5 min ", "1 hour"]
    for part in (
        "12.0%",
        "240 of 2,000",
        "46 of 50 labelled",
        "135 of 150 labelled",
        "0.900",
        "10 of 2,010 rows",
    ):
        assert part in lines[0]


def test_charts_are_named_and_told_in_a_table(pages, short):
    """The chart says its last value, and each point stands in a table with what it was counted from."""
    page = pages.detail(short)
    names = [svg.attributes["aria-label"] for svg in page.all("svg", "chart")]
    assert names[0].startswith("coverage over time: last 12.0%")
    assert names[1] == "accuracy over time: last 92.0%, lowest 92.0%, highest 92.0%; target 95.0%"
    assert section(page, "Coverage").words().count("240 of 2,000 rows") >= 5


def test_a_chart_without_figures_is_explained(pages, short):
    """No step with enough labels gives a sentence, not an empty chart."""
    few = [pages.estimate("short", 4, 40, 1, 2)] * 5
    said = section(pages.detail(short, series=pages.series("short", few)), "Accuracy in the slice").words()
    assert "None of the 60 s steps of this window has enough labels" in said


def test_events_are_listed_and_flagged(pages, short):
    """What happened is a numbered list, with the numbers in both charts."""
    event = SeriesEvent(pages.now - timedelta(minutes=2), "promotion", "version 4: better")
    page = pages.detail(short, series=pages.series("short", [short.estimate] * 5, [event]))
    assert "2026-05-01 11:58:07 UTC: version 4: better" in section(page, "What happened").words()
    assert [text.words() for text in page.all("text", "flag")] == ["1", "1"]


def test_alarms_are_flagged_and_lead_to_their_evidence(pages, short):
    """An alarm is an event with a line of its own colour; one that stands is said on top, in place of "ok"."""
    shown = pages.alarm(7, pages.drift("short"), at=pages.now - timedelta(minutes=2))
    event = SeriesEvent(shown.at, "alarm", f"alarm 7: {alarm_sentence(shown)}")
    series = pages.series("short", [short.estimate] * 5, [event])
    page = pages.detail(short, series=series, loop=SliceLoop(1, alarms=(shown,)))
    (item,) = section(page, "What happened").all("li")
    assert [a.attributes["href"] for a in item.all("a")] == ["/alarms/7"]
    assert len([path for path in page.all("path", "alarm") if path.attributes["d"]]) == 2
    (badge,) = page.all("a", "alarm")
    assert badge.words() == "alarm: coverage"
    assert [each.words() for each in page.all("div", "headline")[0].all("span", "badge")] == []
    assert page.all("nav")[0].words().startswith("Slices Alarms 1 unresolved")


def test_where_the_detectors_stand_is_said(pages, short):
    """Each detector has its zone, what was seen, and its evidence; without any, the page says why."""
    drifts = (pages.drift("short", evidence=9.05), pages.accuracy_drift("short", zone=None))
    found = section(pages.detail(short, loop=SliceLoop(drifts=drifts)), "Drift watch")
    first, second = (row.words() for row in found.all("tbody")[0].all("tr"))
    assert first.startswith("coverage drift 8.1%")
    assert "1.6–2.4%" in first
    assert first.endswith("50%")
    assert "no reference yet" in second
    assert "not watched" in second
    assert "Not watched yet" in section(pages.detail(short), "Drift watch").words()


def test_why_its_function_fails_is_counted(pages, short):
    """The reasons come with their rows, the most frequent first; an open breaker says its own."""
    failures = {"TimeoutError": 3, "KeyError": 1200}
    out = replace(short, health=FunctionHealth("short", "open", "faults"))
    page = pages.detail(out, loop=SliceLoop(failures=failures))
    rows = [row.words() for row in section(page, "Why its function gave no answer").all("tbody")[0].all("tr")]
    assert rows == ["KeyError 1,200", "TimeoutError 3"]
    assert "not applied faults" in page.words()


def test_a_record_says_what_was_predicted_and_what_was_true(pages, short):
    """Id, time, answer with its probability, truth, features, and the other slices as links."""
    records = RecordsView((pages.record(),), {("spam", "ham"): 1}, 90, True, None)
    found = section(pages.detail(short, records), "Records")
    for part in (
        "r1",
        "11:56:07 UTC",
        "ham 61.0%",
        "error",
        "truly spam 39.0%",
        "check out my channel",
    ):
        assert part in found.words()
    assert [a.attributes["href"] for a in found.all("a") if a.words() == "links"] == ["/slices/links"]
    assert "90 rows were looked at; there are none older" in found.words()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label": "ham"}, "correct"),
        ({"label": None}, "no label yet"),
        ({"features": None}, "not kept"),
        ({"unknown_slices": ("asks",)}, "asks: unknown"),
        ({"probabilities": None}, "truly spam"),
    ],
)
def test_what_is_missing_of_a_record_is_said(pages, short, changes, said):
    """A label, features, a membership or probabilities that are not there are told of in words."""
    records = RecordsView((pages.record(**changes),), {}, 1, True, None)
    assert said in section(pages.detail(short, records, kind="all"), "Records").words()


def test_a_record_of_very_many_slices_names_some(pages, short):
    """Beyond a dozen, the other slices are only counted."""
    crowded = pages.record(slices=("short", *map(str, range(20))), unknown_slices=tuple("abcdefghijklmn"))
    said = section(pages.detail(short, RecordsView((crowded,), {}, 1, True, None)), "Records").words()
    assert "11 and 8 more a: unknown" in said
    assert said.count(": unknown") == 12


def test_hostile_records_are_only_text(pages, short):
    """Ids, features, labels and slices cannot become elements."""
    evil = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>"
    hostile = pages.record(evil, features={evil: evil * 10}, label=evil, predicted=evil, slices=(evil,))
    page = pages.detail(short, RecordsView((hostile,), {(evil, evil): 1}, 1, True, None))
    assert page.all("script") == page.all("img") == []
    assert page.text.count("onerror=alert(1)") > 10


def test_a_hostile_slice_is_only_text(pages, short):
    """Its name, description and owner cannot become elements, nor leave the attributes of charts."""
    evil = '"><script>alert(1)</script>'
    metadata = replace(short.metadata, description=evil, owner=evil, family=evil)
    page = pages.detail(
        replace(short, name=evil, estimate=replace(short.estimate, slice=evil), metadata=metadata)
    )
    assert page.all("script") == []
    assert page.all("h1")[0].words() == evil


def test_kinds_of_records_and_older_ones_are_links(pages, short):
    """Each kind is a link that forgets the page; the next page keeps the kind."""
    records = RecordsView((pages.record(),), {}, 2000, False, "1777593600000000-7")
    page = pages.detail(short, records, kind="correct", window="5m", cursor="1777597200000000-9")
    hrefs = {a.words(): a.attributes["href"] for a in section(page, "Records").all("a")}
    assert hrefs["errors"] == "/slices/short?window=5m#records"
    assert hrefs["older →"] == "/slices/short?window=5m&kind=correct&cursor=1777593600000000-7#records"
    assert hrefs["newest"] == "/slices/short?window=5m&kind=correct#records"


def test_confusion_is_a_table_of_classes(pages, short):
    """True classes go down, predicted ones across, with sums."""
    records = RecordsView((), {("ham", "ham"): 8, ("spam", "ham"): 2, ("spam", "spam"): 5}, 40, True, None)
    found = section(pages.detail(short, records), "Which classes it confuses")
    lines = [row.words() for row in found.all("tr")]
    assert lines == ["true \\ predicted ham spam all", "ham 8 0 8", "spam 2 5 7"]
    assert "15 labelled members among the 40 rows that were looked at" in found.words()


def test_many_classes_are_listed_by_pair(pages, short):
    """Where a table would be too wide, the most frequent pairs are listed."""
    buckets = {(f"c{i:02d}", f"c{i + 1:02d}"): i + 1 for i in range(40)}
    found = section(
        pages.detail(short, RecordsView((), buckets, 900, True, None)), "Which classes it confuses"
    )
    lines = [row.words() for row in found.all("tr")]
    assert (len(lines), lines[1]) == (31, "c39 c40 40")


def test_all_rows_have_no_outside(pages):
    """The page of the whole traffic has no owner, no function, and no coverage: it counts predictions."""
    page = pages.detail(pages.slices_view([]).slices[0])
    assert page.all("h1")[0].words() == "All traffic"
    assert "Owner" not in page.words()
    labels = {td.attributes.get("data-label"): td.words() for td in page.all("td")}
    assert labels["Predictions"] == "2,000"
    assert not {"Coverage", "Outside", "Unknown"} & set(labels)
    assert len(page.all("svg", "chart")) == 1
