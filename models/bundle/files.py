"""Folder of files with a manifest of digests, written atomically and verified on reading."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, TypeVar

from pydantic import ConfigDict, StrictInt, TypeAdapter, ValidationError

from models.errors import BundleError, ModelError
from sfs.errors import SliceError

T = TypeVar("T")

MANIFEST = "manifest.json"
FORMAT = 1
"""Version of the bundle layout; other versions are rejected."""
MANIFEST_BYTES = 1_000_000
DECODE_ERRORS: tuple[type[Exception], ...] = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError),
    *(SliceError, TypeError, ValueError),
)
"""Errors raised by code given values of an unexpected kind."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file in a manifest."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    sha256: str
    size_bytes: StrictInt


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a folder, and the hash over their names and digests."""

    format: StrictInt
    files: dict[str, FileEntry]
    hash: str


_MANIFEST = TypeAdapter(Manifest)


@contextmanager
def bundle_part(part: str, *, records: bool = False) -> Iterator[None]:
    """Raise the errors of the block as BundleError that names the part being read.

    Of a part with records only the kind of the error is named: its message may quote a record.
    """
    try:
        yield
    except BundleError:
        raise
    except DECODE_ERRORS as error:
        if records:
            raise BundleError(f"{part} is malformed ({type(error).__name__})") from error
        if isinstance(error, ModelError):
            raise BundleError(f"{part}: {error}") from error
        raise BundleError(f"{part} is malformed: {error!r:.200}") from error


def dump_json(value: Any) -> bytes:
    """Return a JSON value as bytes that depend only on the value; floats are exact."""
    return (json.dumps(value, sort_keys=True, indent=1, allow_nan=False) + "\n").encode("ascii")


def parse_json(name: str, content: bytes) -> Any:
    """Return the JSON value of a file; BundleError with the file's name if there is none."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not a JSON number")

    try:
        return json.loads(content, parse_constant=refuse)
    except RecursionError as error:
        raise BundleError(f"{name} is nested too deeply") from error
    except ValueError as error:
        raise BundleError(f"{name} is not JSON: {error}") from error


def parse_as(adapter: TypeAdapter[T], name: str, content: bytes) -> T:
    """Return the value of a JSON file; BundleError with the place of the first fault if it is malformed."""
    value = parse_json(name, content)  # pydantic's own parser refuses lone surrogates
    with bundle_part(name):  # a value that is nested deeply can be parsed, and not be quoted
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            raised = fault.get("ctx", {}).get("error")
            if isinstance(raised, BundleError):
                raise raised from error
            place = ", ".join(map(str, (name, *fault["loc"])))
            raise BundleError(f"{place}: {fault['msg']}, got {fault['input']!r:.80}") from error


def content_hash(files: Mapping[str, bytes]) -> str:
    """Return sha256 in hex over the sorted names and digests of the files."""
    return _hash_of_digests({name: _digest(content) for name, content in files.items()})


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files and their manifest into a new folder, which appears complete or not at all.

    Raises
    ------
    BundleError
        If the folder exists.
    """
    if folder.exists():
        raise BundleError(f"{folder} exists: bundles are never changed, choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
    try:
        write_files(partial, files)
        publish_folder(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def publish_folder(source: Path, target: Path) -> None:
    """Rename a folder durably; BundleError if the name is taken."""
    try:
        source.rename(target)  # fails where a folder that is not empty has the name
    except OSError as error:
        raise BundleError(f"{target} cannot be written: {error.strerror}") from error
    fsync_path(target.parent)


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files and their manifest durably into a folder that does not exist."""
    folder.mkdir(mode=0o700)  # private: some files hold records
    entries = {name: FileEntry(_digest(content), len(content)) for name, content in files.items()}
    manifest = asdict(Manifest(FORMAT, entries, content_hash(files)))
    for name, content in {**files, MANIFEST: dump_json(manifest)}.items():
        with create_private(folder / name) as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    fsync_path(folder)


