"""A folder of files with a manifest of their digests: written whole, and read only as it was written."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from models.errors import BundleError

MANIFEST = "manifest.json"
FORMAT = 1
"""The version of the bundle's layout; a reader refuses every other."""


def to_json_bytes(value: Any) -> bytes:
    """Return a JSON value as bytes that depend on nothing but the value; floats read back exactly."""
    return (json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n").encode("ascii")


def to_json_lines(values: Sequence[Any]) -> bytes:
    """Return JSON values as bytes, one a line."""
    return "".join(json.dumps(value, allow_nan=False) + "\n" for value in values).encode("ascii")


def from_json_bytes(name: str, content: bytes) -> Any:
    """Return the JSON value of a bundle's file; BundleError naming the file if it holds none."""
    try:
        return json.loads(content)
    except ValueError as error:
        raise BundleError(f"{name} is not JSON: {error}") from error


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
    digests = {name: _digest(content) for name, content in files.items()}
    manifest = {"format": FORMAT, "files": digests, "hash": _hash_of(digests)}
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
        If the folder, its manifest or a file is absent, a file does not belong there, or one was altered.
    """
    if not folder.is_dir():
        raise BundleError(f"there is no bundle in {folder}: no such folder")
    digests = _manifest(folder, names)
    present = {entry.name for entry in folder.iterdir()} - {MANIFEST}
    for name in sorted(present ^ set(names)):
        fault = "is missing" if name in names else "does not belong to the bundle"
        raise BundleError(f"{folder / name} {fault}: copy the bundle anew")
    files = {name: _read(folder / name) for name in names}
    for name, content in files.items():
        if _digest(content) != digests[name]:
            raise BundleError(
                f"{folder / name} was altered: its sha256 is {_digest(content)[:12]}..., "
                f"the manifest says {digests[name][:12]}...: copy the bundle anew"
            )
    return files


def manifest_hash(folder: Path) -> str:
    """Return the hash that a folder's manifest states, without reading the files.

    Raises
    ------
    BundleError
        If there is no manifest, or it is not one.
    """
    content = from_json_bytes(str(folder / MANIFEST), _read(folder / MANIFEST))
    if not isinstance(content, dict) or not isinstance(content.get("hash"), str):
        raise BundleError(f"{folder / MANIFEST} states no hash: copy the bundle anew")
    return str(content["hash"])


def _manifest(folder: Path, names: Sequence[str]) -> dict[str, str]:
    path = folder / MANIFEST
    content = from_json_bytes(str(path), _read(path))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        stated = content.get("format") if isinstance(content, dict) else None
        raise BundleError(
            f"{path} states format {stated!r}, this version reads {FORMAT}: train the model anew"
        )
    digests = content.get("files")
    if not isinstance(digests, dict) or set(digests) != set(names):
        raise BundleError(f"{path} must list the files {', '.join(sorted(names))}: copy the bundle anew")
    if content.get("hash") != _hash_of(digests):
        raise BundleError(
            f"{path} was altered: its hash is not that of the files it lists: copy the bundle anew"
        )
    return digests


def _read(path: Path) -> bytes:
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path} is missing or no plain file: copy the bundle anew")
    return path.read_bytes()


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def _hash_of(digests: Mapping[str, Any]) -> str:
    return _digest("".join(f"{name}\0{digests[name]}\n" for name in sorted(digests)).encode())
