"""Sign-in of the console: the form, its cookie, the way back, and the way out."""

import re

import pytest
from page_factories import NOW

from service.api.access import SCOPES_BY_ROUTE
from service.console.pages.sign_in import local_path
from service.keys import KeyFile
from service.runtime.access import COOKIE

HERE = "http://localhost"
OWN = {"sec-fetch-site": "same-origin"}
HOPS = ({}, {"x-forwarded-proto": "https"}, {"x-forwarded-proto": "HTTPS, http"}, {"origin": "https://shop.example"})


class SignedIn:
    """A world with keys, and a browser that keeps its cookie."""

    def __init__(self, world, **scopes):
        self.world, self.cookie = world, None
        self.file = KeyFile(world.runtime.settings.keys_file)
        self.tokens = {name: self.file.add(name, given, NOW).token for name, given in scopes.items()}
        world.runtime.access.is_on(float("inf"))

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    def post(self, path, fields, **headers):
        return self.request("POST", path, data=fields, headers=OWN | headers)

    def request(self, method, path, headers, **more):
        sent = headers if self.cookie is None else headers | {"cookie": self.cookie}
        answer = self.world.request(method, path, headers=sent, **more)
        if (given := answer.headers.get("set-cookie")) is not None:
            self.cookie = given.partition(";")[0]
        return answer

    def sign_in(self, name="ada", next="/alarms", **headers):
        return self.post("/login", {"key": self.tokens[name], "next": next}, **headers)


@pytest.fixture
def signed(world):
    return SignedIn(world(rows=0, labels=0), ada=("read", "write"), bob=("read",), shop=("predict",))


def test_a_page_leads_to_the_form_and_back(signed):
    """Path and query survive."""
    answer = signed.get("/alarms?which=resolved")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Falarms%3Fwhich%3Dresolved")
    form = signed.get(answer.headers["location"])
    assert form.status_code == 200
    assert 'name="next" value="/alarms?which=resolved"' in form.text
    done = signed.sign_in(next="/alarms?which=resolved")
    assert (done.status_code, done.headers["location"]) == (303, "/alarms?which=resolved")
    assert signed.get("/alarms?which=resolved").status_code == 200


def test_a_name_in_the_path_survives_the_sign_in(signed):
    """Also one with a question mark, and beside the password of a proxy."""
    answer = signed.get("/slices/a%3Fb%25", authorization="Basic YTpi")
    assert answer.headers["location"] == "/login?next=%2Fslices%2Fa%253Fb%2525"
    form = signed.get(answer.headers["location"], authorization="Basic YTpi")
    assert 'name="next" value="/slices/a%3Fb%25"' in form.text
    assert signed.sign_in(next="/slices/a%3Fb%25").headers["location"] == "/slices/a%3Fb%25"


def test_the_cookie_is_out_of_reach(signed):
    """Not for scripts, not for forms of other sites, not without TLS behind https, and new at every sign-in."""
    given = [signed.sign_in(**headers).headers["set-cookie"] for headers in HOPS]
    values = [re.fullmatch(rf"{COOKIE}=([\w-]{{43}}); .*", each)[1] for each in given]
    assert values[0] != values[1]
    for each in given:
        assert {"HttpOnly", "SameSite=lax", "Path=/", "Max-Age=43200"} <= set(each.split("; "))
    assert ["Secure" in each for each in given] == [False, True, True, True]


def test_no_session_is_fixed(signed):
    """A session planted in a browser is not the one that a sign-in begins, and one from before the sign-in ends."""
    signed.cookie = f"{COOKIE}=planted"
    signed.sign_in()
    assert signed.cookie != f"{COOKIE}=planted"
    before = signed.cookie
    signed.sign_in("bob")
    signed.cookie = before
    assert signed.get("/alarms").status_code == 303


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)", "", "alarms",
     "/\t/evil.example", "/\n/evil.example", "\\\\evil", "/%5cevil\\x"],
)  # fmt: skip
def test_the_way_back_stays_here(signed, target):
    """An address of another site becomes the first page, after the sign-in and in the form."""
    assert local_path(target) == "/"
    assert signed.sign_in(next=target).headers["location"] == "/"
    assert 'name="next" value="/"' in signed.world.request("GET", "/login", params={"next": target}).text


@pytest.mark.parametrize("key", ["", "wrong", "sw_AAAAAAAA_" + 43 * "A", "<script>"])
def test_a_wrong_key_gets_the_form_again(signed, key):
    """Without a cookie, and without the key in the page."""
    answer = signed.post("/login", {"key": key, "next": "/runs"})
    assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
    assert "The key is not valid." in answer.text
    assert not key or f'"{key}"' not in answer.text
    assert "<script>" not in answer.text


