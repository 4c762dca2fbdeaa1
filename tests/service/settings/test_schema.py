"""Schema of the settings: addresses that the service may listen on."""

import pytest

from service.settings.schema import ServeSettings, address_problem


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_addresses_are_allowed(host: str) -> None:
    """A loopback address needs no further setting."""
    assert address_problem(ServeSettings(host=host)) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "::", "shop.example"])  # noqa: S104
def test_open_addresses_need_the_insecure_setting(host: str) -> None:
    """An address that other machines reach is a problem with advice, unless serve.insecure is set."""
    assert "set serve.insecure to true" in address_problem(ServeSettings(host=host))
    assert address_problem(ServeSettings(host=host, insecure=True)) is None
