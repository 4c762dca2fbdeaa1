"""The overview says what each slice does, with its n, and explains what is missing."""

from dataclasses import replace
from datetime import timedelta

import pytest

from service.console.examples import examples
from service.views.current import FunctionHealth
from sfs.function import ALL_ROWS


def rows(page, table=0):
    """Name to the text of its row."""
    body = page.all("table", "slices")[table].all("tbody")[0]
    return {row.all("a", "name")[0].words(): row for row in body.all("tr")}


@pytest.fixture
def three(pages):
    """One that is well, one whose coverage is off, one whose accuracy is low."""
    e, v = pages.estimate, pages.slice_view
    return [
        v(e("links", 240, 2000, 46, 50), reference=(480, 4000), owner="growth"),
        v(e("short", 90, 2000, 5, 6), "coverage_off", (480, 4000), owner="safety", severity="critical"),
        v(e("asks", 700, 2000, 61, 100), "accuracy_low", target=0.9, protected=True),
    ]


def test_a_row_has_every_figure_with_its_n(pages, three):
    """Coverage, interval, counts, what is expected, accuracy and F1 with labelled n, and the state in words."""
    said = rows(pages.overview(three))["links"].words()
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


def test_too_few_labels_are_counted_instead_of_a_figure(pages, three):
    """Where labels are too few, how many there are and are needed stands in place of an accuracy."""
    said = rows(pages.overview(three))["short"].words()
    assert "6 of 20 labels needed" in said
    assert "83.3%" not in said


def test_alarms_come_first_unless_another_order_is_asked_for(pages, three):
    """A slice with an alarm stands above those that look worse, with a badge that leads to the evidence."""
    view = pages.slices_view(three)
    page = pages.overview_of(view, alarms=[pages.alarm(7, pages.drift("links"))])
    found = rows(page)
    assert list(found) == ["links", "asks", "short"]
    (badge,) = found["links"].all("a", "alarm")
    assert (badge.words(), badge.attributes["href"]) == ("alarm: coverage", "/alarms/7")
    assert [each.words() for each in found["links"].all("span", "badge")] == []
    assert "1 with alarms" in page.words()
    by_worst = pages.overview_of(view, alarms=[pages.alarm(7, pages.drift("links"))], sort="worst")
    assert list(rows(by_worst)) == ["asks", "short", "links"]


def test_an_alarm_of_all_traffic_stands_with_it(pages, three):
    """The whole traffic has no row, and shows its alarm beside its figures."""
    drift = pages.accuracy_drift(ALL_ROWS, fingerprint=None)
    page = pages.overview_of(pages.slices_view(three), alarms=[pages.alarm(3, drift)])
    (badge,) = page.all("a", "alarm")
    assert badge.words() == "alarm: accuracy"


def test_what_nobody_judged_is_not_called_well(pages):
    """Without an expected coverage and a target there is nothing that a slice could be held against."""
    found = pages.estimate("free", 100, 2000)
    page = pages.overview([pages.slice_view(found)])
    assert "not judged" in rows(page)["free"].words()
    assert [a.words() for a in page.all("a") if "state=" in a.attributes["href"]] == ["1 not judged"]
    assert list(rows(pages.overview([pages.slice_view(found)], state="not_judged"))) == ["free"]
    assert (
        "not judged"
        not in rows(pages.overview([pages.slice_view(found, reference=(200, 4000))]))["free"].words()
    )


def test_too_few_labels_are_told_from_too_few_rows(pages):
    """A slice with rows and a target lacks labels; one without rows lacks rows."""
    labels = pages.slice_view(pages.estimate("unlabelled", 100, 2000, 1, 2), "too_few", target=0.9)
    nothing = pages.slice_view(pages.estimate("empty", 0, 0), "too_few")
    found = rows(pages.overview([labels, nothing]))
    assert "too few labels" in found["unlabelled"].words()
    assert "too few rows" in found["empty"].words()


def test_worst_come_first(pages, three):
    """Low accuracy stands above coverage that is off, and both above what is well."""
    assert list(rows(pages.overview(three))) == ["asks", "short", "links"]


