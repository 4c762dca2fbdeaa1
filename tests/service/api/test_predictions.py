"""``POST /v1/predict`` and ``POST /v1/predictions``."""

import asyncio
import json
from concurrent.futures import Future
from datetime import timedelta

import pytest

from models.errors import DataError
from service.errors import DeadlinePassed, NoModel, Overloaded, RowsFailed, Stopping
from service.serving.batcher import MAX_FAILED_ROWS, Batcher
from service.serving.prediction_factory import PredictionFactory
from service.serving.predictions import LoggedResult
from service.serving.predictor import Predictor
from service.store import queries
from service.store.errors import StoreFull
from service.store.prediction_log import LogResult

GOOD = {"text": "subscribe to my song for free money", "likes": 2}
SHORT = {"text": "love", "likes": 0}
SERVED = {"features": GOOD, "label": True}


def logged(service, id_):
    with service.store.read() as connection:
        return queries.prediction(connection, "comments", id_)


def fields(answer):
    return [each["field"] for each in answer.json()["errors"]]


def send(service, *predictions):
    return service.post("/v1/predictions", {"predictions": list(predictions)})


def test_a_record_is_answered_with_its_slices(service):
    """A record gets a class, probabilities by class, and its slices."""
    answer = service.predicted(GOOD, SHORT)
    body = answer.json()
    first, second = body["predictions"]
    assert answer.status_code == 200
    assert body["model"] == {"name": "comments", "version": 1}
    assert sum(first["probabilities"].values()) == pytest.approx(1)
    assert first["label"] == max(first["probabilities"], key=first["probabilities"].get)
    assert (first["slices"], second["slices"]) == (["clicks"], ["short"])
    assert (first["unknown_slices"], first["version"], first["repeated"]) == ([], 1, False)


def test_an_answer_is_in_the_log_before_it_is_sent(service):
    """The response equals the logged prediction of the same id."""
    told = service.predicted(GOOD).json()["predictions"][0]
    kept = logged(service, told["id"])
    assert (kept.label, json.loads(kept.features)) == (told["label"], GOOD)


def test_the_ids_of_a_client_are_used(service):
    """Ids that come with the records come back in their order, and label the rows in the log."""
    told = service.predicted(GOOD, SHORT, ids=["a", "b"]).json()["predictions"]
    assert [each["id"] for each in told] == ["a", "b"]
    assert logged(service, "b").features == '{"likes":0,"text":"love"}'


def test_a_repeated_request_gets_the_answer_of_the_first(service):
    """The same ids with the same records are answered from the log, and counted once."""
    first = service.predicted(GOOD, ids=["a"]).json()
    service.post("/v1/functions", {"name": "money", "keyword": {"field": "text", "words": ["money"]}})
    second = service.predicted(GOOD, ids=["a"]).json()
    assert second["predictions"] == [first["predictions"][0] | {"repeated": True}]
    assert service.predicted(GOOD, ids=["b"]).json()["predictions"][0]["slices"] == ["clicks", "money"]


def test_an_answer_of_an_earlier_version_stands(service):
    """After a promotion the same id is still answered as it was, in the classes of that version."""
    first = service.predicted(GOOD, ids=["a"]).json()["predictions"][0]
    service.set_version(2)
    body = service.predicted(GOOD, SHORT, ids=["a", "b"]).json()
    assert body["model"]["version"] == 2
    assert body["predictions"][0] == first | {"repeated": True}
    assert body["predictions"][1]["version"] == 2


def test_unknown_classes_are_not_guessed(service):
    """An answer of a version that is gone stands without its probabilities, whose order is not known."""
    service.set_version(9)
    first = service.predicted(GOOD, ids=["a"]).json()["predictions"][0]
    service.set_version(1)
    for _ in range(2):
        told = service.predicted(GOOD, ids=["a"]).json()["predictions"][0]
        assert told == first | {"repeated": True, "probabilities": None}


def test_a_taken_id_is_a_conflict_that_loses_no_other_row(service):
    """An id with other content is named in a 409, which answers the other rows: they were logged."""
    service.predicted(GOOD, ids=["a"])
    answer = service.predicted(SHORT, SHORT, ids=["a", "b"])
    body = answer.json()
    assert (answer.status_code, fields(answer)) == (409, ["ids[0]"])
    assert "'a' is in the log with other content" in body["errors"][0]["message"]
    assert "the other 1 rows are logged" in body["detail"]
    assert body["predictions"][0] is None
    assert body["predictions"][1]["id"] == "b"
    assert logged(service, "b") is not None
    assert json.loads(logged(service, "a").features) == GOOD


