"""Records that another server predicted."""

from typing import Any

from service.serving.live_functions import LiveFunctions
from service.serving.prediction_factory import ExternalPrediction, PredictionFactory, PredictionRequest
from service.serving.predictor import ActiveModel, BatchReport, ExternalLogger, Predictor

RECORDS = [{"text": "click", "likes": 1}, {"text": "love a free song", "likes": 2}]


def observer(live: LiveFunctions, recorder: PredictionFactory) -> ExternalLogger:
    return ExternalLogger("elsewhere", ["false", "true"], "spam", live, recorder)


def test_what_was_predicted_elsewhere_gets_the_same_slices(
    loaded: ActiveModel, recorder: PredictionFactory
) -> None:
    """As if it had been predicted here; label, version and probabilities are those that came with it."""
    logged = [ExternalPrediction(record, "true", 7 + n, (0.1, 0.9)) for n, record in enumerate(RECORDS)]
    found = observer(loaded.live, recorder).observe(logged)
    here = Predictor(loaded, recorder).predict([PredictionRequest(record) for record in RECORDS])
    assert [each.slices for each in found] == [each.slices for each in here] == [("short", "clicks"), ()]
    assert [each.prediction.version for each in found] == [7, 8]
    assert {(p.model, p.label, p.probabilities, p.source) for p in (each.prediction for each in found)} == {
        ("elsewhere", "true", (0.1, 0.9), "logged")
    }


def test_features_are_not_needed(loaded: ActiveModel, recorder: PredictionFactory) -> None:
    """What a function misses is unknown to it, and nothing else comes of it."""
    [found] = observer(loaded.live, recorder).observe([ExternalPrediction({"stars": 3}, "true", 1)])
    assert found.unknown_slices == ("short", "clicks")


def test_functions_do_not_see_the_label(recorder: PredictionFactory, live_of: Any) -> None:
    """Though it is among the features that came."""
    live = live_of("@slicing_function()\ndef peeks(x): return 'spam' in x")
    assert observer(live, recorder).observe([ExternalPrediction({"spam": True}, "true", 1)])[0].slices == ()


def test_each_batch_is_reported(loaded: ActiveModel, recorder: PredictionFactory) -> None:
    """With how each function fared, for their counters, and what the stages took."""
    told: list[BatchReport] = []
    watched = ExternalLogger(
        "elsewhere", ["false", "true"], "spam", loaded.live, recorder, report=told.append
    )
    answers = watched.observe([ExternalPrediction({"stars": 3}, "true", 1)])
    [report] = told
    assert (report.model, report.version, report.answers) == ("elsewhere", None, answers)
    assert [(each.name, sum(each.unknown.values())) for each in report.runs] == [("short", 1), ("clicks", 1)]
    assert list(report.stage_seconds) == ["functions", "record"]
