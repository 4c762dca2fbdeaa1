"""Registry on disk: numbered versions of a model, and aliases with a history of changes.

Versions and changes are numbered files, created once and never changed.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from pydantic import AwareDatetime, ConfigDict, StrictInt, TypeAdapter

from models.bundle.files import (
    bundle_part,
    create_private,
    fsync_path,
    manifest_hash,
    parse_as,
    parse_json,
    publish_folder,
    read_folder,
    read_small,
    write_files,
)
from models.bundle.reference import SliceCounts, slice_counts
from models.errors import BundleError, ModelError, RegistryError, RegistryUnavailable, require_type
from sfs.schema import Schema

if TYPE_CHECKING:
    from models.bundle.model_bundle import ModelBundle

CHAMPION = "champion"
BUNDLE = "a ModelBundle, as models.train and ModelRegistry.get return it"
ChangeKind: TypeAlias = Literal["promote", "rollback"]


@dataclass(frozen=True, slots=True)
class AliasChange:
    """One change of an alias: the version, how, when and why."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    sequence: StrictInt
    version: StrictInt
    hash: str
    change: ChangeKind
    reason: str
    at: AwareDatetime


_CHANGE = TypeAdapter(AliasChange)


@dataclass(frozen=True, slots=True)
class Version:
    """One stored bundle: its number, its hash, its folder, and the aliases on it.

    ``damaged`` is the fault of the folder where files are missing, added or of another size, and ``hash`` is
    empty then; None is a folder that looks complete, which only loading verifies. An alias that cannot be read
    is on no version.
    """

    number: int
    hash: str
    path: Path
    aliases: tuple[str, ...]
    damaged: str | None = None


