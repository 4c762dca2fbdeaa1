"""Versions of a model on disk, and aliases that point at one of them."""

from __future__ import annotations

import fcntl
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from models.alias_history import (
    AliasChange,
    Change,
    create_change,
    read_history,
    read_last,
    versions_before,
)
from models.bundle_files import manifest_hash, read_folder, rename_new, write_files
from models.errors import BundleError, RegistryError

if TYPE_CHECKING:
    from models.bundle import ModelBundle

__all__ = ["CHAMPION", "AliasChange", "ModelRegistry", "Version"]

CHAMPION = "champion"


@dataclass(frozen=True, slots=True)
class Version:
    """One stored bundle: its number, its hash, where it lies, and the aliases in force on it.

    ``damaged`` says what is wrong with its folder, where files are missing, added or of another size, and
    ``hash`` is empty then; None is a folder that looks whole, which only loading it proves.
    """

    number: int
    hash: str
    path: Path
    aliases: tuple[str, ...]
    damaged: str | None = None


class ModelRegistry:
    """A folder of versions that never change, and aliases whose history is a sequence of files.

    ``path/name/versions/000001`` is a bundle; ``path/name/aliases/champion/000012.json`` is the twelfth
    change of the alias ``champion``, and the highest is in force. Each is created exclusively, so that of two
    writers one fails. Several processes, also on several hosts, may share the folder.

    Parameters
    ----------
    path
        The registry's folder; made when something is stored.
    name
        The model's name: letters, digits, ``.``, ``_`` and ``-``.

    Raises
    ------
    RegistryError
        If the name is not of that kind.
    """

    def __init__(self, path: str | Path, name: str = "model") -> None:
        self._root = Path(path) / _plain_name("model", name)
        self.name = name

    def put(self, bundle: ModelBundle) -> int:
        """Store a bundle and return its version; the same content is stored once and keeps its version.

        Where the version of the same content was damaged since, the bundle is stored anew.
        """
        versions = self._root / "versions"
        versions.mkdir(parents=True, exist_ok=True)
        with self._writing():
            for number in self._numbers():
                if _holds(self._folder(number), bundle):
                    return number
            number = max(self._numbers(), default=0) + 1
            incoming = self._root / f".incoming-{uuid.uuid4().hex}"
            write_files(incoming, bundle.files)
            rename_new(incoming, versions / f"{number:06d}")
        return number

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with (self._root / ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Whoever holds the lock is the only writer: what others left behind, they left by dying.
            for litter in self._root.glob(".incoming-*"):
                shutil.rmtree(litter, ignore_errors=True)
            yield

    def path(self, version: int) -> Path:
        """Return the folder of a version.

        Raises
        ------
        RegistryError
            If there is no such version.
        """
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
            If there is no such version or alias.
        BundleError
            If the bundle is not as it was written, or not the one that the alias was put on.
        """
        if isinstance(version, int) or version.isdecimal():
            return _load(self.path(int(version)))
        change = self.change(version)
        if change is None:
            known = ", ".join(self._aliases()) or "none"
            raise RegistryError(f"model {self.name!r} has no alias {version!r}; its aliases: {known}")
        bundle = _load(self.path(change.version))
        if bundle.hash != change.hash:
            raise BundleError(
                f"{self.path(change.version)} holds {bundle.hash[:12]}..., but {version!r} was put on "
                f"{change.hash[:12]}...: restore version {change.version} or promote another"
            )
        return bundle

    def list(self) -> tuple[Version, ...]:
        """Return all versions, oldest first; those that are damaged say so and hide no other."""
        pointed = {alias: self.alias(alias) for alias in self._aliases()}
        return tuple(
            _version(n, self._folder(n), tuple(alias for alias, v in pointed.items() if v == n))
            for n in self._numbers()
        )

    def alias(self, name: str = CHAMPION) -> int | None:
        """Return the version that an alias is on, or None where it was never put on any."""
        change = self.change(name)
        return None if change is None else change.version

    def change(self, name: str = CHAMPION) -> AliasChange | None:
        """Return the change of an alias that is in force, or None where it was never put on any version."""
        return read_last(self._alias_folder(name))

    def promote(
        self,
        version: int,
        *,
        expected: int | AliasChange | None,
        reason: str,
        at: datetime,
        alias: str = CHAMPION,
    ) -> AliasChange:
        """Put an alias on a version, provided that it is where the caller last saw it.

        Parameters
        ----------
        version
            The version to be in force.
        expected
            The version in force now, None for none yet; or the change in force, the last of `history`, which
            is also told from a later change to the same version.
        reason
            Why, for the history.
        at
            When, with a time zone.

        Raises
        ------
        RegistryError
            If the version does not exist, or the alias is not on ``expected``.
        """
        return self._put_on(alias, version, expected, "promote", reason, at)

    def rollback(self, *, reason: str, at: datetime, alias: str = CHAMPION) -> AliasChange:
        """Put an alias back on the version before the one in force; again and again goes further back.

        Raises
        ------
        RegistryError
            If there is no earlier version, or another writer was first.
        """
        history = self.history(alias)
        before = versions_before(history)
        if len(before) < 2:
            raise RegistryError(f"alias {alias!r} of {self.name!r} has no earlier version to go back to")
        return self._put_on(alias, before[-2], history[-1], "rollback", reason, at)

    def history(self, alias: str = CHAMPION) -> tuple[AliasChange, ...]:
        """Return every change of an alias, oldest first."""
        return read_history(self._alias_folder(alias))

    def _put_on(
        self,
        alias: str,
        version: int,
        expected: int | AliasChange | None,
        change: Change,
        reason: str,
        at: datetime,
    ) -> AliasChange:
        """Write the change that follows the expected one; where another has its number, someone was first."""
        if at.tzinfo is None:
            raise RegistryError(
                f"the time {at.isoformat()} has no time zone: pass an aware datetime, such as UTC"
            )
        now = self.change(alias)
        there = now if isinstance(expected, AliasChange) or now is None else now.version
        if there != expected:
            raise RegistryError(_lost(alias, now, expected))
        sequence = (now.sequence if now else 0) + 1
        made = AliasChange(sequence, version, manifest_hash(self.path(version)), change, reason, at)
        if not create_change(self._alias_folder(alias), made):
            raise RegistryError(_lost(alias, self.change(alias), expected))
        return made

    def _numbers(self) -> Sequence[int]:
        folders = (self._root / "versions").glob("[0-9]*")
        return sorted(int(folder.name) for folder in folders if folder.name.isdecimal())

    def _aliases(self) -> Sequence[str]:
        return sorted(
            folder.name for folder in (self._root / "aliases").glob("*") if any(folder.glob("*.json"))
        )

    def _alias_folder(self, alias: str) -> Path:
        return self._root / "aliases" / _plain_name("alias", alias)


def _plain_name(what: str, name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", name) or (what == "alias" and name.isdecimal()):
        raise RegistryError(f"{what} {name!r} cannot be a name: use letters, digits, '.', '_' and '-'")
    return name


def _lost(alias: str, now: AliasChange | None, expected: int | AliasChange | None) -> str:
    there = f"on version {now.version}" if now else "on no version"
    if isinstance(expected, AliasChange):
        there += f" by change {now.sequence if now else 0}"
        thought = f"on {expected.version} by change {expected.sequence}"
    else:
        thought = "on none" if expected is None else f"on {expected}"
    return f"alias {alias!r} is {there}, not {thought} as expected: someone was first; look again and repeat"


def _holds(folder: Path, bundle: ModelBundle) -> bool:
    """Tell whether a folder holds exactly this bundle; what cannot be read does not."""
    try:
        return manifest_hash(folder) == bundle.hash and bool(read_folder(folder, list(bundle.files)))
    except BundleError:
        return False


def _version(number: int, folder: Path, aliases: tuple[str, ...]) -> Version:
    try:
        return Version(number, manifest_hash(folder), folder, aliases)
    except BundleError as error:
        return Version(number, "", folder, aliases, str(error))


def _load(folder: Path) -> ModelBundle:
    from models.bundle import ModelBundle  # brings torch, which listing and promoting do without

    return ModelBundle.load(folder)
