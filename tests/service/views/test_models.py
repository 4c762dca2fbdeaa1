"""The versions in the registry, without loading one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from factories import make_local_state

from models.bundle.files import write_folder
from models.bundle.reference import SliceCounts, counts_to_json
from models.errors import RegistryError
from models.registry import ModelRegistry
from service.serving.deployment import Deployment
from service.views.models import model_view, models_view
from sfs.intervals import Rate

NOW = datetime(2026, 5, 1, tzinfo=UTC)
COUNTS = {
    "__all__": SliceCounts(50, 50, 0, 50, 5, 4, 5, 5, 50),
    "short": SliceCounts(50, 10, 5, 9, 2, 1, 2, 2, 9),
}


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    """Three versions with small files."""
    for number in (1, 2, 3):
        files = {
            "config.json": json.dumps({"classes": ["kept", "lost"], "format": number}).encode(),
            "reference.json": json.dumps(counts_to_json(COUNTS)).encode(),
        }
        write_folder(tmp_path / "orders" / "versions" / f"{number:06d}", files)
    return ModelRegistry(tmp_path, "orders")


def test_versions_are_listed_with_classes_and_references(registry: ModelRegistry, deployment: Deployment) -> None:
    """Versions are listed oldest first, with aliases and the active one."""
    registry.promote(1, expected=None, reason="first", at=NOW)
    deployment.state = replace(deployment.state, active=make_local_state().active)
    one, two, three = models_view(registry, deployment)
    assert [(each.version, each.aliases, each.in_force) for each in (one, two, three)] == [
        (1, ("champion",), True),
        (2, (), False),
        (3, (), False),
    ]
    assert one.classes == ("kept", "lost")
    assert one.references == {"__all__": Rate(50, 50), "short": Rate(10, 45, 9)}
    assert len({each.hash for each in (one, two, three)}) == 3
    assert {each.damaged for each in (one, two, three)} == {None}
    assert one.created.tzinfo is UTC


def test_a_version_served_elsewhere_is_none_of_the_registry(registry: ModelRegistry, deployment: Deployment) -> None:
    """Though its number is that of one."""
    assert (deployment.state.version, deployment.state.active) == (1, None)
    assert not any(each.in_force for each in models_view(registry, deployment))


def test_one_version(registry: ModelRegistry, deployment: Deployment) -> None:
    """A version is returned by number; an unknown number is refused."""
    assert model_view(registry, 1, deployment) == models_view(registry, deployment)[0]
    assert not model_view(registry, 1).in_force
    with pytest.raises(RegistryError, match="has no version 9; its versions: 1, 2, 3"):
        model_view(registry, 9)


@pytest.mark.parametrize("content", [b'{"classes": 3}          ', b"[]", b"\xff"])
def test_damaged_versions_are_listed(registry: ModelRegistry, deployment: Deployment, content: bytes) -> None:
    """Missing files, and files with other content, are named; other versions are intact."""
    (registry.path(1) / "reference.json").unlink()
    config = registry.path(2) / "config.json"
    size = config.stat().st_size
    config.write_bytes(content.ljust(size)[:size])
    one, two, three = models_view(registry, deployment)
    assert one.damaged is not None
    assert "reference.json is missing" in one.damaged
    assert two.damaged is not None
    assert "config.json" in two.damaged
    assert (one.classes, two.references, three.damaged) == ((), {}, None)


def test_no_versions(tmp_path: Path, deployment: Deployment) -> None:
    """An empty registry lists none."""
    assert models_view(ModelRegistry(tmp_path, "orders"), deployment) == ()
