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

from service.serving.channel import Channel, ConnectionClosed, pack_frame

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Channel]]:
    """A bare socket, and a channel at its other end."""
    one, other = socket.socketpair()
    with one, other:
        yield one, Channel(other)


@given(st.lists(st.tuples(JSON, st.binary(max_size=50)), max_size=5), st.integers(1, 40))
def test_messages_arrive_as_they_were_sent_however_they_are_cut(
    messages: list[tuple[Any, bytes]], cut: int
) -> None:
    """In order, header and body, if they come in pieces and if several come at once."""
    stream = b"".join(pack_frame(*message) for message in messages)
    one, other = socket.socketpair()
    with one, other:
        channel, found = Channel(other), []
        for start in range(0, len(stream), cut):
            one.sendall(stream[start : start + cut])
            try:
                while True:
                    found.append(channel.receive(until=0.0))
            except TimeoutError:
                continue
    assert found == messages


@pytest.mark.parametrize("with_bell", [False, True])
def test_a_message_larger_than_any_buffer_arrives(with_bell: bool) -> None:
    """Who sends waits for room; with a bell, the other end is told to make some."""
    one, other = socket.socketpair()
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    sender = Channel(one, rings=bell if with_bell else None)
    receiver = Channel(other, hears=bell if with_bell else None)
    body = os.urandom(1 << 22)
    thread = threading.Thread(target=lambda: (sender.send("large", body), sender.ring()))
    thread.start()
    assert receiver.receive(monotonic() + 60) == ("large", body)
    thread.join()
    sender.close()
    receiver.close()
    os.close(bell)


def test_waiting_ends_in_time(ends: tuple[socket.socket, Channel]) -> None:
    """For a message, and for room to send one."""
    _, channel = ends
    with pytest.raises(TimeoutError):
        channel.receive(monotonic() + 0.01)
    with pytest.raises(TimeoutError):
        channel.send("large", bytes(1 << 24), until=monotonic() + 0.01)


def test_what_has_come_is_returned_though_the_time_is_up(ends: tuple[socket.socket, Channel]) -> None:
    """A pause of who receives is not the fault of who sent; nor does it matter that no bell rang."""
    one, other = socket.socketpair()
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    with one, other:
        one.sendall(pack_frame("early"))
        assert Channel(other, hears=bell).receive(until=0.0) == ("early", b"")
    os.close(bell)


def test_a_bell_that_rang_for_nothing_is_no_message() -> None:
    """Waiting goes on until the time is up."""
    one, other = socket.socketpair()
    bell = os.eventfd(3, os.EFD_NONBLOCK)
    with one, other, pytest.raises(TimeoutError):
        Channel(other, hears=bell).receive(monotonic() + 0.01)
    os.close(bell)


@pytest.mark.parametrize("with_bell", [False, True])
def test_hanging_up_is_noticed(with_bell: bool) -> None:
    """After what was sent before it, and also by who waits for a bell."""
    one, other = socket.socketpair()
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    one.sendall(pack_frame("last"))
    one.close()
    channel = Channel(other, hears=bell if with_bell else None)
    assert channel.receive() == ("last", b"")
    with pytest.raises(ConnectionClosed):
        channel.receive()
    with pytest.raises(ConnectionClosed):
        channel.send("nobody")
    channel.close()
    os.close(bell)


def test_what_is_no_message_counts_as_hanging_up(ends: tuple[socket.socket, Channel]) -> None:
    """Nothing after it can be believed."""
    one, channel = ends
    one.sendall(pack_frame("x").replace(b'"x"', b"{x}"))
    with pytest.raises(ConnectionClosed, match="no message"):
        channel.receive()
