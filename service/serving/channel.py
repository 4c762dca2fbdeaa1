"""Messages between the service and the processes of its functions: a JSON header and bytes, never a pickle."""

from __future__ import annotations

import json
import select
import socket
import struct
from math import ceil
from time import monotonic
from typing import Any

_LENGTHS = struct.Struct("<II")
_CHUNK_BYTES = 1 << 16  # each call would map and unmap a larger buffer
_CREDENTIALS = struct.Struct("iII")  # process, user and group of the sender, as the kernel reports them
_DESCRIPTOR = struct.Struct("i")
_to_json = json.JSONEncoder(separators=(",", ":")).encode


class ConnectionClosed(Exception):
    """The peer process has ended."""


class ProtocolError(ConnectionClosed):
    """The peer process broke the protocol: nothing that it sends can be used."""


def pack_message(header: Any, body: bytes = b"") -> bytes:
    """Return a message as sent: both lengths, the header as JSON (nothing for None), the body unchanged."""
    return pack_encoded(b"" if header is None else _to_json(header).encode(), body)


def pack_encoded(text: bytes, body: bytes) -> bytes:
    """Return a message as sent, with a header that is JSON already."""
    return b"".join((_LENGTHS.pack(len(text), len(body)), text, body))


class Channel:
    """One end of a pair of stream sockets.

    Parameters
    ----------
    sock
        The socket; owned by the channel, and made non-blocking.
    max_bytes
        Maximum size of a message that is received; None for no limit.
    one_sender
        Whether all bytes have to come from the process that sent the first ones, ``peer``: its children have the
        same socket. Without it, a file descriptor may come with a message, ``descriptor``.

    Examples
    --------
    >>> left, right = map(Channel, socket.socketpair())
    >>> left.send({"rows": 2}, b"01")
    >>> right.receive()
    ({'rows': 2}, b'01')
    >>> left.close(), right.close()
    (None, None)
    """

    def __init__(self, sock: socket.socket, *, max_bytes: int | None = None, one_sender: bool = False) -> None:
        sock.setblocking(False)
        if one_sender:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.sock = sock
        self.peer: int | None = None
        self.descriptor: int | None = None
        self.max_bytes = max_bytes
        self._one_sender = one_sender
        # without room for a descriptor, the kernel drops those that are sent
        self._ancillary_bytes = socket.CMSG_SPACE((_CREDENTIALS if one_sender else _DESCRIPTOR).size)
        self._sender = b""  # credentials with the last bytes
        self._buffer: bytes | bytearray = b""  # usually one message, which is not copied
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(sock, select.POLLIN)
        self._writable.register(sock, select.POLLOUT)

    def send(self, header: Any, body: bytes = b"", *, deadline: float | None = None) -> None:
        """Send a message, waiting for room until the deadline (monotonic seconds; None for no limit).

        Raises
        ------
        TimeoutError
            If the deadline has passed; part of the message may be sent.
        ConnectionClosed
            If the other end is closed.
        """
        self.send_packed(pack_message(header, body), deadline=deadline)

    def send_packed(self, message: bytes, descriptor: int | None = None, *, deadline: float | None = None) -> None:
        """Send a packed message, with a file descriptor if there is one; raises as `send`."""
        rest = memoryview(message)
        while rest:
            try:
                if descriptor is None:
                    rest = rest[self.sock.send(rest) :]
                else:
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(descriptor))
                    rest, descriptor = rest[self.sock.sendmsg([rest], [rights]) :], None
            except BlockingIOError:
                if not self._writable.poll(_timeout_ms(deadline)):
                    raise TimeoutError from None
            except OSError as error:
                raise ConnectionClosed(str(error)) from None

    def receive(self, deadline: float | None = None) -> tuple[Any, bytes]:
        """Return the next message; one that has already arrived is returned even after the deadline.

        Raises
        ------
        TimeoutError
            If the deadline has passed.
        ConnectionClosed
            If the other end is closed.
        ProtocolError
            If the message is invalid or too large, or comes from another process.
        """
        was_short = False
        while (message := self._parse()) is None:
            # all that had arrived was received: a message of many short pieces must not take for ever
            is_late = was_short and deadline is not None and monotonic() > deadline
            if is_late or not self._readable.poll(_timeout_ms(deadline)):
                raise TimeoutError
            try:
                data, ancillary, _, _ = self.sock.recvmsg(_CHUNK_BYTES, self._ancillary_bytes)
            except BlockingIOError:
                continue
            except OSError as error:
                raise ConnectionClosed(str(error)) from None
            if not data:
                raise ConnectionClosed("the process has ended")
            for _, kind, value in ancillary:
                if value != self._sender:  # else as before
                    self._read_ancillary(kind, value)
            self._append(data)
            was_short = len(data) < _CHUNK_BYTES
        return message

    def _read_ancillary(self, kind: int, value: bytes) -> None:
        if kind == socket.SCM_RIGHTS:
            [self.descriptor] = _DESCRIPTOR.unpack(value)
        elif self._one_sender:
            sender = _CREDENTIALS.unpack(value)[0]
            self.peer = self.peer or sender
            if sender != self.peer:
                raise ProtocolError(f"process {sender} answered in place of process {self.peer}")
            self._sender = value

    @property
    def has_rest(self) -> bool:
        """Whether more bytes have been received than those of the messages returned."""
        return bool(self._buffer)

    @property
    def is_closed(self) -> bool:
        """Whether the other end is closed."""
        return any(event & (select.POLLHUP | select.POLLERR) for _, event in self._readable.poll(0))

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()

    def _append(self, data: bytes) -> None:
        if not self._buffer:
            self._buffer = data
        elif isinstance(self._buffer, bytearray):
            self._buffer += data
        else:
            self._buffer = bytearray(self._buffer + data)

    def _parse(self) -> tuple[Any, bytes] | None:
        """Take the first message from the buffer; None if it is incomplete."""
        buffer = self._buffer
        if len(buffer) < _LENGTHS.size:
            return None
        header_bytes, body_bytes = _LENGTHS.unpack_from(buffer)
        start, end = _LENGTHS.size + header_bytes, _LENGTHS.size + header_bytes + body_bytes
        if self.max_bytes is not None and end > self.max_bytes:
            raise ProtocolError(f"message of {end} bytes; at most {self.max_bytes} are expected")
        if len(buffer) < end:
            return None
        text, body = buffer[_LENGTHS.size : start], bytes(buffer[start:end])
        self._buffer = buffer[end:]
        try:
            return json.loads(text.decode()) if text else None, body
        except (ValueError, RecursionError) as error:
            raise ProtocolError(f"invalid message: {error}") from None


def _timeout_ms(deadline: float | None) -> int | None:
    return None if deadline is None else max(0, ceil(1000 * (deadline - monotonic())))
