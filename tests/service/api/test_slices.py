"""``GET /v1/slices``, a slice over time, and its records."""

import asyncio
import threading
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from service.api.schemas.slices import PerformanceOut
from service.events import InsufficientData, Performance
from service.serving.table_reference import TableReference

GOOD = {"text": "subscribe to my song for free money", "likes": 2}
SHORT = {"text": "love", "likes": 0}


@pytest.fixture
def watched(service):
    """A service with forty answered rows, of which thirty are labelled, and a tick."""
    ids = [f"id-{n}" for n in range(40)]
    service.predicted(*[GOOD if n % 4 else SHORT for n in range(40)], ids=ids)
    service.post("/v1/labels", {"labels": [{"id": each, "label": "true"} for each in ids[:30]]})
    service.tick()
    return service


def test_before_the_first_count_there_is_nothing_to_show(service):
    """Without a snapshot the slices are not ready, and the answer says why."""
    answer = service.get("/v1/slices")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert "snapshot" in answer.json()["detail"]


def test_every_figure_has_its_n_and_interval(watched):
    """Coverage is a share of n rows with an interval, beside what is expected."""
    body = watched.get("/v1/slices", params={"window": "1h"}).json()
    by_name = {each["name"]: each for each in body["slices"]}
    coverage = by_name["short"]["coverage"]
    assert (body["model"], body["version"], body["window"]) == ("comments", 1, "1h")
    assert set(by_name) == {"__all__", "__none__", "short", "clicks"}
    assert (coverage["count"], coverage["n"], coverage["value"]) == (10, 40, 0.25)
    assert coverage["lower"] < 0.25 < coverage["upper"]
    assert coverage["method"] == "clopper-pearson"
    assert by_name["short"]["reference"]["n"] > 0
    assert (by_name["short"]["origin"], by_name["__all__"]["origin"]) == ("file", None)


def test_the_last_label_and_row_of_a_slice_are_told(watched):
    """They are the same after a restart."""
    labelled_at = datetime.fromisoformat(watched.get("/v1/slices").json()["last_label_at"])
    watched.now += timedelta(minutes=90)
    watched.predicted(GOOD, SHORT)
    watched.tick()
    for _ in range(2):
        short = next(each for each in watched.get("/v1/slices").json()["slices"] if each["name"] == "short")
        at = {key: datetime.fromisoformat(short[key]) for key in ("last_label_at", "last_known_at")}
        assert at == {"last_label_at": labelled_at, "last_known_at": watched.model.deployment.snapshot.at}
        watched.model.deployment.snapshot = None
        watched.model.snapshots.restore()


def test_the_reference_table_is_named(watched):
    """It is null for a version served here, and has name, rows and note for one served elsewhere."""
    assert watched.get("/v1/slices").json()["reference_table"] is None
    watched.set_state(active=None)
    table = TableReference("rows.csv", "", 500, False, None, {}, {})
    watched.model.deployment.set_table(table, "rows.csv could not be counted: no column 'text'")
    expected = {"name": "rows.csv", "rows": 500, "note": "rows.csv could not be counted: no column 'text'"}
    assert watched.get("/v1/slices").json()["reference_table"] == expected


def test_a_figure_that_is_not_given_says_why(watched):
    """Too few labels are a reason with the n that is needed, and no number."""
    short = next(each for each in watched.get("/v1/slices").json()["slices"] if each["name"] == "short")
    assert short["members"]["labelled"] == 8
    assert short["members"]["accuracy"]["needed"] == 20
    assert "value" not in short["members"]["accuracy"]
    every = next(each for each in watched.get("/v1/slices").json()["slices"] if each["name"] == "__all__")
    assert every["members"]["accuracy"]["n"] == 30


