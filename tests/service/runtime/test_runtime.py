"""The runtime: effects of settings, and changes while it runs."""

import asyncio
import re
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from models.registry import ModelRegistry
from service.decisions import DriftDetected, DriftStatus
from service.runtime.runtime import Runtime
from service.settings.loading import load
from service.store.alarms import open_alarm
from service.store.errors import StoreInUse
from service.store.queries import prediction
from sfs.errors import SliceError
from sfs.intervals import Rate

COMMENT = "Customer's comment: (raw)"
ORDER = {"Price [eur]": 12.5, "country": "no", COMMENT: "late again"}
DEAR = {"name": "dear", "compare": {"field": "Price [eur]", "above": 100}, "owner": "shop"}


def slices_of(view):
    return {each["name"]: each for each in view["slices"]}


def test_a_prediction_and_its_label_reach_the_figures(trained: Path, serving) -> None:
    """After one tick a slice shows the row that is in it, and its labelled row."""

    async def story() -> None:
        async with serving(trained) as running:
            answer = await running.post("/v1/predict", {"instances": [ORDER], "ids": ["one"]})
            assert answer["predictions"][0]["slices"] == ["short_comment", "cheap"]
            labels = await running.post("/v1/labels", {"labels": [{"id": "one", "label": "kept"}]})
            assert labels["labels"][0]["outcome"] == "accepted"
            running.tick()
            shown = slices_of(await running.get("/v1/slices"))
            assert (shown["cheap"]["coverage"]["count"], shown["cheap"]["members"]["labelled"]) == (1, 1)
            assert shown["no_price"]["coverage"]["count"] == 0
            page = (await running.http.get("/metrics")).text
            assert 'slicewatch_slice_coverage_ratio{model="orders",slice="cheap",version="1",window="1h"} 1.0' in page
            assert "slicewatch_stage_duration_seconds_count" in page
            assert (await running.http.get("/")).status_code == 200

    asyncio.run(story())


def test_a_start_shows_the_last_label_and_the_unresolved_alarms_at_once(trained: Path, serving) -> None:
    """The metrics have them before the first tick, so that no alert ends with a stop."""

    async def story() -> None:
        since = 'slicewatch_slice_last_label_timestamp_seconds{model="orders",slice="cheap",version="1"}'
        alarm = 'slicewatch_slice_drift_alarm{kind="accuracy",model="orders",slice="cheap"} 1.0'
        pages = []
        async with serving(trained) as running:
            await running.post("/v1/predict", {"instances": [ORDER], "ids": ["one"]})
            await running.post("/v1/labels", {"labels": [{"id": "one", "label": "kept"}]})
            running.tick()
            drift = DriftStatus("cheap", None, "accuracy", None, 20.0, 19.0, None, "down", Rate(1, 9), 0.0, 1.0)
            detection = DriftDetected(running.clock.now, drift)
            running.runtime.writer.submit(partial(open_alarm, model="orders", version=1, detection=detection)).result()
            running.runtime.model.detection.restore()
            pages.append((await running.http.get("/metrics")).text)
        async with serving(trained) as running:
            running.runtime.start()
            pages.append((await running.http.get("/metrics")).text)
        shown = [{line for line in page.splitlines() if line.startswith((since, alarm))} for page in pages]
        assert shown[0] == shown[1]
        assert len(shown[0]) == 2

    asyncio.run(story())


@pytest.mark.parametrize(
    ("kept", "found"),
    [("all", '"country"'), ("none", None), ("[country]", '{"country":"no"}')],
)
def test_the_feature_policy_decides_what_is_kept(trained: Path, serving, kept: str, found: str | None) -> None:
    """All of a record is kept, nothing, or the columns that are named."""

    async def story() -> None:
        async with serving(trained, SLICEWATCH_LOG_FEATURES=kept) as running:
            await running.post("/v1/predict", {"instances": [ORDER], "ids": ["one"]})
            with running.runtime.store.read() as connection:
                features = prediction(connection, "orders", "one").features
            assert features is None if found is None else found in features

    asyncio.run(story())