def test_a_slice_whose_function_is_kept_out_stands_with_the_worst(pages, three):
    """An open breaker is said with its reason, and looked at before coverage that is off."""
    out = replace(three[0], health=FunctionHealth("links", "open", "it took too long"))
    found = rows(pages.overview([out, *three[1:]]))
    assert list(found) == ["asks", "links", "short"]
    assert "not applied it took too long" in found["links"].words()


def test_the_further_from_its_target_the_higher(pages):
    """Among slices of low accuracy and one severity, the largest gap comes first."""
    near = pages.slice_view(pages.estimate("near", 100, 2000, 80, 100), "accuracy_low", target=0.9)
    far = pages.slice_view(pages.estimate("far", 100, 2000, 60, 100), "accuracy_low", target=0.9)
    assert list(rows(pages.overview([near, far]))) == ["far", "near"]


def test_coverage_that_vanished_is_further_off_than_coverage_that_halved(pages):
    """A slice without members has an infinite ratio to what is expected."""
    none = pages.slice_view(pages.estimate("none left", 0, 2000), "coverage_off", (400, 4000))
    half = pages.slice_view(pages.estimate("half", 100, 2000), "coverage_off", (400, 4000))
    assert list(rows(pages.overview([half, none]))) == ["none left", "half"]


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("name", ["asks", "links", "short"]),
        ("coverage", ["asks", "links", "short"]),
        ("accuracy", ["asks", "links", "short"]),
    ],
)
def test_orders(pages, three, sort, order):
    """By name; the largest coverage first; the lowest accuracy first, unknown ones last."""
    page = pages.overview(three, sort=sort)
    assert list(rows(page)) == order
    (column,) = [th for th in page.all("table", "slices")[0].all("th") if "aria-sort" in th.attributes]
    assert column.words().lower().startswith({"name": "slice"}.get(sort, sort))


@pytest.mark.parametrize(
    ("choices", "left"),
    [({"q": "SHO"}, {"short"}), ({"owner": "growth"}, {"links"}), ({"state": "accuracy_low"}, {"asks"})],
)
def test_filters(pages, three, choices, left):
    """A part of the name in any case, the owner, or the state leaves the others out."""
    page = pages.overview(three, **choices)
    assert set(rows(page)) == left
    assert f"({len(left)} of 3)" in page.words()


def test_a_filter_that_nothing_passes_says_so(pages, three):
    """An empty table is explained, with a link to all."""
    page = pages.overview(three, q="nothing like it")
    assert "None of the 3 slices is like that" in page.words()
    assert "/" in {a.attributes["href"] for a in page.all("a") if a.words() == "Show all"}


def test_links_keep_what_was_chosen(pages, three):
    """Another window is of the same order and filter."""
    page = pages.overview(three, sort="name", q="s & t", window="1d")
    hrefs = {a.words(): a.attributes["href"] for a in page.all("a")}
    assert hrefs["7 days"] == "/?window=7d&sort=name&q=s+%26+t"
    assert hrefs["1 hour"] == "/?sort=name&q=s+%26+t"


def test_states_are_counted(pages, three):
    """How many slices are in which state is said above the table, the worst first."""
    links = [a.words() for a in pages.overview(three).all("a") if "state=" in a.attributes["href"]]
    assert links == ["1 accuracy low", "1 coverage off", "1 ok"]


def test_hostile_names_are_only_text(pages):
    """Names, owners and reasons cannot become elements, attributes or other addresses."""
    evil = '"><script>alert(1)</script>'
    found = pages.estimate(evil, 100, 2000)
    health = FunctionHealth(evil, "open", evil)
    page = pages.overview([pages.slice_view(found, owner=evil, health=health)], q=evil[:5])
    assert page.all("script") == []
    assert evil in page.text
    assert "/slices/%22%3E%3Cscript%3Ealert%281%29%3C%2Fscript%3E" in {
        a.attributes["href"] for a in page.all("a")
    }


