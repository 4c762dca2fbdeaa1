"""Pages of slices: the overview with its filters, and a slice with its windows, history and records."""

from dataclasses import replace
from datetime import timedelta

import pytest
from page_factories import (
    NOW,
    accuracy_drift,
    alarm,
    drift,
    estimate,
    overview,
    overview_of,
    record,
    section,
    slice_page,
    slice_series,
    slice_view,
    slices_view,
)

from service.console.pages.slices import SliceActivity, example_commands
from service.serving.deployment import FunctionHealth
from service.views.alarms import alarm_sentence
from service.views.records import RecordsView
from service.views.series import SeriesEvent
from service.views.slices import ReferenceTableView
from sfs.function import ALL_ROWS


def rows(page, table=0):
    """Rows of a table by name."""
    body = page.all("table", "slices")[table].all("tbody")[0]
    return {row.all("a", "name")[0].words(): row for row in body.all("tr")}


@pytest.fixture
def three():
    """A healthy slice, one with shifted coverage, one with low accuracy."""
    e, v = estimate, slice_view
    return [
        v(e("links", 240, 2000, 46, 50), reference=(480, 4000), owner="growth"),
        v(e("short", 90, 2000, 5, 6), "coverage_off", (480, 4000), owner="safety", severity="critical"),
        v(e("asks", 700, 2000, 61, 100), "accuracy_low", target=0.9, protected=True),
    ]


def test_a_row_has_every_figure_with_its_n(three):
    """Coverage, interval, counts, expected coverage, accuracy and F1 with labelled n, and the state."""
    said = rows(overview_of(three))["links"].words()
    for part in (
        "12.0%",
        "10.6–13.5%",
        "240 of 2,000",
        "expected 12.0%",
        "92.0%",
        "46 of 50 labelled",
        "n 50",
        "ok",
    ):
        assert part in said


def test_missing_labels_replace_the_accuracy(three):
    """With too few labels, their number and the number needed are shown instead of an accuracy."""
    said = rows(overview_of(three))["short"].words()
    assert "6 of 20 labels needed" in said
    assert "83.3%" not in said


def test_figures_that_have_run_dry_name_the_last_row_and_label():
    """In place of the accuracy and the coverage, in the overview and on the page of the slice."""
    dry = replace(
        slice_view(estimate("links", 0, 0), reference=(400, 20_000)),
        last_known_at=NOW - timedelta(hours=3),
        last_label_at=NOW - timedelta(hours=9),
        unknown_since={"accuracy": NOW - timedelta(hours=9)},
    )
    for said in (overview_of([dry]).words(), slice_page(dry).words()):
        assert f"no rows since {NOW - timedelta(hours=3):%Y-%m-%d %H:%M:%S} UTC" in said
        assert f"no labels since {NOW - timedelta(hours=9):%Y-%m-%d %H:%M:%S} UTC" in said
    raised = alarm(found=accuracy_drift())
    said = slice_page(dry, activity=SliceActivity(1, (raised,), (accuracy_drift(),))).words()
    assert f"unknown since {NOW - timedelta(hours=9):%Y-%m-%d %H:%M} UTC. Raised" in said
    assert f"unknown since {NOW - timedelta(hours=9):%Y-%m-%d %H:%M:%S} UTC" in said


def test_alarms_come_first_by_default(three):
    """A slice with an alarm is above those in a worse state, with a badge that links to the evidence."""
    view = slices_view(three)
    page = overview(view, alarms=[alarm(7, drift("links"))])
    found = rows(page)
    assert list(found) == ["links", "asks", "short"]
    (badge,) = found["links"].all("a", "alarm")
    assert (badge.words(), badge.attributes["href"]) == ("alarm: coverage", "/alarms/7")
    assert [each.words() for each in found["links"].all("span", "badge")] == []
    assert "1 with alarms" in page.words()
    by_worst = overview(view, alarms=[alarm(7, drift("links"))], sort="worst")
    assert list(rows(by_worst)) == ["asks", "short", "links"]


