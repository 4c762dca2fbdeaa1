"""A folder of files with a manifest of their digests."""

import json
import os
import shutil
from pathlib import Path

import pytest

from models.bundle.files import (
    MANIFEST,
    content_hash,
    dump_json,
    manifest_hash,
    parse_json,
    read_folder,
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
    stated = json.loads((folder / MANIFEST).read_text())["files"]
    edit_manifest(folder, files={**stated, "c.txt": {"sha256": "0" * 64, "size_bytes": 1}})


def without_sizes(folder: Path) -> None:
    """State digests only."""
    stated = json.loads((folder / MANIFEST).read_text())["files"]
    edit_manifest(folder, files={name: file["sha256"] for name, file in stated.items()})


def unlisted(folder: Path) -> None:
    """A folder with one file fewer than expected."""
    shutil.rmtree(folder)
    write_folder(folder, {"a.json": b""})


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
    "linked": (linked, r"c\.txt is missing or not a regular file"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), r"manifest\.json is missing"),
    "no JSON": (lambda f: (f / MANIFEST).write_bytes(b"{"), r"manifest\.json is not JSON"),
    "list": (lambda f: (f / MANIFEST).write_bytes(b"[]"), "has format None, this version reads 1"),
    "format": (lambda f: edit_manifest(f, format=2), "has format 2, this version reads 1: train"),
    "no sizes": (without_sizes, r"manifest\.json, files, a\.json: .* got"),
    "large manifest": (
        lambda f: (f / MANIFEST).write_bytes(b" " * 1_000_001),
        r"manifest\.json has more than 1,000,000 bytes",
    ),
    "deep": (lambda f: (f / MANIFEST).write_bytes(b"[" * 100_000), "nested too deeply"),
    "no number": (lambda f: (f / MANIFEST).write_bytes(b'{"format": NaN}'), "NaN is not a JSON number"),
    "unlisted": (unlisted, r"must list the files a\.json, b\.bin, c\.txt"),
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
    with pytest.raises(BundleError, match="exists: bundles are never changed"):
        write_folder(folder, {"a.json": b"other"})
    assert read_folder(folder, list(FILES)) == FILES


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    """When a file cannot be written, no part of the folder stays."""
    with pytest.raises(FileNotFoundError):
        write_folder(tmp_path / "bundle", {"a.json": b"", "no/such/folder": b""})
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_is_checked_without_reading_the_files(folder: Path) -> None:
    """The hash of a manifest is read alone: sizes and names are compared, contents are not."""
    (folder / "b.bin").write_bytes(b"\x01\xff")
    assert manifest_hash(folder) == content_hash(FILES)
    (folder / "b.bin").write_bytes(b"\x01")
    with pytest.raises(BundleError, match=r"b\.bin was altered: it has 1 bytes, the manifest says 2"):
        manifest_hash(folder)


def test_a_file_of_another_size_is_not_read(folder: Path) -> None:
    """A file far larger than memory, such as a sparse one of a terabyte, is refused by its size."""
    os.truncate(folder / "c.txt", 10**12)
    with pytest.raises(BundleError, match=r"c\.txt was altered: it has 1,000,000,000,000 bytes"):
        read_folder(folder, list(FILES))


def test_json_is_exact_and_has_no_nan() -> None:
    """Floats read back as they were, keys are sorted, and NaN is refused."""
    value = {"b": 0.1 + 0.2, "a": 1e-320, "é": "\ud800"}
    assert parse_json("x", dump_json(value)) == value
    assert dump_json(value) == dump_json(dict(reversed(value.items())))
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump_json(float("nan"))


def test_what_the_disk_refuses_is_a_bundle_error(tmp_path: Path) -> None:
    """A folder whose name is too long to exist is refused in one sentence."""
    with pytest.raises(BundleError, match="cannot be read: File name too long"):
        manifest_hash(tmp_path / ("x" * 300))
