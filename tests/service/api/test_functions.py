"""``/v1/functions``."""

from urllib.parse import quote

import pytest

GOOD = {"text": "subscribe to my song for free money", "likes": 2}
MONEY = {"name": "money", "keyword": {"field": "text", "words": ["money"]}, "owner": "me", "target": 0.9}


def test_the_functions_in_force_are_listed(service):
    """Each function says where it is defined, what it was declared as, and what is known about it."""
    short, clicks = service.get("/v1/functions").json()["functions"]
    assert (short["name"], clicks["name"]) == ("short", "clicks")
    assert (short["kind"], short["origin"], short["metadata"]["severity"]) == ("slice", "file", "warning")
    assert short["declaration"]["length"]["below"] == 3
    assert len(short["fingerprint"]) > 10


def test_an_added_function_is_applied_from_now_on(service):
    """A declared function answers 201 with its place, and takes rows in."""
    answer = service.post("/v1/functions", MONEY)
    assert (answer.status_code, answer.headers["location"]) == (201, "/v1/functions/money")
    assert (answer.json()["origin"], answer.json()["metadata"]["owner"]) == ("http", "me")
    assert service.predicted(GOOD).json()["predictions"][0]["slices"] == ["clicks", "money"]


def test_a_removed_function_is_applied_no_more(service):
    """Added functions can be removed."""
    service.post("/v1/functions", MONEY)
    answer = service.delete("/v1/functions/money")
    assert (answer.status_code, answer.content) == (204, b"")
    assert service.predicted(GOOD).json()["predictions"][0]["slices"] == ["clicks"]


def test_names_of_files_win(service):
    """A function that a file defines is neither replaced nor removed over HTTP."""
    added, removed = (
        service.post("/v1/functions", MONEY | {"name": "short"}),
        service.delete("/v1/functions/short"),
    )
    assert (added.status_code, removed.status_code) == (409, 409)
    assert added.json()["type"] == "urn:slicewatch:problem:function-conflict"


def test_an_unknown_function_cannot_be_removed(service):
    """A name that nothing has is a 404."""
    answer = service.delete("/v1/functions/nope")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:slicewatch:problem:unknown-function")


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x"},
        {"name": "x", "python": "import os"},
        {"name": "x", "regex": {"field": "text", "pattern": "("}},
        {"name": "x", "keyword": {"field": "text"}},
        {"name": 3, "missing": {"field": "text"}},
        {"name": "links/short", "missing": {"field": "text"}},
        {"name": "..", "missing": {"field": "text"}},
        {"name": "x" * 201, "missing": {"field": "text"}},
        {"missing": {"field": "text"}},
        {"name": "x", "missing": {"field": "text"}, "owner": 3},
        {"name": "x", "missing": {"field": "text"}, "severity": "grave"},
        {"name": "x", "missing": {"field": "text"}, "target": 10**400},
        [],
        "name",
    ],
)
@pytest.mark.parametrize("path", ["/v1/functions", "/v1/functions/preview"])
def test_a_wrong_declaration_is_refused(service, path, body):
    """An invalid declaration returns 422 with the reason."""
    answer = service.post(path, body if path == "/v1/functions" else {"function": body})
    assert answer.status_code == 422
    assert answer.json()["detail"]


@pytest.mark.parametrize("name", ["50% off", "%2F", "a?b#c", "...", "back\\slash", "größe 😀", " spaced ", "x" * 200])
def test_a_function_is_found_by_its_encoded_name(service, name):
    """Its series, its records and its removal have the name in the address."""
    created = service.post("/v1/functions", {**MONEY, "name": name})
    assert created.status_code == 201
    encoded = quote(name, safe="")
    assert created.headers["location"] == f"/v1/functions/{encoded}"
    assert service.get(f"/v1/slices/{encoded}").json()["name"] == name
    assert service.get(f"/v1/slices/{encoded}/records").status_code == 200
    assert service.delete(f"/v1/functions/{encoded}").status_code == 204


def test_a_number_that_json_does_not_have_is_refused_in_a_declaration(service):
    """A limit of infinity is named."""
    text = '{"name": "x", "compare": {"field": "likes", "below": Infinity}}'
    answer = service.post("/v1/functions", content=text, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "compare.below")


def test_a_trial_on_given_records_registers_nothing(service):
    """A preview counts members with an interval and shows some, and the function is not in force."""
    answer = service.post("/v1/functions/preview", {"function": MONEY, "records": [GOOD, {"text": "a"}, {}]})
    body = answer.json()
    assert answer.status_code == 200
    assert (body["rows"], body["members"], body["unknown"], body["source"]) == (3, 1, 1, "given")
    assert body["examples"] == [GOOD]
    assert (body["coverage"]["count"], body["coverage"]["n"], body["coverage"]["effective_n"]) == (1, 2, 2)
    assert len(service.get("/v1/functions").json()["functions"]) == 2


def test_a_trial_without_records_is_on_the_models_sample(service):
    """The records that are kept with the model are tried."""
    body = service.post("/v1/functions/preview", {"function": MONEY}).json()
    assert body["source"] == "sample"
    assert body["rows"] > 10


def test_a_trial_has_limits(service):
    """More records than may be are refused, and so are none."""
    many = {"function": MONEY, "records": [{}] * 1001}
    assert service.post("/v1/functions/preview", many).status_code == 413
    assert service.post("/v1/functions/preview", {"function": MONEY, "records": []}).status_code == 422


def test_examples_of_a_preview_are_cut(service):
    """Long records of the request do not come back in full."""
    rows = [{"text": "money " * 5000}] * 20
    answer = service.post("/v1/functions/preview", {"function": MONEY, "records": rows})
    assert answer.json()["members"] == 20
    assert len(answer.content) < 20_000


def test_patterns_and_metadata_beyond_the_limits_are_refused(service):
    """A 422 names the limit, and the function is not in force."""

    def lists(name, count, words):
        terms = [[f"{name}{n}.{each:0990}" for each in range(words)] for n in range(count)]
        return {"name": name, "any": [{"keyword": {"field": "text", "words": each}} for each in terms]}

    assert service.post("/v1/functions", lists("first", 3, 20)).status_code == 201
    answer = service.post("/v1/functions", lists("second", 198, 20))
    assert (answer.status_code, "template_limits.pattern_mb" in answer.json()["detail"]) == (422, True)
    answer = service.post("/v1/functions", MONEY | {"owner": "x" * 5_000})
    assert (answer.status_code, "owner" in answer.json()["detail"]) == (422, True)
    names = [each["name"] for each in service.get("/v1/functions").json()["functions"]]
    assert names == ["short", "clicks", "first"]