def test_wrong_keys_are_limited(signed):
    """After some in a minute no key is tried, with the time to wait."""
    guess = f"{signed.tokens['ada'][:12]}{43 * 'A'}"
    for _ in range(20):
        assert signed.post("/login", {"key": guess}).status_code == 401
    answer = signed.sign_in()
    assert (answer.status_code, "set-cookie" in answer.headers) == (429, False)
    assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_a_key_without_the_scope_read_is_no_way_in(signed):
    """The form names the missing scope."""
    answer = signed.sign_in("shop")
    assert answer.status_code == 403
    assert "lacks the scope &#39;read&#39;" in answer.text


@pytest.mark.parametrize("path", ["/login", "/logout"])
@pytest.mark.parametrize("headers", [{"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"}, {}])
def test_another_site_signs_nobody_in_or_out(signed, path, headers):
    """Forms of other origins are refused."""
    signed.sign_in()
    fields = {"key": signed.tokens["ada"]}
    answer = signed.world.request("POST", path, data=fields, headers=headers | {"cookie": signed.cookie})
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert signed.get("/alarms").status_code == 200


def test_signing_out_ends_the_session(signed):
    """On the server, so that a copied cookie is worth nothing."""
    signed.sign_in()
    copied = signed.cookie
    page = signed.get("/alarms").text
    assert '<form method="post" action="/logout">' in page
    assert signed.post("/logout", {}).headers["location"] == "/login"
    signed.cookie = copied
    assert signed.get("/alarms").status_code == 303


def test_an_alarm_is_acknowledged_under_the_name_of_the_key(signed):
    """The form asks for no name, and one that is sent all the same is ignored."""
    alarm = signed.world.open_alarm("short")
    signed.sign_in()
    assert 'name="by"' not in signed.get(f"/alarms/{alarm.id}").text
    signed.post(f"/alarms/{alarm.id}/acknowledge", {"by": "root", "note": "seen"})
    assert "by ada: seen" in signed.get(f"/alarms/{alarm.id}").text


def test_a_reader_has_no_form(signed):
    """And is refused without the scope ``write``."""
    alarm = signed.world.open_alarm("short")
    signed.sign_in("bob")
    assert "/acknowledge" not in signed.get(f"/alarms/{alarm.id}").text
    assert signed.post(f"/alarms/{alarm.id}/acknowledge", {"note": "x"}).status_code == 403


def test_another_site_acknowledges_nothing(signed):
    """A form that a browser sends along with the cookie is refused."""
    alarm = signed.world.open_alarm("short")
    signed.sign_in()
    answer = signed.post(f"/alarms/{alarm.id}/acknowledge", {"note": "x"}, **{"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403
    assert "Acknowledged" not in signed.get(f"/alarms/{alarm.id}").text


FOREIGN = (
    {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"sec-fetch-site": "cross-site", "origin": HERE},
    {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://localhost.evil.example"},
)  # fmt: skip
"""Headers of requests that a browser sends for a page of another origin, with the cookie."""


@pytest.mark.parametrize("headers", FOREIGN)
def test_no_route_takes_a_change_from_another_origin(world, headers):
    """With the session of an administrator, whatever the cookie allows; no other method than these changes anything."""
    signed = SignedIn(world(rows=0, labels=0), root=("admin",))
    signed.sign_in("root")
    unsafe = {(method, path): scope for (method, path), scope in SCOPES_BY_ROUTE.items() if method != "GET"}
    assert {scope for call, scope in SCOPES_BY_ROUTE.items() if call not in unsafe} == {"", "read", "metrics"}
    for method, path in unsafe:
        place, cookie = re.sub(r"\{[^}]*\}", "1", path), {"cookie": signed.cookie}
        answer = signed.world.request(method, place, headers=headers | cookie, json={})
        assert answer.status_code == 403, (method, path)
    assert signed.get("/alarms").status_code == 200


def test_a_link_of_another_site_leads_to_its_page(signed):
    """As one in a message about an alarm."""
    signed.sign_in()
    alarm = signed.world.open_alarm("short")
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "referer": "https://chat.example/"}
    assert signed.get(f"/alarms/{alarm.id}", **link).status_code == 200


def test_the_api_takes_no_change_from_another_site(signed):
    """A session reads the API, and changes it only from pages of this origin."""
    signed.sign_in()
    cookie = {"cookie": signed.cookie}
    assert signed.get("/v1/alarms").status_code == 200
    cross = signed.world.request("DELETE", "/v1/functions/x", headers=cookie | {"sec-fetch-site": "cross-site"})
    own = signed.world.request("DELETE", "/v1/functions/x", headers=cookie | OWN)
    assert (cross.status_code, own.status_code) == (403, 404)


def test_without_keys_there_is_no_form(world):
    """It leads to the pages, which have no way out."""
    made = world(rows=0, labels=0)
    answer = made.get("/login", next="/runs")
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs")
    assert "/logout" not in made.get("/alarms").text
