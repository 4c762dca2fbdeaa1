"""Hundreds of bodies that no client should send: none of them is our error."""

import json
import random
from itertools import islice

import pytest

AT = "2026-05-01T12:00:00Z"
GOOD = {
    "/v1/predict": {"instances": [{"text": "love", "likes": 0}], "ids": ["a"]},
    "/v1/predictions": {
        "predictions": [
            {
                "id": "a", "features": {"text": "love", "likes": 0}, "label": "true", "version": 1,
                "probabilities": {"true": 0.5, "false": 0.5}, "predicted_at": AT,
            }
        ]
    },
    "/v1/labels": {
        "labels": [{"id": "a", "label": "true", "observed_at": AT, "labeller": "me", "idempotency_key": "k"}]
    },
    "/v1/functions": {"name": "x", "length": {"field": "text", "below": 3}, "owner": "me", "target": 0.9},
    "/v1/functions/preview": {
        "function": {"name": "x", "all": [{"missing": {"field": "text"}}, {"compare": {"field": "likes", "below": 3}}]},
        "records": [{"text": "love", "likes": 0}],
    },
}  # fmt: skip
RAW = [
    b"", b" ", b"null", b"[]", b"{}", b"0", b'""', b"{", b"}", b'{"', b"\xff\xfe", b"\x00", b"\xef\xbb\xbf{}", b"NaN",
    b"{}{}", b"'{}'", b"[" * 100_000, b'{"a":' * 100_000, b"[" * 150 + b"]" * 150, b"9" * 10_000, b"1e999",
    b'"\\ud800"',
    b'{"instances":[{"text":"\\ud800","likes":1}]}', b'{"instances":[{"text":"\xed\xa0\x80","likes":1}]}',
    b'{"instances":' + b"[{}," * 1000 + b"{}]}", b'{"instances":[' + b"1," * 100_000 + b"1]}",
    b'{"labels":[' + b"{}," * 100_000 + b"{}]}", b"{" + b",".join(b'"k%d":1' % n for n in range(50_000)) + b"}",
    b'{"labels":[{"id":"a","label":' + b"9" * 4300 + b"}]}",
    b'{"instances":[{"text":"a","likes":' + b"9" * 4300 + b"}]}",
]  # fmt: skip
JUNK = [
    None, True, -1, 0, 2**63, 10**400, 1e308, -0.0, "", "\u0000", "\u202e", "x" * 10_000, "💥", [], {}, [[]], [None],
    {"": None}, {"a": {"b": {"c": []}}}, [1, "a", None], float("nan"), float("inf"), "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59-23:59", "__all__", "__none__", "(a+)+$", "../../etc",
]  # fmt: skip


def places(value, path=()):
    """Yield every place in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from places(each, (*path, key))


def changed(value, path, new):
    """Return a value with another one at a place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(copy[path[0]], path[1:], new)
    return copy


def without(value, path):
    """Return a value without what is at a place."""
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1:
        del copy[path[0]]
    else:
        copy[path[0]] = without(copy[path[0]], path[1:])
    return copy


def broken(good, seed):
    """Yield bodies: junk at every place, parts missing or doubled, and bytes changed at random."""
    every = list(places(good))
    yield from (json.dumps(changed(good, place, junk)).encode() for junk in JUNK for place in every)
    yield from (json.dumps(without(good, place)).encode() for place in every if place)
    text, draw = json.dumps(good).encode(), random.Random(seed)
    yield text + text
    while True:
        body = bytearray(text)
        for _ in range(draw.randint(1, 4)):
            body[draw.randrange(len(body))] = draw.choice(b'\x00"{}[],:0e\\\xff')
        yield bytes(body[: draw.randint(1, len(body))] if draw.random() < 0.3 else body)


@pytest.mark.usefixtures("forked_children")
@pytest.mark.parametrize("path", list(GOOD))
def test_no_body_is_our_error(service, path, caplog):
    """Of hundreds of malformed bodies none is a 5xx, every refusal is a problem, and the service goes on."""
    headers, bad = {"content-type": "application/json"}, []
    bodies = [*RAW, *islice(broken(GOOD[path], seed=7), 400)]
    for body in bodies[::16] if path.endswith("preview") else bodies:  # a preview starts a process
        answer = service.post(path, content=body, headers=headers)
        if answer.status_code >= 500:
            bad.append((answer.status_code, body[:200]))
        elif answer.status_code >= 400:
            problem = answer.json()
            assert answer.headers["content-type"] == "application/problem+json"
            assert problem["detail"]
            assert len(answer.content) < 20_000
    assert bad == []
    assert service.predicted({"text": "love", "likes": 0}).status_code == 200
    service.tick()


def test_no_text_of_a_client_names_a_file(service):
    """Ids, labels, keys, reasons, names and versions leave the files of a project as they were."""
    record = GOOD["/v1/predict"]["instances"][0]
    folder = service.runtime.settings.file.parent
    evil = "..evil\\\u2028name%2f:*?"
    service.predicted(record, ids=["first"])

    def names():
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if "-wal" not in path.name}

    before = names()
    for k in range(20):
        text = f"{evil}{k}"
        service.predicted(record, ids=[text])
        service.post(
            "/v1/labels", {"labels": [{"id": text, "label": "true", "labeller": text, "idempotency_key": text}]}
        )
        service.post(
            "/v1/predictions", {"predictions": [{"features": record, "label": text, "version": k + 1, "id": text}]}
        )
        service.post("/v1/functions", {"name": text.replace("\u2028", ""), "missing": {"field": text}, "owner": "me"})
        service.post("/v1/models/rollback", {"reason": text, "by": text})
    assert not {name for name in names() - before if "evil" in name}
    assert len(names() - before) <= 2
