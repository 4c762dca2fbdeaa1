"""Versions of a model on disk, and aliases that point at one of them."""

import json
import multiprocessing
import resource
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.baselines import MLP, PlainClassifier
from models.bundle.model_bundle import ModelBundle
from models.bundle.records import GoldenBatch
from models.bundle.reference import reference_counts
from models.errors import BundleError, RegistryError, RegistryUnavailable
from models.features import FeatureSpec, Featurizer
from models.registry import ModelRegistry
from models.training_report import SplitSizes, TrainingReport
from sfs.matrix import SliceMatrix

T0 = datetime(2026, 1, 1, tzinfo=UTC)
REPORT = TrainingReport("ERM", (), (), SplitSizes(0, 0, 0), {}, (), (), {}, {}, ())


def make_bundle(seed: int) -> ModelBundle:
    """A tiny model, another for every seed."""
    torch.manual_seed(seed)
    rows = [{"n": 1.0}, {"n": 3.0}]
    featurizer = Featurizer([FeatureSpec("n", "number")]).fit(rows)
    model = PlainClassifier(MLP(2, (2,)), 2).eval()
    S = SliceMatrix.empty(2)

    def predict(records: Any, slices: SliceMatrix | None) -> Any:
        return model.predict_proba(featurizer.transform(records), slices)

    return ModelBundle(
        name="tiny",
        label="y",
        classes=("a", "b"),
        featurizer=featurizer,
        model=model,
        function_fingerprints={},
        lineage={"seed": seed},
        reference=reference_counts(S, np.arange(2, dtype=np.uint64), np.arange(2), ["a", "b"], ["a", "b"]),
        sample=(),
        golden=GoldenBatch.record(predict, rows, S),
        report=REPORT,
    )


@pytest.fixture(scope="module")
def bundles() -> list[ModelBundle]:
    """Four different bundles."""
    return [make_bundle(seed) for seed in range(4)]


@pytest.fixture
def registry(tmp_path: Path, bundles: list[ModelBundle]) -> ModelRegistry:
    """A registry with versions 1, 2 and 3."""
    made = ModelRegistry(tmp_path / "registry", "tiny")
    assert [made.put(bundle) for bundle in bundles[:3]] == [1, 2, 3]
    return made


def ticks() -> Iterator[datetime]:
    """One instant a second."""
    for k in range(1000):
        yield T0 + timedelta(seconds=k)


def test_versions_count_up_and_are_verified(registry: ModelRegistry, bundles: list[ModelBundle]) -> None:
    """Each bundle is a version, which comes back by number, also written as text."""
    assert [registry.get(n).hash for n in (1, 2, "3")] == [bundle.hash for bundle in bundles[:3]]
    listed = registry.list()
    assert [(v.number, v.hash, v.aliases) for v in listed] == [
        (n + 1, bundle.hash, ()) for n, bundle in enumerate(bundles[:3])
    ]
    assert listed[0].path == registry.path(1)


def test_the_same_bundle_keeps_its_version(registry: ModelRegistry, bundles: list[ModelBundle]) -> None:
    """Storing a bundle again stores nothing."""
    assert registry.put(make_bundle(1)) == 2
    assert len(registry.list()) == 3
    assert registry.put(bundles[3]) == 4


def test_a_damaged_version_is_stored_anew(registry: ModelRegistry, bundles: list[ModelBundle]) -> None:
    """A bundle whose stored copy was corrupted, even at the same size, gets a new version that loads."""
    weights = registry.path(2) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert registry.put(bundles[1]) == 4
    assert registry.get(4).hash == bundles[1].hash
    assert registry.put(bundles[1]) == 4