def test_an_added_function_is_applied_and_outlives_a_restart(trained: Path, serving) -> None:
    """It is there for the next prediction, has a reference from held-out rows, and is there after a restart."""

    async def story() -> None:
        async with serving(trained) as running:
            await running.post("/v1/predict", {"instances": [ORDER]})
            added = await running.post("/v1/functions", DEAR, 201)
            assert (added["name"], added["origin"]) == ("dear", "http")
            rich = await running.post("/v1/predict", {"instances": [{**ORDER, "Price [eur]": 400.0}]})
            assert "dear" in rich["predictions"][0]["slices"]
            running.tick()
            dear = slices_of(await running.get("/v1/slices"))["dear"]
            assert (dear["coverage"]["count"], dear["coverage"]["n"], dear["absent"]) == (1, 1, 1)
            assert dear["reference"]["n"] > 0
        async with serving(trained) as running:
            names = [each["name"] for each in (await running.get("/v1/functions"))["functions"]]
            assert names == ["short_comment", "cheap", "no_price", "dear"]
            assert (await running.http.delete("/v1/functions/dear")).status_code == 204
            assert "dear" not in str(await running.get("/v1/functions"))

    asyncio.run(story())


def test_a_function_that_a_file_defines_by_now_is_the_files(trained: Path, serving) -> None:
    """An added function whose name a file takes is set aside, and the file's is applied."""

    async def story() -> None:
        async with serving(trained) as running:
            await running.post("/v1/functions", DEAR, 201)
        yaml = trained.parent / "slices.yaml"
        yaml.write_text(yaml.read_text() + '  - {name: dear, missing: {field: "country"}}\n')
        async with serving(trained) as running:
            (dear,) = [f for f in (await running.get("/v1/functions"))["functions"] if f["name"] == "dear"]
            assert dear["origin"] == "file"
            assert "missing" in dear["declaration"]

    asyncio.run(story())


def test_a_preview_registers_nothing(trained: Path, serving) -> None:
    """A function is tried on held-out rows and on given ones, and is not in force afterwards."""

    async def story() -> None:
        async with serving(trained) as running:
            on_sample = await running.post("/v1/functions/preview", {"function": DEAR})
            assert (on_sample["source"], on_sample["rows"] > 0) == ("sample", True)
            given = await running.post(
                "/v1/functions/preview", {"function": DEAR, "records": [{"Price [eur]": 101}, {}]}
            )
            assert (given["members"], given["unknown"], given["rows"]) == (1, 1, 2)
            assert "dear" not in str(await running.get("/v1/functions"))

    asyncio.run(story())


def test_another_champion_answers_once_it_is_found(trained: Path, serving) -> None:
    """A version that is promoted while the service runs answers the next request, with its own figures."""

    async def story() -> None:
        async with serving(trained) as running:
            first = await running.post("/v1/predict", {"instances": [ORDER]})
            registry = ModelRegistry(trained.parent / ".slicewatch/registry", name="orders")
            other = replace(registry.get(1), lineage={**registry.get(1).lineage, "note": "again"})
            registry.promote(registry.put(other), expected=1, reason="better", at=running.clock.now)
            assert running.runtime.model.reload.run()
            second = await running.post("/v1/predict", {"instances": [ORDER]})
            assert (first["model"]["version"], second["model"]["version"]) == (1, 2)
            running.tick()
            assert (await running.get("/v1/slices"))["version"] == 2

    asyncio.run(story())


