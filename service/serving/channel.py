"""Messages between the service and the processes of its functions: a JSON header and bytes, never a pickle."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
from math import ceil
from time import monotonic
from typing import Any

from service.serving.breaker import Seconds

_LENGTHS = struct.Struct("<II")
_CHUNK_BYTES = 1 << 16  # more would be mapped and unmapped by each call
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class ConnectionClosed(Exception):
    """The process at the other end is gone, or says what cannot be read."""


def pack_frame(header: Any, body: bytes = b"") -> bytes:
    """Return a message as it goes over the wire: both lengths, the header as JSON if any, the body as it is."""
    text = b"" if header is None else _to_json(header).encode()
    return b"".join((_LENGTHS.pack(len(text), len(body)), text, body))


class Channel:
    """One end of a pair of stream sockets.

    With a bell, an eventfd, messages wait unheard until it rings: to wake the other process for each of many
    short ones would take longer than to make them.

    Parameters
    ----------
    sock
        Becomes the channel's own, and non-blocking.
    hears
        A bell to wait for instead of for messages.
    rings
        A bell for the other end, to be rung after sending; it rings by itself when no more can be sent.

    Examples
    --------
    >>> one, other = map(Channel, socket.socketpair())
    >>> one.send({"rows": 2}, b"01")
    >>> other.receive()
    ({'rows': 2}, b'01')
    >>> one.close(), other.close()
    (None, None)
    """

    def __init__(self, sock: socket.socket, *, hears: int | None = None, rings: int | None = None) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._hears, self._rings = hears, rings
        self._buffer = bytearray()
        self._drained = True
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(sock, select.POLLIN if hears is None else 0)  # hanging up is always noticed
        self._writable.register(sock, select.POLLOUT)
        if hears is not None:
            self._readable.register(hears, select.POLLIN)

    def send(self, header: Any, body: bytes = b"", *, until: Seconds | None = None) -> None:
        """Send a message, waiting for room no longer than until then (monotonic); None for as long as it takes.

        Raises
        ------
        TimeoutError
            If the time was up; part of the message may be on its way.
        HungUp
            If nobody will read it.
        """
        rest = memoryview(pack_frame(header, body))
        while rest:
            try:
                rest = rest[self.sock.send(rest) :]
            except BlockingIOError:
                self.ring()
                if not self._writable.poll(_left_ms(until)):
                    raise TimeoutError from None
            except OSError as error:
                raise ConnectionClosed(str(error)) from None

    def ring(self) -> None:
        """Let the other end look at what was sent."""
        if self._rings is not None:
            os.eventfd_write(self._rings, 1)

    def receive(self, until: Seconds | None = None) -> tuple[Any, bytes]:
        """Return the next message; what is there already is returned even when the time is up.

        Raises
        ------
        TimeoutError
            If the time was up.
        HungUp
            If there will be none.
        """
        while (message := self._next()) is None:
            in_time = not self._drained or self.wait(until)
            taken = self._take()
            self._drained = taken < _CHUNK_BYTES  # a bell rings once for all that there is
            if not (in_time or taken):
                raise TimeoutError
        return message

    def wait(self, until: Seconds | None = None) -> bool:
        """Wait until there is reason to look for a message, and tell whether there was in time."""
        ready = self._readable.poll(_left_ms(until))
        for descriptor, event in ready:
            if descriptor == self._hears and event & select.POLLIN:
                os.eventfd_read(descriptor)
        return bool(ready)

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def _take(self) -> int:
        """Take in what there is, up to a chunk, and return its length."""
        try:
            data = self.sock.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ConnectionClosed(str(error)) from None
        if not data:
            raise ConnectionClosed("it has ended")
        self._buffer += data
        return len(data)

    def _next(self) -> tuple[Any, bytes] | None:
        buffer = self._buffer
        if len(buffer) < _LENGTHS.size:
            return None
        header_bytes, body_bytes = _LENGTHS.unpack_from(buffer)
        start, end = _LENGTHS.size + header_bytes, _LENGTHS.size + header_bytes + body_bytes
        if len(buffer) < end:
            return None
        text, body = buffer[_LENGTHS.size : start], bytes(buffer[start:end])
        del buffer[:end]
        try:
            return json.loads(text.decode()) if text else None, body
        except (ValueError, RecursionError) as error:
            raise ConnectionClosed(f"it sent no message: {error}") from None


def _left_ms(until: Seconds | None) -> int | None:
    return None if until is None else max(0, ceil(1000 * (until - monotonic())))
