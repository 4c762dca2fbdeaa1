"""Promotion and rollback at run time, and models served elsewhere."""

import shutil
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Record = dict[str, Any]


@dataclass
class Traffic:
    """Client that predicts without a pause, with the statuses and versions of its responses."""

    call: Any
    record: Record
    statuses: Counter[int] = field(default_factory=Counter)
    version: int | None = None
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._predict)

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.call.close()

    def _predict(self) -> None:
        while not self._over.is_set():
            reply = self.call("POST", "/v1/predict", {"instances": [self.record] * 3})
            self.statuses[reply.status] += 1
            versions = {
                reply.json["model"]["version"],
                *(each["version"] for each in reply.json["predictions"]),
            }
            assert len(versions) == 1
            [self.version] = versions


def test_promotion_and_rollback_are_picked_up_under_traffic(
    up: Callable[..., Any],
    caller: Callable[[int], Any],
    until: Callable[..., Any],
    command: Callable[..., int],
    project: Path,
    records: list[Record],
) -> None:
    """The new champion serves within seconds, one version per request, and no request fails."""
    assert command(project, "train", SLICEWATCH_LEARNER_SEED=1) == 0
    running = up(project)
    port = {"SLICEWATCH_SERVER_PORT": running.port}  # at that of the settings may be the service of another test
    with Traffic(caller(running.port), records[0]) as traffic:
        until(lambda: traffic.version == 1)
        assert command(project, "models", "promote", 2, **port) == 0
        until(lambda: traffic.version == 2)
        assert command(project, "models", "rollback", **port) == 0
        until(lambda: traffic.version == 1)
    assert traffic.statuses.keys() == {200}
    models = {each["version"]: each for each in running.ask("GET", "/v1/models").json["models"]}
    assert {version: each["in_force"] for version, each in models.items()} == {1: True, 2: False}
    until(lambda: running.ask("GET", "/v1/slices").json["version"] == 1)
    assert running.metrics()["slicewatch_model_reload_failures_total"] == 0


def test_a_model_served_elsewhere_is_watched_until_one_is_trained(
    up: Callable[..., Any],
    until: Callable[..., Any],
    command: Callable[..., int],
    untrained: Path,
    tmp_path: Path,
    records: list[Record],
) -> None:
    """Without a champion, external predictions are logged and monitored; a trained model then serves."""
    folder = shutil.copytree(untrained, tmp_path / "elsewhere")
    with (folder / "slicewatch.yaml").open("a") as settings:
        settings.write("classes: [ham, spam]\n")
    running = up(folder)
    assert running.ask("GET", "/readyz").status == 200
    refused = running.ask("POST", "/v1/predict", {"instances": records[:1]})
    assert (refused.status, refused.headers["content-type"]) == (503, "application/problem+json")
    assert "slicewatch train" in refused.json["detail"]

    sent = [{"features": each, "label": "ham", "probabilities": {"ham": 0.9, "spam": 0.1}} for each in records[:50]]
    reply = running.ask("POST", "/v1/predictions", {"predictions": sent})
    assert reply.status == 200
    members = Counter(name for each in reply.json["predictions"] for name in each["slices"])
    until(lambda: running.slices().get("__all__", {}).get("coverage", {}).get("n") == 50)
    watched = {name: each for name, each in running.slices().items() if each["kind"] == "slice"}
    assert {name: each["coverage"]["count"] for name, each in watched.items()} == {
        name: members[name] for name in watched
    }
    assert len(watched) == 9
    series = 'slicewatch_slice_known_predictions{model="comments",slice="__all__",version="0",window="1h"}'
    until(lambda: running.metrics().get(series) == 50)

    assert command(folder, "train") == 0
    until(lambda: running.ask("POST", "/v1/predict", {"instances": records[:1]}).status == 200)
    own = series.replace('version="0"', 'version="1"')
    until(lambda: running.metrics().get(own) == 1)  # the two versions are never added