def test_without_a_champion_only_what_is_predicted_elsewhere_is_taken(project: Path, serving) -> None:
    """Predicting is refused with what to do, logging works, and its version is watched, also after a restart."""
    project.write_text(project.read_text() + "classes: [kept, returned, lost]\n")
    logged = {"predictions": [{"id": "a", "features": ORDER, "label": "lost", "version": 7}]}

    async def story() -> None:
        async with serving(project) as running:
            problem = await running.post("/v1/predict", {"instances": [ORDER]}, 503)
            assert "slicewatch train" in problem["detail"]
            answer = await running.post("/v1/predictions", logged)
            assert answer["predictions"][0]["slices"] == ["short_comment", "cheap"]
            running.tick()
            view = await running.get("/v1/slices")
            assert (view["version"], slices_of(view)["cheap"]["coverage"]["count"]) == (7, 1)
            assert (await running.http.get("/readyz")).status_code == 200
        async with serving(project) as running:
            running.tick(20)
            assert (await running.get("/v1/slices"))["version"] == 7

    asyncio.run(story())


def test_a_damaged_champion_takes_only_predictions_away(trained: Path, serving, caplog) -> None:
    """Labels, pages, metrics and logged predictions work, the reason is shown, and a repaired champion is loaded."""
    weights = next((trained.parent / ".slicewatch/registry/orders/versions/000001").glob("weights*"))
    content = weights.read_bytes()

    async def story() -> None:
        async with serving(trained) as running:
            await running.post("/v1/predict", {"instances": [ORDER], "ids": ["before"]})
            running.tick()
        weights.write_bytes(content[:-100])
        async with serving(trained) as running:
            problem = await running.post("/v1/predict", {"instances": [ORDER]}, 503)
            assert "champion, version 1, cannot be loaded: versions/000001/weights" in problem["detail"]
            ready = await running.get("/readyz", 503)
            assert ready["reasons"] == {"model": problem["detail"]}
            label = {"labels": [{"id": "before", "label": "kept"}]}
            assert (await running.post("/v1/labels", label))["labels"][0]["outcome"] == "accepted"
            logged = {"predictions": [{"id": "elsewhere", "features": ORDER, "label": "lost"}]}
            assert (await running.post("/v1/predictions", logged))["predictions"][0]["slices"]
            running.tick()
            view = await running.get("/v1/slices")
            assert (view["version"], slices_of(view)["__all__"]["members"]["labelled"]) == (1, 1)
            assert (await running.http.get("/metrics")).status_code == 200
            for path in ("/", "/slices/cheap", "/models", "/alarms", "/runs", "/reports"):
                page = await running.http.get(path)
                assert (path, page.status_code) == (path, 200)
                assert "The champion, version 1, cannot be loaded" in page.text
                assert str(trained.parent) not in page.text
            running.runtime.model.detection.run(running.clock.now)
            weights.write_bytes(content)
            assert running.runtime.model.reload.run()
            await running.post("/v1/predict", {"instances": [ORDER]})
            assert await running.get("/readyz") == {"ready": True}
            assert "cannot be loaded" not in (await running.http.get("/")).text

    asyncio.run(story())
    assert len([each for each in caplog.messages if "cannot be loaded" in each]) == 1


def test_without_model_and_classes_it_is_not_ready(project: Path, serving) -> None:
    """The reason is named, and says what to do."""

    async def story() -> None:
        async with serving(project) as running:
            response = await running.http.get("/readyz")
            assert response.status_code == 503
            assert "slicewatch train" in response.text

    asyncio.run(story())


def test_a_second_service_on_the_store_is_refused(trained: Path, serving) -> None:
    """The store belongs to one process."""

    async def story() -> None:
        async with serving(trained) as running:
            with pytest.raises(StoreInUse, match="more than one process needs PostgreSQL"):
                Runtime(load(trained, {}), running.clock)

    asyncio.run(story())


def test_a_build_that_fails_leaves_nothing_open(trained: Path, serving) -> None:
    """Where a function cannot be loaded, the store is free again for the next try."""
    file = trained.parent / "slices.py"
    good = file.read_text()
    file.write_text("import nothing_of_this_name")

    async def story() -> None:
        with pytest.raises(SliceError, match="nothing_of_this_name"):
            Runtime(load(trained, {}), lambda: None)
        file.write_text(good)
        async with serving(trained) as running:
            await running.post("/v1/predict", {"instances": [ORDER]})

    asyncio.run(story())


