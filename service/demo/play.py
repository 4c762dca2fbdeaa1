"""Plays a script against a running service, and tells what comes of it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any

from service.demo.deliver import Delivery
from service.demo.script import Phase, Script, phase_at
from service.demo.tell import entry, told
from service.demo.traffic import Traffic
from service.demo.watch import ENDED, Document, News, Seen, look, news

BATCH_ROWS = 50
LOOK_SECONDS = 1.0
STATUS_SECONDS = 10.0
IDLE_ROWS_A_SECOND = 5.0


@dataclass(frozen=True, slots=True)
class Clocks:
    """The time of the service's clock, seconds that nobody sets, and a wait of so many of these."""

    now: Callable[[], datetime]
    seconds: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep


class Play:
    """One performance of a script.

    Parameters
    ----------
    script, traffic, delivery
        What is played, what is sent, and whom it is asked of.
    clocks
        The times.
    out
        Takes lines for the terminal.

    Attributes
    ----------
    seen
        What the service showed at the last look.
    zones, served
        By version, the zones it was watched with; by version and phase, the rows it answered.
    changed_at
        When the first change came, on the service's clock.
    """

    def __init__(
        self,
        script: Script,
        traffic: Traffic,
        delivery: Delivery,
        clocks: Clocks,
        out: Callable[[str], object],
    ) -> None:
        self._script, self._traffic, self._delivery = script, traffic, delivery
        self._clocks, self._out = clocks, out
        self._phase: Phase | None = None
        self._asked = False
        self._next_look = self._next_status = self._due = clocks.seconds()
        self.seen, self.zones = Seen(), dict[int, Mapping[str, Document]]()
        self.served: Counter[tuple[int, str]] = Counter()
        self.changed_at: datetime | None = None

    def until_told(self, end: float) -> bool:
        """Play until the story is over, at most until ``end``, and tell whether it is."""
        while not self._is_over():
            if self._clocks.seconds() > end:
                return False
            self._step(self._script.rows_a_second)
        return True

    def until_interrupted(self) -> None:
        """Go on slowly until Ctrl+C, and finish what was in hand then."""
        try:
            while True:
                self._step(IDLE_ROWS_A_SECOND)
        except KeyboardInterrupt:
            self._traffic.finish()

    def say(self, text: str) -> None:
        """Tell something, under the time of the service's clock."""
        self._out(entry(self._clocks.now(), text))

    def run(self) -> Document | None:
        """Return the retraining that the story is about: the last that was not skipped, if there is one."""
        trained = [run for _, run in sorted(self.seen.runs.items()) if run["state"] != "skipped"]
        return trained[-1] if trained else next(iter(self.seen.runs.values()), None)

    def _is_over(self) -> bool:
        run, goal = self.run(), self._script.goal
        if run is None or run["state"] not in ENDED:
            return False
        if goal is None:
            return self._is_sent() and not self._traffic.waiting and run["state"] != "skipped"
        if run["state"] == "skipped":
            return False
        labelled = self.seen.accuracy.get(goal.slice, (0, 0))[1]
        return run["state"] != "promoted" or (
            self.seen.version == run["candidate"] and labelled >= goal.labelled
        )

    def _is_sent(self) -> bool:
        return self._script.length is not None and self._traffic.position >= self._script.length

    def _step(self, rows_a_second: float) -> None:
        if self._is_sent():
            self._clocks.sleep(LOOK_SECONDS)
            self._ask_for_training()
        else:
            self._send(rows_a_second)
        self._traffic.send_labels()
        now = self._clocks.seconds()
        if now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._look()
        if now >= self._next_status:
            self._next_status = now + STATUS_SECONDS
            self.say(self._status())

    def _ask_for_training(self) -> None:
        """Ask for a retraining, once all labels are there and none was thought to be worth it."""
        run = self.run()
        if self._asked or self._traffic.waiting or (run is not None and run["state"] != "skipped"):
            return
        self._asked = True
        self.say(
            "All labels have come, and nothing was trained: it is asked for, as `slicewatch retrain` does."
        )
        reason = "the traffic of the demo is over"
        self._delivery.look(lambda client: client.retrain(reason, by="demo"))

    def _send(self, rows_a_second: float) -> None:
        phase = phase_at(self._script.phases, self._traffic.position)
        if phase != self._phase:
            self._begin(phase)
        most = BATCH_ROWS if rows_a_second >= BATCH_ROWS else ceil(rows_a_second)
        n = min(most, *(p.start - self._traffic.position for p in self._following()), self._left())
        answered = self._traffic.send(n)
        self.served.update((each.version, phase.name) for each in answered.predictions)
        now = self._clocks.seconds()
        self._due = max(self._due, now - 1.0) + n / rows_a_second
        if self._due > now:
            self._clocks.sleep(self._due - now)

    def _following(self) -> list[Phase]:
        return [phase for phase in self._script.phases if phase.start > self._traffic.position]

    def _left(self) -> int:
        length = self._script.length
        return BATCH_ROWS if length is None else length - self._traffic.position

    def _begin(self, phase: Phase) -> None:
        if self._phase is not None and self.changed_at is None:
            self.changed_at = self._clocks.now()
        self._phase = phase
        self.say(f"TRAFFIC, {phase.name}: {phase.says}.")

    def _look(self) -> None:
        before, self.seen = self.seen, look(self._delivery, self.seen)
        if before.version is not None and before.version == self.seen.version and before.zones:
            self.zones[before.version] = before.zones  # not those seen while another version took over
        for each in news(before, self.seen):
            self._tell(each)

    def _tell(self, news: News) -> None:
        first, *blocks = told(news)
        self.say(first)
        for each in blocks:
            self._out(each) if each.startswith(" ") else self.say(each)

    def _status(self) -> str:
        labels = f"{sum(self._traffic.ledger.outcomes.values()):,} labels"
        said = [f"{self._traffic.position:,} comments, {labels} ({self._traffic.waiting:,} to come)"]
        goal, run = self._script.goal, self.run()
        if goal is not None and self.seen.version is not None:
            right, n = self.seen.accuracy.get(goal.slice, (0, 0))
            said.append(f"version {self.seen.version} right on {right:,} of {n:,} {goal.slice}")
        if run is not None and run["state"] == "waiting_for_labels" and run["outcome"]:
            said.append(f"run {run['id']} is {run['outcome']}")
        return "; ".join(said)


def states(delivery: Delivery, run_id: int) -> list[str]:
    """Return the states that a run went through, oldest first, as the audit log tells them."""
    found: list[str] = []
    before: int | None = None
    while True:
        page: dict[str, Any] = delivery.ask(lambda client, before=before: client.audit(before=before))  # type: ignore[misc]
        for each in page["entries"]:
            if each["subject"] == f"run {run_id}":
                opened = each["action"] == "run.opened"
                found.append(each["detail"]["state"] if opened else each["action"].removeprefix("run."))
        before = page["next"]
        if before is None:
            return found[::-1]