class ModelRegistry:
    """Registry folder with immutable versions, and aliases with an append-only history.

    ``path/name/versions/000001`` is a bundle; ``path/name/aliases/champion/000012.json`` is the twelfth
    change of the alias ``champion``, and the highest is in force. Each is created exclusively, so that of two
    writers one fails. Several processes, also on several hosts, may share the folder. It holds records, and is
    open to its owner only.

    Parameters
    ----------
    path
        The registry's folder; created on the first write.
    name
        The model's name: letters, digits, ``.``, ``_`` and ``-``.

    Raises
    ------
    RegistryError
        If the name has other characters.
    """

    def __init__(self, path: str | Path, name: str = "model") -> None:
        require_type(path, (str, Path), "the registry's folder", "a path")
        self._root = Path(path) / _plain_name("model", name)
        self.name = name

    def put(self, bundle: ModelBundle) -> int:
        """Store a bundle and return its version; the same content is stored once and keeps its version.

        If the version of the same content is damaged, the bundle is stored under a new version.

        Raises
        ------
        DataError
            If ``bundle`` is another object, such as an estimator.
        RegistryUnavailable
            If the registry cannot be read or written.
        """
        from models.bundle.model_bundle import ModelBundle  # imports torch, as the bundle has

        require_type(bundle, ModelBundle, "the model to store", BUNDLE)
        versions = self._root / "versions"
        with self._unavailable("written"):
            self._make_folder(versions)
            with self._write_lock():
                for number in self._numbers():
                    if _holds(self._folder(number), bundle):
                        return number
                number = max(self._numbers(), default=0) + 1
                incoming = self._root / f".incoming-{uuid.uuid4().hex}"
                try:
                    write_files(incoming, bundle.files)
                    publish_folder(incoming, versions / f"{number:06d}")
                finally:
                    shutil.rmtree(incoming, ignore_errors=True)
        return number

    @contextmanager
    def _unavailable(self, done: str) -> Iterator[None]:
        """Raise an OSError, such as a full disk, as RegistryUnavailable with a path below the model's folder."""
        try:
            yield
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise RegistryUnavailable(
                f"the registry of {self.name!r} cannot be {done}: {self._below(error.filename)}: {reason}"
            ) from error

    def relative(self, message: str) -> str:
        """Return a message without the path of the model's folder, which is not disclosed over HTTP."""
        return message.replace(f"{self._root}{os.sep}", "")

    def _below(self, path: str | Path | None) -> str:
        """Return a path relative to the folder above the model's, which is not disclosed."""
        return os.path.relpath(path or self._root, self._root.parent)

    def _make_folder(self, folder: Path) -> None:
        """Create a folder of the registry, closed to other users, as that of an earlier version becomes."""
        self._root.parent.mkdir(parents=True, exist_ok=True)
        for path in (*reversed([p for p in folder.parents if p.is_relative_to(self._root)]), folder):
            path.mkdir(mode=0o700, exist_ok=True)
        self.close_to_others()

    def close_to_others(self) -> None:
        """Close the model's folder to other users: versions hold records, and earlier releases left it open."""
        with suppress(OSError):  # a missing folder, or another user's
            if (mode := self._root.stat().st_mode) & 0o077:
                self._root.chmod(mode & 0o700)

    @contextmanager
    def _write_lock(self) -> Iterator[None]:
        with (self._root / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # The holder of the lock is the only writer: other incoming folders are left from crashes.
            for abandoned in self._root.glob(".incoming-*"):
                shutil.rmtree(abandoned, ignore_errors=True)
            yield

    def path(self, version: int) -> Path:
        """Return the folder of a version.

        Raises
        ------
        RegistryError
            If the version does not exist.
        """
        require_type(version, Integral, "a version", "its number")
        folder = self._folder(version)
        if version < 1 or not folder.is_dir():
            known = ", ".join(map(str, self._numbers())) or "none"
            raise RegistryError(f"model {self.name!r} has no version {version}; its versions: {known}")
        return folder

    def _folder(self, version: int) -> Path:
        return self._root / "versions" / f"{version:06d}"

    def get(self, version: int | str = CHAMPION) -> ModelBundle:
        """Return the verified bundle of a version, given by number or by alias.

        Raises
        ------
        RegistryError
            If the version or alias does not exist; RegistryUnavailable if it cannot be read.
        BundleError
            If the bundle was altered, or differs from the bundle recorded with the alias.
        """
        from models.bundle.model_bundle import ModelBundle  # imports torch, not needed to list and promote

        require_type(version, (Integral, str), "a version", "its number or an alias such as 'champion'")
        if not isinstance(version, str) or version.isdecimal():
            return ModelBundle.load(self.path(int(version)))
        change = self.change(version)
        if change is None:
            known = ", ".join(self._aliases()) or "none"
            raise RegistryError(f"model {self.name!r} has no alias {version!r}; its aliases: {known}")
        bundle = ModelBundle.load(self.path(change.version))
        if bundle.hash != change.hash:
            raise BundleError(
                f"{self.path(change.version)} holds {bundle.hash[:12]}..., but {version!r} was recorded with "
                f"{change.hash[:12]}...: restore version {change.version} or promote another"
            )
        return bundle

    def list(self) -> tuple[Version, ...]:
        """Return all versions, oldest first, damaged ones included."""
        aliases = {}
        for alias in self._aliases():
            with suppress(RegistryError):
                aliases[alias] = self.alias(alias)
        versions = []
        for number in self._numbers():
            folder = self._folder(number)
            on_it = tuple(alias for alias, version in aliases.items() if version == number)
            try:
                versions.append(Version(number, manifest_hash(folder), folder, on_it))
            except BundleError as error:
                versions.append(Version(number, "", folder, on_it, str(error)))
        return tuple(versions)

    def schema(self, version: int) -> Schema:
        """Return the types of the columns of a version, without loading its model.

        Raises
        ------
        BundleError
            If the bundle's configuration or sample cannot be read.
        """
        from models.bundle.records import stored_schema

        folder = self._folder(version)
        with _stored_file(folder):
            config = parse_json("config.json", (folder / "config.json").read_bytes())
            lines = (folder / "sample.jsonl").read_bytes().splitlines()
            return stored_schema(config, [parse_json("sample.jsonl", line) for line in lines])

    def classes(self, version: int) -> tuple[str, ...]:
        """Return the classes of a version, without loading its model; BundleError if they cannot be read."""
        path = self._folder(version) / "config.json"
        with _stored_file(path):
            classes = parse_json(str(path), path.read_bytes())["classes"]
            if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
                raise BundleError(f"{path}: classes must be a list of texts")
        return tuple(classes)

    def references(self, version: int) -> dict[str, SliceCounts]:
        """Return the counts per slice of a version, without loading its model; BundleError if they cannot be read."""
        path = self._folder(version) / "reference.json"
        with _stored_file(path):
            return {name: slice_counts(counts) for name, counts in parse_json(str(path), path.read_bytes()).items()}

    def stamp(self, version: int) -> tuple[object, ...]:
        """Return names, sizes and times of the files of a version, which differ after a repair."""
        with suppress(OSError), os.scandir(self._folder(version)) as entries:
            stats = ((entry.name, entry.stat(follow_symlinks=False)) for entry in entries)
            return tuple(sorted((name, stat.st_ino, stat.st_size, stat.st_ctime_ns) for name, stat in stats))
        return ()

    def alias(self, name: str = CHAMPION) -> int | None:
        """Return the version of an alias, or None if it was never set; raises as `change`."""
        change = self.change(name)
        return None if change is None else change.version

    def change(self, name: str = CHAMPION) -> AliasChange | None:
        """Return the last change of an alias, or None if it was never set.

        Raises
        ------
        RegistryUnavailable
            If it cannot be read; an earlier change is not taken in its place.
        """
        paths = self._changes(name)
        return self._read_change(paths[-1]) if paths else None

    def promote(
        self,
        version: int,
        *,
        expected: int | AliasChange | None,
        reason: str,
        at: datetime,
        alias: str = CHAMPION,
    ) -> AliasChange:
        """Set an alias to a version by compare-and-set.

        Parameters
        ----------
        version
            The new version.
        expected
            The current version, None for none yet; or the current change, the last of `history`, which also
            distinguishes a later change to the same version.
        reason
            Reason for the history.
        at
            Time of the change, with a time zone.

        Raises
        ------
        RegistryError
            If the version does not exist, or the alias is not on ``expected``; RegistryUnavailable if the
            registry cannot be read or written.
        """
        return self._set_alias(alias, version, expected, "promote", reason, at)

    def rollback(self, *, reason: str, at: datetime, alias: str = CHAMPION) -> AliasChange:
        """Roll an alias back to the previous version; repeated calls go further back.

        Raises
        ------
        RegistryError
            If there is no earlier version, or another process changed the alias concurrently;
            RegistryUnavailable if the registry cannot be read or written.
        """
        history = self.history(alias)
        stack: list[int] = []  # versions to go back through, the current one last
        for step in history:
            if step.change == "rollback" and len(stack) > 1:
                stack.pop()
            elif not stack or stack[-1] != step.version:
                stack.append(step.version)
        if len(stack) < 2:
            raise RegistryError(f"alias {alias!r} of {self.name!r} has no earlier version to roll back to")
        return self._set_alias(alias, stack[-2], history[-1], "rollback", reason, at)

    def history(self, alias: str = CHAMPION) -> tuple[AliasChange, ...]:
        """Return every change of an alias, oldest first; raises as `change`."""
        return tuple(map(self._read_change, self._changes(alias)))

    def readable_history(self, alias: str = CHAMPION) -> tuple[AliasChange, ...]:
        """Return the changes of an alias that can be read, oldest first, to be shown."""
        changes = []
        for path in self._changes(alias):
            with suppress(RegistryUnavailable):
                changes.append(self._read_change(path))
        return tuple(changes)

    def _set_alias(
        self,
        alias: str,
        version: int,
        expected: int | AliasChange | None,
        kind: ChangeKind,
        reason: str,
        at: datetime,
    ) -> AliasChange:
        """Write the change after the expected one; its number is taken if another writer was first."""
        require_type(at, datetime, "the time of the change", "a datetime with a time zone")
        if at.tzinfo is None:
            raise RegistryError(f"the time {at.isoformat()} has no time zone: pass an aware datetime, such as UTC")
        now = self.change(alias)
        actual = now if isinstance(expected, AliasChange) or now is None else now.version
        if actual != expected:
            raise RegistryError(_conflict(alias, now, expected))
        sequence = (now.sequence if now else 0) + 1
        change = AliasChange(sequence, version, manifest_hash(self.path(version)), kind, reason, at)
        folder = self._alias_folder(alias)
        with self._unavailable("written"):
            self._make_folder(folder)
            is_written = write_change(folder, change)
        if not is_written:
            raise RegistryError(_conflict(alias, self.change(alias), expected))
        return change

    def _names(self, folder: Path) -> Sequence[str]:
        """Return the names in a folder, in order; none if it does not exist, unlike one that cannot be read."""
        with self._unavailable("read"), suppress(FileNotFoundError):
            return sorted(path.name for path in folder.iterdir())
        return ()

    def _numbers(self) -> Sequence[int]:
        names = self._names(self._root / "versions")
        return sorted(int(name) for name in names if name.isascii() and name.isdecimal())

    def _aliases(self) -> Sequence[str]:
        return [name for name in self._names(self._root / "aliases") if _is_name(name) and self._changes(name)]

    def _changes(self, alias: str) -> Sequence[Path]:
        folder = self._alias_folder(alias)
        return [folder / name for name in self._names(folder) if re.fullmatch(r"[0-9].*\.json", name)]

    def _read_change(self, path: Path) -> AliasChange:
        try:
            with bundle_part(path.name):
                change = parse_as(_CHANGE, path.name, read_small(path))
                if f"{change.sequence:06d}" != path.stem:
                    raise BundleError(f"its number is {change.sequence}")
        except (ModelError, OSError) as error:
            fault = error.strerror if isinstance(error, OSError) else str(error).replace(str(path), path.name)
            raise RegistryUnavailable(
                f"{self._below(path)} is not a change of an alias ({fault}): remove or restore it"
            ) from error
        return change

    def _alias_folder(self, alias: str) -> Path:
        return self._root / "aliases" / _plain_name("alias", alias)


def write_change(folder: Path, change: AliasChange) -> bool:
    """Write a change under its number, complete or not at all; return False if the number is taken."""
    partial = folder / f".{uuid.uuid4().hex}.part"
    try:
        with create_private(partial) as stream:
            stream.write(json.dumps(asdict(change) | {"at": change.at.isoformat()}).encode())
            stream.flush()
            os.fsync(stream.fileno())
        (folder / f"{change.sequence:06d}.json").hardlink_to(partial)
    except FileExistsError:
        return False
    finally:
        partial.unlink(missing_ok=True)
    fsync_path(folder)
    return True


@contextmanager
def _stored_file(path: Path) -> Iterator[None]:
    """Raise the errors of reading a file or folder of a version as BundleError."""
    with bundle_part(str(path)):
        try:
            yield
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror}: copy the bundle again") from error


def _is_name(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", name) is not None


def _plain_name(kind: str, name: str) -> str:
    require_type(name, str, f"the {kind} name", "text")
    if not _is_name(name) or (kind == "alias" and name.isdecimal()):
        alone = ", not digits alone" if kind == "alias" else ""
        raise RegistryError(f"invalid {kind} name {name!r}: use letters, digits, '.', '_' and '-'{alone}")
    return name


def _conflict(alias: str, now: AliasChange | None, expected: int | AliasChange | None) -> str:
    actual = f"on version {now.version}" if now else "on no version"
    if isinstance(expected, AliasChange):
        actual += f" by change {now.sequence if now else 0}"
        wanted = f"on {expected.version} by change {expected.sequence}"
    else:
        wanted = "on none" if expected is None else f"on {expected}"
    return f"alias {alias!r} is {actual}, not {wanted} as expected: another process changed it; check and retry"


def _holds(folder: Path, bundle: ModelBundle) -> bool:
    """Return True if a folder holds exactly this bundle, unaltered."""
    try:
        return manifest_hash(folder) == bundle.hash and bool(read_folder(folder, list(bundle.files)))
    except BundleError:
        return False