def test_a_conflict_of_all_rows_says_that_nothing_was_logged(service):
    """Where no other row is left, the 409 says so."""
    service.predicted(GOOD, ids=["a"])
    assert "nothing was logged" in service.predicted(SHORT, ids=["a"]).json()["detail"]


def test_only_new_rows_are_counted(service):
    """A repeated row is no second prediction for the counters."""
    for _ in range(3):
        label = service.predicted(GOOD, ids=["a"]).json()["predictions"][0]["label"]
    assert service.counted(f'predictions_total{{label="{label}",model="comments",version="1"}}') == 1


def test_steps_are_timed(service):
    """Reading, logging and writing are stages of each request."""
    service.predicted(GOOD)
    for stage in ("decode", "log", "encode"):
        assert service.counted(f'stage_duration_seconds_count{{stage="{stage}"}}') == 1


def test_a_row_that_cannot_be_read_fails_the_request_and_is_named(service):
    """A record that lacks a feature column is named, and no row of the request is logged."""
    answer = service.predicted(GOOD, {"text": "no likes"}, ids=["a", "b"])
    assert (answer.status_code, fields(answer)) == (422, ["instances[1]"])
    assert "likes" in answer.json()["errors"][0]["message"]
    assert logged(service, "a") is None


def test_of_many_errors_the_first_are_told(service):
    """A request in which every row is wrong has an answer of a readable length."""
    answer = service.predicted(*[{"text": "no likes"}] * 100)
    assert (answer.status_code, len(fields(answer))) == (422, 20)
    assert answer.json()["detail"].endswith("; and 45 more")


def test_of_more_bad_rows_than_are_looked_for_all_are_refused(service):
    """A thousand unreadable rows are one 422, which tells how many were checked."""
    answer = service.predicted(*[{"text": "no likes"}] * 1000)
    assert (answer.status_code, len(fields(answer))) == (422, 20)
    first = answer.json()["errors"][0]
    assert (first["field"], first["message"]) == (
        "instances",
        f"only the first {MAX_FAILED_ROWS} of 1000 records were checked",
    )


def test_every_bad_row_of_a_long_request_is_named(service):
    """The readable rows between them are not."""
    rows = [{"text": "no likes"} if n % 100 == 99 else SHORT for n in range(1000)]
    answer = service.predicted(*rows)
    assert answer.status_code == 422
    assert fields(answer) == [f"instances[{n}]" for n in range(99, 1000, 100)]


def test_a_logged_prediction_is_returned_whole(service):
    """With its label and its record, however long; an id may have any characters of a name."""
    record = GOOD | {"text": "free " * 10_000, "tags": ["a"] * 3}
    predicted = service.predicted(record, ids=["a/b c"]).json()["predictions"][0]
    service.post("/v1/labels", {"labels": [{"id": "a/b c", "label": "true"}]})
    body = service.get("/v1/predictions/a%2Fb%20c").json()
    assert (body["features"], body["cut"], body["omitted"]) == (record, {}, 0)
    assert (body["id"], body["label"], body["predicted"]) == ("a/b c", "true", predicted["label"])
    assert (body["slices"], body["probabilities"]) == (predicted["slices"], predicted["probabilities"])


@pytest.mark.parametrize(("id_", "status"), [("nope", 404), ("%00", 422), ("x" * 201, 422)])
def test_an_unknown_prediction_is_refused(service, id_, status):
    """An id that is not in the log is a 404, and one that cannot be there a 422."""
    assert service.get(f"/v1/predictions/{id_}").status_code == status