def test_an_alarm_about_all_traffic_is_beside_its_figures(three):
    """All traffic has no row in the table."""
    drift = accuracy_drift(ALL_ROWS, fingerprint=None)
    page = overview(slices_view(three), alarms=[alarm(3, drift)])
    (badge,) = page.all("a", "alarm")
    assert badge.words() == "alarm: accuracy"


def test_a_slice_without_reference_and_target_is_not_ok():
    """There is nothing to compare it with."""
    found = estimate("free", 100, 2000)
    page = overview_of([slice_view(found)])
    assert "no reference" in rows(page)["free"].words()
    assert [a.words() for a in page.all("a") if "state=" in a.attributes["href"]] == ["1 no reference"]
    assert list(rows(overview_of([slice_view(found)], state="not_judged"))) == ["free"]
    assert "no reference" not in rows(overview_of([slice_view(found, reference=(200, 4000))]))["free"].words()


def test_too_few_labels_differ_from_too_few_rows():
    """A slice with rows and a target lacks labels; one without rows lacks rows."""
    labels = slice_view(estimate("unlabelled", 100, 2000, 1, 2), "too_few", target=0.9)
    nothing = slice_view(estimate("empty", 0, 0), "too_few")
    found = rows(overview_of([labels, nothing]))
    assert "too few labels" in found["unlabelled"].words()
    assert "too few rows" in found["empty"].words()


def test_worst_come_first(three):
    """Low accuracy is above shifted coverage, and both are above a healthy slice."""
    assert list(rows(overview_of(three))) == ["asks", "short", "links"]


def test_a_slice_with_a_disabled_function_is_urgent(three):
    """An open breaker has its reason, and comes before shifted coverage."""
    out = replace(three[0], health=FunctionHealth("links", "open", "it took too long"))
    found = rows(overview_of([out, *three[1:]]))
    assert list(found) == ["asks", "links", "short"]
    assert "disabled it took too long" in found["links"].words()


def test_the_larger_gap_to_the_target_comes_first():
    """Slices of low accuracy and equal severity are ordered by their gap."""
    near = slice_view(estimate("near", 100, 2000, 80, 100), "accuracy_low", target=0.9)
    far = slice_view(estimate("far", 100, 2000, 60, 100), "accuracy_low", target=0.9)
    assert list(rows(overview_of([near, far]))) == ["far", "near"]


def test_zero_coverage_is_more_urgent_than_half_the_coverage():
    """A slice without members is infinitely far from its reference on a logarithmic scale."""
    none = slice_view(estimate("none left", 0, 2000), "coverage_off", (400, 4000))
    half = slice_view(estimate("half", 100, 2000), "coverage_off", (400, 4000))
    assert list(rows(overview_of([half, none]))) == ["none left", "half"]


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("name", ["asks", "links", "short"]),
        ("coverage", ["asks", "links", "short"]),
        ("accuracy", ["asks", "links", "short"]),
    ],
)
def test_orders(three, sort, order):
    """By name, by highest coverage, and by lowest accuracy with missing ones last."""
    page = overview_of(three, sort=sort)
    assert list(rows(page)) == order
    (column,) = [th for th in page.all("table", "slices")[0].all("th") if "aria-sort" in th.attributes]
    assert column.words().lower().startswith({"name": "slice"}.get(sort, sort))


@pytest.mark.parametrize(
    ("choices", "left"),
    [({"q": "SHO"}, {"short"}), ({"owner": "growth"}, {"links"}), ({"state": "accuracy_low"}, {"asks"})],
)
def test_filters(three, choices, left):
    """A part of the name in any case, the owner, or the state hides other slices."""
    page = overview_of(three, **choices)
    assert set(rows(page)) == left
    assert f"({len(left)} of 3)" in page.words()


