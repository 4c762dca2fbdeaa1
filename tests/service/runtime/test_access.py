"""Callers: keys, rates, wrong keys, sessions, and the header of a proxy."""

import logging
from datetime import UTC, datetime, timedelta
from time import perf_counter_ns

import pytest
from factories import ManualClock

from service.keys import KeyFile, KeyFileError
from service.metrics.process import ProcessMetrics
from service.runtime.access import (
    COOKIE,
    FAILURES_A_MINUTE,
    IDLE_SECONDS,
    MAX_SESSIONS,
    SESSION_SECONDS,
    Access,
    Forbidden,
    Refused,
    TooManyRequests,
    Unauthorized,
)
from service.settings.schema import trusted_proxy

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
HERE, THERE = "10.0.0.1", "10.0.0.2"


class Door:
    """Access over a file of keys, with clocks of its own."""

    def __init__(self, folder, proxy=None, *, is_closed=False):
        self.is_closed = is_closed
        self.file, self.clock, self.proxy = KeyFile(folder / "keys.json"), ManualClock(NOW), proxy
        self.metrics = ProcessMetrics("spam", log_queue_rows=lambda: 0)
        self.at = 1000.0

    def open(self):
        """Read the keys, as a service that starts."""
        self.access = Access(self.file, "spam", self.proxy, self.clock, self.metrics, is_closed=self.is_closed)
        return self

    def add(self, name="shop", scopes=("read",), **more):
        return self.file.add(name, scopes, self.clock.now, **more).token

    def later(self, seconds=1.0):
        """Let time pass, and a request come."""
        self.at += seconds
        self.clock.now += timedelta(seconds=seconds)
        return self.access.is_on(self.at)

    def ask(self, token=None, host=HERE, cookie=None, **headers):
        """Return the caller of a request."""
        given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        if token is not None:
            given.append((b"authorization", f"Bearer {token}".encode()))
        if cookie is not None:
            given.append((b"cookie", f"a=b; {COOKIE}={cookie}".encode()))
        return self.access.caller(dict(given), given, host, self.at)

    def counted(self, reason, name="unauthorized"):
        lines = self.metrics.text().decode().splitlines()
        line = f'slicewatch_{name}_total{{reason="{reason}"}} '
        return next(float(each.removeprefix(line)) for each in lines if each.startswith(line))


@pytest.fixture
def door(tmp_path):
    return Door(tmp_path)


def wrong(token, place=-1):
    """Return a key with another character at a place."""
    other = "A" if token[place] != "A" else "B"
    return f"{token[:place]}{other}{token[place:][1:]}"


def test_without_keys_the_door_is_open(door):
    """Until there is a key, or a proxy."""
    assert door.open().access.is_on(door.at) is False


def test_a_key_names_its_caller_and_scopes(door):
    """``admin`` includes every scope."""
    token, root = door.add("shop", ("predict", "labels")), door.add("root", ("admin",))
    door.open()
    assert (door.ask(token).name, door.ask(token).scopes) == ("shop", {"predict", "labels"})
    assert door.ask(root).scopes == {"predict", "labels", "read", "write", "admin", "metrics"}
    with pytest.raises(Forbidden, match="'shop' lacks the scope 'read'; it has labels, predict"):
        door.ask(token).require("read")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: wrong(t), lambda t: wrong(t, 12), lambda t: wrong(t, 3), lambda t: "", lambda t: t[:-1],
        lambda t: f"{t}A", lambda t: t * 1000, lambda t: t[:12], lambda t: "sw_", lambda t: t.swapcase(),
    ],
)  # fmt: skip
def test_any_other_secret_is_refused(door, change):
    """A character changed, missing or added, another id, an empty and a very long key."""
    token = door.add()
    door.open()
    with pytest.raises(Unauthorized, match="the key is unknown: send `Authorization: Bearer KEY`"):
        door.ask(change(token))
    assert door.ask(token).name == "shop"


@pytest.mark.parametrize("scheme", ["Basic", "Tokens", "Bearer\t", ""])
def test_another_scheme_is_refused(door, scheme):
    """Only ``Bearer`` has keys; its case does not matter."""
    token = door.add()
    door.open()
    with pytest.raises(Unauthorized):
        door.ask(authorization=f"{scheme} {token}")
    assert door.ask(authorization=f"bEARER {token}").name == "shop"


