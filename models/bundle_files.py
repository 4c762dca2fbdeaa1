"""A folder of files with a manifest of their digests: written whole, and read only as it was written."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from models.errors import BundleError, ModelError
from sfs.errors import SliceError

MANIFEST = "manifest.json"
FORMAT = 1
"""The version of the bundle's layout; a reader refuses every other."""
MANIFEST_BYTES = 1_000_000
FAULTS: tuple[type[Exception], ...] = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError),
    *(SliceError, TypeError, ValueError),
)
"""What code raises that was given values of another kind than it expects."""


@contextmanager
def reading(part: str) -> Iterator[None]:
    """Name the part of a bundle that is being read in whatever goes wrong, as a BundleError."""
    try:
        yield
    except BundleError:
        raise
    except ModelError as error:
        raise BundleError(f"{part}: {error}") from error
    except FAULTS as error:
        raise BundleError(f"{part} does not hold what it must: {error!r:.200}") from error


def to_json_bytes(value: Any) -> bytes:
    """Return a JSON value as bytes that depend on nothing but the value; floats read back exactly."""
    return (json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n").encode("ascii")


def to_json_lines(values: Sequence[Any]) -> bytes:
    """Return JSON values as bytes, one a line."""
    return "".join(json.dumps(value, allow_nan=False) + "\n" for value in values).encode("ascii")


def from_json_bytes(name: str, content: bytes) -> Any:
    """Return the JSON value of a bundle's file; BundleError naming the file if it holds none."""
    try:
        return json.loads(content, parse_constant=_no_number)
    except RecursionError as error:
        raise BundleError(f"{name} is nested too deeply to be ours") from error
    except ValueError as error:
        raise BundleError(f"{name} is not JSON: {error}") from error


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def content_hash(files: Mapping[str, bytes]) -> str:
    """Return sha256 in hex over the sorted names and digests of the files."""
    return _hash_of({name: _digest(content) for name, content in files.items()})


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files and their manifest into a new folder, which appears complete or not at all.

    Raises
    ------
    BundleError
        If the folder exists.
    """
    if folder.exists():
        raise BundleError(f"{folder} exists already: bundles are never changed, choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
    try:
        write_files(beside, files)
        rename_new(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def rename_new(source: Path, target: Path) -> None:
    """Give a folder its name, on disk when this returns; BundleError if the name was taken meanwhile."""
    try:
        source.rename(target)  # fails where a folder that is not empty has the name
    except OSError as error:
        raise BundleError(f"{target} could not be written: {error.strerror}") from error
    sync_folder(target.parent)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files and their manifest into a folder that does not exist, on disk when this returns."""
    folder.mkdir()
    stated = {name: _Stated(_digest(content), len(content))._asdict() for name, content in files.items()}
    manifest = {"format": FORMAT, "files": stated, "hash": content_hash(files)}
    for name, content in {**files, MANIFEST: to_json_bytes(manifest)}.items():
        with (folder / name).open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_folder(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return the files of a folder after proving that they are the ones that were written.

    Raises
    ------
    BundleError
        If the folder, its manifest or a file is absent, a file does not belong there, or one was altered; a
        file of another size than the manifest states is not even read.
    """
    with _on_disk(folder):
        return _read_folder(folder, names)


def _read_folder(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    stated = _manifest(folder)
    if set(stated) != set(names):
        raise BundleError(
            f"{folder / MANIFEST} must list the files {', '.join(sorted(names))}: copy the bundle anew"
        )
    _check_sizes(folder, stated)
    files = {name: _read(folder / name, stated[name].size_bytes) for name in names}
    for name, content in files.items():
        if _digest(content) != stated[name].sha256:
            raise BundleError(
                f"{folder / name} was altered: its sha256 is {_digest(content)[:12]}..., "
                f"the manifest says {stated[name].sha256[:12]}...: copy the bundle anew"
            )
    return files


def manifest_hash(folder: Path) -> str:
    """Return the hash that a folder's manifest states, without reading the files it lists.

    Raises
    ------
    BundleError
        If the folder or its manifest is absent or none, or files are missing, added or of another size.
    """
    with _on_disk(folder):
        stated = _manifest(folder)
        _check_sizes(folder, stated)
    return _hash_of({name: file.sha256 for name, file in stated.items()})


@contextmanager
def _on_disk(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses, a permission for one, into a BundleError."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{error.filename or folder} cannot be read: {error.strerror or error}") from error


def _check_sizes(folder: Path, stated: Mapping[str, _Stated]) -> None:
    present = {entry.name for entry in folder.iterdir()} - {MANIFEST}
    for name in sorted(present ^ set(stated)):
        fault = "is missing" if name in stated else "does not belong to the bundle"
        raise BundleError(f"{folder / name} {fault}: copy the bundle anew")
    for name, file in stated.items():
        size = _size(folder / name)
        if size != file.size_bytes:
            raise BundleError(
                f"{folder / name} was altered: it has {size:,} bytes, the manifest says "
                f"{file.size_bytes:,}: copy the bundle anew"
            )


class _Stated(NamedTuple):
    """What a manifest says of a file."""

    sha256: str
    size_bytes: int


def _manifest(folder: Path) -> dict[str, _Stated]:
    if not folder.is_dir():
        raise BundleError(f"there is no bundle in {folder}: no such folder")
    path = folder / MANIFEST
    if _size(path) > MANIFEST_BYTES:
        raise BundleError(f"{path} has more than {MANIFEST_BYTES:,} bytes: copy the bundle anew")
    content = from_json_bytes(str(path), _read(path, MANIFEST_BYTES))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        stated = content.get("format") if isinstance(content, dict) else None
        raise BundleError(
            f"{path} states format {stated!r}, this version reads {FORMAT}: train the model anew"
        )
    files = content.get("files")
    if not isinstance(files, dict) or not all(map(_is_stated, files.values())):
        raise BundleError(f"{path} must state sha256 and size_bytes of every file: copy the bundle anew")
    if content.get("hash") != _hash_of({name: file["sha256"] for name, file in files.items()}):
        raise BundleError(
            f"{path} was altered: its hash is not that of the files it lists: copy the bundle anew"
        )
    return {name: _Stated(**file) for name, file in files.items()}


def _is_stated(file: Any) -> bool:
    return (
        isinstance(file, dict)
        and set(file) == set(_Stated._fields)
        and isinstance(file["sha256"], str)
        and type(file["size_bytes"]) is int
    )


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path} is missing or no plain file: copy the bundle anew")
    return path.stat().st_size


def _read(path: Path, most_bytes: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(most_bytes)


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def _hash_of(digests: Mapping[str, Any]) -> str:
    return _digest("".join(f"{name}\0{digests[name]}\n" for name in sorted(digests)).encode())