def test_rows_of_no_slice_and_labelling_functions_stand_apart(pages, three):
    """Neither is among the slices."""
    votes = pages.slice_view(pages.estimate("lf", 10, 2000), kind="labeling")
    page = pages.overview([*three, votes])
    assert [list(rows(page, table)) for table in (1, 2)] == [["lf"], ["No slice fired"]]
    assert "Slices (3)" in page.words()


def test_the_whole_traffic_has_its_n(pages, three):
    """Predictions, labels, accuracy with interval, and when the last label came."""
    said = pages.overview(three).words()
    for part in ("2,000", "20.0% of the predictions", "last label 3 min ago", "92.0%", "368 of 400 labelled"):
        assert part in said


@pytest.mark.parametrize(("age", "told"), [(7, False), (60, False), (61, True)])
def test_old_figures_are_told_of(pages, three, age, told):
    """A snapshot older than a minute is warned of."""
    page = pages.overview_of(pages.slices_view(three, at=pages.now - timedelta(seconds=age)))
    assert ("the monitor may have stopped" in page.words()) is told


def test_old_is_said_by_the_clock_that_runs(pages, three):
    """On a clock that is faster, figures are old later."""
    view = pages.slices_view(three, at=pages.now - timedelta(seconds=90))
    assert "the monitor may have stopped" in pages.overview_of(view).words()
    assert "the monitor may have stopped" not in pages.overview_of(view, speed=120.0).words()


def test_commands_have_the_columns_of_the_model():
    """A record of the version in force is what is sent, long texts cut, and what a function is made of."""
    made = examples("http://here/", None, ("a",), {"comment": "x" * 500, "likes": 3})
    assert f'{{"comment": "{"x" * 60}", "likes": 3}}' in made.predict
    assert '{"name": "no_comment", "missing": {"field": "comment"}}' in made.function
    assert '{"text": "check this out"}' in examples("http://here/", None, ("a",)).predict


def test_no_traffic_is_explained(pages):
    """A window without rows shows how to send one."""
    said = pages.overview_of(pages.slices_view([], n=0, labelled=0)).words()
    assert "No predictions in this window" in said
    assert "curl http://here:8000/v1/predict" in said
    assert "0 of 20 labels needed" in said


def test_no_labels_is_explained(pages):
    """A window without labels shows how to send one, for a prediction that is there."""
    said = pages.overview_of(pages.slices_view([], labelled=0)).words()
    assert "No labels in this window" in said
    assert '{"labels": [{"id": "p-1", "label": "ham"}]}' in said


def test_no_functions_is_explained(pages):
    """Without functions, the page shows how to add one."""
    said = pages.overview().words()
    assert "No slicing functions are in force" in said
    assert "curl http://here:8000/v1/functions" in said


def test_failures_of_a_function_are_shares(pages):
    """Unknown rows are a share of those that the function was applied to; older rows are said apart."""
    found = pages.estimate("odd", 100, 1500, unknown=500, absent=70)
    said = rows(pages.overview([pages.slice_view(found, "unknown_high")]))["odd"].words()
    assert "25.0% unknown 500 of 2,000 rows" in said
    assert "70 rows are from before this version" in said


def test_loading_again_is_a_choice(pages, three):
    """The page loads itself again only if asked to."""
    assert [m for m in pages.overview(three).all("meta") if "http-equiv" in m.attributes] == []
    asked = [m for m in pages.overview(three, refresh=10).all("meta") if "http-equiv" in m.attributes]
    assert [m.attributes["content"] for m in asked] == ["10"]


def test_plots_say_what_they_show(pages, three):
    """Every plot has a name in words, and headings of columns and rows have their scope."""
    page = pages.overview(three, {"links": (0.1, None, 0.12), ALL_ROWS: (1.0,)})
    names = [svg.attributes["aria-label"] for svg in page.all("svg")]
    assert "coverage 12.0%, interval 10.6% to 13.5%; expected 12.0%, interval 11.0% to 13.0%" in names
    assert "coverage by hour over 24 h: last 12.0%, lowest 10.0%, highest 12.0%" in names
    assert all(th.attributes.get("scope") in ("col", "row") for th in page.all("th"))