def test_a_refusal_is_short_whatever_was_sent(service):
    """Names, texts and numbers of a request are quoted in part only."""
    record = {f"{n:05}{'€' * 200}": 1 for n in range(500)}
    for body in (
        {"instances": [record] * 3},
        {"instances": [SHORT | {"€" * 100_000: float("nan")}]},
        {"instances": [SHORT], "x" * 100_000: 1},
    ):
        content = json.dumps(body)
        answer = service.post("/v1/predict", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 422
        assert len(answer.content) < 10_000
        assert all(len(each["field"]) <= 200 and len(each["message"]) <= 300 for each in answer.json()["errors"])
        assert len(answer.json()["detail"]) <= 2000


def test_a_row_that_exits_ends_no_service(service, caplog):
    """Its request is a defect, and the next one is answered."""

    def run(rows):
        if rows[0].id == "bad":
            raise SystemExit(3)
        return predictor.predict(rows)

    def log(requests):
        logged = Future()
        logged.set_result(
            [[LoggedResult(row, LogResult(row.prediction, "stored")) for row in rows] for rows in requests]
        )
        return logged

    factory = PredictionFactory(service.clock)
    predictor = Predictor(service.model.deployment, factory, service.runtime.metrics)
    batcher = Batcher(run, log)
    service.override(predict=batcher.submit)
    assert service.predicted(GOOD, ids=["bad"]).status_code == 500
    assert service.predicted(GOOD, ids=["good"]).status_code == 200
    service.runner.run(batcher.stop())


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predictions"])
def test_a_long_body_is_read_beside_other_requests(service, path):
    """It gets the same answers, and the same refusals."""
    long = GOOD | {"more": "x" * 300_000}
    row = {"instances": [long], "ids": ["a"]}
    if path == "/v1/predictions":
        row = {"predictions": [{"features": long, "label": "true", "id": "a"}]}
    assert service.post(path, row).json()["predictions"][0]["slices"] == ["clicks"]
    bad = json.dumps(row).replace('"likes": 2', '"likes": 1e999')
    answer = service.post(path, content=bad, headers={"content-type": "application/json"})
    assert (answer.status_code, fields(answer)[0].rpartition(".")[2]) == (422, "likes")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "instances"),
        ({"instances": []}, "instances"),
        ({"instances": [GOOD, 3]}, "instances[1]"),
        ({"instances": [GOOD], "ids": ["a", "b"]}, "ids"),
        ({"instances": [GOOD, GOOD], "ids": ["a", "a"]}, "ids[1]"),
        ({"instances": [GOOD], "ids": ["x" * 201]}, "ids[0]"),
        ({"instances": [GOOD], "ids": [""]}, "ids[0]"),
        ({"instances": [GOOD], "ids": ["a\u0000"]}, "ids[0]"),
        ({"instances": [GOOD], "ids": [7]}, "ids[0]"),
        ({"instances": [GOOD], "idss": ["a"]}, "idss"),
    ],
)
def test_a_wrong_field_is_named(service, body, field):
    """A request that is not of the shape is a 422 that names the field."""
    answer = service.post("/v1/predict", body)
    assert (answer.status_code, fields(answer)[0]) == (422, field)


@pytest.mark.parametrize(
    ("number", "place"),
    [("NaN", "likes"), ("-Infinity", "likes"), ("1e400", "likes"), ('[{"x": NaN}]', "likes[0].x")],
)
def test_a_number_that_json_does_not_have_is_named(service, number, place):
    """NaN, infinity and numbers beyond 64-bit floats are refused where they stand."""
    text = f'{{"instances": [{{"text": "a", "likes": 1}}, {{"text": "a", "likes": {number}}}]}}'
    answer = service.post("/v1/predict", content=text, headers={"content-type": "application/json"})
    assert (answer.status_code, fields(answer)) == (422, [f"instances[1].{place}"])


def test_more_rows_than_may_be_are_refused(service):
    """A request with too many rows gets the limit in the error."""
    answer = service.predicted(*[SHORT] * 1001)
    assert answer.status_code == 413
    assert "instances has 1001 items; the maximum is 1000" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("error", "status", "shed"),
    [
        (Overloaded("full"), 429, "queue"),
        (DeadlinePassed("late"), 504, "deadline"),
        (Stopping("bye"), 503, None),
        (NoModel("none"), 503, None),
    ],
)
def test_refusals_of_the_model_have_their_status(service, error, status, shed):
    """Each reason why the model does not answer is a status of its own; those of load are counted."""

    async def refuse(requests, seconds):
        raise error

    service.override(predict=refuse)
    answer = service.predicted(GOOD)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.headers.get("retry-after") == ("1" if status == 429 else None)
    assert shed is None or service.counted(f'shed_total{{reason="{shed}"}}') == 1


def test_a_defect_of_one_row_is_ours(service):
    """A row that failed for any reason but its data is no fault of the client."""

    async def fail(requests, seconds):
        raise RowsFailed({0: DataError("one"), 1: ZeroDivisionError("two")}, 2)

    service.override(predict=fail)
    answer = service.predicted(GOOD, GOOD)
    assert answer.status_code == 500
    assert "two" not in answer.text


