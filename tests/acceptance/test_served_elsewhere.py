"""A model served elsewhere raises the alarms of one served here, as early, on the same rows and labels.

Runtimes in this process, on a clock of their own: the stream is the same for a model trained here and for the
predictions of a scikit-learn classifier, logged as version 7.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, redirect_stdout
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from factories import PATIENT, ManualClock
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from models.features import FeatureSpec
from models.splits import content_hashes, held_out
from service.__main__ import main
from service.app import create_app
from service.runtime.runtime import Runtime
from service.settings.loading import load

START = datetime(2026, 5, 1, 12, tzinfo=UTC)
SHARE, GROWTH = 0.05, 4
CALM_BLOCKS, MOST_BLOCKS, BLOCK_ROWS = 25, 40, 100
SETTINGS = """\
name: comments
data: comments.csv
label: label
features: {text: text, likes: number}
functions: [slices.yaml]
learner: {kind: erm, epochs: 2, hidden: [8]}
"""
WORDS = {"ham": ("great", "song", "love", "voice"), "spam": ("free", "money", "click", "offer")}
OTHER = {"ham": "spam", "spam": "ham"}


def comments(draw: np.random.Generator, rows: int, share: float) -> pd.DataFrame:
    """Return distinct comments with their classes, of which a share has a link."""
    labels = draw.choice(["ham", "spam"], rows)
    texts = [
        f"{' '.join(draw.choice(WORDS[label], 2))} {draw.integers(10**9)}{' http://x.yz' * link}"
        for label, link in zip(labels, (draw.random(rows) < share).tolist(), strict=True)
    ]
    return pd.DataFrame({"text": texts, "likes": draw.integers(0, 9, rows), "label": labels})


def run_command(*argv: object) -> int:
    with redirect_stdout(StringIO()):
        return main([*map(str, argv)], now=lambda: START, environ={})


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """The table that the model is trained on."""
    return comments(np.random.default_rng(1), 3000, SHARE)


@pytest.fixture(scope="module")
def classifier(table: pd.DataFrame) -> Pipeline:
    """A scikit-learn classifier that is served elsewhere."""
    return make_pipeline(CountVectorizer(), LogisticRegression()).fit(table["text"], table["label"])


def write_project(folder: Path, table: pd.DataFrame, more: str = "") -> Path:
    folder.mkdir()
    table.to_csv(folder / "comments.csv", index=False)
    (folder / "slices.yaml").write_text("slices:\n  - {name: link, keyword: {field: text, words: [http]}}\n")
    (folder / "slicewatch.yaml").write_text(SETTINGS + more)
    return folder / "slicewatch.yaml"


class Service:
    """A runtime, its client and its clock; ``classifier`` predicts, or the model of the service."""

    def __init__(
        self, runtime: Runtime, http: httpx.AsyncClient, clock: ManualClock, classifier: Pipeline | None
    ) -> None:
        self.runtime, self.http, self.clock, self.classifier = runtime, http, clock, classifier
        self.draw, self.rows, self.version = np.random.default_rng(2), 0, 7

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        response = await self.http.request(method, path, json=body)
        assert response.status_code < 300, response.text
        return response.json() if "json" in response.headers["content-type"] else response.text

    async def block(self, share: float, *, flipped: bool = False) -> int:
        """Send a block of traffic with its labels, tick, and return its number of links."""
        frame = comments(self.draw, BLOCK_ROWS, share)
        records: list[dict[str, Any]] = frame[["text", "likes"]].to_dict("records")  # type: ignore[assignment]
        ids = [f"r{self.rows + row}" for row in range(BLOCK_ROWS)]
        self.rows += BLOCK_ROWS
        if self.classifier is None:
            await self.ask("POST", "/v1/predict", {"instances": records, "ids": ids})
        else:
            predicted = self.classifier.predict(frame["text"]).tolist()
            rows = [
                {"id": id_, "features": record, "label": label, "version": self.version}
                for id_, record, label in zip(ids, records, predicted, strict=True)
            ]
            await self.ask("POST", "/v1/predictions", {"predictions": rows})
        is_link = frame["text"].str.contains("http")
        true = frame["label"].where(~(is_link & flipped), frame["label"].map(OTHER)).tolist()
        labels = [{"id": id_, "label": label} for id_, label in zip(ids, true, strict=True)]
        await self.ask("POST", "/v1/labels", {"labels": labels})
        self.runtime.model.snapshots.run(self.clock.advance(seconds=10))
        self.runtime.model.detection.run(self.clock.now)
        return int(is_link.sum())

    async def alarmed(self, kind: str) -> bool:
        found = (await self.ask("GET", "/v1/alarms"))["alarms"]
        return any((alarm["slice"], alarm["kind"]) == ("link", kind) for alarm in found)

    async def delays(self) -> tuple[int, int]:
        """Return the rows until the slice's growth is found, then the labels of it until its fall is."""
        for _ in range(CALM_BLOCKS):
            await self.block(SHARE)
        assert (await self.ask("GET", "/v1/alarms"))["alarms"] == []
        rows = labels = 0
        while not await self.alarmed("coverage"):
            await self.block(GROWTH * SHARE)
            rows += BLOCK_ROWS
            assert rows < MOST_BLOCKS * BLOCK_ROWS
        while not await self.alarmed("accuracy"):
            labels += await self.block(GROWTH * SHARE, flipped=True)
            assert labels < MOST_BLOCKS * BLOCK_ROWS
        return rows, labels