def test_a_header_of_another_scheme_is_no_key(door):
    """A proxy with a password of its own passes it on: a session goes on beside it, and no peer is locked out."""
    token = door.add()
    cookie = door.open().access.sign_in(token, HERE, door.at)
    for _ in range(2 * FAILURES_A_MINUTE):
        with pytest.raises(Unauthorized, match="has no key"):
            door.ask(authorization="Basic YTpi")
    assert door.ask(authorization="Basic YTpi", cookie=cookie).name == "shop"
    assert door.counted("wrong") == 0


def test_a_request_without_a_key_is_refused(door):
    """And is no wrong key."""
    door.add()
    door.open()
    for _ in range(2 * FAILURES_A_MINUTE):
        with pytest.raises(Unauthorized, match="has no key"):
            door.ask()
    assert (door.counted("missing"), door.counted("wrong")) == (2 * FAILURES_A_MINUTE, 0)


def test_an_expired_key_is_refused_by_the_clock(door):
    """From the second of its expiry on, without a look at the file."""
    token = door.add(expires=NOW + timedelta(seconds=60))
    door.open()
    door.clock.now += timedelta(seconds=59)
    assert door.ask(token).name == "shop"
    door.clock.now += timedelta(seconds=1)
    with pytest.raises(Unauthorized, match="the key of 'shop' is expired"):
        door.ask(token)


def test_changes_of_the_file_are_in_force_within_a_second(door):
    """The first key closes the door, a revoked one ends, and a rotated one goes on until its overlap is over."""
    door.open()
    assert door.later() is False
    token = door.add()
    assert door.later() is True
    assert door.ask(token).name == "shop"
    other = door.file.rotate("shop", door.clock.now, 60).token
    door.later()
    assert door.ask(token) == door.ask(other)
    door.later(60)
    with pytest.raises(Unauthorized, match="expired"):
        door.ask(token)
    door.file.revoke("shop", door.clock.now)
    door.later()
    with pytest.raises(Unauthorized, match="revoked"):
        door.ask(other)


def test_the_file_is_looked_at_once_a_second(door):
    """Requests in between cost no look."""
    token = door.add()
    door.open().later()
    door.file.revoke("shop", NOW)
    door.later(0.5)
    assert door.ask(token).name == "shop"
    door.later(0.5)
    with pytest.raises(Unauthorized):
        door.ask(token)


@pytest.mark.parametrize("damage", [lambda path: path.write_text("{"), lambda path: path.unlink()])
def test_a_damaged_file_leaves_the_last_keys_in_force(door, damage, caplog):
    """It is logged once and shown as a metric; a repaired file is read again."""
    token = door.add()
    door.open().later()
    good = door.file.path.read_bytes()
    damage(door.file.path)
    with caplog.at_level(logging.INFO):
        door.later(), door.later()
        assert door.ask(token).name == "shop"
        assert "slicewatch_keys_usable 0.0" in door.metrics.text().decode()
        assert [each.levelname for each in caplog.records] == ["ERROR"]
        door.file.path.write_bytes(good)
        door.later()
    assert "slicewatch_keys_usable 1.0" in door.metrics.text().decode()
    assert door.ask(token).name == "shop"


def test_a_file_that_is_moved_away_and_back_is_usable(door):
    """It is the same file as before."""
    door.add()
    door.open().later()
    door.file.path.rename(aside := door.file.path.with_name("aside"))
    door.later()
    aside.rename(door.file.path)
    door.later()
    assert "slicewatch_keys_usable 1.0" in door.metrics.text().decode()


def test_a_file_that_cannot_be_reached_is_not_called_missing(tmp_path, caplog):
    """The log has the reason of the system."""
    door = Door(tmp_path / "mounted")
    door.add()
    door.open().later()
    door.file.path.parent.rename(tmp_path / "away")
    door.file.path.parent.touch()
    door.later()
    assert "cannot be read: Not a directory" in caplog.text


def test_a_copied_file_is_missed_once_it_was_read(door, tmp_path):
    """Keys that another machine made leave a trace here, too; a folder that is read only has none."""
    other = KeyFile(tmp_path / "other.json")
    other.add("shop", ("read",), NOW)
    door.file.path.write_bytes(other.path.read_bytes())
    door.open()
    door.file.path.unlink()
    with pytest.raises(KeyFileError, match="had keys"):
        door.open()


def test_a_public_address_is_closed_without_a_file(tmp_path):
    """A file that was there when the start was checked may be gone."""
    assert Door(tmp_path, is_closed=True).open().later() is True


