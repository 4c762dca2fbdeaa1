"""Looking for a new champion."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from models.errors import BundleError
from models.registry import ModelRegistry
from service.errors import ServiceError
from service.jobs.model_reload import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, RetryState, reload

NOW = datetime(2026, 5, 1, tzinfo=UTC)


class Server:
    """Answers by a version, and cannot load some."""

    def __init__(self, folder: Path) -> None:
        self.registry, self.folder = ModelRegistry(folder, "m"), folder / "m"
        self.version: int | None = None
        self.broken: set[int] = set()
        self.asked: list[int] = []
        self.error: type[Exception] = BundleError
        self.failures: list[Exception] = []
        self.tries = RetryState()
        self._changes = 0

    def promote(self, version: int) -> None:
        """Put the champion on a version, as the registry writes it."""
        self._changes += 1
        aliases = self.folder / "aliases" / "champion"
        aliases.mkdir(parents=True, exist_ok=True)
        change = {
            "sequence": self._changes,
            "version": version,
            "hash": "h",
            "change": "promote",
            "reason": "test",
            "at": NOW.isoformat(),
        }
        (aliases / f"{self._changes:06d}.json").write_text(json.dumps(change))

    def load(self, version: int) -> None:
        self.asked.append(version)
        if version in self.broken:
            raise self.error(f"version {version} is broken")
        self.version = version

    def poll(self, seconds: float = 0) -> bool:
        return reload(self.registry, self.version, self.load, self.failures.append, self.tries, seconds)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


def test_a_new_champion_is_loaded_once(server: Server) -> None:
    """Nothing happens without a champion, or while it is in force."""
    assert not server.poll()
    server.promote(1)
    assert [server.poll(), server.poll()] == [True, False]
    server.promote(2)
    assert [server.poll(), server.poll()] == [True, False]
    assert (server.version, server.asked, server.failures) == (2, [1, 2], [])


@pytest.mark.parametrize("error", [BundleError, ServiceError, RuntimeError, MemoryError])
def test_a_broken_champion_leaves_the_old_one_in_force(server: Server, error: type[Exception]) -> None:
    """Whatever is wrong with it is counted, and what answered goes on."""
    server.error = error
    server.promote(1)
    server.poll()
    server.broken = {2}
    server.promote(2)
    assert not server.poll()
    assert server.version == 1
    assert [str(each) for each in server.failures] == ["version 2 is broken"]


def test_a_broken_version_is_tried_less_and_less(server: Server) -> None:
    """Polled every ten seconds for a day, it is tried after waits that double up to the longest."""
    server.broken = {1}
    server.promote(1)
    assert not any(server.poll(seconds) for seconds in range(0, 86_400, 10))
    waits, wait, at = 0, FIRST_WAIT_SECONDS, 0.0
    while at < 86_400:
        waits, at, wait = waits + 1, at + wait, min(2 * wait, LONGEST_WAIT_SECONDS)
    assert len(server.asked) == len(server.failures) == waits < 60


def test_another_version_is_tried_at_once(server: Server) -> None:
    """The wait is that of the broken version, and a mended one comes into force after it."""
    server.broken = {1}
    server.promote(1)
    server.poll()
    server.promote(2)
    assert server.poll(1)
    server.promote(1)
    assert not server.poll(2)
    server.broken = set()
    assert not server.poll(20)
    assert server.poll(2 + FIRST_WAIT_SECONDS)
    assert server.version == 1


def test_a_registry_that_cannot_be_read_is_a_failure(server: Server) -> None:
    """A damaged history of the champion is counted, and looked at again."""
    server.promote(1)
    server.poll()
    (server.folder / "aliases" / "champion" / "000002.json").write_text("{")
    assert [server.poll(), server.poll()] == [False, False]
    assert len(server.failures) == 2
    assert server.version == 1
