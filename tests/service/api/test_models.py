"""``/v1/models``."""

import pytest


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