@asynccontextmanager
async def running(file: Path, classifier: Pipeline | None) -> AsyncIterator[Service]:
    clock = ManualClock(START)
    runtime = Runtime(load(file, PATIENT), clock)
    transport = httpx.ASGITransport(create_app(runtime))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=120) as http:
        try:
            yield Service(runtime, http, clock, classifier)
        finally:
            assert await runtime.stop(10) == 0


@pytest.fixture(scope="module")
def own_delays(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, int]:
    """Rows and labels until the alarms of a model that is served here."""
    file = write_project(tmp_path_factory.mktemp("own") / "project", table, "drift: {swing: 0, settling_hours: 0}\n")
    assert run_command("train", "--config", file) == 0

    async def story() -> tuple[int, int]:
        async with running(file, None) as service:
            return await service.delays()

    return asyncio.run(story())


@pytest.mark.usefixtures("forked_children")
@pytest.mark.parametrize("from_file", [True, False], ids=["a file of predictions", "first labels"])
def test_alarms_are_as_early_as_those_of_a_model_served_here(
    table: pd.DataFrame, classifier: Pipeline, own_delays: tuple[int, int], tmp_path: Path, from_file: bool
) -> None:
    """Share times four, then flipped labels; pages, report and sentences are the same, and nothing is unavailable."""
    more = "classes: [ham, spam]\ndrift: {swing: 0, settling_hours: 0, reference_labels: 100}\n"
    file = write_project(tmp_path / "project", table, more)
    if from_file:  # the held-out rows, as of the model that is trained here
        kept = table[held_out(content_hashes(table, [FeatureSpec("text", "text")]))]
        predictions = kept.assign(predicted=classifier.predict(kept["text"]))
        rest = table.drop(kept.index).assign(predicted=None)
        pd.concat([predictions, rest]).to_csv(tmp_path / "predictions.csv", index=False)
        assert run_command("reference", tmp_path / "predictions.csv", "--version", 7, "--config", file) == 0

    async def story() -> None:
        async with running(file, classifier) as service:
            service.runtime.model.references.run()
            rows, labels = await service.delays()
            assert rows <= own_delays[0]
            assert labels <= own_delays[1] + BLOCK_ROWS * GROWTH * SHARE
            for alarm in (await service.ask("GET", "/v1/alarms"))["alarms"]:
                assert alarm["version"] == 7
                assert "expected" in alarm["sentence"]
            service.clock.advance(hours=24)
            await service.block(SHARE)
            service.runtime.model.reports.run(service.clock.now)
            (report,) = (await service.ask("GET", "/v1/reports"))["reports"]
            assert report["error"] == ""
            pages = ["/", "/slices/link", "/slices/__all__", "/alarms", "/alarms/1", "/runs", "/models", "/reports"]
            for path in [*pages, f"/reports/{report['id']}"]:
                page = await service.ask("GET", path)
                assert "503" not in page
                assert "slicewatch train" not in page

            service.version = 8  # a promotion elsewhere: coverage goes on, accuracy has its own first labels
            for block in range(14):
                if block == 8:  # it has led for five minutes then
                    service.clock.advance(minutes=5)
                await service.block(SHARE)
            view = {each["name"]: each for each in (await service.ask("GET", "/v1/slices"))["slices"]}
            assert view["link"]["reference"]["n"] == len(table)
            assert view["link"]["accuracy_reference"]["needed"] == 100
            assert (await service.ask("GET", "/v1/alarms"))["alarms"] == []

    asyncio.run(story())
