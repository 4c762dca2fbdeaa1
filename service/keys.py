"""API keys: their scopes, and the file that holds their hashes."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, Self, TextIO

from service.errors import MisuseError, ServiceError

SCOPES = ("predict", "labels", "read", "write", "admin", "metrics")
"""What a key may do; ``admin`` includes all others."""
TOKEN_CHARS = 55
"""Length of a key: ``sw_``, 8 characters of its id, ``_``, and 256 random bits in 43 characters."""
RESERVED_NAMES = ("monitor", "http")
"""Actors in the audit log that are no key."""

_FORMAT = 1
_LAST = datetime.max.replace(tzinfo=UTC)
_WORLD_WRITABLE = 0o002
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW

KeyState = Literal["active", "expired", "revoked"]


class KeyFileError(ServiceError):
    """The file of the keys cannot be read, or is damaged."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret.

    Parameters
    ----------
    id
        Its first characters, which are no secret.
    name
        Name of its holder in the audit and the request log.
    sha256
        SHA-256 of the key, hexadecimal. The key is random, so a slow hash would protect nothing more.
    scopes
        What it allows.
    model
        The only model that it is for; None for any.
    created, expires, revoked
        Times; None if it does not expire, or is not revoked.
    rate
        Maximum requests per second; None for any number.
    """

    id: str
    name: str
    sha256: str
    scopes: tuple[str, ...]
    created: datetime
    model: str | None = None
    expires: datetime | None = None
    revoked: datetime | None = None
    rate: float | None = None

    def state(self, now: datetime) -> KeyState:
        """Return whether the key is valid at a time."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else "active"

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Return a key as the file holds it. Raises KeyError, TypeError or ValueError if it is damaged."""
        times = {
            name: None if value[name] is None else datetime.fromisoformat(value[name])
            for name in ("created", "expires", "revoked")
        }
        key = cls(**{**value, **times, "scopes": tuple(value["scopes"])})
        if not key.scopes or not set(key.scopes) <= set(SCOPES):
            raise ValueError(f"the scopes of {key.name!r} are not among {', '.join(SCOPES)}")
        is_whole = len(key.id.encode("ascii")) == 8 and len(bytes.fromhex(key.sha256)) == 32 and key.created is not None
        is_whole = is_whole and isinstance(key.name, str) and all(at is None or at.tzinfo for at in times.values())
        if not is_whole or not (key.rate is None or key.rate > 0):
            raise ValueError(f"the entry of {key.name!r} is not whole")
        return key


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key with its secret, which is shown once."""

    key: ApiKey
    token: str = field(repr=False)