def test_the_queue_gets_what_is_left_of_the_requests_time(service):
    """The rows may wait as long as the request may take, less what it took already."""
    given = []

    async def note(requests, seconds):
        given.append(seconds)
        return await service.predictions.predict(requests, seconds)

    service.limit(request_seconds=1000)
    service.override(predict=note)
    service.predicted(GOOD)
    assert 0 < given[0] < 1000


def test_a_full_log_is_too_much_at_once(service):
    """Rows that the log has no room for are refused with a time to come again, and counted."""

    async def refuse(requests, seconds):
        raise StoreFull("2 rows are queued")

    service.override(predict=refuse)
    answer = service.predicted(GOOD, GOOD, GOOD)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert service.counted('shed_total{reason="log"}') == 1


def test_a_closed_log_is_no_answer(service):
    """Where the log takes nothing more, the prediction is not answered."""
    service.writer.stop()
    assert service.predicted(GOOD).status_code == 503


def test_a_prediction_that_cannot_be_logged_is_counted(service):
    """A store that refuses is a 503, and the row is one that the log lost."""
    service.writer.submit(lambda connection: connection.exec_driver_sql("DROP TABLE predictions")).result()
    answer = service.predicted(GOOD)
    assert answer.status_code == 503
    assert "could not write" in answer.json()["detail"]
    assert service.counted("log_lost_total") == 1


def test_a_row_that_is_committed_after_its_request_gave_up_is_counted(service, held):
    """The counters equal the log, also for requests without a response."""
    service.limit(request_seconds=0.2)
    let_go = held()
    taken = service.writer.submit(lambda connection: None)  # the next group starts with it

    async def give_up():
        return await service.client.post("/v1/predict", json={"instances": [GOOD], "ids": ["a"]})

    assert service.runner.run(give_up()).status_code == 504
    let_go.set()
    taken.result()
    service.writer.submit(lambda connection: None).result()
    rows = sum(
        service.counted(f'predictions_total{{label="{label}",model="comments",version="1"}}')
        for label in ("true", "false")
    )
    assert rows == (logged(service, "a") is not None)


def test_requests_are_answered_together(service):
    """Concurrent requests each get their own rows back."""

    async def many():
        bodies = [{"instances": [GOOD if n % 2 else SHORT], "ids": [f"id-{n}"]} for n in range(40)]
        return await asyncio.gather(*(service.client.post("/v1/predict", json=body) for body in bodies))

    told = [answer.json()["predictions"][0] for answer in service.runner.run(many())]
    assert [each["id"] for each in told] == [f"id-{n}" for n in range(40)]
    assert [each["slices"] for each in told] == [["clicks"] if n % 2 else ["short"] for n in range(40)]


def test_predictions_of_another_server_are_logged_with_their_slices(service):
    """A row predicted elsewhere gets an id and its slices, and keeps its class, version and time."""
    at = service.now - timedelta(days=2)
    served = SERVED | {
        "predicted_at": at.isoformat(),
        "version": 7,
        "probabilities": {"true": 0.75, "false": 0.25},
    }
    answer = send(service, served)
    told = answer.json()["predictions"][0]
    kept = logged(service, told["id"])
    assert answer.status_code == 200
    assert (told["label"], told["slices"], told["version"]) == ("true", ["clicks"], 7)
    assert told["probabilities"] == {"false": 0.25, "true": 0.75}
    assert (kept.at, kept.version, kept.probabilities, kept.source) == (at, 7, (0.25, 0.75), "logged")


def test_what_is_not_said_of_a_logged_prediction_is_assumed(service):
    """Without time and version a row is of now, and of the version in force."""
    told = send(service, SERVED).json()
    kept = logged(service, told["predictions"][0]["id"])
    assert (kept.at, kept.version, kept.probabilities) == (service.now, 1, None)
    assert told["predictions"][0]["probabilities"] is None


