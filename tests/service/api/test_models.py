"""``/v1/models``."""

import errno
import shutil
from pathlib import Path

import pytest

from models.bundle.files import write_files


def test_versions_are_listed(service):
    """A version says which aliases are on it, whether it answers, and its expected coverage with n."""
    body = service.get("/v1/models").json()
    (one,) = body["models"]
    assert body["model"] == "comments"
    assert (one["version"], one["aliases"], one["in_force"], one["damaged"]) == (1, ["champion"], True, None)
    assert one["classes"] == ["false", "true"]
    assert one["references"]["short"]["n"] > 0
    assert service.get("/v1/models/1").json() == one


@pytest.mark.parametrize("version", ["2", "2147483647"])
def test_an_unknown_version_is_not_found(service, version):
    """A number that no version has is a 404."""
    answer = service.get(f"/v1/models/{version}")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:slicewatch:problem:unknown-version")


@pytest.mark.parametrize("version", ["0", "-1", "champion", "1e3", "99999999999999999999"])
def test_a_version_is_a_number(service, version):
    """An invalid version number returns 422 with the name of the path parameter."""
    answer = service.get(f"/v1/models/{version}")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "path.version")


@pytest.mark.parametrize("file", ["weights.safetensors", "manifest.json"])
def test_a_damaged_version_does_not_say_where_it_is(service, tmp_path, file):
    """The file is named, and not the folders of this machine above it."""
    path = service.model.registry.path(1) / file
    path.chmod(0o644)
    path.write_bytes(b"{}")
    one = service.get("/v1/models/1").json()
    assert one["damaged"].startswith(f"versions/000001/{file} ")
    assert service.get("/v1/models").json()["models"] == [one]
    assert str(tmp_path) not in str(one)


def rewrite(folder: Path, name: str, content: bytes) -> None:
    """Replace a file of a bundle, with a manifest that fits."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}
    shutil.rmtree(folder)
    write_files(folder, files | {name: content})


@pytest.mark.parametrize("name", ["config.json", "reference.json"])
@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"[]", b'{"classes": [{}]}', b'{"classes": 7}', b'{"x": []}', b"\xff"]
)
def test_wrong_content_with_right_hashes_is_damage(service, two, name, content):
    """The version is listed with its fault, beside the others; it cannot be promoted."""
    rewrite(two.path(2), name, content)
    answer = service.get("/v1/models/2")
    assert (answer.status_code, answer.json()["classes"], answer.json()["references"]) == (200, [], {})
    assert name in answer.json()["damaged"]
    assert str(two.path(2)) not in answer.text
    assert [each["damaged"] is None for each in service.get("/v1/models").json()["models"]] == [True, False]
    refused = service.post("/v1/models/2/promote", {})
    assert (refused.status_code, refused.json()["type"]) == (422, "urn:slicewatch:problem:damaged-version")


def test_a_damaged_change_of_the_champion_hides_no_version(service, two, tmp_path):
    """The versions are listed and the active one answers; a promotion is refused with the file to repair."""
    path = two.path(1).parents[1] / "aliases/champion/000002.json"
    path.write_text("{")
    assert [each["in_force"] for each in service.get("/v1/models").json()["models"]] == [True, False]
    assert service.predicted({"text": "free", "likes": 1}).status_code == 200
    for call in ("/v1/models/2/promote", "/v1/models/rollback"):
        refused = service.post(call, {})
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:slicewatch:problem:registry-unavailable")
        assert "champion/000002.json is not a change of an alias" in refused.json()["detail"]
        assert str(tmp_path) not in refused.text
    path.unlink()
    assert service.post("/v1/models/2/promote", {}).status_code == 200


def test_a_registry_that_cannot_be_written_is_a_reason(service, two, tmp_path, monkeypatch):
    """On a read-only file system a promotion is a 503 that names the registry, and changes nothing."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", str(two.path(1)))

    monkeypatch.setattr("models.registry.write_change", refuse)
    refused = service.post("/v1/models/2/promote", {})
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:slicewatch:problem:registry-unavailable")
    assert "cannot be written" in refused.json()["detail"]
    assert "Read-only file system" in refused.json()["detail"]
    assert str(tmp_path) not in refused.text
    assert two.alias() == 1