@pytest.mark.parametrize("path", ["/v1/slices", "/v1/slices/short"])
def test_a_window_is_one_of_five(watched, path):
    """A window of another name is a 422 that names the parameter, and what it may be."""
    answer = watched.get(path, params={"window": "2h"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "query.window")
    assert "since_promotion" in answer.json()["errors"][0]["message"]


def test_a_slice_over_time_has_its_points_and_events(watched):
    """Points follow each other without gaps, and what they count is what was answered."""
    body = watched.get("/v1/slices/short", params={"window": "1h", "points": 30}).json()
    points = body["points"]
    assert body["name"] == "short"
    assert all(one["end"] == next_["start"] for one, next_ in pairwise(points))
    assert sum(each["coverage"]["n"] for each in points) == 40


def test_a_span_of_ones_own_takes_the_place_of_the_window(watched):
    """From and to are ISO times, in any zone."""
    span = {"from": "2026-05-01T13:00:00+02:00", "to": "2026-05-01T12:30:00Z"}
    points = watched.get("/v1/slices/short", params=span).json()["points"]
    assert points[0]["start"] == "2026-05-01T11:00:00Z"


@pytest.mark.parametrize(
    "span",
    [
        {"from": "2026-05-01T12:00:00Z", "to": "2026-05-01T12:00:00Z"},
        {"from": "2026-05-02T12:00:00Z"},
        {"to": "1970-01-01T00:00:00Z"},
        {"from": "yesterday"},
        {"from": "2026-05-01"},
        {"from": "0001-01-01T00:00:00Z"},
        {"to": "9999-12-31T23:59:59-23:59"},
        {"points": 0},
        {"points": "many"},
    ],
)
def test_a_span_that_cannot_be_is_refused(watched, span):
    """Empty spans, and times that are none, are a 422."""
    assert watched.get("/v1/slices/short", params=span).status_code == 422


def test_the_longest_span_is_answered(watched):
    """All time there is makes a series as well."""
    span = {"from": "1970-01-01T00:00:00Z", "to": "2999-12-31T23:59:59Z", "points": 500}
    assert watched.get("/v1/slices/short", params=span).status_code == 200


@pytest.mark.parametrize("path", ["/v1/slices/nope", "/v1/slices/nope/records", "/v1/slices/%00"])
def test_an_unknown_slice_is_not_found(watched, path):
    """A name that no slice has is a 404 that says so."""
    answer = watched.get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json()["type"] == "urn:slicewatch:problem:unknown-slice"


def test_records_of_a_slice_come_with_their_buckets(watched):
    """The last members come newest first, with counts by true and predicted class."""
    body = watched.get("/v1/slices/short/records", params={"limit": 5}).json()
    first = body["records"][0]
    assert len(body["records"]) == 5
    assert (first["features"], first["slices"]) == (SHORT, ["short"])
    assert set(first["probabilities"]) == {"true", "false"}
    assert sum(each["n"] for each in body["buckets"]) == 8
    assert {each["label"] for each in body["buckets"]} == {"true"}
    assert (body["scanned"], body["complete"]) == (40, True)


def test_records_are_asked_for_by_kind_and_time(watched):
    """Kinds choose by label, complement the rows outside, and before the next page."""
    count = {
        key: len(watched.get("/v1/slices/short/records", params=params).json()["records"])
        for key, params in {
            "all": {},
            "unlabelled": {"kind": "unlabelled"},
            "outside": {"complement": True},
            "before": {"before": "2026-05-01T12:00:00Z"},
        }.items()
    }
    assert count == {"all": 10, "unlabelled": 2, "outside": 30, "before": 0}


@pytest.mark.parametrize("params", [{"kind": "bad"}, {"limit": 0}, {"limit": 501}, {"before": "then"}, {"cursor": "x"}])
def test_a_wrong_question_for_records_is_refused(watched, params):
    """A parameter that cannot be is a 422 that names it."""
    answer = watched.get("/v1/slices/short/records", params=params)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, f"query.{next(iter(params))}")


def test_reading_blocks_no_other_request(watched):
    """While one request waits for the store, others are answered."""
    let_go, reading = threading.Event(), threading.Event()

    class Page:
        def text(self):
            reading.set()
            let_go.wait()
            return b""

    watched.runtime.page = Page()

    async def both():
        slow = asyncio.create_task(watched.client.get("/metrics"))
        while not reading.is_set():
            await asyncio.sleep(0)
        quick = await watched.client.get("/healthz")
        done = slow.done()
        let_go.set()
        return quick.status_code, done, (await slow).status_code

    assert watched.runner.run(both()) == (200, False, 200)


def test_pages_of_records_leave_none_out(watched):
    """Following ``next`` shows every row of one batch once, and ends with null."""
    watched.predicted(*[SHORT] * 7, ids=list("abcdefg"))
    seen, params = [], {"limit": 3}
    while params.get("cursor", "first"):
        body = watched.get("/v1/slices/short/records", params=params).json()
        seen += [each["id"] for each in body["records"]]
        params["cursor"] = body["next"]
    assert len(seen) == len(set(seen)) == 17
    assert seen[:7] == list("gfedcba")


def test_a_page_of_records_before_a_row_leaves_it_out(watched):
    """Only older rows are on the next page."""
    watched.predicted(SHORT, ids=["new"])
    body = watched.get("/v1/slices/short/records", params={"limit": 1}).json()
    assert body["records"][0]["id"] == "new"
    body = watched.get("/v1/slices/short/records", params={"before": body["records"][0]["at"]}).json()
    assert "new" not in {each["id"] for each in body["records"]}


def test_f1_is_a_number_or_null_with_its_reason():
    """A client reads one type; the reason why there is no F1 has a field of its own."""
    few = InsufficientData(3, 20, "3 of 20 labels")
    told = [
        PerformanceOut.model_validate(Performance(3, few, f1)).model_dump(include={"f1", "f1_reason"})
        for f1 in (0.5, few)
    ]
    assert told == [{"f1": 0.5, "f1_reason": None}, {"f1": None, "f1_reason": "3 of 20 labels"}]


def test_f1_over_http_has_its_reason(watched):
    """Every slice and point has a number or null as `f1`, and a reason exactly where it is null."""
    rows = watched.get("/v1/slices").json()["slices"]
    rows += watched.get("/v1/slices/short").json()["points"]
    assert rows
    for row in rows:
        for group in (row["members"], row["complement"]):
            assert group["f1"] is None or isinstance(group["f1"], float)
            assert (group["f1"] is None) == bool(group["f1_reason"])


def test_long_records_are_cut_in_lists(service):
    """The answer stays short however long they are, and tells what is cut and how to get it."""
    rows = [{"text": "free money " * 9000, "likes": n} for n in range(20)]
    ids = [f"r{n:02}" for n in range(20)]
    service.predicted(*rows, ids=ids)
    answer = service.get("/v1/slices/__all__/records", params={"limit": 500})
    body = answer.json()
    assert len(answer.content) < 20 * 2500
    assert {each["id"] for each in body["records"]} == set(ids)
    first = body["records"][0]
    assert first["cut"] == {"text": 99_000}
    assert first["features"]["text"].endswith("… (99,000 characters)")
    whole = service.get(f"/v1/predictions/{first['id']}").json()
    assert whole["features"]["text"] == "free money " * 9000
