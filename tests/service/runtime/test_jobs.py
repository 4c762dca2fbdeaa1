"""The loop in the service as it is put together: from traffic to an alarm, to a new version and what it expects."""

import asyncio
import gzip
import json
import os
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from models.registry import CHAMPION, ModelRegistry
from service.decisions import DriftReport
from service.jobs.column_report.job import REPORTS
from service.jobs.column_report.process import COLUMNS, report_folder
from service.jobs.training.process import RUNS
from service.jobs.training.spec import read_spec
from service.settings.loading import load
from service.store.reports import add_report
from service.store.runs import move_run, open_run
from service.store.writer import Writer

ORDER = {"Price [eur]": 20, "country": "no", "Customer's comment: (raw)": "fine"}
LONG = {**ORDER, "Customer's comment: (raw)": "good bad slow late fast fine broken again thanks"}


async def send(running: Any, record: dict[str, Any], rows: int) -> list[str]:
    """Answer rows of one block, and return their ids."""
    answer = await running.post("/v1/predict", {"instances": [record] * rows})
    return [each["id"] for each in answer["predictions"]]


def lines(text: str, name: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(f"slicewatch_{name}{{")]


def test_traffic_that_changes_alarms_everywhere(trained: Path, serving) -> None:
    """The alarm is in the API, at its slice, in the gauges, and in the audit."""

    async def story() -> None:
        async with serving(trained) as running:
            for _ in range(12):
                await send(running, ORDER, 100)  # every comment is short now
                running.detect()
            running.detect(60)
            (alarm,) = [
                each for each in (await running.get("/v1/alarms"))["alarms"] if each["slice"] == "short_comment"
            ]
            assert (alarm["kind"], alarm["direction"], alarm["state"]) == ("coverage", "up", "open")
            view = {each["name"]: each for each in (await running.get("/v1/slices"))["slices"]}
            assert view["short_comment"]["alarms"] == [alarm["id"]]
            page = (await running.http.get("/metrics")).text
            assert any('slice="short_comment"} 1.0' in line for line in lines(page, "slice_drift_alarm"))
            (observed,) = [x for x in lines(page, "slice_drift_observed_ratio") if "short_comment" in x]
            assert observed.endswith(" 1.0")
            actions = [each["action"] for each in (await running.get("/v1/audit"))["entries"]]
            assert "alarm.opened" in actions

    asyncio.run(story())


def test_evidence_outlives_the_service(trained: Path, serving) -> None:
    """A service that is stopped and started again goes on where it was."""

    async def story() -> None:
        async with serving(trained) as running:
            await send(running, ORDER, 100)
            running.detect(60)
            before = running.runtime.model.deployment.drift_statuses
        async with serving(trained) as running:
            running.clock.advance(minutes=2)
            running.detect()
            assert running.runtime.model.deployment.drift_statuses == before
            assert sum(each.observed.n for each in before) > 0

    asyncio.run(story())


def test_what_a_run_has_left_is_expected_of_its_version(trained: Path, serving) -> None:
    """The version that a run has made is compared with the traffic that it was made for."""

    async def story() -> None:
        async with serving(trained) as running:
            deployment = running.runtime.model.deployment
            before = dict(deployment.state.references)
            registry = ModelRegistry(trained.parent / ".slicewatch/registry", name="orders")
            other = replace(registry.get(1), lineage={**registry.get(1).lineage, "note": "again"})
            version = registry.put(other)
            left(running.runtime.writer, version, deployment.state.fingerprints["cheap"], running.clock.now)
            change = await running.post(f"/v1/models/{version}/promote", {"by": "ada"})
            assert change["champion"] == version
            assert running.runtime.model.reload.run()
            now = deployment.state.references
            assert (now["cheap"].count, now["cheap"].n) == (70, 100)
            assert now["short_comment"] == before["short_comment"]

    asyncio.run(story())


def left(writer: Writer, version: int, fingerprint: str, at: Any) -> None:
    """Keep a run that was held, and made the version."""
    run = writer.submit(partial(open_run, model="orders", state="training", trigger="request", reason="x", at=at))
    kept = [{"slice": "cheap", "fingerprint": fingerprint, "count": 70, "n": 100}]
    move = partial(move_run, run_id=run.result().id, at=at)
    writer.submit(partial(move, expected="training", state="gated", candidate=version, data={"baseline": kept}))
    writer.submit(partial(move, expected="gated", state="held")).result()


