"""Activation of a new champion."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from factories import START, make_deployment, make_metrics, read_sample

from models.bundle.model_bundle import ModelBundle
from models.errors import BundleError
from models.registry import CHAMPION, ModelRegistry
from service.errors import ServiceError
from service.jobs.model_reload import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, ModelReload
from service.settings.schema import Settings
from service.store.engine import Store
from service.store.writer import Writer


class Registry(ModelRegistry):
    """A registry that records look-ups, and some of whose versions are broken."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "m")
        self.requested: list[int] = []
        self.broken: set[int] = set()
        self.error: type[Exception] = BundleError

    def get(self, version: int | str = CHAMPION) -> ModelBundle:
        self.requested.append(int(version))
        if version in self.broken:
            raise self.error(f"version {version} is broken")
        return super().get(version)


class Server:
    """A deployment without a version, over a registry of two."""

    def __init__(self, log: tuple[Store, Writer], settings: Settings, folder: Path) -> None:
        self.folder, self.registry, self.metrics = folder, Registry(folder), make_metrics()
        self.deployment = make_deployment(*log, settings)
        self.job = ModelReload(self.registry, self.deployment, self.metrics)

    @property
    def version(self) -> int | None:
        active = self.deployment.state.active
        return None if active is None else active.version

    @property
    def failures(self) -> int:
        return int(read_sample(self.metrics, "slicewatch_model_reload_failures_total"))

    def promote(self, version: int) -> None:
        """Make a version the champion, whether it can be loaded or not."""
        history = self.registry.history()
        plain = ModelRegistry(self.folder, "m")
        plain.promote(version, expected=history[-1] if history else None, reason="test", at=START)

    def run(self, seconds: float = 0) -> bool:
        return self.job.run(seconds)


@pytest.fixture(scope="module")
def versions(trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a registry with two versions, and no champion."""
    folder = tmp_path_factory.mktemp("registry")
    registry = ModelRegistry(folder, "m")
    bundle = ModelRegistry(trained_once / ".slicewatch/registry", "orders").get()
    registry.put(bundle)
    registry.put(replace(bundle, lineage={**bundle.lineage, "second": True}))
    return folder


@pytest.fixture
def server(log: tuple[Store, Writer], settings: Settings, versions: Path, tmp_path: Path) -> Server:
    return Server(log, settings, shutil.copytree(versions, tmp_path / "registry"))


def test_a_new_champion_is_loaded_once(server: Server) -> None:
    """Nothing happens without a champion, or while it is active."""
    assert not server.run()
    server.promote(1)
    assert [server.run(), server.run()] == [True, False]
    server.promote(2)
    assert [server.run(), server.run()] == [True, False]
    assert (server.version, server.registry.requested, server.failures) == (2, [1, 2], 0)
    assert [each.version for each in server.deployment.state.history] == [1, 2]


def test_a_repeated_promotion_of_the_active_version_is_recorded(server: Server) -> None:
    """The history grows, and the version is not loaded again."""
    for _ in range(2):
        server.promote(1)
        server.run()
    assert [each.sequence for each in server.deployment.state.history] == [1, 2]
    assert server.registry.requested == [1]


@pytest.mark.parametrize("error", [BundleError, ServiceError, RuntimeError, MemoryError])
def test_a_broken_champion_leaves_the_active_version_in_place(
    server: Server, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """Any error is counted and logged; of one that may quote a record, only the kind."""
    server.registry.error = error
    server.promote(1)
    server.run()
    server.registry.broken = {2}
    server.promote(2)
    assert not server.run()
    assert (server.version, server.failures) == (1, 1)
    assert "the champion, version 2, cannot be loaded" in caplog.text
    is_own = issubclass(error, BundleError | ServiceError)
    assert ("version 2 is broken" in caplog.text) == is_own
    assert (f"unexpected {error.__name__}" in caplog.text) != is_own


def test_a_broken_version_is_retried_at_longer_and_longer_intervals(server: Server) -> None:
    """Polled every ten seconds for a day, it is tried after waits that double up to the longest."""
    server.registry.broken = {1}
    server.promote(1)
    assert not any(server.run(seconds) for seconds in range(0, 86_400, 10))
    waits, wait, at = 0, FIRST_WAIT_SECONDS, 0.0
    while at < 86_400:
        waits, at, wait = waits + 1, at + wait, min(2 * wait, LONGEST_WAIT_SECONDS)
    assert len(server.registry.requested) == server.failures == waits < 60


def test_another_version_is_tried_at_once(server: Server) -> None:
    """The wait belongs to the broken version, which becomes active after it once repaired."""
    server.registry.broken = {1}
    server.promote(1)
    server.run()
    server.promote(2)
    assert server.run(1)
    server.promote(1)
    assert not server.run(2)
    server.registry.broken = set()
    assert not server.run(20)
    assert server.run(2 + FIRST_WAIT_SECONDS)
    assert server.version == 1


def test_an_unreadable_registry_is_a_failure(server: Server) -> None:
    """A damaged history of the champion is counted, and read again at the next run."""
    server.promote(1)
    server.run()
    (server.folder / "m" / "aliases" / CHAMPION / "000002.json").write_text("{")
    assert [server.run(), server.run()] == [False, False]
    assert (server.version, server.failures) == (1, 2)


def test_a_standing_fault_is_logged_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    """It is in the state of the deployment until the champion is active."""
    server.registry.broken = {1}
    server.promote(1)
    for seconds in range(0, 3000, 2):
        server.run(seconds)
    assert len(caplog.records) == 1
    assert server.deployment.state.fault == "the champion, version 1, cannot be loaded: version 1 is broken"
    server.registry.broken = set()
    assert server.run(10_000)
    assert server.deployment.state.fault == ""


def test_a_repaired_version_is_loaded_at_once(server: Server) -> None:
    """Files that have changed are tried without the wait."""
    server.promote(1)
    weights = server.registry.path(1) / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:100])
    assert [server.run(0), server.run(1)] == [False, False]
    assert server.failures == 1
    weights.write_bytes(content)
    assert server.run(2)


@pytest.mark.parametrize("damage", ["alias", "weights", "everything"])
def test_without_its_champion_the_deployment_monitors_on(server: Server, damage: str) -> None:
    """Its version and classes are known from what can be read; nothing is active."""
    server.promote(1)
    root = server.folder / "m"
    if damage == "alias":
        (root / "aliases" / CHAMPION / "000002.json").write_text("[" * 10_000)
    elif damage == "weights":
        (root / "versions/000001/weights.safetensors").write_bytes(b"")
    else:
        shutil.rmtree(root)
        root.write_text("")
    assert not server.run()
    state = server.deployment.state
    assert (state.active, bool(state.fault)) == (None, True)
    assert str(server.folder) not in state.fault
    if damage != "everything":
        assert state.classes == ModelRegistry(server.folder, "m").classes(2)
    if damage == "weights":
        assert (state.version, state.promoted_at) == (1, START)
