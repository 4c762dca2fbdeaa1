"""The whole demo, from an empty folder to the verdict."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from service.demo.check import Result, failures
from service.demo.deliver import Delivery
from service.demo.ledger import Ledger, read_log
from service.demo.play import Clocks, Play, states
from service.demo.project import MODEL, Project, write_project
from service.demo.script import Script
from service.demo.supervise import COMMAND, Supervised
from service.demo.tell import block, ending, trained_text, truth_text
from service.demo.traffic import LABEL, Traffic
from service.demo.training import train
from service.demo.truth import Standing, coverages, standings
from service.runtime.clock import FastClock
from sfs.registry import FunctionSet

SPEED = 120.0
"""Seconds of the service's clock in one of the wall's: an hour in half a minute."""


@dataclass(frozen=True, slots=True)
class Options:
    """How the demo is run.

    Parameters
    ----------
    folder, port
        Where the project is written, and where the service listens.
    once
        Whether it ends with the story, rather than leave console and API open.
    seed
        Of comments and labels.
    most_seconds
        After which the story is given up.
    """

    folder: Path
    port: int
    once: bool
    seed: int
    most_seconds: float


def run_demo(
    script: Script, options: Options, now: Callable[[], datetime], out: Callable[[str], object]
) -> int:
    """Play a script and return 0 if the story happened, else 1.

    Parameters
    ----------
    script
        What is played.
    options
        How.
    now
        The wall's time, UTC.
    out
        Takes lines for the terminal.

    Raises
    ------
    ServiceError
        If the folder is not free, the first training fails, or the service does not start.
    """
    started = time.monotonic()
    out(f"Slicewatch on {script.title}, seed {options.seed}, in {options.folder}.")
    project = write_project(options.folder, script)
    out("Training the first model, as `slicewatch train` does ...")
    document = train(project)
    out(block(trained_text(document)))
    seconds = time.monotonic() - started
    out(
        f"Version {document['version']} is champion, after {seconds:.0f} s. Now the service: `slicewatch up`."
    )
    clock = FastClock(now(), now().timestamp(), SPEED)
    clock.write(project.clock)
    service_now = clock.over(now)
    service = Supervised([*COMMAND, "up", "--config", str(project.config)], project.log, options.port, out)
    delivery = Delivery(service)
    traffic = Traffic(script, options.seed, delivery, service_now)
    play = Play(script, traffic, delivery, Clocks(service_now), out)
    stage = _Stage(script, options, project, service, delivery, traffic.ledger, play, out, started)
    try:
        service.start()
        return stage.perform()
    finally:
        delivery.close()
        service.stop()


@dataclass(frozen=True, slots=True)
class _Stage:
    """A performance and all that belongs to it."""

    script: Script
    options: Options
    project: Project
    service: Supervised
    delivery: Delivery
    ledger: Ledger
    play: Play
    out: Callable[[str], object]
    started: float

    def perform(self) -> int:
        self.out(f"Console and API at {self.service.url}. {SPEED:g} seconds pass on its clock in one.\n")
        told = self.play.until_told(self.started + self.options.most_seconds)
        late = [] if told else [f"it was given up after {self.options.most_seconds:g} s"]
        run = self.play.run()
        path = states(self.delivery, run["id"]) if run is not None else []
        if self.options.once:
            self.out("\nThe service is stopped, and its log is read.")
            self.service.stop()
            return self._verdict(path, [*late, *self._log_problems()])
        code = self._verdict(path, late)
        self.out(f"\nConsole and API stay open at {self.service.url}, with slow traffic, until Ctrl+C.")
        self.play.until_interrupted()
        self.out("\nThe service is stopped, and its log is read.")
        self.service.stop()
        wrong = self._log_problems()
        self._say(wrong)
        return 1 if wrong else code

    def _verdict(self, path: list[str], log: list[str]) -> int:
        play, goal = self.play, self.script.goal
        found = self._standings()
        self.out(
            "\nWhich slices left their zone, counted on rows of the same nature, and which were alarmed:"
        )
        self.out(block(truth_text(found, self.script.phases)))
        before, after = self._accuracies()
        result = Result(play.run(), path, found, before, after, log, self._calm_alarms() if goal else ())
        wrong = failures(result, goal)
        self._say(ending(result, wrong, goal, time.monotonic() - self.started))
        if wrong:
            self.out(f"What the service said is in {self.project.log}.")
        return 1 if wrong else 0

    def _standings(self) -> list[Standing]:
        functions = FunctionSet.from_files([str(path) for path in self.project.functions])
        served = {name for _, name in self.play.served}
        phases = {
            phase.name: coverages(functions, self.script.sample(phase), LABEL)
            for phase in self.script.phases
            if phase.name in served
        }
        return standings(self.play.zones, self.play.served, phases, self.play.seen.alarms.values())

    def _accuracies(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return how right the first version was since the first change, and the next one as the service says."""
        goal, run, seen = self.script.goal, self.play.run(), self.play.seen
        if goal is None or run is None or run["champion"] is None:
            return (0, 0), (0, 0)
        changed = self.script.phases[1].start
        ids = (id_ for id_ in self.ledger.predictions if int(id_[1:]) >= changed)
        after = seen.accuracy.get(goal.slice, (0, 0)) if seen.version == run["candidate"] else (0, 0)
        return self.ledger.accuracy(goal.slice, run["champion"], ids), after

    def _calm_alarms(self) -> list[str]:
        changed_at, alarms = self.play.changed_at, self.play.seen.alarms.values()
        return [
            each["slice"]
            for each in alarms
            if changed_at is None or datetime.fromisoformat(each["at"]) < changed_at
        ]

    def _log_problems(self) -> list[str]:
        logged = read_log(self.project.store, MODEL)
        labels = ", ".join(f"{n:,} {outcome}" for outcome, n in sorted(self.ledger.outcomes.items()))
        self.out(f"{len(logged):,} predictions in the log; labels: {labels}.")
        return self.ledger.differences(logged)

    def _say(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.out(line)
