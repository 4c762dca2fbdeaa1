"""Where the service listens."""

import socket

import pytest

from service.errors import ServiceError
from service.runtime.server import address, listening
from service.settings.schema import ServeSettings


def test_a_taken_port_is_named() -> None:
    """A port that another process listens on is refused with the setting to change."""
    with listening(ServeSettings(port=0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(ServiceError, match=rf"cannot listen on 127.0.0.1 port {port}: .*--port"):
            listening(ServeSettings(port=port))


def test_an_address_of_six_parts_is_bracketed() -> None:
    """The URL of an IPv6 address has brackets."""
    if not socket.has_dualstack_ipv6():
        pytest.fail("this machine has no IPv6 to listen on")
    with listening(ServeSettings(host="::1", port=0)) as listener:
        assert address(listener).startswith("http://[::1]:")
