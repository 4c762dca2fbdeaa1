"""The file of the API keys."""

import json
import os
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from service.errors import MisuseError
from service.keys import TOKEN_CHARS, KeyFile, KeyFileError

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def file(tmp_path):
    return KeyFile(tmp_path / "keys.json")


def test_the_secret_is_not_kept(file):
    """The file has the SHA-256 of a key with 256 random bits, and is open to its owner only."""
    made = file.add("shop", ("predict",), NOW)
    text = file.path.read_text()
    assert len(made.token) == TOKEN_CHARS
    assert made.token not in text
    assert made.token[12:] not in text
    assert json.loads(text)["keys"][0]["sha256"] == sha256(made.token.encode()).hexdigest()
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert made.token not in repr(made)


def test_keys_are_read_as_they_were_added(file):
    """Name, scopes, model, times and rate survive the file."""
    expires = NOW + timedelta(days=90)
    made = file.add("shop", ("predict", "labels"), NOW, model="spam", expires=expires, rate=2.5)
    assert file.read() == (made.key,)
    assert (made.key.model, made.key.expires, made.key.rate, made.key.revoked) == ("spam", expires, 2.5, None)


def test_a_key_ends_when_it_expires_or_is_revoked(file):
    """From the second of its expiry on."""
    key = file.add("shop", ("read",), NOW, expires=NOW + timedelta(hours=1)).key
    assert [key.state(NOW + timedelta(minutes=minutes)) for minutes in (0, 59, 60)] == ["active", "active", "expired"]
    assert file.revoke("shop", NOW) == 1
    assert file.read()[0].state(NOW) == "revoked"


@pytest.mark.parametrize("name", ["monitor", "http"])
def test_no_key_has_the_name_of_another_actor(file, name):
    """The audit log names the service itself so."""
    with pytest.raises(MisuseError, match="choose another name"):
        file.add(name, ("read",), NOW)


def test_a_name_has_one_active_key(file):
    """A taken name is refused, and one whose key was revoked can be given again."""
    file.add("shop", ("read",), NOW)
    with pytest.raises(MisuseError, match="'shop' is taken"):
        file.add("shop", ("admin",), NOW)
    file.revoke("shop", NOW)
    again = file.add("shop", ("write",), NOW)
    assert file.read() == (again.key,)


def test_a_key_cannot_expire_in_the_past(file):
    """The error has the time, and no file is made."""
    with pytest.raises(MisuseError, match="2026-05-01 12:00 UTC, which is past"):
        file.add("shop", ("read",), NOW, expires=NOW)
    assert not file.path.exists()


def test_a_rotation_keeps_the_earlier_key_for_a_while(file):
    """The new key is like the earlier one and lives as long from now on; the earlier one expires with the overlap."""
    first = file.add("shop", ("predict",), NOW, expires=NOW + timedelta(days=10), rate=3.0)
    later = NOW + timedelta(days=9)
    second = file.rotate("shop", later, overlap_seconds=3600)
    old, new = file.read()
    assert (old.id, old.expires) == (first.key.id, later + timedelta(hours=1))
    assert (new.expires, new.rate, new.scopes) == (later + timedelta(days=10), 3.0, ("predict",))
    assert second.token != first.token


def test_a_rotation_makes_no_key_live_longer(file):
    """An earlier key that expires within the overlap expires as before."""
    file.add("shop", ("predict",), NOW, expires=NOW + timedelta(minutes=1))
    file.rotate("shop", NOW, overlap_seconds=3600)
    assert file.read()[0].expires == NOW + timedelta(minutes=1)


def test_a_key_that_lives_to_the_end_of_the_calendar_can_be_rotated(file):
    """As long as there are years."""
    end = datetime(9999, 12, 31, tzinfo=UTC)
    file.add("shop", ("predict",), NOW, expires=end)
    assert file.rotate("shop", NOW + timedelta(days=90), overlap_seconds=0).key.expires > end


