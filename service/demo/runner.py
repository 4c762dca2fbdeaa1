"""The demo: run a scenario against the service, and check that every step of the story happened."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from math import ceil
from pathlib import Path

from service.demo.checks import StoryResult, coverages, find_failures, read_log, slice_truths
from service.demo.client import (
    FINAL_STATES,
    Document,
    RetryingClient,
    ServiceState,
    events_between,
    poll,
    run_states,
)
from service.demo.console_output import (
    describe_event,
    ending,
    format_entry,
    indented,
    training_table,
    truth_tables,
)
from service.demo.project import MODEL, write_project
from service.demo.scenario import Phase, Scenario, phase_at
from service.demo.service_process import COMMAND, ServiceProcess
from service.demo.traffic import LABEL, Traffic
from service.runtime.clock import FastClock
from sfs.registry import FunctionSet

SPEED = 120.0
"""Seconds of the service's clock per second of wall time: an hour in half a minute."""

BATCH_ROWS = 50
POLL_SECONDS = 1.0
STATUS_SECONDS = 10.0
IDLE_ROWS_A_SECOND = 5.0
TRAINING_ROWS_A_SECOND = 60.0
"""Rate at most while a run trains: the processors are for the training, which has a lower priority."""
SETTLED = timedelta(minutes=1)
"""Age, by the service's clock, at which rows and labels are in every snapshot."""


