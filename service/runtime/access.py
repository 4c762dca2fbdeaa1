"""Access to the service: callers by key, by session of the console, or by the header of a trusted proxy."""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from ipaddress import IPv6Address, ip_address
from math import ceil, inf
from typing import NoReturn

from service.errors import ServiceError
from service.keys import SCOPES, TOKEN_CHARS, ApiKey, KeyFile, KeyFileError
from service.metrics.process import ProcessMetrics
from service.settings.schema import TrustedProxy

COOKIE = "slicewatch_session"
LOOPBACK = -1
"""The peer of this machine, whose connections are limited in total only: a proxy on it stands for many clients."""
FAILURES_A_MINUTE = 20
"""Wrong keys of one peer, after which further ones are refused for the rest of a minute."""
SESSION_SECONDS, IDLE_SECONDS = 12 * 3600, 3600
"""Maximum time of a session, and between two of its requests."""
MAX_SESSIONS, MAX_PEERS, MAX_HOSTS = 1000, 10_000, 1000
READ_SECONDS = 1.0
"""Interval at which the file of the keys is looked at."""

_NO_KEY = bytes(TOKEN_CHARS)
_ADVICE = "send `Authorization: Bearer KEY`; commands take the key from SLICEWATCH_KEY or --key-file"

_log = logging.getLogger(__name__)


class Refused(ServiceError):
    """A refused caller.

    Attributes
    ----------
    caller
        Its name, if the request had the secret of a key, or a session; else empty.
    """

    caller = ""


class Unauthorized(Refused):
    """The request has no valid key."""


class Forbidden(Refused):
    """The key does not allow the request."""


class TooManyRequests(Refused):
    """The key exceeds its rate, or the peer sent too many wrong keys.

    Parameters
    ----------
    message
        The reason.
    retry_seconds
        Seconds after which a request is taken again.
    """

    def __init__(self, message: str, retry_seconds: float) -> None:
        self.retry_seconds = max(1, ceil(retry_seconds))
        super().__init__(f"{message}: try again in {self.retry_seconds} s")


@dataclass(frozen=True, slots=True)
class Caller:
    """Identified caller: name in the audit and the request log, scopes, and whether a browser sent its credentials."""

    name: str
    scopes: frozenset[str]
    is_ambient: bool = False

    def require(self, scope: str) -> None:
        """Raise Forbidden if the caller lacks a scope."""
        if scope not in self.scopes:
            raise Forbidden(f"{self.name!r} lacks the scope {scope!r}; it has {', '.join(sorted(self.scopes))}")


class _Allowance:
    """Unused rate of all keys of a name: a new one does not renew it."""

    __slots__ = ("filled_at", "tokens")

    def __init__(self) -> None:
        self.tokens, self.filled_at = inf, 0.0

    def spend(self, key: ApiKey, at: float, metrics: ProcessMetrics) -> None:
        """Take one request off the rate, of which a second's worth can be saved up. Raises TooManyRequests."""
        rate = key.rate
        if rate is None:
            return
        self.tokens = min(max(rate, 1.0), self.tokens + (at - self.filled_at) * rate)
        self.filled_at = at
        if self.tokens < 1:
            metrics.count_shed("rate")
            reason = f"{key.name!r} may send {rate:g} requests per second"
            raise _of(key, TooManyRequests(reason, (1 - self.tokens) / rate))
        self.tokens -= 1


class _LiveKey:
    """Key with its state in this process: the addresses that used it, and the allowance of its name."""

    __slots__ = ("allowance", "caller", "digest", "hosts", "key", "visitor")

    def __init__(self, key: ApiKey, allowance: _Allowance) -> None:
        self.key, self.digest, self.allowance = key, bytes.fromhex(key.sha256), allowance
        self.caller = Caller(key.name, _expanded(key.scopes))
        self.visitor = Caller(key.name, _expanded(key.scopes), is_ambient=True)
        self.hosts: set[str] = set()


@dataclass(slots=True)
class _Failures:
    """Wrong keys of one peer until a time: their number, and that by the key whose id they have, if there is one."""

    end: float
    total: int = 0
    by_id: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Session:
    key_id: bytes
    began: float
    used: float


