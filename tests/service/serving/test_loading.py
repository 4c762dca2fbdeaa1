"""Versions are proved and warm before they answer."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from models.bundle.model_bundle import ModelBundle
from models.errors import BundleError, RegistryError
from models.registry import ModelRegistry
from service.errors import ServiceError
from service.serving.predictor import ActiveModel, load, warm_up

AT = datetime(2026, 5, 1, tzinfo=UTC)


def promote(registry: ModelRegistry, version: int) -> None:
    registry.promote(version, expected=registry.alias(), reason="a test", at=AT)


def damage(registry: ModelRegistry, version: int) -> None:
    """Change a byte of the weights."""
    file = registry.path(version) / "weights.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.fixture
def registry(tmp_path: Path, bundle: ModelBundle) -> ModelRegistry:
    """Two versions, the first of them champion."""
    registry = ModelRegistry(tmp_path, "comments")
    registry.put(bundle)
    registry.put(replace(bundle, lineage={**bundle.lineage, "again": True}))
    promote(registry, 1)
    return registry


@pytest.mark.parametrize(("asked", "number"), [("champion", 1), (1, 1), (2, 2), ("2", 2)])
def test_a_version_is_loaded_by_alias_or_number(
    asked: Any, number: int, registry: ModelRegistry, loaded: ActiveModel
) -> None:
    """With its number, and with the functions that were handed in."""
    found = load(registry, loaded.live, asked)
    assert (found.version, found.bundle.hash) == (number, registry.get(number).hash)
    assert found.live is loaded.live


def test_an_alias_on_nothing_says_what_to_do(tmp_path: Path, loaded: ActiveModel) -> None:
    """An empty registry is what a new user has."""
    with pytest.raises(ServiceError, match="has no champion: train one"):
        load(ModelRegistry(tmp_path / "new", "comments"), loaded.live)


def test_a_version_that_is_not_there_is_refused(registry: ModelRegistry, loaded: ActiveModel) -> None:
    """With the registry's own sentence."""
    with pytest.raises(RegistryError, match="no version 9"):
        load(registry, loaded.live, 9)


def test_a_damaged_version_is_refused(registry: ModelRegistry, loaded: ActiveModel) -> None:
    """Its digests are checked before anything of it is used."""
    damage(registry, 2)
    with pytest.raises(BundleError):
        load(registry, loaded.live, 2)


def test_warming_up_leaves_plain_functions_alone(
    bundle: ModelBundle, loaded: ActiveModel, live_of: Any, tmp_path: Path
) -> None:
    """They may be slow, and what they count is live traffic."""
    called = tmp_path / "called"
    code = f"@slicing_function()\ndef calls(x): return bool(Path({str(called)!r}).write_text('called'))"
    live = live_of(code, *loaded.live.functions)
    warm_up(bundle, live)
    assert not called.exists()
    live.apply([{"text": "song"}])
    assert called.exists()
