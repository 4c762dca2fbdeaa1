"""Labels of one model: checked, written, counted."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import (
    START,
    make_deployment,
    make_label,
    make_metrics,
    make_prediction,
    make_settings,
    make_state,
    open_log,
)

from service.serving.labels import LabelIntake
from service.store.engine import Store
from service.store.errors import StoreStopped
from service.store.queries import labels as stored
from service.store.writer import Writer


@pytest.fixture
def log(tmp_path: Path) -> Iterator[tuple[Store, Writer]]:
    """A log with one prediction of model ``m``."""
    with open_log(tmp_path / "store.sqlite3") as (store, writer):
        writer.append([make_prediction("one", START)]).result()
        yield store, writer


def test_labels_have_their_outcomes_in_order_and_are_counted(log: Any, tmp_path: Path) -> None:
    """A label that is not a class is rejected, and does not affect the others."""
    metrics = make_metrics()
    deployment = make_deployment(*log, make_settings(tmp_path), state=make_state(), metrics=metrics)
    labels = [
        make_label("one", START, "z"),
        make_label("one", START, "y"),
        make_label("unknown", START, "x"),
        make_label("two", START, "Y"),
    ]
    results = asyncio.run(LabelIntake(deployment, log[1], metrics).add(labels))
    assert [each.outcome for each in results] == ["rejected", "accepted", "pending", "rejected"]
    assert results[0].reason == "'z' is not a class; the classes are 'x', 'y'"
    page = metrics.text().decode()
    for outcome, count in {"accepted": 1, "pending": 1, "rejected": 2, "duplicate": 0}.items():
        assert f'slicewatch_labels_total{{model="m",outcome="{outcome}"}} {count}.0' in page


def test_a_label_counts_in_every_spelling_of_its_class(log: Any, tmp_path: Path) -> None:
    """It is stored in the spelling of the class."""
    state = make_state(classes=("false", "true"))
    deployment = make_deployment(*log, make_settings(tmp_path), state=state)
    labels = [make_label("one", START, " True "), make_label("two", START, "yes")]
    results = asyncio.run(LabelIntake(deployment, log[1], make_metrics()).add(labels))
    assert [each.outcome for each in results] == ["accepted", "rejected"]
    with log[0].read() as connection:
        assert stored(connection, "m", ["one", "two"]) == {"one": "true"}


def test_labels_without_a_class_write_nothing(log: Any, tmp_path: Path) -> None:
    """Not even if the writer is stopped; any other label raises then."""
    deployment = make_deployment(*log, make_settings(tmp_path), state=make_state())
    intake = LabelIntake(deployment, log[1], make_metrics())
    log[1].stop()
    [result] = asyncio.run(intake.add([make_label("one", START, "z")]))
    assert result.outcome == "rejected"
    with pytest.raises(StoreStopped):
        asyncio.run(intake.add([make_label("one", START, "x")]))


def test_a_refused_request_counts_no_label(log: Any, tmp_path: Path) -> None:
    """The client sends it again, and its rejected labels would be counted twice."""
    metrics = make_metrics()
    deployment = make_deployment(*log, make_settings(tmp_path), state=make_state(), metrics=metrics)
    log[1].stop()
    with pytest.raises(StoreStopped):
        asyncio.run(
            LabelIntake(deployment, log[1], metrics).add([make_label("one", START, "z"), make_label("one", START, "x")])
        )
    assert 'slicewatch_labels_total{model="m",outcome="rejected"} 0.0' in metrics.text().decode()
