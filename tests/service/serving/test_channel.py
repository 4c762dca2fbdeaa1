"""Messages over a pair of sockets."""

import os
import socket
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.serving.channel import Channel, ConnectionClosed, pack_message

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


@pytest.mark.parametrize("with_eventfd", [False, True])
def test_a_message_larger_than_any_buffer_arrives(with_eventfd: bool) -> None:
    """The sender waits for room; with an eventfd, it notifies the receiver."""
    one, other = socket.socketpair()
    eventfd = os.eventfd(0, os.EFD_NONBLOCK)
    sender = Channel(one, notify_eventfd=eventfd if with_eventfd else None)
    receiver = Channel(other, wait_eventfd=eventfd if with_eventfd else None)
    body = os.urandom(1 << 22)
    thread = threading.Thread(target=lambda: (sender.send("large", body), sender.notify()))
    thread.start()
    assert receiver.receive(monotonic() + 60) == ("large", body)
    thread.join()
    sender.close()
    receiver.close()
    os.close(eventfd)


def test_waiting_ends_at_the_deadline(ends: tuple[socket.socket, Channel]) -> None:
    """For a message, and for room to send one."""
    _, channel = ends
    with pytest.raises(TimeoutError):
        channel.receive(monotonic() + 0.01)
    with pytest.raises(TimeoutError):
        channel.send("large", bytes(1 << 24), deadline=monotonic() + 0.01)


def test_a_message_that_has_arrived_is_returned_after_the_deadline(
    ends: tuple[socket.socket, Channel],
) -> None:
    """A pause of the receiver is not the fault of the sender; also without a notification."""
    one, other = socket.socketpair()
    eventfd = os.eventfd(0, os.EFD_NONBLOCK)
    with one, other:
        one.sendall(pack_message("early"))
        assert Channel(other, wait_eventfd=eventfd).receive(deadline=0.0) == ("early", b"")
    os.close(eventfd)


def test_a_notification_without_a_message_is_ignored() -> None:
    """Waiting continues until the deadline."""
    one, other = socket.socketpair()
    eventfd = os.eventfd(3, os.EFD_NONBLOCK)
    with one, other, pytest.raises(TimeoutError):
        Channel(other, wait_eventfd=eventfd).receive(monotonic() + 0.01)
    os.close(eventfd)


@pytest.mark.parametrize("with_eventfd", [False, True])
def test_a_closed_socket_is_noticed(with_eventfd: bool) -> None:
    """After the messages sent before, and also by a receiver that waits for an eventfd."""
    one, other = socket.socketpair()
    eventfd = os.eventfd(0, os.EFD_NONBLOCK)
    one.sendall(pack_message("last"))
    one.close()
    channel = Channel(other, wait_eventfd=eventfd if with_eventfd else None)
    assert channel.receive() == ("last", b"")
    with pytest.raises(ConnectionClosed):
        channel.receive()
    with pytest.raises(ConnectionClosed):
        channel.send("lost")
    channel.close()
    os.close(eventfd)


def test_an_invalid_message_counts_as_a_closed_connection(ends: tuple[socket.socket, Channel]) -> None:
    """Nothing after it can be used."""
    one, channel = ends
    one.sendall(pack_message("x").replace(b'"x"', b"{x}"))
    with pytest.raises(ConnectionClosed, match="invalid message"):
        channel.receive()
