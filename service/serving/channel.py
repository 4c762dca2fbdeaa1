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

_LENGTHS = struct.Struct("<II")
_CHUNK_BYTES = 1 << 16  # each call would map and unmap a larger buffer
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class ConnectionClosed(Exception):
    """The peer process has ended, or sent an invalid message."""


def pack_message(header: Any, body: bytes = b"") -> bytes:
    """Return a message as sent: both lengths, the header as JSON (nothing for None), the body unchanged."""
    text = b"" if header is None else _to_json(header).encode()
    return b"".join((_LENGTHS.pack(len(text), len(body)), text, body))


class Channel:
    """One end of a pair of stream sockets.

    With an eventfd, the receiver sleeps until the sender notifies it: waking the other process for each of
    many short messages would take longer than making them.

    Parameters
    ----------
    sock
        The socket; owned by the channel, and made non-blocking.
    wait_eventfd
        Eventfd to wait for instead of the socket.
    notify_eventfd
        Eventfd of the other end, set by `notify`, and by `send` when the socket is full.

    Examples
    --------
    >>> left, right = map(Channel, socket.socketpair())
    >>> left.send({"rows": 2}, b"01")
    >>> right.receive()
    ({'rows': 2}, b'01')
    >>> left.close(), right.close()
    (None, None)
    """

    def __init__(
        self, sock: socket.socket, *, wait_eventfd: int | None = None, notify_eventfd: int | None = None
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._wait_eventfd, self._notify_eventfd = wait_eventfd, notify_eventfd
        self._buffer = bytearray()
        self._drained = True
        self._readable, self._writable = select.poll(), select.poll()
        self._writable.register(sock, select.POLLOUT)
        if wait_eventfd is None:
            self._readable.register(sock, select.POLLIN)
        else:
            self._readable.register(sock, 0)  # still reports a hang-up
            self._readable.register(wait_eventfd, select.POLLIN)

    def send(self, header: Any, body: bytes = b"", *, deadline: float | None = None) -> None:
        """Send a message, waiting for room until the deadline (monotonic seconds; None for no limit).

        Raises
        ------
        TimeoutError
            If the deadline has passed; part of the message may be sent.
        ConnectionClosed
            If the other end is closed.
        """
        rest = memoryview(pack_message(header, body))
        while rest:
            try:
                rest = rest[self.sock.send(rest) :]
            except BlockingIOError:
                self.notify()
                if not self._writable.poll(_timeout_ms(deadline)):
                    raise TimeoutError from None
            except OSError as error:
                raise ConnectionClosed(str(error)) from None

    def notify(self) -> None:
        """Wake the other end to receive messages."""
        if self._notify_eventfd is not None:
            os.eventfd_write(self._notify_eventfd, 1)

    def receive(self, deadline: float | None = None) -> tuple[Any, bytes]:
        """Return the next message; one that has already arrived is returned even after the deadline.

        Raises
        ------
        TimeoutError
            If the deadline has passed.
        ConnectionClosed
            If the other end is closed, or the message is invalid.
        """
        while (message := self._parse()) is None:
            ready = not self._drained or self.wait(deadline)
            try:
                data = self.sock.recv(_CHUNK_BYTES)
            except BlockingIOError:
                self._drained = True
                if not ready:
                    raise TimeoutError from None
                continue
            except OSError as error:
                raise ConnectionClosed(str(error)) from None
            if not data:
                raise ConnectionClosed("the process has ended")
            self._buffer += data
            self._drained = len(data) < _CHUNK_BYTES  # one eventfd signal covers all messages sent
        return message

    def wait(self, deadline: float | None = None) -> bool:
        """Wait until something may have arrived, and return whether it did before the deadline."""
        ready = self._readable.poll(_timeout_ms(deadline))
        for descriptor, event in ready:
            if descriptor == self._wait_eventfd and event & select.POLLIN:
                os.eventfd_read(descriptor)
        return bool(ready)

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def _parse(self) -> tuple[Any, bytes] | None:
        """Take the first message from the buffer; None if it is incomplete."""
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
            raise ConnectionClosed(f"invalid message: {error}") from None


def _timeout_ms(deadline: float | None) -> int | None:
    return None if deadline is None else max(0, ceil(1000 * (deadline - monotonic())))
