"""A folder of files with a manifest of their digests."""

import json
import os
import shutil
from pathlib import Path

import pytest

from models.bundle_files import (
    MANIFEST,
    content_hash,
    from_json_bytes,
    manifest_hash,
    read_folder,
    to_json_bytes,
    write_folder,
)
from models.errors import BundleError

FILES = {"a.json": b"[1, 2]", "b.bin": b"\x00\xff", "c.txt": b""}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as it was written."""
    write_folder(tmp_path / "made" / "bundle", FILES)
    return tmp_path / "made" / "bundle"


def test_what_was_written_is_read(folder: Path) -> None:
    """Every file comes back, and the manifest states the hash of all."""
    assert read_folder(folder, list(FILES)) == FILES
    assert manifest_hash(folder) == content_hash(FILES)
    assert [entry.name for entry in folder.parent.iterdir()] == ["bundle"]


def test_the_hash_is_of_names_and_contents() -> None:
    """Order does not count; a name, a byte, or a swap does."""
    first = content_hash(FILES)
    assert content_hash(dict(reversed(FILES.items()))) == first
    others = [
        {**FILES, "b.bin": b"\x00\xfe"},
        {"a.json": FILES["b.bin"], "b.bin": FILES["a.json"], "c.txt": b""},
        {"a.json": FILES["a.json"], "b.bin": FILES["b.bin"], "d.txt": b""},
    ]
    assert first not in map(content_hash, others)


def swap(folder: Path) -> None:
    a, b = folder / "a.json", folder / "b.bin"
    contents = a.read_bytes(), b.read_bytes()
    a.write_bytes(contents[1])
    b.write_bytes(contents[0])


def edit_manifest(folder: Path, **changes: object) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def forged(folder: Path) -> None:
    """Alter a file and its digest, but not the hash of all."""
    (folder / "c.txt").write_bytes(b"x")
    digests = json.loads((folder / MANIFEST).read_text())["files"]
    edit_manifest(folder, files={**digests, "c.txt": "0" * 64})


def linked(folder: Path) -> None:
    (folder / "c.txt").unlink()
    (folder / "c.txt").symlink_to(folder / "a.json")


DAMAGES = {
    "altered": (lambda f: (f / "b.bin").write_bytes(b"\x01\xff"), r"b\.bin was altered: its sha256 is"),
    "truncated": (lambda f: os.truncate(f / "a.json", 3), r"a\.json was altered"),
    "lengthened": (lambda f: (f / "c.txt").write_bytes(b"\n"), r"c\.txt was altered"),
    "swapped": (swap, r"(a\.json|b\.bin) was altered"),
    "missing": (lambda f: (f / "b.bin").unlink(), r"b\.bin is missing"),
    "extra": (lambda f: (f / "d.py").write_bytes(b""), r"d\.py does not belong to the bundle"),
    "extra folder": (lambda f: (f / "sub").mkdir(), r"sub does not belong to the bundle"),
    "linked": (linked, r"c\.txt is missing or no plain file"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), r"manifest\.json is missing"),
    "no JSON": (lambda f: (f / MANIFEST).write_bytes(b"{"), r"manifest\.json is not JSON"),
    "list": (lambda f: (f / MANIFEST).write_bytes(b"[]"), "states format None, this version reads 1"),
    "format": (lambda f: edit_manifest(f, format=2), "states format 2, this version reads 1: train"),
    "unlisted": (lambda f: edit_manifest(f, files={}), r"must list the files a\.json, b\.bin, c\.txt"),
    "forged": (forged, r"manifest\.json was altered: its hash"),
    "gone": (shutil.rmtree, "there is no bundle in"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_by_name(folder: Path, damage: str) -> None:
    """Whatever happened to a folder, the message names the file and the fault."""
    harm, message = DAMAGES[damage]
    harm(folder)
    with pytest.raises(BundleError, match=message):
        read_folder(folder, list(FILES))


def test_a_folder_is_never_overwritten(folder: Path) -> None:
    """Writing where something is already changes nothing."""
    with pytest.raises(BundleError, match="exists already: bundles are never changed"):
        write_folder(folder, {"a.json": b"other"})
    assert read_folder(folder, list(FILES)) == FILES


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """When a file cannot be written, no part of the folder stays."""
    with pytest.raises(FileNotFoundError):
        write_folder(tmp_path / "bundle", {"a.json": b"", "no/such/folder": b""})
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_without_a_hash_is_refused(folder: Path) -> None:
    """The stated hash can be asked for alone, and must be there."""
    (folder / MANIFEST).write_text("{}")
    with pytest.raises(BundleError, match="states no hash"):
        manifest_hash(folder)


def test_json_is_exact_and_has_no_nan() -> None:
    """Floats read back as they were, keys are sorted, and NaN is refused."""
    value = {"b": 0.1 + 0.2, "a": 1e-320, "é": "\ud800"}
    assert from_json_bytes("x", to_json_bytes(value)) == value
    assert to_json_bytes(value) == to_json_bytes(dict(reversed(value.items())))
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json_bytes(float("nan"))