@pytest.mark.usefixtures("forked_children")
def test_a_run_that_is_asked_for_trains_on_labelled_traffic_and_ends(trained: Path, serving) -> None:
    """A real training in a real process: the run comes to its end, and its files are removed."""
    trained.write_text(trained.read_text() + "retrain: {minimum_rows: 5, margin: 0.9}\n")

    async def story() -> None:
        async with serving(trained) as running:
            ids = await send(running, LONG, 30)
            labels = [{"id": each, "label": "kept"} for each in ids]
            await running.post("/v1/labels", {"labels": labels})
            asked = await running.post("/v1/retrain", {"reason": "tried", "by": "ada"}, 202)
            assert asked["state"] == "training"
            await running.post("/v1/retrain", {}, 409)
            for _ in range(6_000):
                running.runtime.model.retraining.run(running.clock.advance(seconds=1))
                run = await running.get(f"/v1/runs/{asked['id']}")
                if run["state"] not in ("training", "gated"):
                    break
                await asyncio.sleep(0.05)
            assert run["state"] in ("promoted", "held"), run["outcome"]
            assert run["data"]["traffic_rows"] == 30
            assert run["data"]["base_rows"] == 240
            assert run["decision"]["slices"][0]["slice"] == "__all__"
            assert list((trained.parent / ".slicewatch" / RUNS).iterdir()) == []
            page = (await running.http.get("/metrics")).text
            assert f'slicewatch_retrains_total{{outcome="{run["state"]}"}} 1.0' in page

    asyncio.run(story())


def test_the_files_of_a_run_are_for_nobody_else(trained: Path, serving) -> None:
    """What customers wrote is in them: other accounts of the machine cannot look into any folder of theirs."""

    async def story() -> None:
        async with serving(trained) as running:
            run = await running.post("/v1/retrain", {}, 202)
            running.runtime.model.retraining.run(running.clock.now)
            folder = trained.parent / ".slicewatch" / RUNS
            folders = [folder, folder / f"{run['id']:06d}", folder / f"{run['id']:06d}/attempt-1"]
            assert [each.stat().st_mode & 0o777 for each in folders] == [0o700] * 3

    asyncio.run(story())


def test_a_retraining_takes_the_season_of_the_settings(trained: Path, serving) -> None:
    """Column of times and time zone are those of the settings, as with `slicewatch train`."""
    trained.write_text(trained.read_text() + "time: placed\ndrift: {time_zone: Asia/Tokyo}\n")

    async def story() -> None:
        async with serving(trained) as running:
            run = await running.post("/v1/retrain", {}, 202)
            running.runtime.model.retraining.run(running.clock.now)
            spec = read_spec(trained.parent / ".slicewatch" / RUNS / f"{run['id']:06d}/attempt-1")
            assert (spec.time, spec.time_zone) == ("placed", "Asia/Tokyo")

    asyncio.run(story())


def test_a_start_removes_what_a_service_that_was_killed_has_left(trained: Path, serving) -> None:
    """Files of runs that have ended go, with those of unfinished reports; the run that goes on has its own."""
    folder = trained.parent / ".slicewatch"

    async def story() -> None:
        async with serving(trained) as running:
            ended = await running.post("/v1/retrain", {}, 202)
            writer, at = running.runtime.writer, running.clock.now
            writer.submit(partial(move_run, run_id=ended["id"], expected="training", at=at, state="failed"))
            goes_on = await running.post("/v1/retrain", {}, 202)
        unfinished = report_folder(folder / REPORTS, at)
        names = [f"{each:06d}/attempt-1" for each in (ended["id"], goes_on["id"], 77)]
        for each in (*(folder / RUNS / name for name in (*names, "notes")), unfinished):
            each.mkdir(parents=True)
            (each / "rows.jsonl").touch()
        async with serving(trained):
            left = sorted(each.name for each in (folder / RUNS).iterdir())
            assert left == [f"{goes_on['id']:06d}", "notes"]
            assert (folder / RUNS / names[1] / "rows.jsonl").exists()
            assert not unfinished.exists()

    asyncio.run(story())


def test_a_fast_clock_is_what_the_service_goes_by(trained: Path, serving) -> None:
    """With a clock file every time is that of the fast clock, also in the log."""
    clock = {"t0": "2030-01-01T00:00:00+00:00", "wall0": 1_777_636_800.0, "speed": 60}
    (trained.parent / "clock.json").write_text(json.dumps(clock))
    trained.write_text(trained.read_text() + "clock: clock.json\n")
    assert load(trained, {}).clock == trained.parent / "clock.json"

    async def story() -> None:
        async with serving(trained) as running:
            running.clock.advance(seconds=10)
            await send(running, ORDER, 1)
            running.runtime.model.snapshots.run(running.runtime.clock())
            view = await running.get("/v1/slices")
            assert view["at"] == "2030-01-01T00:10:00Z"

    asyncio.run(story())


