"""Honest clients of the soak: they compare every answer with the right one, and count all that is not."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from itertools import count
from typing import Any
from urllib.parse import quote

from chaos.project import HOSTILE, NAME, VERSIONS, Truth

from sfs.apply import apply
from sfs.declarations import from_declaration
from sfs.registry import FunctionSet

BATCH_ROWS = 64
PAUSE_SECONDS = 0.01
EXAMPLES = 20
CLASSES = ("ham", "spam")
PAGES = (
    "/v1/slices?window=1h",
    "/v1/slices?window=since_promotion",
    "/v1/slices/exclaiming",
    "/v1/slices/__all__/records?kind=all&limit=20",
    "/v1/slices/shouting/records?kind=errors",
    "/v1/functions",
    "/v1/models",
    "/v1/models/2",
    "/v1/alarms",
    "/v1/runs",
    "/v1/audit",
    "/",
    "/slices/monotonous",
    "/alarms",
    "/models",
    "/healthz",
    "/readyz",
    "/metrics",
)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A prediction as it was answered."""

    record: int
    version: int
    label: str
    slices: frozenset[str]
    unknown: frozenset[str]


@dataclass
class Findings:
    """Counts of all honest clients, and the answers that they were given; for several threads.

    Attributes
    ----------
    requests, failed
        Requests by kind; those without the right status.
    wrong
        Statements in answers that are not true.
    unknown, memberships
        Memberships that were unknown, of all that were answered.
    reconnected
        Requests sent once more because the connection had been closed before an answer began.
    seconds
        Times of the small requests.
    predictions, labels
        By id: the acknowledged prediction, and the class that counts.
    """

    requests: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    memberships: int = 0
    reconnected: int = 0
    seconds: list[float] = field(default_factory=list)
    predictions: dict[str, Acknowledged] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    label_events: int = 0
    examples: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, kind: str, text: str) -> None:
        """Count a failed request."""
        with self.lock:
            self.failed[kind] += 1
            self._note(f"failed {kind}: {text}")

    def object(self, kind: str, text: str) -> None:
        """Count a wrong statement."""
        with self.lock:
            self.wrong[kind] += 1
            self._note(f"wrong {kind}: {text}")

    def _note(self, text: str) -> None:
        if len(self.examples) < EXAMPLES:
            self.examples.append(f"{time.strftime('%H:%M:%S')} {text[:1000]}")


class Client:
    """Sends requests one after another on a connection that is kept.

    Parameters
    ----------
    name
        Begins the ids.
    port
        Port of the service.
    findings
        Takes the counts.
    timeout
        Seconds after which a request without an answer has failed.
    """

    def __init__(self, name: str, port: int, findings: Findings, timeout: float) -> None:
        self.name, self.findings = name, findings
        self.draw, self.numbers = random.Random(name), count()
        self._connection = HTTPConnection("127.0.0.1", port, timeout=timeout)

    def ask(self, kind: str, method: str, path: str, sent: Any = None, expected: int = 200) -> Any:
        """Return the answer as JSON, or as text; None if the request failed, which is counted."""
        body = None if sent is None else json.dumps(sent)
        headers = {} if body is None else {"content-type": "application/json"}
        for attempt in range(2):
            is_kept = self._connection.sock is not None
            try:
                self._connection.request(method, path, body, headers)
                response = self._connection.getresponse()
                content = response.read()
                break
            except (HTTPException, OSError) as error:
                self._connection.close()
                if attempt or not is_kept or isinstance(error, TimeoutError):
                    self.findings.fail(kind, f"{method} {path}: {error!r}")
                    return None
                self.findings.reconnected += 1  # an idle connection may be closed at any time
        with self.findings.lock:
            self.findings.requests[kind] += 1
        if response.status != expected:
            self.findings.fail(kind, f"{method} {path}: {response.status} {content[:500]!r}")
            return None
        is_json = content and "json" in response.headers.get("content-type", "")
        return json.loads(content) if is_json else content.decode()

    def act(self) -> None:
        """Do one thing."""
        raise NotImplementedError

    def run(self, until: threading.Event) -> None:
        """Act until the end."""
        while not until.wait(PAUSE_SECONDS):
            self.act()
        self._connection.close()


class Extras:
    """Templates that are added and removed beside the requests, with their right members.

    Parameters
    ----------
    truth
        Has the records.
    """

    def __init__(self, truth: Truth) -> None:
        self._truth = truth
        self._live: frozenset[str] = frozenset()
        self._members: dict[str, list[bool]] = {}

    def declaration(self, k: int) -> dict[str, Any]:
        """Return a new declaration, and know its members from now on."""
        declared: dict[str, Any] = {
            "name": f"extra {k}",
            "any": [
                {"compare": {"field": "likes", "at_least": k % 20}},
                {"length": {"field": "text", "below": k % 50}},
            ],
        }
        matrix = apply(FunctionSet([from_declaration(declared)]), list(self._truth.records))
        self._members[declared["name"]] = matrix.member[:, 0].tolist()
        return declared

    def added(self, name: str) -> None:
        """Expect a template in every answer to a later request."""
        self._live |= {name}

    def removing(self, name: str) -> None:
        """Expect a template no longer."""
        self._live -= {name}

    def live(self) -> frozenset[str]:
        """Return the names of the templates that every answer has to tell about now; names are never used again."""
        return self._live

    def problems(self, n: int, answer: Mapping[str, Any], live: frozenset[str]) -> list[str]:
        """Return the wrong memberships of an answer; ``live`` were expected during the whole request."""
        slices, unknown = {*answer["slices"]}, {*answer["unknown_slices"]}
        found = {name for name in slices if name in self._members}
        out = [f"membership in {name}" for name in found if not self._members[name][n]]
        missing = {name for name in live - slices - unknown if self._members[name][n]}
        return out + [f"no membership in {name}" for name in missing]


