"""Predictions and their slices: every batch by one version and one function set."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from factories import PATIENT_LIMITS

from models.bundle.model_bundle import ModelBundle
from models.errors import BundleError, DataError, RegistryError
from models.registry import ModelRegistry
from service.errors import NoModel, RowsFailed, ServiceError
from service.metrics.process import ProcessMetrics
from service.serving.batcher import MAX_FAILED_ROWS, Batcher
from service.serving.breaker import BreakerLimits
from service.serving.deployment import ActiveModel, Deployment
from service.serving.live_functions import LiveFunctions
from service.serving.prediction_factory import (
    ExternalPrediction,
    PredictionFactory,
    PredictionRequest,
    PredictionResult,
)
from service.serving.predictor import Predictor, load, warm_up
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
Deploy = Callable[..., Deployment]
PredictorOf = Callable[[LiveFunctions], Predictor]


@pytest.fixture
def deployment(deploy: Deploy, active: ActiveModel) -> Deployment:
    """Version 1 with the functions of its training."""
    return deploy(active.live, active.bundle)


@pytest.fixture
def predictor(deployment: Deployment, factory: PredictionFactory, metrics: ProcessMetrics) -> Predictor:
    """Predicts by version 1."""
    return Predictor(deployment, factory, metrics)


@pytest.fixture
def predictor_of(
    deploy: Deploy, bundle: ModelBundle, factory: PredictionFactory, metrics: ProcessMetrics
) -> PredictorOf:
    """Predicts by version 1 with other functions."""
    return lambda live: Predictor(deploy(live, bundle), factory, metrics)


def probabilities(predictor: Predictor) -> np.ndarray[Any, Any]:
    """Return the predicted float[N, C] of the requests."""
    return np.array([result.prediction.probabilities for result in predictor.predict(REQUESTS)])


def sample(metrics: ProcessMetrics, series: str) -> float | None:
    """Return the value of a series, without its prefix."""
    for line in metrics.text().decode().splitlines():
        if line.startswith(f"slicewatch_{series} "):
            return float(line.rpartition(" ")[2])
    return None


def test_predictions_are_those_of_the_bundle(predictor: Predictor, active: ActiveModel, bundle: ModelBundle) -> None:
    """Probabilities and labels for the same rows and memberships."""
    S = bundle.memberships(active.live.functions, RECORDS)
    results = predictor.predict(REQUESTS)
    np.testing.assert_allclose(probabilities(predictor), bundle.predict_proba(RECORDS, S), atol=1e-12)
    assert [result.prediction.label for result in results] == bundle.predict(RECORDS, S)
    assert {result.classes for result in results} == {("false", "true")}


def test_slices_are_those_of_the_live_functions(predictor: Predictor, active: ActiveModel) -> None:
    """By name and as bitmaps, the same as offline."""
    functions = active.live.functions
    S = apply(functions, RECORDS)
    for n, result in enumerate(predictor.predict(REQUESTS)):
        assert result.slices == tuple(name for k, name in enumerate(S.names) if S.member[n, k])
        assert result.unknown_slices == ()
        assert result.prediction.member == np.packbits(S.member[n], bitorder="little").tobytes()
        assert result.prediction.set_hash == functions.hash


@pytest.mark.parametrize("edited", [False, True])
def test_indicators_that_contradict_a_function_are_logged(
    edited: bool, active: ActiveModel, bundle: ModelBundle, deploy: Deploy, factory: Any, metrics: Any, live_of: Any
) -> None:
    """By the columns of the live functions, of those that the model was trained with; the answer is the same."""
    short, clicks = active.live.functions
    changed = template("short", length={"field": "text", "unit": "words", "below": 9})
    live = live_of("@slicing_function()\ndef more(x): return True", clicks, changed if edited else short)
    predictor = Predictor(deploy(live, bundle), factory, metrics, compares=True)
    results = predictor.predict(REQUESTS)
    S = apply(live.functions, RECORDS)
    usable = bundle.usable_memberships(S, live.functions.fingerprints)
    P, inside = bundle.inference.predict_indicated(bundle.featurizer.transform(RECORDS), usable)
    assert bundle.inference.indicated
    expected = np.zeros_like(S.member)
    for k, name in enumerate(bundle.inference.indicated):
        column = S.names.index(name)
        if not (edited and name == "short"):
            expected[:, column] = inside[:, k] != S.member[:, column]
    found = [result.prediction.disagreement for result in results]
    assert found == [np.packbits(row, bitorder="little").tobytes() for row in expected]
    np.testing.assert_array_equal(np.array([result.prediction.probabilities for result in results]), P)


def test_predictions_are_not_compared_otherwise(predictor: Predictor) -> None:
    """Rows have no bitmap then, and neither have external ones."""
    assert {result.prediction.disagreement for result in predictor.predict(REQUESTS)} == {None}
    assert predictor.slice_external([ExternalPrediction(RECORDS[0], "true", 1)])[0].prediction.disagreement is None


def test_a_row_alone_is_predicted_as_in_a_batch(predictor: Predictor) -> None:
    """Rows are independent."""
    alone = np.array([predictor.predict([each])[0].prediction.probabilities for each in REQUESTS])
    np.testing.assert_allclose(alone, probabilities(predictor), atol=1e-6)


def test_a_record_is_predicted_alike_in_every_spelling(predictor: Predictor) -> None:
    """Numbers as text, blanks around them and empty text for a missing value give one prediction and log entry."""
    spelled = [
        {"text": "free money love song", "likes": " 3.0 "},
        {"text": "click", "likes": ""},
        {"text": "", "likes": "2"},
    ]
    typed = predictor.predict(REQUESTS)
    as_text = predictor.predict([PredictionRequest(record) for record in spelled])
    for one, other in zip(typed, as_text, strict=True):
        assert one.prediction.probabilities == other.prediction.probabilities
        assert (one.slices, one.unknown_slices) == (other.slices, other.unknown_slices)
        assert one.prediction.content_hash == other.prediction.content_hash


@pytest.mark.parametrize("other", ["none", "changed", "more", "failing"])
def test_the_model_reads_memberships_of_unchanged_functions_only(
    other: str, active: ActiveModel, bundle: ModelBundle, predictor_of: PredictorOf, live_of: Any
) -> None:
    """Missing, changed and failing functions are unknown to it; added ones have no effect."""
    short, clicks = active.live.functions
    changed = template("short", length={"field": "text", "unit": "words", "below": 9})
    live = {
        "none": lambda: LiveFunctions(FunctionSet([])),
        "changed": lambda: LiveFunctions(FunctionSet([changed, clicks])),
        "more": lambda: live_of("@slicing_function()\ndef more(x): return True", clicks, short),
        "failing": lambda: live_of("@slicing_function()\ndef short(x): return 1 / 0", clicks),
    }[other]()
    expected = bundle.predict_proba(RECORDS, bundle.memberships(live.functions, RECORDS))
    np.testing.assert_allclose(probabilities(predictor_of(live)), expected, atol=1e-12)


def test_a_failing_function_does_not_fail_the_prediction(
    active: ActiveModel, predictor_of: PredictorOf, metrics: ProcessMetrics, live_of: Any
) -> None:
    """Its slice is unknown, and its rows are counted by reason."""
    live = live_of("@slicing_function()\ndef bad(x): return 1 / 0", *active.live.functions)
    results = predictor_of(live).predict(REQUESTS)
    assert [result.unknown_slices for result in results] == [("bad",)] * 3
    assert [result.prediction.unknown for result in results] == [b"\4"] * 3
    series = 'slice_unknown_total{model="comments",reason="ZeroDivisionError",slice="bad"}'
    assert sample(metrics, series) == 3


def test_a_hanging_function_does_not_change_a_prediction(
    active: ActiveModel, predictor_of: PredictorOf, predictor: Predictor, live_of: Any, clock: Any
) -> None:
    """After one batch its breaker is open; probabilities are those without it."""
    code = "@slicing_function()\ndef sleeps(x): time.sleep(60)"
    live = live_of(code, *active.live.functions, limits=BreakerLimits(least_ms=20), clock=clock)
    slowed = predictor_of(live)
    first, second = probabilities(slowed), probabilities(slowed)
    assert live.disabled_reasons() == {"sleeps": "over budget"}
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, probabilities(predictor))


def test_functions_do_not_see_the_label(predictor_of: PredictorOf, live_of: Any) -> None:
    """As in training, though it is in the record, of a request or of an external prediction."""
    peeking = predictor_of(live_of("@slicing_function()\ndef peeks(x): return 'spam' in x"))
    record = {**RECORDS[0], "spam": True}
    assert peeking.predict([PredictionRequest(record)])[0].slices == ()
    assert peeking.slice_external([ExternalPrediction(record, "true", 1)])[0].slices == ()


def test_an_unreadable_record_is_refused_before_any_function_runs(predictor_of: PredictorOf, live_of: Any) -> None:
    """The batch will be run again without it, and must not count faults twice. The error names its row."""
    live = live_of("@slicing_function()\ndef fails(x): return 1 / 0", limits=replace(PATIENT_LIMITS, faults=2))
    predictor = predictor_of(live)
    with pytest.raises(RowsFailed) as refused:
        predictor.predict([REQUESTS[0], PredictionRequest({"text": "song"})])
    assert {row: "likes" in str(error) for row, error in refused.value.errors.items()} == {1: True}
    assert live.disabled_reasons() == {"fails": None}
    predictor.predict(REQUESTS[:1])
    assert live.disabled_reasons() == {"fails": None}  # the first of two faults


def test_without_an_active_version_prediction_is_refused(
    deploy: Deploy, active: ActiveModel, factory: PredictionFactory, metrics: ProcessMetrics
) -> None:
    """External predictions still get their slices."""
    predictor = Predictor(deploy(active.live), factory, metrics)
    with pytest.raises(NoModel, match="slicewatch train"):
        predictor.predict(REQUESTS)
    assert predictor.slice_external([ExternalPrediction(RECORDS[1], "true", 7)])[0].slices == (
        "short",
        "clicks",
    )


def test_the_next_batch_is_predicted_by_the_activated_version(
    predictor: Predictor, deployment: Deployment, active: ActiveModel
) -> None:
    """Without a restart."""
    deployment.activate_version(replace(active, version=2), ())
    assert [result.prediction.version for result in predictor.predict(REQUESTS)] == [2, 2, 2]


def test_a_batch_has_one_version_and_one_function_set(
    deployment: Deployment, active: ActiveModel, metrics: ProcessMetrics
) -> None:
    """Also if both change while it runs."""

    def change_deployment() -> datetime:
        deployment.activate_version(replace(active, version=2), ())
        deployment.activate_functions(FunctionSet([]), {})
        return AT

    predictor = Predictor(deployment, PredictionFactory(change_deployment), metrics)
    results = predictor.predict(REQUESTS)
    used = {(each.prediction.version, each.prediction.set_hash) for each in results}
    assert used == {(1, active.live.functions.hash)}
    assert predictor.predict(REQUESTS)[0].prediction.version == 2


def test_stages_and_functions_are_counted(predictor: Predictor, active: ActiveModel, metrics: ProcessMetrics) -> None:
    """Once per batch, of requests and of external predictions."""
    predictor.predict(REQUESTS)
    predictor.slice_external([ExternalPrediction({"stars": 3}, "true", 1)])
    stages = {"features": 1, "functions": 2, "model": 1, "record": 2}
    for stage, count in stages.items():
        assert sample(metrics, f'stage_duration_seconds_count{{stage="{stage}"}}') == count
    for name in active.live.functions.names:
        assert (sample(metrics, f'function_duration_seconds_total{{function="{name}"}}') or 0) > 0


def test_served_predictions_equal_offline_predictions(
    predictor: Predictor, active: ActiveModel, bundle: ModelBundle
) -> None:
    """On a hundred rows of a frame."""
    frame = pd.DataFrame({"text": [f"free song {k}" for k in range(100)], "likes": range(100)})
    results = predictor.predict([PredictionRequest(record) for record in frame.to_dict("records")])
    S = bundle.memberships(active.live.functions, frame)
    served = np.array([result.prediction.probabilities for result in results])
    np.testing.assert_allclose(served, bundle.predict_proba(frame, S), atol=1e-6)


def test_an_unreadable_record_fails_its_request_alone(predictor: Predictor) -> None:
    """Other requests of the batch are predicted as without it, all in one further run."""
    runs = []

    def predict(rows: Sequence[PredictionRequest]) -> list[PredictionResult]:
        runs.append(len(rows))
        return predictor.predict(rows)

    async def main() -> Any:
        batcher = Batcher(predict)
        bad, *good = await asyncio.gather(
            batcher.submit([REQUESTS[0], PredictionRequest({"text": "no likes"})]),
            *(batcher.submit([r]) for r in REQUESTS),
            return_exceptions=True,
        )
        await batcher.stop()
        return bad, [result for [result] in good]

    failed, good = asyncio.run(main())
    assert isinstance(failed, RowsFailed)
    assert [(row, type(error)) for row, error in failed.errors.items()] == [(1, DataError)]
    served = [result.prediction.probabilities for result in good]
    np.testing.assert_allclose(served, probabilities(predictor), atol=1e-6)
    assert runs == [2 + len(REQUESTS), len(REQUESTS)]


def test_of_many_unreadable_records_the_first_are_named(predictor: Predictor) -> None:
    """A request full of them costs no more than a good one."""
    bad = PredictionRequest({"text": "no likes"})
    with pytest.raises(RowsFailed) as refused:
        predictor.predict([bad] * 1000)
    assert list(refused.value.errors) == list(range(MAX_FAILED_ROWS))
    assert refused.value.checked == MAX_FAILED_ROWS


def test_activating_versions_under_load_fails_no_request(
    predictor: Predictor, deployment: Deployment, active: ActiveModel
) -> None:
    """Rows of one request have one version, and after the last activation all have the last."""

    async def client(batcher: Batcher[PredictionRequest, Any, Any]) -> list[Any]:
        return [await batcher.submit(REQUESTS) for _ in range(10)]

    async def activate() -> None:
        for version in range(2, 40):
            deployment.activate_version(replace(active, version=version), ())
            await asyncio.sleep(0)

    async def main() -> Any:
        batcher = Batcher(predictor.predict, max_batch_rows=8)
        *results, _ = await asyncio.gather(*(client(batcher) for _ in range(6)), activate())
        last = await batcher.submit(REQUESTS)
        await batcher.stop()
        return [request for mine in results for request in mine], last

    requests, last = asyncio.run(main())
    versions = [{result.prediction.version for result in request} for request in requests]
    assert [len(each) for each in versions] == [1] * 60
    assert [result.prediction.version for result in last] == [39] * 3


def test_external_predictions_get_the_slices_of_local_ones(predictor: Predictor) -> None:
    """Label, version and probabilities are their own."""
    records = [{"text": "click", "likes": 1}, {"text": "love a free song", "likes": 2}]
    rows = [ExternalPrediction(record, "true", 7 + n, (0.1, 0.9)) for n, record in enumerate(records)]
    external = predictor.slice_external(rows)
    local = predictor.predict([PredictionRequest(record) for record in records])
    assert [each.slices for each in external] == [each.slices for each in local] == [("short", "clicks"), ()]
    assert [each.prediction.version for each in external] == [7, 8]
    assert {(p.model, p.label, p.probabilities, p.source) for p in (each.prediction for each in external)} == {
        ("comments", "true", (0.1, 0.9), "logged")
    }


def test_external_predictions_may_lack_features(predictor: Predictor) -> None:
    """A function that reads a missing one is unknown."""
    [result] = predictor.slice_external([ExternalPrediction({"stars": 3}, "true", 1)])
    assert result.unknown_slices == ("short", "clicks")


@pytest.fixture
def registry(tmp_path: Path, bundle: ModelBundle) -> ModelRegistry:
    """Two versions, the first of them champion."""
    registry = ModelRegistry(tmp_path, "comments")
    registry.put(bundle)
    registry.put(replace(bundle, lineage={**bundle.lineage, "again": True}))
    registry.promote(1, expected=registry.alias(), reason="a test", at=AT)
    return registry


@pytest.mark.parametrize(("version", "number"), [("champion", 1), (1, 1), (2, 2), ("2", 2)])
def test_a_version_is_loaded_by_alias_or_number(
    version: Any, number: int, registry: ModelRegistry, active: ActiveModel
) -> None:
    """With its number, and with the given functions."""
    loaded = load(registry, active.live, version)
    assert (loaded.version, loaded.bundle.hash) == (number, registry.get(number).hash)
    assert loaded.live is active.live


def test_loading_from_an_empty_registry_says_what_to_do(tmp_path: Path, active: ActiveModel) -> None:
    """It is what a new user has."""
    with pytest.raises(ServiceError, match="has no champion: train one"):
        load(ModelRegistry(tmp_path / "new", "comments"), active.live)


def test_loading_a_missing_version_raises(registry: ModelRegistry, active: ActiveModel) -> None:
    """With the message of the registry."""
    with pytest.raises(RegistryError, match="no version 9"):
        load(registry, active.live, 9)


def test_loading_a_damaged_version_raises(registry: ModelRegistry, active: ActiveModel) -> None:
    """Digests are checked first."""
    file = registry.path(2) / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleError):
        load(registry, active.live, 2)


def test_warming_up_calls_no_python_function(
    bundle: ModelBundle, active: ActiveModel, live_of: Any, tmp_path: Path
) -> None:
    """They may be slow, and their faults are counted as those of traffic."""
    called = tmp_path / "called"
    code = f"@slicing_function()\ndef calls(x): return bool(Path({str(called)!r}).write_text('called'))"
    live = live_of(code, *active.live.functions)
    warm_up(bundle, live)
    assert not called.exists()
    live.apply([{"text": "song"}])
    assert called.exists()