def test_a_filter_without_matches_can_be_cleared(three):
    """An empty result has a link that clears the filters."""
    page = overview_of(three, q="nothing like it")
    assert "None of the 3 slices match" in page.words()
    assert "/" in {a.attributes["href"] for a in page.all("a") if a.words() == "Clear filters"}


def test_links_keep_the_parameters(three):
    """A link to another window keeps the order and the filter."""
    page = overview_of(three, sort="name", q="s & t", window="1d")
    hrefs = {a.words(): a.attributes["href"] for a in page.all("a")}
    assert hrefs["7 days"] == "/?window=7d&sort=name&q=s+%26+t"
    assert hrefs["1 hour"] == "/?sort=name&q=s+%26+t"


def test_states_are_counted(three):
    """The number of slices by state is above the table, the most urgent state first."""
    links = [a.words() for a in overview_of(three).all("a") if "state=" in a.attributes["href"]]
    assert links == ["1 low accuracy", "1 coverage shifted", "1 ok"]


def test_hostile_names_are_escaped():
    """Names, owners and reasons cannot become elements, attributes or other addresses."""
    evil = '"><script>alert(1)</script>'
    found = estimate(evil, 100, 2000)
    health = FunctionHealth(evil, "open", evil)
    page = overview_of([slice_view(found, owner=evil, health=health)], q=evil[:5])
    assert page.all("script") == []
    assert evil in page.text
    assert "/slices/%22%3E%3Cscript%3Ealert%281%29%3C%2Fscript%3E" in {a.attributes["href"] for a in page.all("a")}


def test_rows_in_no_slice_and_labelling_functions_have_their_own_tables(three):
    """Neither counts as a slice."""
    votes = slice_view(estimate("lf", 10, 2000), kind="labeling")
    page = overview_of([*three, votes])
    assert [list(rows(page, table)) for table in (1, 2)] == [["lf"], ["No slice"]]
    assert "Slices (3)" in page.words()


def test_all_traffic_has_its_n(three):
    """Predictions, labels, accuracy with interval, and the age of the last label."""
    said = overview_of(three).words()
    for part in ("2,000", "20.0% of the predictions", "last label 3 min ago", "92.0%", "368 of 400 labelled"):
        assert part in said


@pytest.mark.parametrize(("age", "warned"), [(7, False), (60, False), (61, True)])
def test_old_figures_cause_a_warning(three, age, warned):
    """A snapshot older than a minute causes a warning."""
    page = overview(slices_view(three, at=NOW - timedelta(seconds=age)))
    assert ("The monitor may have stopped" in page.words()) is warned


def test_the_warning_depends_on_the_speed_of_the_clock(three):
    """On a faster clock, figures become old later."""
    view = slices_view(three, at=NOW - timedelta(seconds=90))
    assert "The monitor may have stopped" in overview(view).words()
    assert "The monitor may have stopped" not in overview(view, speed=120.0).words()


def test_commands_have_the_columns_of_the_model():
    """Commands contain a record of the active version, with long texts cut."""
    made = example_commands("http://here/", None, ("a",), {"comment": "x" * 500, "likes": 3})
    assert f'{{"comment": "{"x" * 60}", "likes": 3}}' in made.predict
    assert '{"name": "no_comment", "missing": {"field": "comment"}}' in made.function
    assert '{"text": "check this out"}' in example_commands("http://here/", None, ("a",)).predict
    assert "Bearer" not in made.predict
    keyed = example_commands("http://here/", None, ("a",), with_key=True)
    assert all('-H "Authorization: Bearer $SLICEWATCH_KEY"' in each for each in (keyed.predict, keyed.label))


def test_a_prediction_made_elsewhere_is_logged_with_its_version():
    """The command is not that of a prediction here, which would be refused."""
    made = example_commands("http://here/", None, ("a",), external=7)
    assert made.predict == made.logged
    assert '"version": 7' in made.logged