def test_a_logged_prediction_can_be_sent_again(service):
    """The same id and content is answered as before, and other content is a 409 that names the id."""
    served = SERVED | {"id": "a", "version": 3, "probabilities": {"true": 0.75, "false": 0.25}}
    first = send(service, served).json()["predictions"][0]
    assert send(service, served).json()["predictions"] == [first | {"repeated": True}]
    answer = send(service, {"features": SHORT, "label": "true"}, served | {"features": SHORT})
    assert (answer.status_code, fields(answer)) == (409, ["predictions[1].id"])


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"label": "maybe"}, "label"),
        ({"label": None}, "label"),
        ({"label": ["true"]}, "label"),
        ({"features": ["a"]}, "features"),
        ({"probabilities": {"true": 1.0}}, "probabilities"),
        ({"probabilities": {"true": 0.5, "True": 0.75, "false": 0.25}}, "probabilities"),
        ({"probabilities": {"true": 0.9, "false": 0.9}}, "probabilities"),
        ({"probabilities": {"true": 1.5, "false": -0.5}}, "probabilities.true"),
        ({"predicted_at": "2026-05-01T12:05:01Z"}, "predicted_at"),
        ({"predicted_at": "2026-04-01T11:59:59Z"}, "predicted_at"),
        ({"predicted_at": "2026-05-01T12:00:00"}, "predicted_at"),
        ({"predicted_at": 1777636800}, "predicted_at"),
        ({"predicted_at": "1777636800"}, "predicted_at"),
        ({"predicted_at": "0001-01-01T00:00:00+23:59"}, "predicted_at"),
        ({"version": 0}, "version"),
        ({"version": 2**40}, "version"),
        ({"version": "1"}, "version"),
        ({"id": ""}, "id"),
        ({"lable": "true"}, "lable"),
    ],
)
def test_a_wrong_field_of_a_logged_prediction_is_named(service, change, field):
    """A row that cannot be is a 422 that names row and field, and nothing is logged."""
    answer = send(service, SERVED | {"id": "first"}, SERVED | change)
    assert (answer.status_code, fields(answer)[0]) == (422, f"predictions[1].{field}")
    assert logged(service, "first") is None


def test_ids_of_logged_predictions_are_distinct(service):
    """An id that is there twice in one request is refused."""
    answer = send(service, SERVED | {"id": "a"}, SERVED, SERVED | {"id": "a"})
    assert (answer.status_code, fields(answer)) == (422, ["predictions[2].id"])


def test_a_request_has_a_few_versions(service):
    """Rows of more than 20 versions are refused as a whole."""
    rows = [SERVED | {"version": n} for n in range(1, 22)]
    answer = send(service, *rows, SERVED | {"id": "a", "version": 1})
    assert (answer.status_code, fields(answer)) == (422, ["predictions"])
    assert "21 different versions" in answer.json()["detail"]
    assert logged(service, "a") is None
    assert send(service, *rows[:20]).status_code == 200


def test_a_hundred_versions_are_logged_in_a_day(service):
    """New versions beyond them are refused, also after a restart; known ones and the active one are accepted."""

    def status(*versions):
        return send(service, *(SERVED | {"version": version} for version in versions)).status_code

    for first in range(1001, 1101, 20):
        assert status(*range(first, first + 20)) == 200
    service.now += timedelta(hours=23)
    answer = send(service, SERVED | {"version": 1001}, SERVED | {"id": "new", "version": 1101})
    assert answer.status_code == 422
    assert "version 1101 is new" in answer.json()["detail"]
    assert logged(service, "new") is None
    assert [status(1001), status(1), send(service, SERVED).status_code] == [200, 200, 200]
    service.restart()
    assert [status(1101), status(1001), send(service, SERVED).status_code] == [422, 200, 200]
    service.now += timedelta(hours=2)
    assert [status(1101), status(1001)] == [200, 200]


def test_where_no_class_is_known_nothing_is_logged(service):
    """Any text would become a class: what to do is said, and no row is in the log."""
    service.set_state(classes=())
    answer = send(service, SERVED | {"id": "a", "label": "maybe"})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:slicewatch:problem:no-model")
    assert "set `classes` in slicewatch.yaml, or train a model" in answer.json()["detail"]
    assert logged(service, "a") is None


def test_a_class_is_one_however_it_was_typed(service):
    """True and "true" are one class."""
    told = [send(service, SERVED | {"label": label}).json()["predictions"][0] for label in (True, "true")]
    assert {each["label"] for each in told} == {"true"}


@pytest.mark.parametrize("at", [{}, {"predicted_at": "2026-05-01T12:00:00Z"}], ids=["now", "at a time"])
def test_a_class_that_the_settings_list_twice_is_one(service, at):
    """Whatever else a row gives."""
    service.set_state(classes=("true", "false", "true"))
    answer = send(service, SERVED | {"probabilities": {"true": 0.75, "false": 0.25}} | at)
    assert (answer.status_code, answer.json()) == (200, answer.json())