@pytest.mark.parametrize("change", ["revoke", "rotate"])
def test_an_unknown_name_is_an_error_that_lists_the_names(file, change):
    """Also one whose key was revoked."""
    file.add("shop", ("read",), NOW)
    file.add("gone", ("read",), NOW)
    file.revoke("gone", NOW)
    with pytest.raises(MisuseError, match="no active key has the name 'gone'; active are: shop"):
        getattr(file, change)("gone", NOW, *([0] if change == "rotate" else []))


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", "[" * 100_000, '{"format": 2, "keys": []}', '{"format": 1}',
        '{"format": 1, "keys": [{}]}',
        '{"format": 1, "keys": [1]}', "\x00", '{"format": 1, "keys": 5}',
    ],
)  # fmt: skip
def test_a_damaged_file_is_an_error_with_advice(file, text):
    """Whatever stands in it."""
    file.path.write_text(text)
    with pytest.raises(KeyFileError, match=r"is damaged \(.*\): restore it"):
        file.read()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scopes", ["god"]), ("scopes", []), ("scopes", None), ("id", "x"), ("id", "ääääääää"), ("sha256", "00"),
        ("sha256", "zz"), ("expires", "soon"), ("expires", "2026-01-01T00:00:00"), ("expires", ""), ("expires", 0),
        ("created", None), ("created", ""), ("revoked", False), ("name", 5), ("name", None), ("rate", -1),
        ("rate", "x"), ("more", 1),
    ],
)  # fmt: skip
def test_a_wrong_field_is_damage(file, field, value):
    """A field that is missing, unknown or of a wrong value never widens what a key may do."""
    file.add("shop", ("read",), NOW)
    document = json.loads(file.path.read_text())
    document["keys"][0][field] = value
    file.path.write_text(json.dumps(document))
    with pytest.raises(KeyFileError, match="is damaged"):
        file.read()


def test_a_lost_file_is_an_error(file):
    """It opens no door; keys can be added again, and without a trace of keys there were none."""
    file.add("shop", ("read",), NOW)
    file.path.unlink()
    with pytest.raises(KeyFileError, match=r"is missing, and the service had keys: .* remove .*keys\.json\.lock, too"):
        file.read()
    made = file.add("shop", ("read",), NOW)
    assert file.read() == (made.key,)
    file.path.unlink()
    Path(f"{file.path}.lock").unlink()
    assert file.read() == ()


def test_a_change_that_fails_leaves_no_trace_of_keys(file):
    """The service opens as before."""
    with pytest.raises(MisuseError):
        file.revoke("shop", NOW)
    assert file.read() == ()


def test_a_file_that_anyone_can_write_is_refused(file):
    """Any user of the machine could add a key."""
    file.add("shop", ("read",), NOW)
    file.path.chmod(0o666)
    with pytest.raises(KeyFileError, match="can be changed by every user"):
        file.read()


def test_a_damaged_file_is_not_overwritten(file):
    """A change fails, and the file stays for its repair."""
    file.path.write_text("{")
    with pytest.raises(KeyFileError):
        file.add("shop", ("read",), NOW)
    assert file.path.read_text() == "{"


def test_changes_at_one_time_are_all_kept(file):
    """Commands wait for one another."""
    threads = [threading.Thread(target=KeyFile(file.path).add, args=(f"key-{n}", ("read",), NOW)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key.name for key in file.read()) == sorted(f"key-{n}" for n in range(12))
    assert {path.name for path in file.path.parent.iterdir()} == {"keys.json", "keys.json.lock"}


def test_a_change_leaves_the_file_to_its_owner(file):
    """Also if root changes it: the service goes on reading it, and ends revoked keys. Its permissions stay, too."""
    file.add("shop", ("read",), NOW)
    file.path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file.path, 10001, 10002)
    before = file.path.stat()
    file.revoke("shop", NOW)
    after, lock = file.path.stat(), Path(f"{file.path}.lock").stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert lock.st_uid == before.st_uid


def test_a_new_file_belongs_to_the_owner_of_its_folder(tmp_path):
    """As does its lock, if root makes them."""
    if os.geteuid() == 0:
        os.chown(tmp_path, 10001, 10001)
    KeyFile(tmp_path / "keys.json").add("shop", ("read",), NOW)
    assert {path.stat().st_uid for path in tmp_path.iterdir()} == {tmp_path.stat().st_uid}


def test_a_mark_belongs_to_the_owner_of_the_keys(file):
    """A service of root leaves no lock that commands of the owner cannot open."""
    file.add("shop", ("read",), NOW)
    (lock := Path(f"{file.path}.lock")).unlink()
    file.path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file.path, 10001, 10002)
    file.remember()
    mark, keys = lock.stat(), file.path.stat()
    assert (mark.st_uid, mark.st_gid, mark.st_mode) == (keys.st_uid, keys.st_gid, keys.st_mode)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_another_file_in_place_of_the_lock_keeps_its_owner(file, tmp_path, link):
    """It may belong to the system."""
    (other := tmp_path / "other").write_text("x")
    if os.geteuid() == 0:
        os.chown(tmp_path, 10001, 10001)
    link(other, f"{file.path}.lock")
    with suppress(KeyFileError):
        file.add("shop", ("read",), NOW)
    assert (other.stat().st_uid, other.read_text()) == (os.geteuid(), "x")


def test_a_link_stays_a_link(file, tmp_path):
    """A file that is kept elsewhere is changed there."""
    target = tmp_path / "elsewhere" / "keys.json"
    target.parent.mkdir()
    file.path.symlink_to(target)
    file.add("shop", ("read",), NOW)
    assert file.path.is_symlink()
    assert len(KeyFile(target).read()) == 1