def test_an_emptied_file_closes_the_door(door):
    """Once there was a key, there is no access without one."""
    token = door.add()
    door.open().later()
    door.file.path.write_text('{"format": 1, "keys": []}')
    assert door.later() is True
    with pytest.raises(Unauthorized):
        door.ask(token)


def test_a_damaged_file_ends_the_start(door):
    """With the error of the file."""
    door.file.path.write_text("{")
    with pytest.raises(KeyFileError, match="is damaged"):
        door.open()


def test_a_key_for_another_model_is_refused(door):
    """And one for this model is not."""
    ours, other = door.add("ours", model="spam"), door.add("other", model="ham")
    door.open()
    assert door.ask(ours).name == "ours"
    with pytest.raises(Forbidden, match="is for the model 'ham'; this service has 'spam'"):
        door.ask(other)


def test_wrong_keys_are_limited_by_peer(door):
    """After some in a minute no key of that peer is tried, a right one that it has not used included."""
    token = door.add()
    door.open()
    for _ in range(FAILURES_A_MINUTE):
        with pytest.raises(Unauthorized):
            door.ask(wrong(token))
    for guess in (wrong(token), token):
        with pytest.raises(TooManyRequests, match="try again in 60 s"):
            door.ask(guess)
    assert door.ask(token, host=THERE).name == "shop"
    door.later(30)
    with pytest.raises(TooManyRequests, match="try again in 30 s"):
        door.ask(token)
    door.later(30)
    assert door.ask(token).name == "shop"
    assert (door.counted("wrong"), door.counted("limited")) == (FAILURES_A_MINUTE, 3)


def test_a_key_in_use_is_not_locked_out_by_others_behind_one_proxy(door):
    """An address that has used the key goes on with it while wrong keys of the same address are refused."""
    token = door.add()
    door.open()
    door.ask(token)
    for _ in range(2 * FAILURES_A_MINUTE):
        with pytest.raises((Unauthorized, TooManyRequests)):
            door.ask(wrong(token))
    assert door.ask(token).name == "shop"


def test_guesses_lock_out_no_key_whose_id_they_lack(door):
    """A stranger behind the same proxy knows none, and a right key is taken that was never used from there."""
    token, other = door.add(), door.add("other")
    door.open()
    for n in range(4 * FAILURES_A_MINUTE):
        with pytest.raises((Unauthorized, TooManyRequests)):
            door.ask(f"sw_{n:08}_{43 * 'A'}" if n % 2 else wrong(other))
    assert door.ask(token).name == "shop"
    with pytest.raises(TooManyRequests):
        door.ask(other)


def test_clients_with_an_expired_key_lock_out_no_other(door):
    """Those with the key that replaces it may be behind the same proxy."""
    old = door.add()
    new = door.file.rotate("shop", NOW, 60).token
    door.open().later(60)
    for _ in range(4 * FAILURES_A_MINUTE):
        with pytest.raises((Unauthorized, TooManyRequests)):
            door.ask(old)
    assert door.ask(new).name == "shop"


def test_a_limited_peer_learns_no_id(door):
    """A wrong key with the id of another one is answered as one with an unknown id."""
    token = door.add()
    door.open()
    for _ in range(FAILURES_A_MINUTE):
        with pytest.raises(Unauthorized):
            door.ask(wrong(token, 3))
    said = []
    for guess in (wrong(token, 3), wrong(token)):
        with pytest.raises(TooManyRequests) as error:
            door.ask(guess)
        said.append(str(error.value))
    assert said[0] == said[1]


def test_a_new_key_that_was_tried_too_early_is_taken_once_it_is_read(door):
    """Its clients may have retried."""
    door.add("other")
    door.open().later()
    token = door.add()
    for _ in range(2 * FAILURES_A_MINUTE):
        with pytest.raises((Unauthorized, TooManyRequests)):
            door.ask(token)
    door.later()
    assert door.ask(token).name == "shop"


def test_addresses_of_one_ipv6_network_are_one_peer(door):
    """A machine can use any address of its 64 bits."""
    token = door.add()
    door.open()
    for n in range(FAILURES_A_MINUTE):
        with pytest.raises(Unauthorized):
            door.ask(wrong(token), host=f"2001:db8::{n:x}")
    with pytest.raises(TooManyRequests):
        door.ask(token, host="2001:db8::ffff")
    assert door.ask(token, host="2001:db8:1::1").name == "shop"


