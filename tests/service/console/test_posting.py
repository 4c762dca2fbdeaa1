"""Forms are taken from our own pages alone."""

import pytest
from starlette.datastructures import Headers

from service.console.posting import NotOurs, refuse_others

HOST = {"host": "127.0.0.1:8000"}


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "same-origin", "origin": "null"},
        {"origin": "http://127.0.0.1:8000"},
        {"origin": "https://127.0.0.1:8000"},
        {"origin": "HTTP://127.0.0.1:8000"},
    ],
)
def test_ours_are_taken(headers):
    """A browser says that a page of this origin sent it; old ones say the origin, behind a proxy also as https."""
    refuse_others(Headers({**HOST, **headers}))


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1"},
        {"origin": "http://127.0.0.1:8001"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:8000.evil.example"},
        {"origin": "file://127.0.0.1:8000"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": ""},
        {"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:8000"},
    ],
)
def test_others_are_refused(headers):
    """Another site, another port, a file, or nobody who says where it comes from."""
    with pytest.raises(NotOurs, match="nothing was changed"):
        refuse_others(Headers({**HOST, **headers}))


def test_nothing_is_ours_without_a_host():
    """An empty origin is not the same as an empty host."""
    with pytest.raises(NotOurs):
        refuse_others(Headers({"origin": "http://"}))
