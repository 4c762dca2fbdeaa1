"""Console pages and forms of the running service."""

import asyncio
import json
import re
import shlex
from dataclasses import replace
from html import unescape
from pathlib import Path

from service.decisions import DriftDetected, DriftStatus, ToleranceBand
from service.store.alarms import open_alarm
from sfs.intervals import Rate

OURS = {"sec-fetch-site": "same-origin"}


def test_the_first_command_is_taken_by_the_model(trained: Path, serving) -> None:
    """The command to copy names the columns of the version in force, so that it gets an answer."""

    async def story() -> None:
        async with serving(trained) as running:
            running.tick()
            page = unescape((await running.http.get("/")).text)
            command = shlex.split(re.search(r"curl \S+/v1/predict .*?\n.*", page)[0].split("</pre>")[0])
            body = json.loads(command[command.index("-d") + 1])
            assert set(body["instances"][0]) == {"Price [eur]", "country", "Customer's comment: (raw)"}
            assert len((await running.post("/v1/predict", body))["predictions"]) == 1

    asyncio.run(story())


def test_a_version_without_a_sample_names_its_columns(trained: Path, serving) -> None:
    """The command has the columns of the model even if its bundle keeps no record."""

    async def story() -> None:
        async with serving(trained) as running:
            running.tick()
            deployment = running.runtime.model.deployment
            active = deployment.state.active
            bare = replace(active, bundle=replace(active.bundle, sample=()))
            deployment.state = replace(deployment.state, active=bare)
            page = unescape((await running.http.get("/")).text)
            command = shlex.split(re.search(r"curl \S+/v1/predict .*?\n.*", page)[0].split("</pre>")[0])
            [instance] = json.loads(command[command.index("-d") + 1])["instances"]
            assert set(instance) == {"Price [eur]", "country", "Customer's comment: (raw)"}

    asyncio.run(story())


def test_without_a_version_there_is_no_example(project: Path, serving) -> None:
    """A project without a champion still has its pages."""

    async def story() -> None:
        async with serving(project) as running:
            for path in ("/", "/alarms", "/runs", "/models", "/reports"):
                assert (await running.http.get(path)).status_code == 200

    asyncio.run(story())


def test_an_alarm_is_acknowledged_through_the_gate(trained: Path, serving) -> None:
    """A form of our page passes all that requests pass; under another name of this machine it does not."""

    async def story() -> None:
        async with serving(trained) as running:
            zone = ToleranceBand(Rate(20, 100), 0.1, 0.3, 0.1)
            seen = DriftStatus("cheap", None, "coverage", zone, 9.0, 8.0, None, "up", Rate(60, 100), 0.5, 0.7)
            verdict = DriftDetected(running.clock.now, seen)
            running.runtime.writer.submit(lambda c: open_alarm(c, "orders", 1, verdict)).result()
            send, form = running.http.post, {"by": "Ada", "note": "a campaign"}
            refused = await send("/alarms/1/acknowledge", data=form, headers={**OURS, "host": "evil.example"})
            assert refused.status_code == 400
            assert (await send("/alarms/1/acknowledge", data=form)).status_code == 403
            taken = await send("/alarms/1/acknowledge", data=form, headers=OURS)
            assert (taken.status_code, taken.headers["location"]) == (303, "/alarms/1")
            assert taken.headers["x-request-id"]
            (alarm,) = (await running.get("/v1/alarms"))["alarms"]
            assert (alarm["state"], alarm["acknowledged_by"]) == ("acknowledged", "Ada")

    asyncio.run(story())
