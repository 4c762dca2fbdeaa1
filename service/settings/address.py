"""Who is let in by the address that the service listens on."""

from __future__ import annotations

import ipaddress

from service.settings.sections import ServeSettings


def address_problem(serve: ServeSettings) -> str | None:
    """Return why the service must not listen where the settings say, or None where it may.

    Examples
    --------
    >>> address_problem(ServeSettings()), address_problem(ServeSettings(host="10.0.0.5", insecure=True))
    (None, None)
    """
    if serve.insecure or _is_loopback(serve.host):
        return None
    return (
        f"serve.host {serve.host!r} lets other machines in, and there are no keys yet: put a proxy that checks "
        "who asks in front of 127.0.0.1, or set serve.insecure to true"
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