class Access:
    """Callers of the service; for one event loop. Times named ``at`` are seconds of one monotonic clock.

    The file is looked at once a second, when a request comes. A file that is damaged or removed meanwhile changes
    nothing: the keys read last stay in force, the log has the reason, and `slicewatch_keys_usable` is 0. Once there
    was a key, there is no access without one until the process ends.

    Parameters
    ----------
    file
        The keys.
    model
        Name of the model; keys for another one are refused.
    proxy
        Proxy whose header names the user; None for none.
    now
        Current time, UTC, by which keys expire.
    metrics
        Counts refused requests.
    is_closed
        Whether there is no access without a key even before the first one, as at a public address.

    Raises
    ------
    KeyFileError
        If the file cannot be read.
    """

    def __init__(
        self,
        file: KeyFile,
        model: str,
        proxy: TrustedProxy | None,
        now: Callable[[], datetime],
        metrics: ProcessMetrics,
        *,
        is_closed: bool = False,
    ) -> None:
        self._file, self._model, self._proxy, self._now, self._metrics = file, model, proxy, now, metrics
        self._is_proxy: dict[str, bool] = {}
        self._failures: dict[int, _Failures] = {}  # by peer
        self._sessions: dict[bytes, _Session] = {}
        self._nobody = _LiveKey(ApiKey("", "", secrets.token_hex(32), (), now()), _Allowance())
        self._keys: dict[bytes, _LiveKey] = {}
        self._is_on = is_closed or proxy is not None
        self._next_read, self._problem, self._stamp = 0.0, "", file.stamp()
        self._set(file.read())

    @property
    def has_keys(self) -> bool:
        """Whether callers have keys, as read last."""
        return bool(self._keys)

    def is_on(self, at: float) -> bool:
        """Return whether requests need a caller; notice changes of the file."""
        if at >= self._next_read:
            self.look(at)
        return self._is_on

    def look(self, at: float) -> str:
        """Notice changes of the file now, and return the reason why it cannot be read; empty if it can."""
        self._next_read = at + READ_SECONDS
        if (stamp := self._file.stamp()) != self._stamp or self._problem:
            self._reread(stamp)
        return self._problem

    def caller(
        self, headers: Mapping[bytes, bytes], all_headers: Sequence[tuple[bytes, bytes]], host: str, at: float
    ) -> Caller:
        """Return the caller of a request.

        Parameters
        ----------
        headers, all_headers
            Its headers by name in lower case, and in order.
        host
            Address of the other side of the connection.
        at
            Time of the request.

        Raises
        ------
        Unauthorized, TooManyRequests
            If it has no valid key, or too many requests were sent.
        """
        given = headers.get(b"authorization", b"")
        has_token = given[:7].lower() == b"bearer "
        token = given[7:].strip() if has_token else b""
        if not token.startswith(b"sw_"):
            if self._proxy is not None and (user := self._user(self._proxy, all_headers, host)):
                return Caller(user, _expanded(self._proxy.scopes), is_ambient=True)
            if not has_token:  # another scheme is for a proxy, which passes the header on
                return self._visitor(headers, at)
        known = self._verify(token, host, at)
        known.allowance.spend(known.key, at, self._metrics)
        return known.caller

    def may_read(
        self, headers: Mapping[bytes, bytes], all_headers: Sequence[tuple[bytes, bytes]], host: str, at: float
    ) -> bool:
        """Return whether the caller of an open route may see details: it has the scope ``read``, or needs none.

        Arguments are those of `caller`. A request without credentials is not counted as refused.
        """
        if not self._is_on:
            return True
        names_user = self._proxy is not None and bool(self._user(self._proxy, all_headers, host))
        if not names_user and not headers.keys() & {b"authorization", b"cookie"}:
            return False
        try:
            return "read" in self.caller(headers, all_headers, host, at).scopes
        except Refused:
            return False

    def sign_in(self, token: str, host: str, at: float) -> str:
        """Return the id of a new session of the console for a key with the scope ``read``.

        Raises
        ------
        Unauthorized, Forbidden, TooManyRequests
            If the key is not valid, lacks the scope, or exceeds its rate.
        """
        known = self._verify(token.strip().encode("utf-8", "replace"), host, at)
        known.allowance.spend(known.key, at, self._metrics)
        known.caller.require("read")
        for id_ in [id_ for id_, session in self._sessions.items() if _is_over(session, at)]:
            del self._sessions[id_]
        key_id = known.key.id.encode()
        if len(self._sessions) >= MAX_SESSIONS:  # a key ends its own sessions first
            own = [id_ for id_, session in self._sessions.items() if session.key_id == key_id]
            del self._sessions[min(own or self._sessions, key=lambda id_: self._sessions[id_].used)]
        cookie = secrets.token_urlsafe(32)
        self._sessions[sha256(cookie.encode()).digest()] = _Session(key_id, at, at)
        return cookie

    def sign_out(self, headers: Mapping[bytes, bytes]) -> None:
        """End the session of a request, if it has one."""
        self._sessions.pop(_session_id(headers), None)

    def _visitor(self, headers: Mapping[bytes, bytes], at: float) -> Caller:
        id_ = _session_id(headers)
        session = self._sessions.get(id_)
        if session is None:
            self._metrics.count_unauthorized("missing")
            raise Unauthorized(f"the request has no key: {_ADVICE}")
        known = self._keys.get(session.key_id)
        if _is_over(session, at) or known is None or known.key.state(self._now()) != "active":
            del self._sessions[id_]
            self._metrics.count_unauthorized("missing")
            error = Unauthorized("the session is over: sign in again")
            raise error if known is None else _of(known.key, error)
        known.allowance.spend(known.key, at, self._metrics)
        session.used = at
        return known.visitor

    def _verify(self, token: bytes, host: str, at: float) -> _LiveKey:
        """Return the key with a secret, after the same work for any secret of any length."""
        known = self._keys.get(token[3:11], self._nobody)
        digest = sha256(token if len(token) == TOKEN_CHARS else _NO_KEY).digest()
        is_known = compare_digest(digest, known.digest) and known is not self._nobody
        key = known.key
        if not is_known or key.revoked is not None or (key.expires is not None and key.expires <= self._now()):
            self._count_failure(peer_of(host), key.id, at)
            reason = f"the key of {key.name!r} is {key.state(self._now())}" if is_known else "the key is unknown"
            error = Unauthorized(f"{reason}: {_ADVICE}")
            raise _of(key, error) if is_known else error
        if host not in known.hosts:
            failures = self._failures.get(peer_of(host))
            if failures is not None and failures.by_id[key.id] >= FAILURES_A_MINUTE and at < failures.end:
                self._refuse(failures, at, key)
            if len(known.hosts) < MAX_HOSTS:
                known.hosts.add(host)
        if key.model not in (None, self._model):
            reason = f"the key of {key.name!r} is for the model {key.model!r}; this service has {self._model!r}"
            raise _of(key, Forbidden(reason))
        return known

    def _count_failure(self, peer: int, id_: str, at: float) -> None:
        """Count a wrong key. Raises TooManyRequests if its peer sent too many."""
        failures = self._failures.pop(peer, None)
        if failures is None or at >= failures.end:
            failures = _Failures(at + 60.0)
        if len(self._failures) >= MAX_PEERS:
            del self._failures[next(iter(self._failures))]
        self._failures[peer] = failures
        failures.total += 1
        failures.by_id[id_] += 1
        if failures.total > FAILURES_A_MINUTE:
            self._refuse(failures, at)
        self._metrics.count_unauthorized("wrong")

    def _refuse(self, failures: _Failures, at: float, key: ApiKey | None = None) -> NoReturn:
        self._metrics.count_unauthorized("limited")
        error = TooManyRequests("too many wrong keys from this address", failures.end - at)
        raise error if key is None else _of(key, error)

    def _user(self, proxy: TrustedProxy, headers: Sequence[tuple[bytes, bytes]], host: str) -> str:
        """Return the user that the proxy names, as ``proxy:NAME``; empty if there is none, or another client did."""
        if host not in self._is_proxy:
            if len(self._is_proxy) >= MAX_PEERS:
                self._is_proxy.clear()
            self._is_proxy[host] = _is_within(host, proxy)
        if not self._is_proxy[host]:
            return ""
        users = [value for name, value in headers if name == proxy.header.encode()]
        user = users[0].decode("utf-8", "replace").strip() if len(users) == 1 else ""
        return f"proxy:{user}" if user.isprintable() and 0 < len(user) <= 90 else ""

    def _reread(self, stamp: tuple[int, ...] | None) -> None:
        problem = ""
        try:
            keys = self._file.read()
        except KeyFileError as error:
            problem, keys = str(error), ()
        if stamp is None and self._is_on and not problem:
            problem = f"{self._file.path} is missing"
        if problem:
            if problem != self._problem:
                _log.error("the keys read before stay in force: %s", problem)
        else:
            self._set(keys)
            self._failures.clear()  # a client may have tried a new key before it was read here
            _log.info("keys read again: %d", len(keys))
            self._stamp = stamp
        self._problem = problem
        self._metrics.show_keys(not problem)

    def _set(self, keys: Sequence[ApiKey]) -> None:
        before = {known.key: known for known in self._keys.values()}
        allowances = {known.key.name: known.allowance for known in before.values()}
        for key in keys:
            allowances.setdefault(key.name, _Allowance())
        self._keys = {key.id.encode(): before.get(key) or _LiveKey(key, allowances[key.name]) for key in keys}
        self._is_on = self._is_on or bool(keys)
        if keys:
            self._file.remember()


