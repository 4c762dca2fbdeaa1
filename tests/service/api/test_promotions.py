"""``POST /v1/models/…``."""

import pytest

NEW = {"expected": 1, "reason": "better on links", "by": "ada"}


def kind(answer) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


def test_a_version_is_promoted(service, two):
    """Which answered before, and why and when it was changed, is told."""
    answer = service.post("/v1/models/2/promote", NEW)
    assert answer.status_code == 200
    assert answer.json() == {
        "champion": 2,
        "before": 1,
        "changed": True,
        "change": "promote",
        "reason": "better on links",
        "at": "2026-05-01T12:00:00Z",
    }
    assert two.alias() == 2
    (entry,) = service.get("/v1/audit").json()["entries"]
    assert (entry["actor"], entry["subject"]) == ("ada", "version 2")


def test_promoting_the_champion_changes_nothing(service, two):
    """It is told that nothing was changed, and the history stays as it was."""
    answer = service.post("/v1/models/1/promote", {})
    assert (answer.status_code, answer.json()["champion"], answer.json()["changed"]) == (200, 1, False)
    assert len(two.history()) == 1


def test_an_old_change_that_is_damaged_blocks_no_promotion(service, two):
    """Only the last change matters."""
    service.post("/v1/models/2/promote", {})
    (two.path(1).parents[1] / "aliases" / "champion" / "000001.json").write_text("damaged")
    answer = service.post("/v1/models/1/promote", {})
    assert (answer.status_code, answer.json()["champion"]) == (200, 1)


def test_who_expected_another_champion_is_refused(service, two):
    """A concurrent change returns 409 and leaves the alias unchanged."""
    for version in (1, 2):
        answer = service.post(f"/v1/models/{version}/promote", {"expected": 2})
        assert kind(answer) == (409, "promotion-conflict")
        assert "another process changed it" in answer.json()["detail"]
    assert len(two.history()) == 1


def test_the_version_before_answers_again(service, two):
    """A rollback takes the last promotion back."""
    service.post("/v1/models/2/promote", {})
    answer = service.post("/v1/models/rollback", {"reason": "worse"})
    told = answer.json()
    assert (told["champion"], told["before"], told["change"], told["reason"]) == (1, 2, "rollback", "worse")
    assert two.alias() == 1


def test_nothing_to_go_back_to(service, two):
    """409: the first champion has none before it."""
    answer = service.post("/v1/models/rollback", {})
    assert kind(answer) == (409, "promotion-conflict")
    assert "no earlier version" in answer.json()["detail"]


def test_an_unknown_version_is_not_promoted(service, two):
    """404 that names those there are."""
    answer = service.post("/v1/models/7/promote", {})
    assert kind(answer) == (404, "unknown-version")
    assert answer.json()["detail"].endswith("its versions: 1, 2")


def test_a_damaged_version_is_not_promoted(service, two, tmp_path):
    """422 that names the file, and not where it lies on this machine."""
    weights = two.path(2) / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(bytes(content))
    answer = service.post("/v1/models/2/promote", {})
    assert kind(answer) == (422, "damaged-version")
    assert "weights.safetensors" in answer.json()["detail"]
    assert str(tmp_path) not in answer.text
    assert two.alias() == 1


@pytest.mark.parametrize("body", [{"expected": "1"}, {"expected": 0}, {"expected": 1.5}, {"expected": True}])
def test_the_expected_version_is_a_number(service, two, body):
    """422 that names the field."""
    answer = service.post("/v1/models/2/promote", body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "expected")