DAMAGES = {
    "empty": lambda folder: [path.unlink() for path in folder.iterdir()],
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "broken manifest": lambda folder: (folder / "manifest.json").write_text('{"format": 1}'),
    "truncated": lambda folder: (folder / "weights.safetensors").write_bytes(b""),
    "a file": lambda folder: (shutil.rmtree(folder), folder.write_text("")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_version_hides_no_other(registry: ModelRegistry, bundles: list[ModelBundle], damage: str) -> None:
    """It is listed with its fault; other versions are listed, stored and loaded as before."""
    DAMAGES[damage](registry.path(1))
    first, second, third = registry.list()
    assert first.number == 1
    assert first.damaged
    assert (second.damaged, third.hash) == (None, bundles[2].hash)
    assert registry.put(bundles[2]) == 3
    assert registry.put(bundles[3]) == 4
    assert registry.get(2).hash == bundles[1].hash


def test_what_a_dead_writer_left_is_cleared_and_never_seen(registry: ModelRegistry, tmp_path: Path) -> None:
    """Half a version is no version, and the next writer takes it away."""
    litter = tmp_path / "registry" / "tiny" / ".incoming-dead"
    shutil.copytree(registry.path(1), litter)
    (litter / "manifest.json").unlink()
    assert [version.number for version in registry.list()] == [1, 2, 3]
    registry.put(make_bundle(9))
    assert not litter.exists()


def test_an_empty_registry_has_nothing(tmp_path: Path) -> None:
    """Reading a registry that was never written makes no folder."""
    registry = ModelRegistry(tmp_path / "none")
    assert registry.list() == ()
    assert registry.alias() is None
    assert registry.history() == ()
    with pytest.raises(RegistryError, match="no alias 'champion'; its aliases: none"):
        registry.get()
    with pytest.raises(RegistryError, match="has no version 1; its versions: none"):
        registry.get(1)
    assert not (tmp_path / "none").exists()


def test_promotion_and_rollback_go_through_the_history(registry: ModelRegistry) -> None:
    """Rollback goes back one promotion at a time, and the history keeps every step."""
    at = ticks()
    for version, expected in ((1, None), (2, 1), (3, 2)):
        registry.promote(version, expected=expected, reason="better", at=next(at))
    assert registry.alias("champion") == 3
    assert registry.list()[2].aliases == ("champion",)
    assert registry.rollback(reason="worse", at=next(at)).version == 2
    assert registry.rollback(reason="worse still", at=next(at)).version == 1
    with pytest.raises(RegistryError, match="has no earlier version to roll back to"):
        registry.rollback(reason="none", at=next(at))
    registry.promote(3, expected=1, reason="after all", at=next(at))
    assert registry.rollback(reason="no", at=next(at)).version == 1
    steps = [(c.sequence, c.version, c.change) for c in registry.history()]
    assert [version for _, version, _ in steps] == [1, 2, 3, 2, 1, 3, 1]
    assert [sequence for sequence, _, _ in steps] == list(range(1, 8))
    assert registry.history()[0].at == T0
    assert registry.get().hash == registry.get(1).hash


def test_promoting_what_is_in_force_adds_nothing_to_go_back_to(registry: ModelRegistry) -> None:
    """After promoting a version twice, rollback goes to the one before it."""
    at = ticks()
    for version, expected in ((1, None), (2, 1), (2, 2)):
        registry.promote(version, expected=expected, reason="", at=next(at))
    assert registry.rollback(reason="", at=next(at)).version == 1


@pytest.mark.parametrize("expected", [2, None])
def test_a_promotion_that_expects_another_version_is_refused(registry: ModelRegistry, expected: int | None) -> None:
    """Whoever saw the alias elsewhere was overtaken and must look again."""
    registry.promote(1, expected=None, reason="first", at=T0)
    with pytest.raises(RegistryError, match=r"'champion' is on version 1, not .* another process changed it"):
        registry.promote(3, expected=expected, reason="late", at=T0)
    with pytest.raises(RegistryError, match="is on no version, not on 7"):
        registry.promote(3, expected=7, reason="odd", at=T0, alias="challenger")
    assert registry.alias() == 1


def test_a_promotion_may_expect_a_change(registry: ModelRegistry) -> None:
    """An alias that went away and came back to the version is not where the caller saw it."""
    at = ticks()
    seen = registry.promote(1, expected=None, reason="first", at=next(at))
    registry.promote(2, expected=seen, reason="second", at=next(at))
    registry.rollback(reason="back", at=next(at))
    with pytest.raises(RegistryError, match="on version 1 by change 3, not on 1 by change 1 as expected"):
        registry.promote(3, expected=seen, reason="late", at=next(at))
    assert registry.promote(3, expected=registry.history()[-1], reason="now", at=next(at)).sequence == 4


def test_of_rollbacks_at_once_none_goes_further_back_than_it_saw(registry: ModelRegistry) -> None:
    """Each rollback that succeeds follows the change it read, so that the history is as one after another."""
    at = ticks()
    for version, expected in ((1, None), (2, 1), (1, 2), (2, 1), (3, 2)):
        registry.promote(version, expected=expected, reason="", at=next(at))

    def attempt(_: int) -> int | None:
        try:
            return registry.rollback(reason="", at=T0).version
        except RegistryError:
            return None

    with ThreadPoolExecutor(8) as pool:
        results = [version for version in pool.map(attempt, range(8)) if version is not None]
    assert [change.version for change in registry.history()[5:]] == [2, 1, 2, 1][: len(results)]


def test_of_many_writers_one_wins(registry: ModelRegistry) -> None:
    """When all expect the same, exactly one promotion comes into force, and the history has no gap."""
    for round_number in range(5):
        now = registry.alias()

        def attempt(k: int, now: int | None = now) -> bool:
            try:
                registry.promote(k % 3 + 1, expected=now, reason=str(k), at=T0)
            except RegistryError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(attempt, range(8)))
        # A winner that put the alias where it was lets another one match once more, but never skips a number.
        assert any(won)
        history = registry.history()
        assert [change.sequence for change in history] == list(range(1, len(history) + 1))
        assert len(history) >= round_number + 1


def _put(path: str, seed: int) -> int:
    torch.set_num_threads(1)
    return ModelRegistry(path, "tiny").put(make_bundle(seed))


def test_processes_may_store_at_the_same_time(tmp_path: Path) -> None:
    """Four processes that store three bundles make three versions."""
    context = multiprocessing.get_context("fork")
    seeds = [5, 6, 7, 5]
    with context.Pool(4) as pool:
        numbers = pool.starmap(_put, [(str(tmp_path), seed) for seed in seeds])
    assert sorted(set(numbers)) == [1, 2, 3]
    assert numbers[0] == numbers[3]


def test_a_swapped_version_is_refused_by_its_alias(registry: ModelRegistry) -> None:
    """An alias stores the hash of its version."""
    registry.promote(1, expected=None, reason="first", at=T0)
    shutil.rmtree(registry.path(1))
    shutil.copytree(registry.path(2), registry.path(2).with_name("000001"))
    assert registry.get(1).hash == registry.get(2).hash
    with pytest.raises(BundleError, match="but 'champion' was recorded with"):
        registry.get("champion")


def test_a_tampered_version_is_refused(registry: ModelRegistry) -> None:
    """The registry verifies a bundle before returning it."""
    with (registry.path(2) / "config.json").open("a") as stream:
        stream.write(" ")
    with pytest.raises(BundleError, match=r"config.json was altered"):
        registry.get(2)


def test_a_damaged_history_is_named(registry: ModelRegistry, tmp_path: Path) -> None:
    """A change that cannot be read names its file."""
    registry.promote(1, expected=None, reason="first", at=T0)
    path = tmp_path / "registry" / "tiny" / "aliases" / "champion" / "000001.json"
    path.write_text(json.dumps({"version": 1}))
    with pytest.raises(RegistryUnavailable, match=r"tiny/aliases/champion/000001.json is not a change of an alias"):
        registry.alias()


CHANGE = {"sequence": 2, "version": 1, "hash": "h", "change": "promote", "reason": "", "at": "2026-01-01T00:00:00Z"}
BROKEN_CHANGES = {
    "empty": "",
    "half": json.dumps(CHANGE)[:40],
    "nested": "[" * 100_000,
    "text": '"promote"',
    "another number": json.dumps(CHANGE | {"sequence": 3}),
    "version of another kind": json.dumps(CHANGE | {"version": [1]}),
    "no time zone": json.dumps(CHANGE | {"at": "2026-01-01T00:00:00"}),
    "no reason": json.dumps({name: value for name, value in CHANGE.items() if name != "reason"}),
    "huge": " " * 1_000_001,
}


@pytest.mark.parametrize("broken", [*BROKEN_CHANGES, "a folder", "a link", "binary"])
def test_a_damaged_change_hides_no_version(registry: ModelRegistry, tmp_path: Path, broken: str) -> None:
    """Versions and earlier changes are listed; the alias is on no version, and is not set over it."""
    first = registry.promote(1, expected=None, reason="first", at=T0)
    path = tmp_path / "registry" / "tiny" / "aliases" / "champion" / "000002.json"
    if broken == "a folder":
        path.mkdir()
    elif broken == "a link":
        path.symlink_to(tmp_path / "nowhere")
    elif broken == "binary":
        path.write_bytes(b"\xff\x00")
    else:
        path.write_text(BROKEN_CHANGES[broken])
    assert [(version.number, version.aliases) for version in registry.list()] == [(1, ()), (2, ()), (3, ())]
    assert registry.readable_history() == (first,)
    for action in (
        registry.alias,
        registry.history,
        lambda: registry.rollback(reason="", at=T0),
        lambda: registry.promote(2, expected=1, reason="", at=T0),
    ):
        with pytest.raises(
            RegistryUnavailable, match=r"000002.json is not a change of an alias .*: remove or restore it"
        ):
            action()


@pytest.mark.parametrize("name", ["versions", "aliases", "aliases/champion"])
def test_a_registry_that_cannot_be_read_is_not_empty(registry: ModelRegistry, tmp_path: Path, name: str) -> None:
    """A file in the place of a folder, as any error of the system, is named, and the registry's path is not."""
    registry.promote(1, expected=None, reason="first", at=T0)
    folder = tmp_path / "registry" / "tiny" / name
    shutil.rmtree(folder)
    folder.write_text("")
    read = registry.list if name == "versions" else registry.alias
    with pytest.raises(RegistryUnavailable) as caught:
        read()
    assert str(caught.value).startswith(f"the registry of 'tiny' cannot be read: tiny/{name}")
    assert str(tmp_path) not in str(caught.value)


@contextmanager
def full_disk() -> Iterator[None]:
    """Files cannot grow beyond a few bytes, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_registry_that_cannot_be_written_is_left_as_it_was(
    registry: ModelRegistry, bundles: list[ModelBundle]
) -> None:
    """On a full disk a bundle is not stored, and the champion not changed; nothing is left behind."""
    refused = pytest.raises(RegistryUnavailable, match=r"the registry of 'tiny' cannot be written: .*: File too large")
    with full_disk(), refused:
        registry.promote(1, expected=None, reason="first", at=T0)
    with full_disk(), refused:
        registry.put(bundles[3])
    assert registry.alias() is None
    assert [version.number for version in registry.list()] == [1, 2, 3]
    assert not [
        path for path in registry.path(1).parents[1].rglob("*") if path.suffix == ".part" or "incoming" in path.name
    ]


def test_a_registry_is_closed_to_other_users(
    registry: ModelRegistry, bundles: list[ModelBundle], tmp_path: Path
) -> None:
    """Its files hold records; one that an earlier release left open is closed."""
    registry.promote(1, expected=None, reason="first", at=T0)
    root = tmp_path / "registry" / "tiny"
    paths = [root, *(path for path in root.rglob("*") if path.name != ".lock")]
    assert {oct(path.stat().st_mode & 0o777) for path in paths if path.is_dir()} == {"0o700"}
    assert {oct(path.stat().st_mode & 0o777) for path in paths if path.is_file()} == {"0o600"}
    root.chmod(0o755)
    registry.put(bundles[3])
    assert root.stat().st_mode & 0o777 == 0o700


def test_a_stamp_changes_with_the_files(registry: ModelRegistry) -> None:
    """It shows that a version may have been repaired."""
    before = registry.stamp(1)
    assert registry.stamp(1) == before != ()
    (registry.path(1) / "config.json").write_text("{}")
    assert registry.stamp(1) != before
    assert registry.stamp(9) == ()


@pytest.mark.parametrize(
    "content", ["", "[" * 50_000, "[1]", '{"classes": 5}', '{"classes": [["a"]]}', '{"classes": "ab"}']
)
def test_damaged_classes_are_named(registry: ModelRegistry, content: str) -> None:
    """Whatever is in the file, it is a damaged bundle."""
    assert registry.classes(1) == registry.get(1).classes
    (registry.path(1) / "config.json").write_text(content)
    with pytest.raises(BundleError, match=r"config\.json"):
        registry.classes(1)


def test_the_schema_of_a_version_is_that_of_its_bundle(registry: ModelRegistry) -> None:
    """A version that cannot be read is named."""
    assert registry.schema(2) == registry.get(2).schema
    (registry.path(2) / "config.json").unlink()
    with pytest.raises(BundleError, match=r"000002 cannot be read: No such file"):
        registry.schema(2)


def test_bad_arguments_are_refused(registry: ModelRegistry, tmp_path: Path) -> None:
    """Names that are paths or numbers, times without a zone, and versions that do not exist."""
    with pytest.raises(RegistryError, match=r"invalid model name '../x'"):
        ModelRegistry(tmp_path, "../x")
    with pytest.raises(RegistryError, match="invalid alias name 'a/b'"):
        registry.alias("a/b")
    with pytest.raises(RegistryError, match=r"invalid alias name '12': .*, not digits alone"):
        registry.promote(1, expected=None, reason="", at=T0, alias="12")
    with pytest.raises(RegistryError, match="has no time zone"):
        registry.promote(1, expected=None, reason="", at=datetime(2026, 1, 1))
    with pytest.raises(RegistryError, match="has no version 9; its versions: 1, 2, 3"):
        registry.promote(9, expected=None, reason="", at=T0)