def test_a_wrong_key_takes_the_same_time_wherever_it_is_wrong(door):
    """The shortest times of guesses of every kind differ by less than a half."""
    token = door.add()
    door.open()
    guesses = [wrong(token), wrong(token, 12), wrong(token, 3), wrong(token, 10)]
    shortest = dict.fromkeys(guesses, 10**9)
    for n in range(600):
        for guess in guesses:
            headers = {b"authorization": f"Bearer {guess}".encode()}
            began = perf_counter_ns()
            try:
                door.access.caller(headers, [], f"10.{n // 250}.{n % 250}.9", door.at)
            except Unauthorized:
                shortest[guess] = min(shortest[guess], perf_counter_ns() - began)
    assert max(shortest.values()) < 1.5 * min(shortest.values())


def test_a_key_has_its_rate(door):
    """A second's worth can be saved up; the error names the time to wait, and the refusal is counted."""
    slow, other = door.add(rate=2.0), door.add("other")
    door.open()
    for _ in range(2):
        door.ask(slow)
    with pytest.raises(TooManyRequests, match="'shop' may send 2 requests per second: try again in 1 s"):
        door.ask(slow)
    assert door.ask(other).name == "other"
    door.later(0.5)
    assert door.ask(slow).name == "shop"
    assert door.counted("rate", "shed") == 1


def test_a_rate_below_one_is_a_request_now_and_then(door):
    """One in ten seconds."""
    token = door.add(rate=0.1)
    door.open()
    door.ask(token)
    with pytest.raises(TooManyRequests, match="try again in 10 s"):
        door.ask(token)
    door.later(10)
    assert door.ask(token).name == "shop"


def test_a_change_of_the_file_restores_no_rate(door):
    """A key that did not change goes on with what it has left."""
    token = door.add(rate=1.0)
    door.open()
    door.ask(token)
    door.add("other")
    door.later(0.0)
    with pytest.raises(TooManyRequests):
        door.ask(token)


def test_a_rotation_restores_no_rate(door):
    """All keys of a name have one allowance, during the overlap too; another name has its own."""
    first = door.add(rate=1.0)
    door.open()
    door.ask(first)
    second, other = door.file.rotate("shop", door.clock.now, 3600).token, door.add("other", rate=1.0)
    door.later(1)
    door.ask(second)
    for token in (first, second):
        with pytest.raises(TooManyRequests, match="'shop' may send 1 requests per second"):
            door.ask(token)
    assert door.ask(other).name == "other"


def test_a_refusal_names_the_key_that_it_knows(door):
    """One whose secret is right: expired, of another model, above its rate; a guess is nobody's."""
    tokens = [
        door.add("old", expires=NOW + timedelta(seconds=1)), door.add("elsewhere", model="other"),
        door.add("busy", rate=0.1), wrong(door.add("guessed")),
    ]  # fmt: skip
    door.open()
    door.ask(tokens[2])
    door.later(1)
    names = []
    for token in tokens:
        with pytest.raises(Refused) as error:
            door.ask(token)
        names.append(error.value.caller)
    assert names == ["old", "elsewhere", "busy", ""]


def test_a_session_stands_for_its_key(door):
    """Its id is random, and a request with it has the scopes of the key."""
    token = door.add("ada", ("read", "write"))
    door.open()
    cookies = {door.access.sign_in(token, HERE, door.at) for _ in range(20)}
    assert len(cookies) == 20
    assert min(map(len, cookies)) == 43
    caller = door.ask(cookie=cookies.pop())
    assert (caller.name, caller.scopes, caller.is_ambient) == ("ada", {"read", "write"}, True)


def test_no_session_has_an_id_of_its_clients_choice(door):
    """A cookie that was never given out is no session, before and after a sign-in with it."""
    token = door.add()
    door.open()
    with pytest.raises(Unauthorized):
        door.ask(cookie="chosen")
    assert door.access.sign_in(token, HERE, door.at) != "chosen"
    with pytest.raises(Unauthorized):
        door.ask(cookie="chosen")


@pytest.mark.parametrize("token", ["", "sw_", "ä" * 55, "x" * 10_000])
def test_a_wrong_key_begins_no_session(door, token):
    """It is counted as any other wrong key."""
    door.add()
    door.open()
    for _ in range(FAILURES_A_MINUTE):
        with pytest.raises(Unauthorized):
            door.access.sign_in(token, HERE, door.at)
    with pytest.raises(TooManyRequests):
        door.access.sign_in(token, HERE, door.at)


