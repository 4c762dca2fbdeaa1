"""Histograms that take observations in batches."""

import logging
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar

from service.metrics.exposition import OPENMETRICS_END, render, render_openmetrics
from service.metrics.histogram import BatchedHistogram
from service.metrics.request_log import LoggedRequest

BUCKETS = (0.001, 0.5, 1.0, 2.5)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "unknown"]), st.sampled_from([0.0, *BUCKETS, 0.7, 9.0]))))
def test_the_page_is_that_of_the_client_library(observed: list[tuple[str, float]]) -> None:
    """Buckets, sums and counts are the same, also of values on a bound; an unknown value is another one."""
    registry = CollectorRegistry()
    reference = Histogram("slicewatch_x_duration_seconds", "Time.", ["part"], buckets=BUCKETS, registry=registry)
    ours = BatchedHistogram("x", "Time.", "part", BUCKETS, ["a", "b"])
    for value in ("__other__", "a", "b"):
        reference.labels(value)
    for value, seconds in observed:
        ours.observe(value, seconds)
        reference.labels(value if value in "ab" else "__other__").observe(seconds)
    samples = [
        {(each.name, *each.labels.values()): each.value for each in family.samples if "created" not in each.name}
        for family in (*ours.collect(), *registry.collect())
    ]
    assert samples[0].keys() == samples[1].keys()
    assert all(abs(samples[0][key] - samples[1][key]) < 1e-9 for key in samples[0])
    lines = [render(each).decode().splitlines()[:2] for each in (ours, registry)]
    assert lines[0] == lines[1]


def test_no_observation_is_lost_between_threads() -> None:
    """Threads observe while another collects."""
    histogram = BatchedHistogram("x", "Time.", "part", BUCKETS, ["a"])
    threads = [threading.Thread(target=lambda: [histogram.observe("a", 0.1) for _ in range(5_000)]) for _ in range(4)]
    for each in threads:
        each.start()
    while any(each.is_alive() for each in threads):
        list(histogram.collect())
    (family,) = histogram.collect()
    assert [each.value for each in family.samples if each.name.endswith("_count")] == [0, 20_000]


def test_a_value_that_is_registered_later_keeps_the_counts_of_the_others() -> None:
    """Routes are registered one after another."""
    histogram = BatchedHistogram("x", "Time.", "part", BUCKETS, ["a"])
    histogram.observe("a", 0.1)
    histogram.add_values(["b"])
    histogram.observe("b", 0.1)
    (family,) = histogram.collect()
    assert [each.value for each in family.samples if each.name.endswith("_count")] == [0, 1, 1]


def exemplars(histogram: BatchedHistogram) -> dict[str, Exemplar]:
    """Return the exemplars of a page by bucket, as a parser reads them."""
    page = (render_openmetrics(histogram) + OPENMETRICS_END).decode()
    assert page == generate_latest(histogram).decode()  # the client library's
    (family,) = text_string_to_metric_families(page)
    return {each.labels["le"]: each.exemplar for each in family.samples if each.exemplar}


def observe(histogram: BatchedHistogram, name: str, ms: float, trace: str = "", ended: float = 0.0) -> None:
    request = LoggedRequest(ended or time.perf_counter(), logging.INFO, name, "POST", "a", 200, ms, 1, trace_id=trace)
    histogram.observe("a", ms / 1000, request)


def test_the_last_request_of_a_bucket_is_its_exemplar() -> None:
    """With its id, its duration and the time of its end; an exemplar stays the same until there is another."""
    histogram, before = BatchedHistogram("x", "Time.", "part", BUCKETS, ["a"]), time.time()
    for name, ms in (("first", 100), ("second", 200), ("slow", 9_000)):
        observe(histogram, name, ms)
    found = exemplars(histogram)
    assert {le: (each.labels, each.value) for le, each in found.items()} == {
        "0.5": ({"request_id": "second"}, 0.2),
        "+Inf": ({"request_id": "slow"}, 9.0),
    }
    assert all(before - 0.1 <= float(each.timestamp) <= time.time() + 0.1 for each in found.values())
    observe(histogram, "third", 700)
    assert exemplars(histogram) == found | {"1.0": exemplars(histogram)["1.0"]}


def test_a_traced_request_stays_the_exemplar_for_a_minute() -> None:
    """Most requests have no trace, and would hide those that have one."""
    histogram = BatchedHistogram("x", "Time.", "part", BUCKETS, ["a"])
    ended = time.perf_counter()
    observe(histogram, "traced", 100, "f" * 32, ended)
    observe(histogram, "plain", 100, ended=ended + 59)
    assert exemplars(histogram)["0.5"].labels == {"trace_id": "f" * 32, "request_id": "traced"}
    observe(histogram, "later", 100, ended=ended + 61)
    assert exemplars(histogram)["0.5"].labels == {"request_id": "later"}


@pytest.mark.parametrize(
    ("name", "trace", "labels"),
    [
        ("i" * 118, "", {"request_id": "i" * 118}),
        ("i" * 119, "", None),
        ("i" * 128, "f" * 32, {"trace_id": "f" * 32}),
    ],
)
def test_labels_of_an_exemplar_keep_to_the_limit(name: str, trace: str, labels: dict[str, str] | None) -> None:
    """OpenMetrics allows 128 characters; a client may choose an id of as many."""
    histogram = BatchedHistogram("x", "Time.", "part", BUCKETS, ["a"])
    observe(histogram, name, 100, trace)
    found = exemplars(histogram).get("0.5")
    assert (found and found.labels) == labels


def test_many_requests_leave_one_exemplar_for_each_bucket() -> None:
    """The number of exemplars is that of the buckets, whatever the number of requests."""
    histogram = BatchedHistogram("x", "Time.", "part", BUCKETS, ["a"])
    for n in range(5_000):
        observe(histogram, str(n), n % 3_000)
    assert len(exemplars(histogram)) == len(BUCKETS) + 1
