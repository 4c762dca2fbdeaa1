"""Only forms of the console itself are accepted."""

import pytest
from starlette.datastructures import Headers

from service.console.csrf import CrossSiteRequest, reject_cross_site

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
def test_forms_of_the_same_origin_are_accepted(headers):
    """Browsers send Sec-Fetch-Site; older ones send the origin, with https behind a proxy."""
    reject_cross_site(Headers({**HOST, **headers}))


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
def test_other_forms_are_rejected(headers):
    """Another site, another port, a file, or no stated origin."""
    with pytest.raises(CrossSiteRequest, match="not sent by a page of this service"):
        reject_cross_site(Headers({**HOST, **headers}))


def test_an_empty_host_matches_no_origin():
    """An empty origin does not match an empty host."""
    with pytest.raises(CrossSiteRequest):
        reject_cross_site(Headers({"origin": "http://"}))
