"""Refusals of a full queue."""

import asyncio

from service.overload import Overload
from service.runtime.runtime import Runtime

ID = b"mine"


def test_the_refusal_is_that_of_the_api(service):
    """Status, headers and body are the same bytes, and both are counted and logged."""
    service.fill_queue()
    overload = Overload(service.runtime)
    assert overload.refuses(b"POST", b"/v1/predict")
    answer = overload.answer(b"/v1/predict", [(b"x-request-id", ID)], [(b"date", b"today")])
    head, _, body = answer.partition(b"\r\n\r\n")
    status, date, *lines = head.split(b"\r\n")
    expected = service.post("/v1/predict", {}, headers={"x-request-id": ID.decode()})
    assert (status, date) == (b"HTTP/1.1 429 Too Many Requests", b"date: today")
    assert sorted(lines) == sorted(b": ".join(header) for header in expected.headers.raw)
    assert body == expected.content
    assert service.counted('shed_total{reason="queue"}') == 2
    assert service.counted('request_duration_seconds_count{route="/v1/predict"}') == 2


def test_a_request_without_an_id_gets_one(service):
    """Each refusal has another."""
    answers = {Overload(service.runtime).answer(b"/v1/predictions", [(b"x-request-id", b"a b")], []) for _ in range(2)}
    assert len(answers) == 2


def test_only_predictions_are_refused(service):
    """And only while there is no room, and the service is not stopping."""
    overload = Overload(service.runtime)
    service.fill_queue()
    assert [overload.refuses(*call) for call in ((b"GET", b"/v1/predict"), (b"POST", b"/v1/labels"))] == [False, False]
    assert overload.refuses(b"POST", b"/v1/predictions")
    runtime: Runtime = service.runtime
    runtime.begin_stop()
    assert not overload.refuses(b"POST", b"/v1/predict")


def test_requests_that_arrive_together_share_the_room(service):
    """As many are let in as there is room for; those of the next pass of the event loop find it again."""
    overload = Overload(service.runtime)
    predictions = service.runtime.model.predictions
    room = next(rows for rows in range(1, 10_000) if not predictions.has_room(rows)) - 1

    async def passes() -> list[int]:
        let_in = []
        for _ in range(2):
            let_in.append([overload.refuses(b"POST", b"/v1/predict") for _ in range(room + 5)].count(False))
            await asyncio.sleep(0)
        return let_in

    assert asyncio.run(passes()) == [room, room]