def create_private(path: Path) -> BinaryIO:
    """Return a new file that only this user can read; FileExistsError if it exists."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def fsync_path(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_folder(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Return the verified files of a folder.

    Raises
    ------
    BundleError
        If the folder, its manifest or a file is absent, a file does not belong there, or one was altered; a
        file whose size differs from the manifest is not read.
    """
    with _os_errors(folder):
        entries = _manifest(folder).files
        if set(entries) != set(names):
            raise BundleError(
                f"{folder / MANIFEST} must list the files {', '.join(sorted(names))}: copy the bundle again"
            )
        _check_sizes(folder, entries)
        files = {name: _read(folder / name, entries[name].size_bytes) for name in names}
    for name, content in files.items():
        if _digest(content) != entries[name].sha256:
            raise BundleError(
                f"{folder / name} was altered: its sha256 is {_digest(content)[:12]}..., "
                f"the manifest says {entries[name].sha256[:12]}...: copy the bundle again"
            )
    return files


def read_small(path: Path) -> bytes:
    """Return a regular file of at most 1 MB.

    Raises
    ------
    BundleError, OSError
        If it is another kind of file, or larger; if it cannot be read.
    """
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path} is missing or not a regular file")
    if path.stat().st_size > MANIFEST_BYTES:
        raise BundleError(f"{path} has more than {MANIFEST_BYTES:,} bytes")
    return _read(path, MANIFEST_BYTES)


def manifest_hash(folder: Path) -> str:
    """Return the hash in a folder's manifest, without reading the files it lists.

    Raises
    ------
    BundleError
        If the folder or its manifest is absent or malformed, or files are missing, added or of another size.
    """
    with _os_errors(folder):
        manifest = _manifest(folder)
        _check_sizes(folder, manifest.files)
    return manifest.hash


@contextmanager
def _os_errors(folder: Path) -> Iterator[None]:
    """Raise an OSError, such as a missing permission, as a BundleError."""
    try:
        yield
    except OSError as error:
        raise BundleError(f"{error.filename or folder} cannot be read: {error.strerror or error}") from error


def _check_sizes(folder: Path, entries: Mapping[str, FileEntry]) -> None:
    present = {entry.name for entry in folder.iterdir()} - {MANIFEST}
    for name in sorted(present ^ set(entries)):
        fault = "is missing" if name in entries else "does not belong to the bundle"
        raise BundleError(f"{folder / name} {fault}: copy the bundle again")
    for name, entry in entries.items():
        size = _size(folder / name)
        if size != entry.size_bytes:
            raise BundleError(
                f"{folder / name} was altered: it has {size:,} bytes, the manifest says "
                f"{entry.size_bytes:,}: copy the bundle again"
            )


def _manifest(folder: Path) -> Manifest:
    if not folder.is_dir():
        raise BundleError(f"there is no bundle in {folder}: no such folder")
    path = folder / MANIFEST
    if _size(path) > MANIFEST_BYTES:
        raise BundleError(f"{path} has more than {MANIFEST_BYTES:,} bytes: copy the bundle again")
    content = _read(path, MANIFEST_BYTES)
    values = parse_json(str(path), content)
    version = values.get("format") if isinstance(values, dict) else None
    if version != FORMAT:
        raise BundleError(f"{path} has format {version!r}, this version reads {FORMAT}: train the model again")
    manifest = parse_as(_MANIFEST, str(path), content)
    if manifest.hash != _hash_of_digests({name: entry.sha256 for name, entry in manifest.files.items()}):
        raise BundleError(f"{path} was altered: its hash is not that of the files it lists: copy the bundle again")
    return manifest


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{path} is missing or not a regular file: copy the bundle again")
    return path.stat().st_size


def _read(path: Path, max_bytes: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(max_bytes)


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def _hash_of_digests(digests: Mapping[str, str]) -> str:
    return _digest("".join(f"{name}\0{digests[name]}\n" for name in sorted(digests)).encode())