def test_the_reference_table_is_shown_with_the_reason_of_a_failed_count():
    """The overview has its name and rows, and why a changed table is not counted."""
    table = ReferenceTableView("rows.csv", 1200, "rows.csv could not be counted: no column 'text'")
    said = overview(slices_view([], reference_table=table)).words()
    assert "reference table rows.csv, 1,200 rows" in said
    assert "Reference table: rows.csv could not be counted: no column 'text'." in said
    assert "eference table" not in overview(slices_view([])).words()


def test_no_traffic_is_explained():
    """A window without rows shows how to send a prediction."""
    said = overview(slices_view([], n=0, labelled=0)).words()
    assert "No predictions in this window" in said
    assert "curl http://here:8000/v1/predict" in said
    assert "0 of 20 labels needed" in said


def test_no_labels_is_explained():
    """A window without labels shows how to label an existing prediction."""
    said = overview(slices_view([], labelled=0)).words()
    assert "No labels in this window" in said
    assert '{"labels": [{"id": "p-1", "label": "ham"}]}' in said


def test_no_functions_is_explained():
    """Without functions the page shows how to add one."""
    said = overview_of().words()
    assert "No slicing functions, so only the traffic as a whole is monitored" in said
    assert "curl http://here:8000/v1/functions" in said


def test_failures_of_a_function_are_relative():
    """Unknown rows are a fraction of the applied ones; rows before the version are counted apart."""
    found = estimate("odd", 100, 1500, unknown=500, absent=70)
    said = rows(overview_of([slice_view(found, "unknown_high")]))["odd"].words()
    assert "25.0% unknown 500 of 2,000 rows" in said
    assert "70 rows before this version" in said


def test_refresh_is_off_by_default(three):
    """The page reloads itself only on request."""
    assert [m for m in overview_of(three).all("meta") if "http-equiv" in m.attributes] == []
    asked = [m for m in overview_of(three, refresh=10).all("meta") if "http-equiv" in m.attributes]
    assert [m.attributes["content"] for m in asked] == ["10"]


def test_plots_are_named_by_their_content(three):
    """Every plot has a name, and headings of columns and rows have a scope."""
    page = overview_of(three, {"links": (0.1, None, 0.12), ALL_ROWS: (1.0,)})
    names = [svg.attributes["aria-label"] for svg in page.all("svg")]
    assert "coverage 12.0%, interval 10.6% to 13.5%; expected 12.0%, interval 11.0% to 13.0%" in names
    assert "coverage by hour over 24 h: last 12.0%, lowest 10.0%, highest 12.0%" in names
    assert all(th.attributes.get("scope") in ("col", "row") for th in page.all("th"))


@pytest.fixture
def short():
    """A slice with all its metadata."""
    return slice_view(
        estimate("short", 240, 2000, 46, 50, unknown=10),
        reference=(480, 4000),
        owner="growth",
        severity="critical",
        target=0.95,
        protected=True,
        family="length",
        description="Comments of few words.",
    )


def test_the_page_shows_the_metadata(short):
    """Description, owner, severity, target, protection, family, origin, and a short fingerprint."""
    said = slice_page(short).words()
    for part in (
        "Comments of few words.",
        "growth",
        "critical",
        "95.0%",
        "yes: can block the promotion",
        "length",
        "from a file",
    ):
        assert part in said
    assert short.fingerprint[:12] in said
    assert short.fingerprint not in said


def test_a_missing_reference_is_explained(short):
    """Without an expected coverage the page has the reason."""
    without = slice_view(short.estimate)
    assert "the model was not trained with this function" in slice_page(without).words()


def test_windows_are_side_by_side(short):
    """Each window has coverage, the accuracies inside and outside the slice, F1, and failures."""
    (table, *_) = section(slice_page(short), "Windows").all("table")
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


def test_charts_have_a_name_and_a_table(short):
    """The chart's name has its last value, and a table lists every point with its counts."""
    page = slice_page(short)
    names = [svg.attributes["aria-label"] for svg in page.all("svg", "chart")]
    assert names[0].startswith("coverage over time: last 12.0%")
    assert names[1] == "accuracy over time: last 92.0%, lowest 92.0%, highest 92.0%; target 95.0%"
    assert section(page, "Coverage").words().count("240 of 2,000 rows") >= 5