def peer_of(host: str) -> int:
    """Return the peer of an address; all addresses of one IPv6 network of 64 bits are one peer.

    Examples
    --------
    >>> peer_of("127.0.0.1") == peer_of("::1") == LOOPBACK, peer_of("10.0.0.7") == peer_of("::ffff:10.0.0.7")
    (True, True)
    >>> peer_of("2001:db8::1") == peer_of("2001:db8::2")
    True
    """
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:  # a socket without addresses
        return LOOPBACK
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None:
            return LOOPBACK if address.is_loopback else int(address) >> 64
        address = address.ipv4_mapped
    return LOOPBACK if address.is_loopback else int(address)


def _of(key: ApiKey, error: Refused) -> Refused:
    """Return an error with the name of the key, which the request log has."""
    error.caller = key.name
    return error


def _is_within(host: str, proxy: TrustedProxy) -> bool:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return any((mapped or address) in network for network in proxy.networks)


def _is_over(session: _Session, at: float) -> bool:
    return at - session.began > SESSION_SECONDS or at - session.used > IDLE_SECONDS


def _session_id(headers: Mapping[bytes, bytes]) -> bytes:
    """Return the hash of the session cookie, by which sessions are kept."""
    for part in headers.get(b"cookie", b"").split(b";"):
        name, _, value = part.strip().partition(b"=")
        if name == COOKIE.encode():
            return sha256(value).digest()
    return b""


def _expanded(scopes: Sequence[str]) -> frozenset[str]:
    return frozenset(SCOPES if "admin" in scopes else scopes)
