"""Requests and external predictions from their queues to the log."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import make_deployment, open_log

from models.errors import DataError
from service.errors import NoModel, Overloaded, RowsFailed, Stopping
from service.metrics.process import ProcessMetrics
from service.serving.deployment import ActiveModel, Deployment
from service.serving.prediction_factory import ExternalPrediction, PredictionFactory, PredictionRequest
from service.serving.predictions import RequestQueues
from service.serving.predictor import Predictor
from service.settings.schema import Settings
from service.store.engine import Store
from service.store.errors import StoreStopped
from service.store.queries import prediction
from service.store.writer import Writer

SHORT = {"text": "click", "likes": 1}
REQUEST = PredictionRequest(SHORT, "one")
EXTERNAL = ExternalPrediction(SHORT, "true", 7, id="other")


@pytest.fixture
def log(tmp_path: Path) -> Iterator[tuple[Store, Writer]]:
    """An empty log of one test."""
    with open_log(tmp_path / "store.sqlite3") as log:
        yield log


@pytest.fixture
def deployment(
    log: tuple[Store, Writer], settings: Settings, metrics: ProcessMetrics, active: ActiveModel
) -> Deployment:
    """Functions without a version."""
    return make_deployment(*log, settings, live=active.live, metrics=metrics)


@pytest.fixture
def drive(
    deployment: Deployment, factory: PredictionFactory, metrics: ProcessMetrics, log: tuple[Store, Writer]
) -> Callable[..., Any]:
    """Runs a coroutine function with queues of two rows, and stops them."""

    def run(main: Callable[[RequestQueues], Any]) -> Any:
        async def story() -> Any:
            predictor = Predictor(deployment, factory, metrics)
            queues = RequestQueues(deployment, predictor, log[1], metrics, queue_rows=2)
            try:
                return await asyncio.wait_for(main(queues), 300)
            finally:
                await queues.stop()

        return asyncio.run(story())

    return run


def test_a_request_is_predicted_logged_and_counted(
    drive: Any, deployment: Deployment, active: ActiveModel, metrics: ProcessMetrics, log: Any
) -> None:
    """Its row is committed when it is answered."""
    deployment.activate_version(active, ())
    [(result, logged)] = drive(lambda queues: queues.predict([REQUEST], 10))
    assert result.slices == ("short", "clicks")
    assert logged.outcome == "stored"
    with log[0].read() as connection:
        assert prediction(connection, "comments", "one") == result.prediction
    label = result.prediction.label
    page = metrics.text().decode()
    assert f'slicewatch_predictions_total{{label="{label}",model="comments",version="1"}} 1.0' in page
    assert 'slicewatch_stage_duration_seconds_count{stage="log"} 1.0' in page


def test_without_a_version_a_request_is_refused(drive: Any) -> None:
    """Before it is queued."""
    with pytest.raises(NoModel, match="slicewatch train"):
        drive(lambda queues: queues.predict([REQUEST], 10))


def test_the_first_external_predictions_make_their_version_active(
    drive: Any, deployment: Deployment, factory: PredictionFactory
) -> None:
    """Since their time; later ones do not change it."""

    async def main(queues: RequestQueues) -> Any:
        results = await queues.slice_external([EXTERNAL])
        await queues.slice_external([ExternalPrediction(SHORT, "true", 8)])
        return results

    [(result, _)] = drive(main)
    assert (result.slices, result.prediction.source) == (("short", "clicks"), "logged")
    assert (deployment.state.version, deployment.state.promoted_at) == (7, factory.now())


def test_one_bad_row_refuses_all_external_predictions(drive: Any, deployment: Deployment) -> None:
    """With the error of the row."""
    bad = ExternalPrediction({"text": {1}}, "true", 7)
    with pytest.raises(DataError):
        drive(lambda queues: queues.slice_external([EXTERNAL, bad]))
    assert deployment.state.version is None


def test_a_bad_row_fails_its_request(drive: Any, deployment: Deployment, active: ActiveModel) -> None:
    """The error names the row."""
    deployment.activate_version(active, ())
    with pytest.raises(RowsFailed) as refused:
        drive(lambda queues: queues.predict([REQUEST, PredictionRequest({"text": "no likes"})], 10))
    assert list(refused.value.errors) == [1]


def test_rows_that_cannot_be_logged_are_counted_as_lost(
    drive: Any, deployment: Deployment, active: ActiveModel, metrics: ProcessMetrics, log: Any
) -> None:
    """They are not counted as predictions."""
    deployment.activate_version(active, ())

    async def main(queues: RequestQueues) -> None:
        log[1].submit(lambda connection: connection.exec_driver_sql("DROP TABLE predictions")).result()
        await queues.predict([REQUEST], 10)

    with pytest.raises(Exception, match="predictions"):
        drive(main)
    page = metrics.text().decode()
    assert "slicewatch_log_lost_total 1.0" in page
    assert 'label="true",model="comments",version="1"} 1.0' not in page


def test_what_is_committed_is_answered(
    drive: Any, deployment: Deployment, active: ActiveModel, metrics: ProcessMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it cannot be counted."""
    deployment.activate_version(active, ())

    def fail(_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(metrics, "count_predictions", fail)
    [(_, logged)] = drive(lambda queues: queues.predict([REQUEST], 10))
    assert logged.outcome == "stored"


def test_a_commit_after_the_stop_is_no_defect(
    drive: Any, deployment: Deployment, active: ActiveModel, log: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Its request was told that the service stops; the row is in the log."""
    deployment.activate_version(active, ())
    entered, gate = threading.Event(), threading.Event()

    async def main(queues: RequestQueues) -> Any:
        log[1].submit(lambda _: (entered.set(), gate.wait(600)))
        assert await asyncio.to_thread(entered.wait, 300)
        asked = asyncio.create_task(queues.predict([REQUEST], 10))
        while log[1].backlog_rows < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queues.stop(), 0.1)
        gate.set()
        return await asyncio.gather(asked, return_exceptions=True)

    assert [type(each) for each in drive(main)] == [Stopping]
    assert log[1].stop() == 0
    with log[0].read() as connection:
        assert prediction(connection, "comments", "one") is not None
    assert caplog.records == []


def test_a_stopped_writer_refuses_rows(drive: Any, deployment: Deployment, active: ActiveModel, log: Any) -> None:
    """With its own error."""
    deployment.activate_version(active, ())

    async def main(queues: RequestQueues) -> None:
        log[1].stop()
        await queues.predict([REQUEST], 10)

    with pytest.raises(StoreStopped):
        drive(main)


def test_each_queue_has_its_capacity(drive: Any, deployment: Deployment, active: ActiveModel) -> None:
    """A stopped one has no room."""
    deployment.activate_version(active, ())

    async def main(queues: RequestQueues) -> Any:
        room = queues.has_room(2), queues.has_room(3)
        with pytest.raises(Overloaded):
            await queues.predict([REQUEST] * 3, 10)
        with pytest.raises(Overloaded):
            await queues.slice_external([EXTERNAL] * 3)
        await queues.stop()
        with pytest.raises(Stopping):
            await queues.predict([REQUEST], 10)
        return *room, queues.has_room(1)

    assert drive(main) == (True, False, False)


def test_a_request_that_cannot_be_logged_fails_alone(
    drive: Any, deployment: Deployment, active: ActiveModel, metrics: ProcessMetrics, log: Any
) -> None:
    """Other requests of its batch are committed after it."""
    deployment.activate_version(active, ())

    async def main(queues: RequestQueues) -> Any:
        requests = [PredictionRequest(SHORT, "one"), PredictionRequest(SHORT, "\ud800")]  # no UTF-8
        return await asyncio.gather(*(queues.predict([each], 10) for each in requests), return_exceptions=True)

    good, bad = drive(main)
    assert [entry.outcome for _, entry in good] == ["stored"]
    assert isinstance(bad, Exception)
    assert "slicewatch_log_lost_total 1.0" in metrics.text().decode()
    with log[0].read() as connection:
        assert prediction(connection, "comments", "one") is not None