def test_a_chart_without_values_is_explained(short):
    """Without a step with enough labels there is a sentence instead of a chart."""
    few = [estimate("short", 4, 40, 1, 2)] * 5
    said = section(slice_page(short, series=slice_series("short", few)), "Accuracy in the slice").words()
    assert "Too few labels in every 60 s step of this window" in said


def test_events_are_listed_and_marked(short):
    """Events are a numbered list, with their numbers in both charts."""
    event = SeriesEvent(NOW - timedelta(minutes=2), "promotion", "version 4: better")
    page = slice_page(short, series=slice_series("short", [short.estimate] * 5, [event]))
    assert "2026-05-01 11:58:07 UTC: version 4: better" in section(page, "Events").words()
    assert [text.words() for text in page.all("text", "flag")] == ["1", "1"]


def test_alarms_are_marked_and_link_to_their_evidence(short):
    """An alarm has a marker of its own colour; an unresolved one replaces the state "ok"."""
    raised = alarm(7, drift("short"), at=NOW - timedelta(minutes=2))
    event = SeriesEvent(raised.at, "alarm", f"alarm 7: {alarm_sentence(raised)}", 7)
    series = slice_series("short", [short.estimate] * 5, [event])
    page = slice_page(short, series=series, activity=SliceActivity(1, alarms=(raised,)))
    (item,) = section(page, "Events").all("li")
    assert [a.attributes["href"] for a in item.all("a")] == ["/alarms/7"]
    assert len([path for path in page.all("path", "alarm") if path.attributes["d"]]) == 2
    (badge,) = page.all("a", "alarm")
    assert badge.words() == "alarm: coverage"
    assert [each.words() for each in page.all("div", "headline")[0].all("span", "badge")] == []
    assert page.all("nav")[0].words().startswith("Slices Alarms 1 unresolved")


def test_detectors_show_their_status(short):
    """Each detector has its band, the observed rate and its evidence; without any, the page explains why."""
    drifts = (drift("short", evidence=9.05), accuracy_drift("short", zone=None))
    found = section(slice_page(short, activity=SliceActivity(drifts=drifts)), "Drift detectors")
    first, second = (row.words() for row in found.all("tbody")[0].all("tr"))
    assert first.startswith("coverage drift 8.1%")
    assert "1.6–2.4%" in first
    assert first.endswith("50%")
    assert "no reference yet" in second
    assert "not monitored" in second
    assert "Not monitored yet" in section(slice_page(short), "Drift detectors").words()


def test_failures_are_counted_by_reason(short):
    """Reasons come with their rows, the most frequent first; an open breaker has a reason of its own."""
    failures = {"TimeoutError": 3, "KeyError": 1200}
    out = replace(short, health=FunctionHealth("short", "open", "faults"))
    page = slice_page(out, activity=SliceActivity(failures=failures))
    rows = [row.words() for row in section(page, "Function failures").all("tbody")[0].all("tr")]
    assert rows == ["KeyError 1,200", "TimeoutError 3"]
    assert "disabled faults" in page.words()


def test_a_record_shows_prediction_and_label(short):
    """Id, time, prediction and label with probabilities, features, and links to the other slices."""
    records = RecordsView((record(),), {("spam", "ham"): 1}, 90, True, None)
    found = section(slice_page(short, records), "Records")
    for part in (
        "r1",
        "11:56:07 UTC",
        "ham 61.0%",
        "error",
        "label spam 39.0%",
        "check out my channel",
    ):
        assert part in found.words()
    assert [a.attributes["href"] for a in found.all("a") if a.words() == "links"] == ["/slices/links"]
    assert "90 rows searched; no older rows" in found.words()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label": "ham"}, "correct"),
        ({"label": None}, "no label yet"),
        ({"features": None}, "not stored"),
        ({"unknown_slices": ("asks",)}, "asks: unknown"),
        ({"probabilities": None}, "label spam"),
    ],
)
def test_missing_parts_of_a_record_are_shown(short, changes, said):
    """A missing label, features, membership or probabilities are stated."""
    records = RecordsView((record(**changes),), {}, 1, True, None)
    assert said in section(slice_page(short, records, kind="all"), "Records").words()


