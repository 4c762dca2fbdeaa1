"""Schema of the settings: addresses that the service may listen on."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from service.errors import SettingsError
from service.settings.loading import with_options
from service.settings.schema import DriftSettings, ServeSettings, TrustedProxy, address_problem, trusted_proxy


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_addresses_are_allowed(host: str) -> None:
    """A loopback address needs no further setting."""
    assert address_problem(ServeSettings(host=host)) is None


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "::", "shop.example"])  # noqa: S104
def test_open_addresses_need_keys(host: str) -> None:
    """An address that other machines reach is a problem with advice, unless there are keys or a proxy."""
    assert "add one with `slicewatch keys add NAME" in address_problem(ServeSettings(host=host))
    assert address_problem(ServeSettings(host=host), has_keys=True) is None
    assert address_problem(ServeSettings(host=host, trust_proxy={"address": "10.0.0.7"})) is None


@pytest.mark.parametrize(("insecure", "without_keys"), [(True, False), (False, True)])
def test_an_open_address_without_keys_is_asked_for_twice(insecure: bool, without_keys: bool) -> None:
    """One of both settings is not enough; both are."""
    one = ServeSettings(host="10.1.2.3", insecure=insecure, without_keys=without_keys)
    assert "set both serve.insecure and serve.without_keys to true" in address_problem(one)
    assert address_problem(replace(one, insecure=True, without_keys=True)) is None


def test_a_trusted_proxy_has_addresses_a_header_and_scopes() -> None:
    """One address or a list of networks; the header is X-Forwarded-User, and the scope read, unless given."""
    assert trusted_proxy({"address": "10.0.0.7"}) == TrustedProxy(
        (ip_network("10.0.0.7"),), "x-forwarded-user", ("read",)
    )
    given = trusted_proxy({"address": ["10.0.0.0/24", "fd00::/64"], "header": "X-User", "scope": ["read", "write"]})
    assert given == TrustedProxy((ip_network("10.0.0.0/24"), ip_network("fd00::/64")), "x-user", ("read", "write"))


@pytest.mark.parametrize(
    "value",
    [
        "10.0.0.7", {}, [], {"header": "X-User"}, {"address": "10.0.0.7", "more": 1}, {"address": []},
        {"address": "proxy"}, {"address": "0.0.0.0/0"}, {"address": "::/0"}, {"address": "10.0.0.7/24"},
        {"address": "0.0.0.0/0.0.0.0"}, {"address": ["10.0.0.7", "::/00"]},
        {"address": "10.0.0.7", "scope": "god"},
        {"address": "10.0.0.7", "header": "a b"}, {"address": "10.0.0.7", "header": "Authorization"},
    ],
)  # fmt: skip
def test_another_proxy_is_refused(value: object) -> None:
    """A proxy that is every address, an unknown scope or key, and no header name."""
    with pytest.raises(ValueError, match=r"."):
        trusted_proxy(value)


def test_streams_of_drift_are_chosen_by_name() -> None:
    """One word is a list of one; another word is refused with the choices."""
    assert with_options(DriftSettings(), ["drift.streams=[no_slice, unknown]"]).streams == ("no_slice", "unknown")
    assert with_options(DriftSettings(), ["drift.streams=predicted"]).streams == ("predicted",)
    with pytest.raises(SettingsError, match="'unknwn' is not one of no_slice, unknown, predicted"):
        with_options(DriftSettings(), ["drift.streams=[unknwn]"])
