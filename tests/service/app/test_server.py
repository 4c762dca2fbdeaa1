"""Where the service listens."""

import socket

import pytest

from service.app.server import address, check_address, listening
from service.errors import MisuseError, ServiceError
from service.settings.sections import ServeSettings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_this_machine_alone_is_let_in(host: str) -> None:
    """Addresses of the machine itself need nothing further."""
    check_address(ServeSettings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "::", "shop.example"])  # noqa: S104
def test_others_are_let_in_only_when_asked(host: str) -> None:
    """An address that others reach is refused with what to do, unless the settings insist."""
    with pytest.raises(MisuseError, match=r"set serve\.insecure to true"):
        check_address(ServeSettings(host=host))
    check_address(ServeSettings(host=host, insecure=True))


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
