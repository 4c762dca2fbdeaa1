"""A log, a deployment over it, and a metrics page that records what it shows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from factories import make_deployment, make_local_state, make_metrics, make_settings, open_log

from service.decisions import Alarm, DriftStatus
from service.events import Snapshot
from service.metrics.gauges import MetricsPage
from service.serving.deployment import Deployment
from service.settings.schema import Settings
from service.store.engine import Store
from service.store.writer import Writer


class RecordingPage(MetricsPage):
    """A metrics page that keeps its arguments."""

    def __init__(self) -> None:
        super().__init__(make_metrics())
        self.snapshots: list[Snapshot] = []
        self.watched_until: datetime | None = None
        self.drift: tuple[str, tuple[DriftStatus, ...], Sequence[Alarm]] | None = None

    def show(self, snapshot: Snapshot, metadata: Mapping[str, Any], references: Mapping[str, Any]) -> None:
        super().show(snapshot, metadata, references)
        self.snapshots.append(snapshot)

    def show_drift(
        self,
        model: str,
        drifts: Iterable[DriftStatus],
        unresolved: Sequence[Alarm],
        watched_until: datetime | None = None,
    ) -> None:
        self.drift, self.watched_until = (model, tuple(drifts), unresolved), watched_until
        super().show_drift(*self.drift, watched_until)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[tuple[Store, Writer]]:
    with open_log(tmp_path / "log.db") as opened:
        yield opened


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings(tmp_path)


@pytest.fixture
def deployment(log: tuple[Store, Writer], settings: Settings) -> Deployment:
    return make_deployment(*log, settings, state=make_local_state())


@pytest.fixture
def page() -> RecordingPage:
    return RecordingPage()
