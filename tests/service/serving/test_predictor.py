"""Records become predictions with their slices, all of one loaded version."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.bundle.model_bundle import ModelBundle
from models.errors import DataError
from service.serving.batcher import Batcher, Failed
from service.serving.breaker import BreakerLimits
from service.serving.live_functions import LiveFunctions
from service.serving.prediction_factory import PredictionFactory, PredictionRequest
from service.serving.predictor import ActiveModel, BatchReport, Predictor
from sfs.apply import apply
from sfs.registry import FunctionSet
from sfs.template import template

RECORDS: list[dict[str, Any]] = [
    {"text": "free money love song", "likes": 3},
    {"text": "click", "likes": None},
    {"text": None, "likes": 2},
]
REQUESTS = [PredictionRequest(record) for record in RECORDS]
AT = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def predictor(loaded: ActiveModel, recorder: PredictionFactory) -> Predictor:
    """It answers by version 1."""
    return Predictor(loaded, recorder)


def probabilities(predictor: Predictor) -> np.ndarray[Any, Any]:
    """Return float[N, C] of what it answers to the requests."""
    return np.array([answer.prediction.probabilities for answer in predictor.predict(REQUESTS)])


def test_answers_are_those_of_the_bundle(predictor: Predictor, bundle: ModelBundle) -> None:
    """Probabilities and labels are what the bundle says of the same rows with the memberships it trusts."""
    S = bundle.memberships(predictor.loaded.live.functions, RECORDS)
    answers = predictor.predict(REQUESTS)
    np.testing.assert_allclose(probabilities(predictor), bundle.predict_proba(RECORDS, S), atol=1e-12)
    assert [answer.prediction.label for answer in answers] == bundle.predict(RECORDS, S)
    assert {answer.classes for answer in answers} == {("false", "true")}


def test_slices_are_those_of_the_live_functions(predictor: Predictor) -> None:
    """By name and as bitmaps, the same as offline."""
    functions = predictor.loaded.live.functions
    S = apply(functions, RECORDS)
    for n, answer in enumerate(predictor.predict(REQUESTS)):
        assert answer.slices == tuple(name for k, name in enumerate(S.names) if S.member[n, k])
        assert answer.unknown_slices == ()
        assert answer.prediction.member == np.packbits(S.member[n], bitorder="little").tobytes()
        assert answer.prediction.set_hash == functions.hash


def test_one_row_is_answered_as_it_is_in_a_batch(predictor: Predictor) -> None:
    """Rows have nothing to do with each other."""
    alone = np.array([predictor.predict([each])[0].prediction.probabilities for each in REQUESTS])
    np.testing.assert_allclose(alone, probabilities(predictor), atol=1e-6)


@pytest.mark.parametrize("other", ["none", "changed", "more", "failing"])
def test_the_model_knows_only_of_functions_that_compute_what_they_did(
    other: str, loaded: ActiveModel, bundle: ModelBundle, recorder: PredictionFactory, live_of: Any
) -> None:
    """Absent, changed and failing functions are unknown to it, added ones do not disturb it."""
    short, clicks = loaded.live.functions
    changed = template("short", length={"field": "text", "unit": "words", "below": 9})
    live = {
        "none": lambda: LiveFunctions(FunctionSet([])),
        "changed": lambda: LiveFunctions(FunctionSet([changed, clicks])),
        "more": lambda: live_of("@slicing_function()\ndef more(x): return True", clicks, short),
        "failing": lambda: live_of("@slicing_function()\ndef short(x): return 1 / 0", clicks),
    }[other]()
    predictor = Predictor(replace(loaded, live=live), recorder)
    expected = bundle.predict_proba(RECORDS, bundle.memberships(live.functions, RECORDS))
    np.testing.assert_allclose(probabilities(predictor), expected, atol=1e-12)


def test_a_failing_function_is_unknown_and_the_prediction_goes_on(
    loaded: ActiveModel, recorder: PredictionFactory, live_of: Any
) -> None:
    """Its slice is among the unknown ones, and the report says why."""
    reports: list[BatchReport] = []
    live = live_of("@slicing_function()\ndef bad(x): return 1 / 0", *loaded.live.functions)
    answers = Predictor(replace(loaded, live=live), recorder, reports.append).predict(REQUESTS)
    assert [answer.unknown_slices for answer in answers] == [("bad",)] * 3
    assert [answer.prediction.unknown for answer in answers] == [b"\4"] * 3
    assert dict(reports[0].runs[-1].unknown) == {"ZeroDivisionError": 3}


def test_a_sleeping_function_does_not_keep_a_prediction(
    loaded: ActiveModel, recorder: PredictionFactory, live_of: Any, clock: Any
) -> None:
    """After the one batch in which it was found out, its breaker is open, and probabilities are as ever."""
    code = "@slicing_function()\ndef sleeps(x): time.sleep(60)"
    live = live_of(code, *loaded.live.functions, limits=BreakerLimits(least_ms=20), clock=clock)
    slowed = Predictor(replace(loaded, live=live), recorder)
    first, second = probabilities(slowed), probabilities(slowed)
    assert live.breakers["sleeps"].is_open
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, probabilities(Predictor(loaded, recorder)))


def test_functions_do_not_see_the_label(
    loaded: ActiveModel, recorder: PredictionFactory, live_of: Any
) -> None:
    """As in training, though a client sends it."""
    peeks = live_of("@slicing_function()\ndef peeks(x): return 'spam' in x")
    answers = Predictor(replace(loaded, live=peeks), recorder).predict(
        [PredictionRequest({**RECORDS[0], "spam": True})]
    )
    assert answers[0].slices == ()


def test_a_record_that_cannot_be_read_is_refused_before_any_function_runs(
    loaded: ActiveModel, recorder: PredictionFactory, live_of: Any
) -> None:
    """A batch that will be run again row by row has not counted faults of functions."""
    live = live_of("@slicing_function()\ndef fails(x): return 1 / 0", limits=BreakerLimits(faults=2))
    predictor = Predictor(replace(loaded, live=live), recorder)
    with pytest.raises(DataError, match="likes"):
        predictor.predict([REQUESTS[0], PredictionRequest({"text": "song"})])
    assert live.breakers["fails"].faults == 0


def test_after_a_swap_the_next_batch_is_of_the_other_version(
    predictor: Predictor, loaded: ActiveModel
) -> None:
    """What answered before is handed back."""
    assert predictor.swap(replace(loaded, version=2)) is loaded
    assert [answer.prediction.version for answer in predictor.predict(REQUESTS)] == [2, 2, 2]


def test_a_batch_during_which_another_version_comes_is_of_one_version(loaded: ActiveModel) -> None:
    """Model, version and functions are read together, once."""

    def swaps() -> datetime:
        predictor.swap(replace(loaded, version=2, live=LiveFunctions(FunctionSet([]))))
        return AT

    predictor = Predictor(loaded, PredictionFactory(swaps))
    answers = predictor.predict(REQUESTS)
    first = {(1, loaded.live.functions.hash)}
    assert {(a.prediction.version, a.prediction.set_hash) for a in answers} == first
    assert predictor.predict(REQUESTS)[0].prediction.version == 2


def test_each_batch_is_reported(loaded: ActiveModel, recorder: PredictionFactory) -> None:
    """With its answers, and the time of each stage."""
    reports: list[BatchReport] = []
    answers = Predictor(loaded, recorder, reports.append).predict(REQUESTS)
    [report] = reports
    assert (report.model, report.version, list(report.answers)) == ("comments", 1, answers)
    assert list(report.stage_seconds) == ["features", "functions", "model", "record"]
    assert [run.name for run in report.runs] == ["short", "clicks"]


def test_predictions_of_a_table_equal_those_of_the_requests(
    predictor: Predictor, bundle: ModelBundle
) -> None:
    """Served and offline predictions agree on a hundred rows."""
    frame = pd.DataFrame({"text": [f"free song {k}" for k in range(100)], "likes": range(100)})
    requests = [PredictionRequest(record) for record in frame.to_dict("records")]
    answers = predictor.predict(requests)
    S = bundle.memberships(predictor.loaded.live.functions, frame)
    served = np.array([answer.prediction.probabilities for answer in answers])
    np.testing.assert_allclose(served, bundle.predict_proba(frame, S), atol=1e-6)


def test_in_batches_a_record_that_cannot_be_read_fails_alone(predictor: Predictor) -> None:
    """Requests that came together with it are answered as they are without it."""

    async def main() -> Any:
        batcher = Batcher(predictor.predict)
        bad, *good = await asyncio.gather(
            batcher.submit([REQUESTS[0], PredictionRequest({"text": "no likes"})]),
            *(batcher.submit([r]) for r in REQUESTS),
        )
        await batcher.stop()
        return bad, [answer for [answer] in good]

    (first, failed), good = asyncio.run(main())
    expected = probabilities(predictor)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, DataError)
    found = [answer.prediction.probabilities for answer in (first, *good)]
    np.testing.assert_allclose(found, [expected[0], *expected], atol=1e-6)


def test_exchanging_versions_under_load_fails_no_request(predictor: Predictor, loaded: ActiveModel) -> None:
    """Rows of one request are of one version, and after the last exchange all are of the last."""

    async def client(batcher: Batcher[PredictionRequest, Any]) -> list[Any]:
        return [await batcher.submit(REQUESTS) for _ in range(10)]

    async def exchange() -> None:
        for version in range(2, 40):
            predictor.swap(replace(loaded, version=version))
            await asyncio.sleep(0)

    async def main() -> Any:
        batcher = Batcher(predictor.predict, max_batch_rows=8)
        *answers, _ = await asyncio.gather(*(client(batcher) for _ in range(6)), exchange())
        last = await batcher.submit(REQUESTS)
        await batcher.stop()
        return [request for mine in answers for request in mine], last

    requests, last = asyncio.run(main())
    versions = [{answer.prediction.version for answer in request} for request in requests]
    assert [len(each) for each in versions] == [1] * 60
    assert [answer.prediction.version for answer in last] == [39] * 3