def test_a_stopping_service_says_so(trained: Path, serving) -> None:
    """Once it stops, nothing more is taken, and the reason is named."""

    async def story() -> None:
        async with serving(trained) as running:
            await running.runtime.stop(5)
            response = await running.http.get("/readyz")
            assert (response.status_code, "stopping" in response.text) == (503, True)
            assert (await running.http.post("/v1/predict", json={"instances": [ORDER]})).status_code == 503

    asyncio.run(story())


def test_a_stopping_service_changes_no_functions(trained: Path, serving) -> None:
    """From the begin of the shutdown on changes and previews are refused, while predictions are still answered."""

    async def story() -> None:
        async with serving(trained) as running:
            running.runtime.begin_stop()
            await running.post("/v1/predict", {"instances": [ORDER]})
            preview = {"function": DEAR, "records": [{"Price [eur]": 101}]}
            for method, path, body in (
                ("POST", "/v1/functions", DEAR),
                ("DELETE", "/v1/functions/dear", None),
                ("POST", "/v1/functions/preview", preview),
            ):
                response = await running.http.request(method, path, json=body)
                assert (path, response.status_code) == (path, 503)
                assert "is stopping" in response.json()["detail"]

    asyncio.run(story())


def test_another_name_for_this_machine_is_refused(trained: Path, serving) -> None:
    """Requests with a Host header outside the configured hosts return 400."""

    async def story() -> None:
        async with serving(trained, SLICEWATCH_SERVE_HOSTS="[shop.example]") as running:
            for host, status in (("evil.example", 400), ("shop.example", 200), ("[::1]:8000", 200)):
                answer = await running.http.get("/healthz", headers={"host": host})
                assert (host, answer.status_code) == (host, status)

    asyncio.run(story())


def test_a_store_that_refuses_is_a_reason_not_to_come(trained: Path, serving) -> None:
    """The reason is named until something is written again."""

    async def story() -> None:
        async with serving(trained) as running:
            writer = running.runtime.writer
            writer.submit(lambda c: c.exec_driver_sql("ALTER TABLE predictions RENAME TO away")).result()
            await running.post("/v1/predict", {"instances": [ORDER]}, 503)
            problem = await running.get("/readyz", 503)
            assert "predictions" in problem["reasons"]["store"]
            writer.submit(lambda c: c.exec_driver_sql("ALTER TABLE away RENAME TO predictions")).result()
            await running.post("/v1/predict", {"instances": [ORDER]})
            assert await running.get("/readyz") == {"ready": True}

    asyncio.run(story())


def test_a_store_that_refuses_every_write_is_shown_as_such(trained: Path, serving) -> None:
    """The gauge is 0 after a refused write, and 1 again after one of its own has succeeded."""

    async def story() -> None:
        async with serving(trained) as running:

            async def usable() -> float:
                running.runtime.probe_store()
                page = (await running.http.get("/metrics")).text
                return float(next(line.split()[1] for line in page.splitlines() if "store_usable " in line[:25]))

            def limit(pages: int) -> int:
                work = running.runtime.writer.submit(
                    lambda c: c.exec_driver_sql(f"PRAGMA max_page_count={pages}").scalar()
                )
                return work.result()

            limit(limit(1))
            await running.post("/v1/predict", {"instances": [ORDER | {"country": "x" * 100_000}] * 20}, 503)
            running.runtime.writer.submit(lambda c: None).result()
            assert "full" in (await running.get("/readyz", 503))["reasons"]["store"]
            assert await usable() == 0.0
            limit(1_000_000)
            assert await usable() == 1.0

    asyncio.run(story())


def test_labels_that_wait_are_counted_at_the_start(trained: Path, serving) -> None:
    """The gauge is right before the clock has been steady for five minutes."""

    async def story() -> None:
        async with serving(trained) as running:
            await running.post("/v1/labels", {"labels": [{"id": "stray", "label": "kept"}]})
        async with serving(trained) as running:
            assert "slicewatch_labels_pending 1.0" in (await running.http.get("/metrics")).text

    asyncio.run(story())


