"""Who is let in."""

import pytest

from service.settings.address import address_problem
from service.settings.sections import ServeSettings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_this_machine_alone_is_let_in(host: str) -> None:
    """Addresses of the machine itself need nothing further."""
    assert address_problem(ServeSettings(host=host)) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "::", "shop.example"])  # noqa: S104
def test_others_are_let_in_only_when_asked(host: str) -> None:
    """An address that others reach is a problem that says what to do, unless the settings insist."""
    assert "set serve.insecure to true" in address_problem(ServeSettings(host=host))
    assert address_problem(ServeSettings(host=host, insecure=True)) is None
