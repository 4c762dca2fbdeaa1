"""Messages over a pair of sockets."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.serving.channel import Channel, ConnectionClosed, ProtocolError, pack_message

LONG = pack_message(None, bytes(1 << 20))
JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Channel]]:
    """A socket, and a channel at its other end."""
    one, other = socket.socketpair()
    with one, other:
        yield one, Channel(other)


@given(st.lists(st.tuples(JSON, st.binary(max_size=50)), max_size=5), st.integers(1, 40))
def test_messages_arrive_unchanged_however_they_are_cut(messages: list[tuple[Any, bytes]], cut: int) -> None:
    """In order, in pieces or several at once."""
    stream = b"".join(pack_message(*message) for message in messages)
    one, other = socket.socketpair()
    with one, other:
        channel, received = Channel(other), []
        for start in range(0, len(stream), cut):
            one.sendall(stream[start : start + cut])
            try:
                while True:
                    received.append(channel.receive(deadline=0.0))
            except TimeoutError:
                continue
    assert received == messages


def test_a_message_larger_than_any_buffer_arrives(ends: tuple[socket.socket, Channel]) -> None:
    """The sender waits for room."""
    one, receiver = ends
    body = os.urandom(1 << 22)
    thread = threading.Thread(target=lambda: Channel(one).send("large", body))
    thread.start()
    assert receiver.receive(monotonic() + 60) == ("large", body)
    thread.join()


def test_waiting_ends_at_the_deadline(ends: tuple[socket.socket, Channel]) -> None:
    """For a message, and for room to send one."""
    _, channel = ends
    with pytest.raises(TimeoutError):
        channel.receive(monotonic() + 0.01)
    with pytest.raises(TimeoutError):
        channel.send("large", bytes(1 << 24), deadline=monotonic() + 0.01)


class Trickle(socket.socket):
    """A socket at which one more byte has always arrived, up to 100,000."""

    received = 0

    def recvmsg(self, *_: Any) -> Any:
        self.received += 1
        return LONG[self.received - 1 : min(self.received, 100_000)], [], 0, None


def test_waiting_ends_though_pieces_arrive() -> None:
    """A message byte by byte has no more time than another one."""
    one, other = socket.socketpair()
    with one, Trickle(fileno=other.detach()) as trickle:
        one.send(b" ")
        with pytest.raises(TimeoutError):
            Channel(trickle).receive(monotonic() + 0.01)


def test_a_message_that_has_arrived_is_returned_after_the_deadline(ends: tuple[socket.socket, Channel]) -> None:
    """A pause of the receiver is not the fault of the sender."""
    one, channel = ends
    one.sendall(pack_message("early"))
    assert channel.receive(deadline=0.0) == ("early", b"")


def test_a_closed_socket_is_noticed(ends: tuple[socket.socket, Channel]) -> None:
    """After the messages sent before."""
    one, channel = ends
    one.sendall(pack_message("last"))
    assert not channel.is_closed
    one.close()
    assert channel.receive() == ("last", b"")
    assert channel.is_closed
    with pytest.raises(ConnectionClosed):
        channel.receive()
    with pytest.raises(ConnectionClosed):
        channel.send("lost")


def test_an_invalid_message_breaks_the_protocol(ends: tuple[socket.socket, Channel]) -> None:
    """Nothing after it can be used."""
    one, channel = ends
    one.sendall(pack_message("x").replace(b'"x"', b"{x}"))
    with pytest.raises(ProtocolError, match="invalid message"):
        channel.receive()


def test_a_message_of_an_unexpected_size_is_not_waited_for() -> None:
    """Its length is refused before its bytes arrive."""
    one, other = socket.socketpair()
    with one, other:
        one.sendall(pack_message("x", bytes(100))[:8])
        with pytest.raises(ProtocolError, match="111 bytes; at most 100"):
            Channel(other, max_bytes=100).receive()


def test_bytes_after_a_message_are_known(ends: tuple[socket.socket, Channel]) -> None:
    """More may have been sent than was asked for."""
    one, channel = ends
    one.sendall(pack_message("x") + b"more")
    assert channel.receive() == ("x", b"")
    assert channel.has_rest


def test_bytes_of_another_process_break_the_protocol() -> None:
    """The kernel names the sender, though a child has the same socket."""
    one, other = socket.socketpair()
    channel = Channel(other, one_sender=True)
    one.sendall(pack_message("mine"))
    assert channel.receive() == ("mine", b"")
    code = f"import socket; socket.socket(fileno={one.fileno()}).sendall({pack_message('forged')!r})"
    subprocess.run([sys.executable, "-c", code], pass_fds=[one.fileno()], check=True)
    with pytest.raises(ProtocolError, match=f"in place of process {os.getpid()}"):
        channel.receive()
    one.close()
    channel.close()


def test_a_file_may_come_with_a_message(ends: tuple[socket.socket, Channel]) -> None:
    """A channel for one sender takes none: each would stay open in the receiver."""
    one, channel = ends
    Channel(one).send_packed(pack_message("x"), 0)
    assert channel.receive() == ("x", b"")
    assert channel.descriptor is not None
    os.close(channel.descriptor)
    strict = Channel(channel.sock, one_sender=True)
    Channel(one).send_packed(pack_message("x"), 0)
    assert strict.receive() == ("x", b"")
    assert strict.descriptor is None