def test_reports_are_refused_where_no_version_is_in_force(project: Path, serving) -> None:
    """There is no reference to compare with, and the answer says so."""
    project.write_text(project.read_text() + "classes: [kept, returned, lost]\n")

    async def story() -> None:
        async with serving(project) as running:
            problem = await running.post("/v1/reports", {}, 503)
            assert "version" in problem["detail"]

    asyncio.run(story())


@pytest.mark.usefixtures("forked_children")
def test_a_version_that_is_served_elsewhere_is_watched_against_the_table(project: Path, serving) -> None:
    """Coverage, report, preview and pages are those of a model served here; retraining is refused with the reason."""
    project.write_text(project.read_text() + "classes: [kept, returned, lost]\n")

    async def story() -> None:
        async with serving(project) as running:
            row = {"features": ORDER, "label": "lost", "version": 7}
            await running.post("/v1/predictions", {"predictions": [row] * 40})
            running.tick()
            view = {each["name"]: each for each in (await running.get("/v1/slices"))["slices"]}
            assert view["cheap"]["reference"]["reason"] == "not counted on the reference table yet"
            await running.post("/v1/reports", {}, 409)
            running.runtime.model.references.run()
            running.tick()
            view = {each["name"]: each for each in (await running.get("/v1/slices"))["slices"]}
            assert {view[name]["reference"]["n"] for name in ("cheap", "no_price")} == {240}
            assert 0 < view["short_comment"]["reference"]["effective_n"] <= 240
            page = (await running.http.get("/metrics")).text
            (expected,) = [x for x in lines(page, "slice_reference_predictions") if 'slice="cheap"' in x]
            assert expected.endswith(" 240.0")
            function = {"name": "from_no", "one_of": {"field": "country", "values": ["no"]}}
            preview = await running.post("/v1/functions/preview", {"function": function})
            assert (preview["source"], preview["rows"]) == ("sample", 240)
            await running.post("/v1/predictions", {"predictions": [row] * 40})
            running.runtime.model.reports.run(running.clock.advance(hours=24))
            (report,) = (await running.get("/v1/reports"))["reports"]
            assert (report["error"], report["version"]) == ("", 7)
            assert "version 7 is served elsewhere" in (await running.post("/v1/retrain", {}, 409))["detail"]
            for path in ("/", "/slices/cheap", "/alarms", "/runs", "/models", "/reports"):
                html = (await running.http.get(path)).text
                assert "503" not in html
                assert "slicewatch train" not in html

    asyncio.run(story())


@pytest.mark.usefixtures("forked_children")
def test_a_page_that_took_longer_than_a_request_may_is_there_the_next_time(trained: Path, serving) -> None:
    """It goes on being made, by one process, and whoever asks meanwhile is told so."""

    async def story() -> None:
        async with serving(trained, SLICEWATCH_SERVE_REQUEST_SECONDS="0.5") as running:
            at = running.clock.now
            report = DriftReport(0, "orders", 1, at, at - timedelta(hours=1), at, 40, 40, ())
            writer = running.runtime.writer
            path = f"/v1/reports/{writer.submit(partial(add_report, report=report)).result().id}/html"
            kept = report_folder(trained.parent / ".slicewatch" / REPORTS, at) / COLUMNS
            kept.parent.mkdir(parents=True)
            os.mkfifo(kept)  # the page can be made once this is written
            await answered(running, path, 409, meanwhile={504})
            column = ["heat", True, 0.1, [1.0, 2.0, 3.0, 4.0] * 10, [2.0, 3.0, 4.0, 5.0] * 10]
            await asyncio.to_thread(kept.write_bytes, gzip.compress(json.dumps([column]).encode()))
            await answered(running, path, 200, meanwhile={409, 504})

    asyncio.run(story())


async def answered(running: Any, path: str, wanted: int, meanwhile: set[int]) -> None:
    """Ask until the status is the wanted one; others may come meanwhile, and a response may be cut off in time."""
    for _ in range(6_000):
        with suppress(TimeoutError):
            status = (await running.http.get(path)).status_code
            if status == wanted:
                return
            assert status in meanwhile
        await asyncio.sleep(0.1)
    pytest.fail(f"no {wanted} from {path}")


@pytest.mark.parametrize("path", ["/v1/models/9/promote", "/v1/runs/9", "/v1/alarms/9", "/v1/reports/9"])
def test_what_is_not_there_is_said_so(trained: Path, serving, path: str) -> None:
    """Unknown numbers are 404, with a sentence."""

    async def story() -> None:
        async with serving(trained) as running:
            ask = running.post(path, {}, 404) if path.endswith("promote") else running.get(path, 404)
            assert "9" in (await ask)["detail"]
            assert ModelRegistry(trained.parent / ".slicewatch/registry", name="orders").alias(CHAMPION) == 1

    asyncio.run(story())