def test_rows_older_than_the_log_keeps_are_refused(trained: Path, serving) -> None:
    """They would be acknowledged, and then deleted."""

    def logged(now: datetime, days: float) -> dict:
        at = (now - timedelta(days=days)).isoformat()
        return {"predictions": [{"features": ORDER, "label": "kept", "version": 1, "predicted_at": at}]}

    async def story() -> None:
        async with serving(trained, SLICEWATCH_LOG_KEEP_DAYS="7") as running:
            answer = await running.post("/v1/predictions", logged(running.clock(), 7.1), 422)
            assert "is more than 7 days old" in answer["errors"][0]["message"]
            await running.post("/v1/predictions", logged(running.clock(), 6.9))

    asyncio.run(story())


def test_a_store_that_was_moved_takes_no_requests(trained: Path, serving) -> None:
    """Predictions and labels get 503, the reason is named, and no answered row is missing once it is back."""

    async def story() -> None:
        async with serving(trained) as running:
            store = running.runtime.store.path
            (kept,) = (await running.post("/v1/predict", {"instances": [ORDER]}))["predictions"]
            store.rename(store.with_name("elsewhere"))
            await running.post("/v1/predict", {"instances": [ORDER]}, 503)
            answer = await running.post("/v1/labels", {"labels": [{"id": kept["id"], "label": "kept"}]}, 503)
            assert answer["type"].endswith("store-unavailable")
            running.runtime.probe_store()
            assert "moved or deleted" in (await running.get("/readyz", 503))["reasons"]["store"]
            assert "slicewatch_store_usable 0.0" in (await running.http.get("/metrics")).text
            store.with_name("elsewhere").rename(store)
            assert await running.get("/readyz") == {"ready": True}
            running.runtime.probe_store()
            assert "slicewatch_store_usable 1.0" in (await running.http.get("/metrics")).text
            records = (await running.get("/v1/slices/__all__/records?kind=all"))["records"]
            assert [record["id"] for record in records] == [kept["id"]]

    asyncio.run(story())


def test_the_version_that_is_logged_most_is_watched(project: Path, serving) -> None:
    """Without a champion a rollback elsewhere is followed, no stray version, and the same one after a restart."""
    project.write_text(project.read_text() + "classes: [kept, returned, lost]\n")

    def logged(version: int, rows: int) -> dict:
        row = {"features": ORDER, "label": "lost", "version": version}
        return {"predictions": [row] * rows}

    async def story() -> None:
        async with serving(project) as running:
            for version, rows, watched in ((7, 2, 7), (4, 5, 7), (4, 1, 4), (99, 1, 4), (7, 6, 4)):
                running.clock.advance(seconds=300)
                await running.post("/v1/predictions", logged(version, rows))
                running.detect(60)
                assert (await running.get("/v1/slices"))["version"] == watched
        async with serving(project) as running:
            assert running.runtime.model.deployment.state.version == 4

    asyncio.run(story())


def test_functions_are_counted_for_what_is_predicted_elsewhere_too(trained: Path, serving) -> None:
    """Their time shows whoever predicted."""

    async def story() -> None:
        async with serving(trained) as running:
            await running.post("/v1/predictions", {"predictions": [{"features": ORDER, "label": "lost"}]})
            page = (await running.http.get("/metrics")).text
            (spent,) = re.findall(r'function_duration_seconds_total\{function="cheap"\} (\S+)', page)
            assert float(spent) > 0

    asyncio.run(story())


def test_a_function_that_reads_the_label_is_not_added(trained: Path, serving) -> None:
    """No record that is asked about has it, so that the function could only ever be unknown."""

    async def story() -> None:
        async with serving(trained) as running:
            wrong = {"name": "kept", "one_of": {"field": "class", "values": ["kept"]}}
            problem = await running.post("/v1/functions", wrong, 422)
            assert "'class', the label" in problem["detail"]
            assert "kept" not in str(await running.get("/v1/functions"))

    asyncio.run(story())