def test_a_record_in_many_slices_names_some(short):
    """Beyond twelve, other slices are only counted."""
    crowded = record(slices=("short", *map(str, range(20))), unknown_slices=tuple("abcdefghijklmn"))
    said = section(slice_page(short, RecordsView((crowded,), {}, 1, True, None)), "Records").words()
    assert "11 and 8 more a: unknown" in said
    assert said.count(": unknown") == 12


def test_hostile_records_are_escaped(short):
    """Ids, features, labels and slices cannot become elements."""
    evil = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>"
    hostile = record(evil, features={evil: evil * 10}, label=evil, predicted=evil, slices=(evil,))
    page = slice_page(short, RecordsView((hostile,), {(evil, evil): 1}, 1, True, None))
    assert page.all("script") == page.all("img") == []
    assert page.text.count("onerror=alert(1)") > 10


def test_a_hostile_slice_is_escaped(short):
    """Its name, description and owner cannot become elements, nor leave the attributes of charts."""
    evil = '"><script>alert(1)</script>'
    metadata = replace(short.metadata, description=evil, owner=evil, family=evil)
    page = slice_page(replace(short, name=evil, estimate=replace(short.estimate, slice=evil), metadata=metadata))
    assert page.all("script") == []
    assert page.all("h1")[0].words() == evil


def test_kinds_of_records_and_older_ones_are_linked(short):
    """A link to another kind starts at the newest record; the next page keeps the kind."""
    records = RecordsView((record(),), {}, 2000, False, "1777593600000000-7")
    page = slice_page(short, records, kind="correct", window="5m", cursor="1777597200000000-9")
    hrefs = {a.words(): a.attributes["href"] for a in section(page, "Records").all("a")}
    assert hrefs["errors"] == "/slices/short?window=5m#records"
    assert hrefs["older →"] == "/slices/short?window=5m&kind=correct&cursor=1777593600000000-7#records"
    assert hrefs["newest"] == "/slices/short?window=5m&kind=correct#records"


def test_the_confusion_matrix_has_sums(short):
    """Rows are true classes, columns are predicted ones."""
    records = RecordsView((), {("ham", "ham"): 8, ("spam", "ham"): 2, ("spam", "spam"): 5}, 40, True, None)
    found = section(slice_page(short, records), "Confusion matrix")
    lines = [row.words() for row in found.all("tr")]
    assert lines == ["true \\ predicted ham spam all", "ham 8 0 8", "spam 2 5 7"]
    assert "15 labelled members among the 40 rows searched" in found.words()


def test_many_classes_are_listed_by_pair(short):
    """Instead of a wide matrix, the most frequent pairs are listed."""
    buckets = {(f"c{i:02d}", f"c{i + 1:02d}"): i + 1 for i in range(40)}
    found = section(slice_page(short, RecordsView((), buckets, 900, True, None)), "Confusion matrix")
    lines = [row.words() for row in found.all("tr")]
    assert (len(lines), lines[1]) == (31, "c39 c40 40")


def test_all_traffic_has_no_outside():
    """The page of all traffic has no owner, function or coverage, but counts predictions."""
    page = slice_page(slices_view([]).slices[0])
    assert page.all("h1")[0].words() == "All traffic"
    assert "Owner" not in page.words()
    labels = {td.attributes.get("data-label"): td.words() for td in page.all("td")}
    assert labels["Predictions"] == "2,000"
    assert not {"Coverage", "Outside", "Unknown"} & set(labels)
    assert len(page.all("svg", "chart")) == 1