class ScenarioRunner:
    """Runs a scenario against a service, and prints its events.

    Parameters
    ----------
    now, seconds
        The service's clock, and monotonic seconds of wall time.

    Attributes
    ----------
    state, changed_at
        State of the service at the last poll, and time of the first change.
    bands, served
        Tolerance bands by version, and number of served rows by version and phase.
    """

    def __init__(
        self,
        scenario: Scenario,
        traffic: Traffic,
        client: RetryingClient,
        now: Callable[[], datetime],
        out: Callable[[str], object],
        seconds: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._scenario, self._traffic, self._client = scenario, traffic, client
        self._now, self._out, self._seconds, self._sleep = now, out, seconds, sleep
        self._phase: Phase | None = None
        self._requested = False
        self._next_poll = self._next_status = self._due = seconds()
        self._step: tuple[object, ...] = ()
        self._step_start = 0
        self._sent_at, self._settled = now(), 0
        self.state, self.bands = ServiceState(), dict[int, Mapping[str, Document]]()
        self.served: Counter[tuple[int, str]] = Counter()
        self.changed_at: datetime | None = None

    def run_story(self, patience_seconds: float) -> str:
        """Run until the story is over, and return an empty text, or the reason for which it was given up.

        Only a lack of progress is a reason: a busy machine makes the story slow, but not wrong.
        """
        progress, since = self._progress(), self._seconds()
        while not self._is_over():
            rate = self._scenario.rows_a_second
            self._advance(min(rate, TRAINING_ROWS_A_SECOND) if self._is_training() else rate)
            now, before, progress = self._seconds(), progress, self._progress()
            if progress != before:
                since = now
            elif now - since > patience_seconds:
                return f"the story made no progress for {patience_seconds / 60:g} minutes: {self._status()}"
        return ""

    def run_until_interrupted(self) -> None:
        """Continue at a low rate until Ctrl+C, then repeat the interrupted request."""
        try:
            while True:
                self._advance(IDLE_ROWS_A_SECOND)
        except KeyboardInterrupt:
            self._traffic.finish()

    def latest_run(self) -> Document | None:
        """Return the retraining run of the story: the last one that was not skipped, if there is one."""
        runs = [run for _, run in sorted(self.state.runs.items()) if run["state"] != "skipped"]
        return runs[-1] if runs else next(iter(self.state.runs.values()), None)

    def result(self, functions: FunctionSet, states: Sequence[str], log: Sequence[str]) -> StoryResult:
        """Return the result of the story, given the states of its run and the problems with the log."""
        served = {name for _, name in self.served}
        phases = {
            phase.name: coverages(functions, self._scenario.sample(phase), LABEL)
            for phase in self._scenario.phases
            if phase.name in served
        }
        truths = slice_truths(self.bands, self.served, phases, self.state.alarms.values())
        run, goal = self.latest_run(), self._scenario.goal
        if goal is None:
            return StoryResult(run, states, truths, log=log)
        calm_alarms = [
            alarm["slice"]
            for alarm in self.state.alarms.values()
            if self.changed_at is None or datetime.fromisoformat(alarm["at"]) < self.changed_at
        ]
        before = after = (0, 0)
        if run is not None and run["champion"] is not None:
            ledger, start = self._traffic.ledger, self._scenario.phases[1].start
            changed = (id_ for id_ in ledger.predictions if int(id_[1:]) >= start)
            before = ledger.accuracy(goal.slice, run["champion"], changed)
            if self.state.version == run["candidate"]:
                after = self.state.accuracy.get(goal.slice, (0, 0))
        return StoryResult(run, states, truths, before, after, log, calm_alarms)

    def _is_over(self) -> bool:
        run, goal = self.latest_run(), self._scenario.goal
        if run is None or run["state"] not in FINAL_STATES or run["state"] == "skipped":
            return False
        if goal is None:
            return self._settled >= 2  # the alarms of a snapshot follow it, and precede the next
        labelled = self.state.accuracy.get(goal.slice, (0, 0))[1]
        is_measured = self.state.version == run["candidate"] and labelled >= goal.labelled
        return run["state"] != "promoted" or is_measured

    def _progress(self) -> tuple[object, ...]:
        """Return values that change while the story makes progress.

        These are its steps; the rows in which the next step must begin; once all rows are sent, the labels to come and
        the snapshots that settle them; and every snapshot during a training, which the service limits itself.
        """
        state, traffic = self.state, self._traffic
        runs = [(run["id"], run["state"], run["attempts"]) for _, run in sorted(state.runs.items())]
        step = (state.version, len(state.alarms), *runs)
        if step != self._step:
            self._step, self._step_start = step, traffic.position
        rows = min(traffic.position - self._step_start, self._scenario.step_rows)
        at = self._is_training() and state.at
        return step, rows, self._is_sent() and traffic.waiting, min(self._settled, 2), at

    def _is_training(self) -> bool:
        return any(run["state"] in ("training", "gated") for run in self.state.runs.values())

    def _is_sent(self) -> bool:
        return self._scenario.length is not None and self._traffic.position >= self._scenario.length

    def _advance(self, rows_a_second: float) -> None:
        if self._is_sent():
            self._sleep(POLL_SECONDS)
            self._request_training()
        else:
            self._send(rows_a_second)
        if self._traffic.send_labels() or not self._is_sent():
            self._sent_at = self._now()
        now = self._seconds()
        if now >= self._next_poll:
            self._next_poll = now + POLL_SECONDS
            self._poll()
        if now >= self._next_status:
            self._next_status = now + STATUS_SECONDS
            self._print(self._status())

    def _request_training(self) -> None:
        """Request a retraining, once all labels have arrived and every run so far was skipped."""
        run = self.latest_run()
        if self._requested or self._traffic.waiting or (run is not None and run["state"] != "skipped"):
            return
        self._requested = True
        self._print(
            "All labels have arrived, and no retraining was needed: requesting one, as `slicewatch retrain` does."
        )
        reason = "end of the demo's traffic"
        self._client.call_if_available(lambda client: client.retrain(reason, by="demo"))

    def _send(self, rows_a_second: float) -> None:
        phase, position = phase_at(self._scenario.phases, self._traffic.position), self._traffic.position
        if phase != self._phase:
            if self._phase is not None and self.changed_at is None:
                self.changed_at = self._now()
            self._phase = phase
            self._print(f"TRAFFIC, {phase.name}: {phase.description}.")
        most = BATCH_ROWS if rows_a_second >= BATCH_ROWS else ceil(rows_a_second)
        ends = [following.start for following in self._scenario.phases if following.start > position]
        if self._scenario.length is not None:
            ends.append(self._scenario.length)
        n = min(most, *(end - position for end in ends)) if ends else most
        predictions = self._traffic.send(n)
        self.served.update((prediction.version, phase.name) for prediction in predictions.predictions)
        now = self._seconds()
        self._due = max(self._due, now - 1.0) + n / rows_a_second
        if self._due > now:
            self._sleep(self._due - now)

    def _poll(self) -> None:
        before, self.state = self.state, poll(self._client, self.state)
        at = self.state.at
        if self._is_sent() and not self._traffic.waiting and at is not None and at != before.at:
            self._settled += at > self._sent_at + SETTLED
        if before.version is not None and before.version == self.state.version and before.bands:
            self.bands[before.version] = before.bands  # not those shown while another version takes over
        for event in events_between(before, self.state):
            for text in describe_event(event):
                self._out(text) if text.startswith(" ") else self._print(text)

    def _print(self, text: str) -> None:
        self._out(format_entry(self._now(), text))

    def _status(self) -> str:
        labels = sum(self._traffic.ledger.outcomes.values())
        parts = [
            f"{self._traffic.position:,} comments and {labels:,} labels sent, {self._traffic.waiting:,} labels to come"
        ]
        goal, run = self._scenario.goal, self.latest_run()
        if goal is not None:
            right, n = self.state.accuracy.get(goal.slice, (0, 0))
            if right:  # 0 until the service has enough labels to show an accuracy
                parts.append(f"version {self.state.version} is right on {right:,} of {n:,} labelled {goal.slice} rows")
        if run is not None and run["state"] == "waiting_for_labels" and run["outcome"]:
            parts.append(f"run {run['id']}: {run['outcome']}")
        return "; ".join(parts)


def run_demo(
    scenario: Scenario,
    seed: int,
    folder: Path,
    port: int,
    now: Callable[[], datetime],
    out: Callable[[str], object],
    *,
    once: bool,
    patience_seconds: float,
) -> int:
    """Run a scenario in a new project, and return 0 if every step of the story happened, else 1.

    Parameters
    ----------
    seed
        Random seed of the labels.
    now, out
        Wall time in UTC, and a function that prints a line.
    once
        Exit at the end of the story; otherwise keep console and API open until Ctrl+C.
    patience_seconds
        Time without any progress after which the story is given up.

    Raises
    ------
    ServiceError
        If the folder is not free, the first training fails, or the service does not start.
    """
    started = time.monotonic()
    out(f"Slicewatch demo on {scenario.title}, seed {seed}, in {folder}.")
    project = write_project(folder, scenario)
    out("Training the first model with `slicewatch train`: the best of several networks, with and without slices ...")
    document = project.train(out)
    out(indented(training_table(document)))
    seconds = time.monotonic() - started
    out(
        f"Version {document['version']} is the champion after {seconds:.0f} s. "
        "Starting the service with `slicewatch up` ..."
    )
    clock = FastClock(now(), now().timestamp(), SPEED)
    clock.write(project.clock)
    service_now = clock.over(now)
    command = [*COMMAND, "up", "--config", str(project.config)]
    service = ServiceProcess(command, project.log, port, out, patience_seconds=patience_seconds)
    client = RetryingClient(service, patience_seconds=patience_seconds)
    traffic = Traffic(scenario, seed, client, service_now)
    runner = ScenarioRunner(scenario, traffic, client, service_now, out)

    def stop_and_check_log() -> list[str]:
        out("\nStopping the service and comparing its log with the acknowledged requests ...")
        service.stop()
        log = read_log(project.store, MODEL)
        labels = ", ".join(f"{n:,} {outcome}" for outcome, n in sorted(traffic.ledger.outcomes.items()))
        out(f"{len(log):,} predictions in the log; labels: {labels}.")
        return traffic.ledger.differences(log)

    try:
        service.start()
        out(f"Console and API at {service.url}.")
        out(f"The times on the left are simulated (UTC): the service's clock runs {SPEED:g} times as fast as yours.\n")
        given_up = runner.run_story(patience_seconds)
        log = [given_up] if given_up else []
        run = runner.latest_run()
        states = run_states(client, run["id"]) if run is not None else []
        if once:
            log += stop_and_check_log()
        functions = FunctionSet.from_files([str(path) for path in project.functions])
        result = runner.result(functions, states, log)
        out("\nTrue coverage of every slice by phase, and whether it left its tolerance band and alarmed:")
        out(indented(truth_tables(result.truths, scenario.phases)))
        failures = find_failures(result, scenario.goal)
        for line in ending(result, failures, scenario.goal, time.monotonic() - started):
            out(line)
        if failures:
            out(f"See the log of the service: {project.log}.")
        if not once:
            out(f"\nConsole and API stay open at {service.url}, with slow traffic, until Ctrl+C.")
            runner.run_until_interrupted()
            differences = stop_and_check_log()
            for difference in differences:
                out(difference)
            failures += differences
        return 1 if failures else 0
    finally:
        client.close()
        service.stop()