class KeyFile:
    """File of the keys: written atomically, open to its owner only, and readable by any service that has it.

    Parameters
    ----------
    path
        The file; it need not exist.
    draw
        Returns a number of random bytes as URL-safe text.
    """

    def __init__(self, path: Path, draw: Callable[[int], str] = secrets.token_urlsafe) -> None:
        self.path, self._draw = path, draw

    def stamp(self) -> tuple[int, ...] | None:
        """Return a value that changes with the file; None if there is none, or it cannot be reached."""
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size

    @property
    def _lock(self) -> Path:
        """File that commands lock; it has text once there were keys."""
        return Path(f"{self.path.resolve()}.lock")  # a link stays a link

    def remember(self) -> None:
        """Note beside the file that there are keys, so that a start without it fails; not in a read-only folder."""
        with suppress(OSError), os.fdopen(os.open(self._lock, _LOCK_FLAGS, 0o600), "r+") as lock:
            _give(lock.fileno(), self.path.resolve())
            _remember(lock)

    def read(self) -> tuple[ApiKey, ...]:
        """Return all keys, revoked ones too; empty if there never was a file.

        Raises
        ------
        KeyFileError
            If the file cannot be read, is damaged, missing though there were keys, or open to changes by every user.
        """
        advice = "restore it from a copy, or remove it and add the keys again with `slicewatch keys add`"
        try:
            with self.path.open("rb") as stream:
                if os.fstat(stream.fileno()).st_mode & _WORLD_WRITABLE:
                    raise KeyFileError(f"{self.path} can be changed by every user: run chmod o-w on it")
                document = json.load(stream)
            if document["format"] != _FORMAT:
                raise ValueError(f"format {document['format']!r} is of another release")
            keys = tuple(map(ApiKey.from_json, document["keys"]))
        except FileNotFoundError:
            if not self._had_keys():
                return ()
            raise KeyFileError(
                f"{self.path} is missing, and the service had keys: restore it from a copy, or add keys with "
                f"`slicewatch keys add`; to serve without keys again, remove {self._lock}, too"
            ) from None
        except OSError as error:
            raise KeyFileError(f"{self.path} cannot be read: {error.strerror}; check its permissions") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise KeyFileError(f"{self.path} is damaged ({type(error).__name__}: {error}): {advice}") from None
        if len({key.id for key in keys}) < len(keys):
            raise KeyFileError(f"{self.path} is damaged (an id stands twice): {advice}")
        return keys

    def add(
        self,
        name: str,
        scopes: Sequence[str],
        now: datetime,
        *,
        model: str | None = None,
        expires: datetime | None = None,
        rate: float | None = None,
    ) -> NewKey:
        """Add a key; a name of which no key is active can be given again.

        Raises
        ------
        MisuseError
            If the name is taken or reserved, or the expiry is past.
        KeyFileError
            If the file cannot be read or written.
        """
        if name in RESERVED_NAMES:
            raise MisuseError(f"{name!r} stands for the service itself in the audit log: choose another name")
        if expires is not None and expires <= now:
            raise MisuseError(
                f"the key would expire at {expires:%Y-%m-%d %H:%M} UTC, which is past: choose a later time"
            )
        with self._change() as keys:
            if any(key.name == name and key.state(now) == "active" for key in keys):
                raise MisuseError(
                    f"the name {name!r} is taken: choose another one, or use `slicewatch keys rotate {name}`"
                )
            made = self._make(ApiKey("", name, "", tuple(scopes), now, model, expires, None, rate))
            keys[:] = [*(key for key in keys if key.name != name), made.key]
        return made

    def revoke(self, name: str, now: datetime) -> int:
        """Revoke all keys of a name at once, and return their number. Raises as `add`, or if none is active."""
        with self._change() as keys:
            active = _active(keys, name, now)
            keys[:] = [replace(key, revoked=now) if key in active else key for key in keys]
        return len(active)

    def rotate(self, name: str, now: datetime, overlap_seconds: float) -> NewKey:
        """Add a key like the newest one of a name; the earlier ones expire. Raises as `revoke`.

        Parameters
        ----------
        name
            Name of the key.
        now
            Current time, UTC.
        overlap_seconds
            Seconds for which the earlier keys stay valid.
        """
        with self._change() as keys:
            active = _active(keys, name, now)
            end = datetime.fromtimestamp(now.timestamp() + overlap_seconds, now.tzinfo)
            last = active[-1]  # the new one lives as long
            passed = now - last.created
            expires = last.expires and (last.expires + passed if _LAST - last.expires > passed else _LAST)
            made = self._make(replace(last, created=now, expires=expires))
            keys[:] = [replace(key, expires=min(key.expires or end, end)) if key in active else key for key in keys]
            keys.append(made.key)
        return made

    def _had_keys(self) -> bool:
        try:
            return self._lock.stat().st_size > 0
        except FileNotFoundError:
            return False

    def _make(self, like: ApiKey) -> NewKey:
        id_ = self._draw(6)
        token = f"sw_{id_}_{self._draw(32)}"
        return NewKey(replace(like, id=id_, sha256=sha256(token.encode()).hexdigest()), token)

    @contextmanager
    def _change(self) -> Iterator[list[ApiKey]]:
        """Yield all keys, and write them if no error is raised; other commands wait."""
        target = self.path.resolve()
        try:
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(self._lock, _LOCK_FLAGS, 0o600), "r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                _give(lock.fileno(), target)
                keys = list(self.read()) if target.exists() else []
                yield keys
                _write_private(target, json.dumps({"format": _FORMAT, "keys": list(map(_to_json, keys))}, indent=1))
                _remember(lock)
        except OSError as error:
            raise KeyFileError(
                f"{self.path} cannot be written: {error.strerror or error}; change it where it is written from, "
                "such as the source of a mounted secret"
            ) from None


def _remember(lock: TextIO) -> None:
    status = os.fstat(lock.fileno())
    if not status.st_size and status.st_nlink == 1:  # not in another file that a link puts in its place
        lock.write("there were keys\n")


def _active(keys: Sequence[ApiKey], name: str, now: datetime) -> list[ApiKey]:
    active = [key for key in keys if key.name == name and key.state(now) == "active"]
    if not active:
        names = sorted({key.name for key in keys if key.state(now) == "active"})
        raise MisuseError(f"no active key has the name {name!r}; active are: {', '.join(names) or 'none'}")
    return active


def _to_json(key: ApiKey) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(key).items()}


def _give(descriptor: int, path: Path) -> None:
    """Give an own file the permissions of another one, and as root its owner, else that of its folder."""
    own, is_there = os.fstat(descriptor), path.exists()
    like = (path if is_there else path.parent).stat()
    if own.st_uid != os.geteuid() or own.st_nlink > 1:
        return
    if is_there:
        os.fchmod(descriptor, stat.S_IMODE(like.st_mode))
    if own.st_uid == 0:  # the service, which has another user, goes on reading the file
        os.fchown(descriptor, like.st_uid, like.st_gid)


def _write_private(path: Path, text: str) -> None:
    """Write a file durably and as a whole, open to its owner only, or to those who could open it before."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
            stream.write(f"{text}\n")
            stream.flush()
            _give(stream.fileno(), path)
            os.fsync(stream.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