class Caller(Client):
    """Asks for predictions, labels them, and reads."""

    def __init__(self, *args: Any, truth: Truth, extras: Extras) -> None:
        super().__init__(*args)
        self._truth, self._extras = truth, extras
        self._unlabelled: list[str] = []
        self._known: list[str] = []

    def act(self) -> None:
        """Choose one."""
        choice = self.draw.random()
        if choice < 0.7:
            self._predict("small", 1)
        elif choice < 0.75:
            self._predict("batch", BATCH_ROWS)
        elif choice < 0.85:
            self._label()
        elif choice < 0.9 and self._known:
            self._read_back()
        else:
            path = self.draw.choice(PAGES)
            self.ask("page", "GET", path)

    def _predict(self, kind: str, rows: int) -> None:
        records = self._truth.records
        chosen = [self.draw.randrange(len(records)) for _ in range(rows)]
        ids = [f"{self.name}-{next(self.numbers)}" for _ in range(rows)]
        live, began = self._extras.live(), time.perf_counter()
        reply = self.ask(kind, "POST", "/v1/predict", {"instances": [records[n] for n in chosen], "ids": ids})
        seconds = time.perf_counter() - began
        if reply is None:
            return
        expected = live & self._extras.live()
        answers, findings = reply["predictions"], self.findings
        if [answer["id"] for answer in answers] != ids or reply["model"]["name"] != NAME:
            findings.object("ids", str(reply)[:300])
            return
        for n, id_, answer in zip(chosen, ids, answers, strict=True):
            for problem in self._truth.problems(n, answer) + self._extras.problems(n, answer, expected):
                findings.object(kind, f"{id_}: {problem}")
        with findings.lock:
            if kind == "small":
                findings.seconds.append(seconds)
            findings.memberships += rows * len(self._truth.functions)
            for n, id_, answer in zip(chosen, ids, answers, strict=True):
                unknown = frozenset(answer["unknown_slices"])
                findings.unknown.update(name for name in unknown if name in self._truth.functions)
                findings.predictions[id_] = Acknowledged(
                    n, answer["version"], answer["label"], frozenset(answer["slices"]), unknown
                )
        self._known = (self._known + ids)[-1000:]
        self._unlabelled = (self._unlabelled + ids)[-1000:]

    def _label(self) -> None:
        """Label some predictions; then repeat and correct the labels."""
        chosen, self._unlabelled = self._unlabelled[-20:], self._unlabelled[:-20]
        first = {id_: self.draw.choice(CLASSES) for id_ in chosen}
        other = {id_: CLASSES[label == CLASSES[0]] for id_, label in first.items() if self.draw.random() < 0.2}
        for labels, key, outcome in ((first, "1", "accepted"), (first, "1", "duplicate"), (other, "2", "corrected")):
            items = [{"id": id_, "label": label, "idempotency_key": f"{id_}-{key}"} for id_, label in labels.items()]
            if not items or (reply := self.ask("labels", "POST", "/v1/labels", {"labels": items})) is None:
                continue
            for answer in reply["labels"]:
                if answer["outcome"] != outcome:
                    self.findings.object("label", f"{answer} instead of {outcome}")
            with self.findings.lock:
                self.findings.labels.update(labels)
                self.findings.label_events += len(labels) * (outcome != "duplicate")

    def _read_back(self) -> None:
        """Read one logged prediction."""
        id_ = self.draw.choice(self._known)
        reply = self.ask("read back", "GET", f"/v1/predictions/{id_}")
        if reply is None:
            return
        known = self.findings.predictions[id_]
        found = reply["predicted"], reply["version"], frozenset(reply["slices"]), reply["label"]
        right = known.label, known.version, known.slices, self.findings.labels.get(id_)
        if found != right or reply["features"] != self._truth.records[known.record]:
            self.findings.object("read back", f"{reply} instead of {right}")


class Operator(Client):
    """Promotes, rolls back, and adds and removes templates."""

    def __init__(self, *args: Any, extras: Extras, pause: float) -> None:
        super().__init__(*args)
        self._extras, self._pause = extras, pause
        self._champion, self._live = 1, list[str]()

    def run(self, until: threading.Event) -> None:
        """Act, and wait."""
        while not until.wait(self._pause):
            self.act()
        for name in self._live:
            self._remove(name)
        self._connection.close()

    def act(self) -> None:
        """Change the champion, and the templates."""
        n = next(self.numbers)
        if n % 2:
            self._change(f"/v1/models/{VERSIONS[1]}/promote" if self._champion == 1 else "/v1/models/rollback")
        else:
            declared = self._extras.declaration(n)
            if self.ask("template", "POST", "/v1/functions", declared, 201) is not None:
                self._extras.added(declared["name"])
                self._live.append(declared["name"])
            if len(self._live) > 3:
                self._remove(self._live.pop(0))

    def _change(self, path: str) -> None:
        reply = self.ask("promotion", "POST", path, {"reason": f"{HOSTILE} traffic"})
        if reply is not None:
            right = 3 - self._champion
            if reply["champion"] != right:
                self.findings.object("promotion", f"{reply} instead of {right}")
            self._champion = reply["champion"]

    def _remove(self, name: str) -> None:
        self._extras.removing(name)
        self.ask("template", "DELETE", f"/v1/functions/{quote(name)}", None, 204)
