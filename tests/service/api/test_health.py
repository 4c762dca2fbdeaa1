"""``/healthz``, ``/readyz`` and ``/metrics``."""

import asyncio
import threading
from types import SimpleNamespace

from service.metrics.exposition import CONTENT_TYPE

GOOD = {"text": "subscribe to my song for free money", "likes": 2}


def test_a_process_that_lives_says_so(service):
    """Liveness does not ask whether the service is ready."""
    service.set_state(active=None, classes=())
    answer = service.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_ready_service_says_so(service):
    """Without problems it is ready."""
    answer = service.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True})


def test_a_service_that_is_not_ready_names_its_reasons(service):
    """Each reason is there by its name."""
    service.set_state(active=None, classes=())
    service.fill_queue()
    answer = service.get("/readyz")
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    reasons = answer.json()["reasons"]
    assert list(reasons) == ["model", "queue"]
    assert answer.json()["detail"] == "; ".join(f"{name}: {reason}" for name, reason in reasons.items())


def test_the_page_has_counters_and_gauges(service):
    """Counters are there from the start, gauges from the first snapshot on."""
    service.predicted(GOOD)
    assert "slicewatch_slice_coverage_ratio" not in service.get("/metrics").text
    service.tick()
    answer = service.get("/metrics")
    assert answer.headers["content-type"] == CONTENT_TYPE
    assert 'slicewatch_slice_coverage_ratio{model="comments",slice="clicks",version="1",window="1h"} 1.0' in answer.text


def test_scrapes_do_not_wait_for_readers_of_records(service, monkeypatch):
    """However many read."""
    release, begun = threading.Event(), threading.Semaphore(0)

    def read(*_, **__):
        begun.release()
        release.wait(600)
        raise RuntimeError("the test ends")

    monkeypatch.setattr("service.api.slices.records", read)

    async def story():
        readers = [asyncio.create_task(service.client.get("/v1/slices/short/records")) for _ in range(20)]
        await asyncio.to_thread(begun.acquire)
        answers = [await service.client.get(path) for path in ("/metrics", "/healthz", "/readyz")]
        done = [each.done() for each in readers]
        release.set()
        await asyncio.gather(*readers)
        return [answer.status_code for answer in answers], any(done)

    assert service.runner.run(story()) == ([200, 200, 200], False)


def test_scrapes_at_one_time_share_a_page(service):
    """Many of them cost no more than one."""
    release, rendered = threading.Event(), []

    def text():
        rendered.append(1)
        release.wait(600)
        return b"page"

    service.runtime.page = SimpleNamespace(text=text)

    async def story():
        scrapes = [asyncio.create_task(service.client.get("/metrics")) for _ in range(10)]
        while not rendered:
            await asyncio.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        scrapes[0].cancel()
        release.set()
        return [answer.text for answer in await asyncio.gather(*scrapes[1:])]

    assert service.runner.run(story()) == ["page"] * 9
    assert len(rendered) == 1