def test_a_session_needs_a_key_that_may_read(door):
    """The console shows what the scope ``read`` shows."""
    token = door.add("shop", ("predict",))
    door.open()
    with pytest.raises(Forbidden, match="lacks the scope 'read'"):
        door.access.sign_in(token, HERE, door.at)


@pytest.mark.parametrize(("step", "requests"), [(IDLE_SECONDS + 1, 0), (SESSION_SECONDS / 16, 16)])
def test_a_session_ends(door, step, requests):
    """An hour after its last request, and twelve hours after its begin."""
    token = door.add()
    cookie = door.open().access.sign_in(token, HERE, door.at)
    for _ in range(requests):
        door.later(step)
        assert door.ask(cookie=cookie).name == "shop"
    door.later(step)
    with pytest.raises(Unauthorized, match="sign in again"):
        door.ask(cookie=cookie)


def test_a_session_ends_with_its_key(door):
    """A revoked key ends its sessions within a second; so does signing out."""
    token = door.add()
    door.open()
    second, third = (door.access.sign_in(token, HERE, door.at) for _ in range(2))
    door.access.sign_out({b"cookie": f"{COOKIE}={second}".encode()})
    with pytest.raises(Unauthorized):
        door.ask(cookie=second)
    assert door.ask(cookie=third).name == "shop"
    door.file.revoke("shop", NOW)
    door.later()
    with pytest.raises(Unauthorized, match="sign in again"):
        door.ask(cookie=third)


def test_sessions_are_limited_in_number(door):
    """The one that was used longest ago gives way."""
    token = door.add()
    cookies = []
    door.open()
    for _ in range(MAX_SESSIONS + 1):
        cookies.append(door.access.sign_in(token, HERE, door.at))
        door.at += 0.001
    with pytest.raises(Unauthorized):
        door.ask(cookie=cookies[0])
    assert door.ask(cookie=cookies[1]).name == "shop"


def test_many_sessions_of_a_key_end_none_of_another(door):
    """Not even one that has waited longer."""
    token, other = door.add(), door.add("other")
    cookie = door.open().access.sign_in(other, HERE, door.at)
    for _ in range(2 * MAX_SESSIONS):
        door.at += 0.001
        door.access.sign_in(token, HERE, door.at)
    assert door.ask(cookie=cookie).name == "other"


PROXY = {"address": ["10.0.0.1", "10.9.0.0/16"], "header": "X-Forwarded-User", "scope": ["read", "write"]}


@pytest.fixture
def proxied(tmp_path):
    return Door(tmp_path, trusted_proxy(PROXY)).open()


@pytest.mark.parametrize("host", ["10.0.0.1", "10.9.3.4", "::ffff:10.0.0.1"])
def test_a_trusted_proxy_names_its_user(proxied, host):
    """With the scopes of the setting, and a name that no key can have."""
    caller = proxied.ask(host=host, x_forwarded_user="ada")
    assert (caller.name, caller.scopes, caller.is_ambient) == ("proxy:ada", {"read", "write"}, True)
    assert proxied.access.is_on(proxied.at)


@pytest.mark.parametrize("host", ["10.0.0.2", "127.0.0.1", "::1", "", "10.8.255.255", "proxy"])
def test_the_header_of_any_other_client_is_ignored(proxied, host):
    """Whatever it says."""
    with pytest.raises(Unauthorized):
        proxied.ask(host=host, x_forwarded_user="ada", x_forwarded_for="10.0.0.1")


def test_a_header_given_twice_names_nobody(proxied):
    """A proxy that adds its header to one of its client's is not believed."""
    twice = [(b"x-forwarded-user", b"root"), (b"x-forwarded-user", b"ada")]
    with pytest.raises(Unauthorized):
        proxied.access.caller(dict(twice), twice, "10.0.0.1", proxied.at)


@pytest.mark.parametrize("user", ["", " ", "a\x00b", "x" * 91, "a\nb"])
def test_an_unprintable_user_is_nobody(proxied, user):
    """As are an empty and a long one."""
    with pytest.raises(Unauthorized):
        proxied.ask(host="10.0.0.1", x_forwarded_user=user)


def test_a_key_goes_before_the_user_of_the_proxy(tmp_path):
    """Machines behind the proxy have keys."""
    door = Door(tmp_path, trusted_proxy(PROXY))
    token = door.add("shop", ("predict",))
    assert door.open().ask(token, host="10.0.0.1", x_forwarded_user="ada").name == "shop"
