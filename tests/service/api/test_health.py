"""``/healthz``, ``/readyz`` and ``/metrics``."""

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
