"""The address of the server."""

import socket

import pytest

from service.errors import ServiceError
from service.handover import listen
from service.server import address
from service.settings.schema import ServeSettings


def test_a_taken_port_is_named() -> None:
    """The error names the port in use and the option to change."""
    with listen(ServeSettings(port=0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(ServiceError, match=rf"cannot listen on 127.0.0.1 port {port}: .*--port"):
            listen(ServeSettings(port=port))


def test_an_ipv6_address_has_brackets() -> None:
    """The URL of an IPv6 address has brackets around the host."""
    if not socket.has_dualstack_ipv6():
        pytest.fail("this machine has no IPv6 to listen on")
    with listen(ServeSettings(host="::1", port=0)) as listener:
        assert address(listener).startswith("http://[::1]:")
