"""A retraining run from its trigger to its end, with scripted trainings."""

import errno
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from factories import (
    START,
    ManualClock,
    make_label,
    make_local_state,
    make_metrics,
    make_prediction,
    read_sample,
)

from models.bundle.model_bundle import ModelBundle
from models.registry import CHAMPION, ModelRegistry
from service.decisions import DriftDetected, DriftStatus, PairedCounts, Run, RunState, ToleranceBand
from service.jobs.drift_detection import DriftDetection
from service.jobs.promotion import PromotionService
from service.jobs.retraining import Retraining
from service.jobs.snapshot import SnapshotJob
from service.jobs.training.process import TrainingFailed
from service.jobs.training.spec import TrainingResult
from service.metrics.gauges import MetricsPage
from service.serving.deployment import Deployment
from service.settings.schema import DriftSettings, RetrainSettings
from service.store.alarms import open_alarm, resolve_alarm
from service.store.audit import entries
from service.store.engine import Store
from service.store.errors import RunActive
from service.store.runs import runs
from service.store.writer import Writer
from sfs.function import ALL_ROWS
from sfs.intervals import Rate
from sfs.validation import Metadata

GOOD = (PairedCounts(ALL_ROWS, 2000, 1800, 10, 100), PairedCounts("a", 1000, 850, 5, 100))
BAD = (PairedCounts(ALL_ROWS, 2000, 1800, 10, 100), PairedCounts("a", 1000, 850, 100, 5))
FEW = (PairedCounts(ALL_ROWS, 2000, 1800, 10, 100), PairedCounts("a", 20, 15, 0, 4))
Scripted = TrainingResult | TrainingFailed | None


class Training:
    """A training with scripted answers to its polls; the last one is repeated."""

    def __init__(self, answers: Sequence[Scripted]) -> None:
        self.answers, self.killed = list(answers), False

    def poll(self) -> Scripted:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def kill(self) -> None:
        self.killed = True


class Launcher:
    """Starts scripted trainings, and records them."""

    def __init__(self, make_result: Callable[[], TrainingResult]) -> None:
        self.make_result = make_result
        self.scripts: list[list[Scripted]] = []
        self.started: list[tuple[Run, int, Training]] = []
        self.deleted: list[RunState] = []
        self.stored: TrainingResult | None = None
        self.disk_full = False

    def begin(self, run: Run, champion: int) -> Training:
        if self.disk_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        answers = self.scripts.pop(0) if self.scripts else [None, self.make_result()]
        self.started.append((run, champion, Training(answers)))
        return self.started[-1][2]

    def result(self, run: Run) -> TrainingResult | None:
        return self.stored

    def delete(self, run: Run) -> None:
        self.deleted.append(run.state)


class Loop:
    """A log, a registry with a champion, and the job over both, restarted at will."""

    def __init__(self, log: tuple[Store, Writer], deployment: Deployment, page: MetricsPage, folder: Path) -> None:
        (self.store, self.writer), self.deployment, self.page = log, deployment, page
        self.registry = ModelRegistry(folder / ".slicewatch/registry", name="orders")
        self.clock, self.folder = ManualClock(), folder / "candidates"
        self.folder.mkdir()
        self.pairs: tuple[PairedCounts, ...] = GOOD
        self.launcher, self.metrics = Launcher(self.result), make_metrics()
        deployment.state = make_local_state(
            promoted_at=START - timedelta(hours=1),
            references={"a": Rate(200, 10_000), "b": Rate(500, 10_000)},
            accuracies={"a": Rate(950, 1_000)},
            metadata={"a": Metadata(protected=True)},
        )
        self.promotions = PromotionService(self.registry, self.writer, "m", self.clock)
        self.restart()

    def restart(self, **settings: Any) -> None:
        retrain = RetrainSettings(new_labels=10, attempts=2, **settings)
        detection = DriftDetection(self.deployment, self.store, self.writer, self.page, DriftSettings(swing=0.0))
        self.job = Retraining(
            retrain,
            self.deployment,
            self.store,
            self.writer,
            self.registry,
            detection,
            self.launcher,  # type: ignore[arg-type]
            self.metrics,
        )

    def result(self) -> TrainingResult:
        """Return a candidate that differs from the champion in its lineage alone."""
        bundle: ModelBundle = self.registry.get(1)
        other = replace(bundle, lineage={**bundle.lineage, "again": len(self.launcher.started)})
        folder = self.folder / f"candidate-{len(list(self.folder.iterdir()))}"
        other.save(folder)
        return TrainingResult(folder, self.pairs, {"base_rows": 240})

    def alarm(self, name: str = "a", kind: str = "coverage", direction: str = "up") -> int:
        band, now = ToleranceBand(Rate(200, 10_000), 0.017, 0.023, 0.1), self.clock.now
        drift = DriftStatus(name, "1", kind, band, 20.0, 18.0, now, direction, Rate(80, 1000), 0.06, 0.1)  # type: ignore[arg-type]
        opened = self.writer.submit(lambda c: open_alarm(c, "m", 1, DriftDetected(now, drift))).result()
        assert opened is not None
        return opened.id

    def label(self, right: int, wrong: int, records: Sequence[Mapping[str, Any]] = ()) -> None:
        """Log and label members of slice a, and count them; ``records`` are logged as distinct ones."""
        at = self.clock.now
        logged = [{"features": json.dumps(record), "content_hash": i} for i, record in enumerate(records)]
        rows = [make_prediction(f"{at}{i}", at, **each) for i, each in enumerate(logged or [{}] * (right + wrong))]
        self.writer.append(rows).result()
        labels = [make_label(row.id, at, "x" if i < right else "y") for i, row in enumerate(rows)]
        self.writer.label("m", labels).result()
        SnapshotJob(self.deployment, self.store, self.writer, self.page, timer=lambda: 0.0).run(at)

    def run(self, times: int = 1) -> Run | None:
        for _ in range(times):
            self.job.run(self.clock.advance(seconds=10))
        return next(iter(self.runs()), None)

    def runs(self) -> list[Run]:
        with self.store.read() as connection:
            return runs(connection, "m")

    def advance(self) -> Run:
        run = self.run()
        assert run is not None
        return run


@pytest.fixture
def loop(log: tuple[Store, Writer], deployment: Deployment, page: MetricsPage, trained: Path) -> Loop:
    return Loop(log, deployment, page, trained.parent)


def test_without_a_trigger_no_run_opens(loop: Loop) -> None:
    """Without an alarm or age there is no run."""
    assert loop.run(3) is None


def test_from_a_coverage_alarm_to_a_promotion(loop: Loop) -> None:
    """The run waits for labels, trains, is gated and then promoted, one step per call."""
    alarm = loop.alarm()
    assert loop.advance().state == "waiting_for_labels"
    assert loop.advance().outcome == "waiting for labels: a has 0 of 10 labels"
    loop.label(right=5, wrong=7)
    assert loop.advance().state == "waiting_for_labels"  # labels are counted once a minute
    loop.clock.advance(minutes=1)
    states = [loop.advance().state for _ in range(6)]
    assert states == ["training", "training", "training", "gated", "promoted", "promoted"]
    (run,) = loop.runs()
    assert (run.alarms, run.slices, run.attempts, run.champion, run.candidate) == ((alarm,), ("a",), 1, 1, 2)
    assert loop.registry.alias(CHAMPION) == 2
    assert loop.launcher.deleted == ["promoted"]
    assert read_sample(loop.metrics, 'slicewatch_retrains_total{outcome="promoted"}') == 1
    assert run.decision is not None
    assert [each.outcome for each in run.decision.slices] == ["better", "better"]


def test_the_expected_coverage_is_stored_with_the_decision(loop: Loop) -> None:
    """A moved slice has its counts since the change, any other its earlier reference."""
    loop.alarm()
    loop.run()
    loop.label(right=5, wrong=7)
    loop.run(4)
    (run,) = loop.runs()
    assert run.data is not None
    kept = {each["slice"]: (each["count"], each["n"]) for each in run.data["baseline"]}
    assert kept == {"a": (12, 12), "b": (500, 10_000)}
    assert [each["independent"] for each in run.data["baseline"]] == [1, None]  # rows of one record
    assert run.data["base_rows"] == 240


@pytest.mark.parametrize("contents", [1, 2])
def test_records_that_differ_in_no_feature_are_one_content(loop: Loop, contents: int) -> None:
    """An id, and case and blanks of a text, make no other content."""
    loop.alarm()
    loop.run()
    bundle = loop.registry.get(1)
    (text,) = (spec.column for spec in bundle.featurizer.specs if spec.kind == "text")
    records = [{**bundle.sample[k % contents], "trace": k} for k in range(12)]
    for record in records[::4]:
        record[text] = f" {record[text].upper()}"
    loop.label(6, 6, records)
    loop.run(4)
    (run,) = loop.runs()
    assert run.data is not None
    moved = next(each for each in run.data["baseline"] if each["slice"] == "a")
    assert (moved["count"], moved["n"], moved["independent"]) == (12, 12, contents)


def test_a_slice_that_is_as_accurate_as_before_needs_no_training(loop: Loop) -> None:
    """A slice with more rows on which the model is right is benign."""
    loop.alarm()
    loop.run()
    loop.label(right=20, wrong=0)
    run = loop.advance()
    assert run.state == "skipped"
    assert run.outcome.startswith("benign: accuracy on a is 100%")
    assert loop.run(3) == run


def test_an_accuracy_alarm_trains_at_once(loop: Loop) -> None:
    """No further labels are needed."""
    loop.alarm(kind="accuracy", direction="down")
    assert loop.advance().state == "training"


def test_an_accuracy_alarm_overrules_benign(loop: Loop) -> None:
    """A run with enough good labels still trains while an accuracy alarm is unresolved."""
    loop.alarm()
    loop.run()
    loop.alarm(kind="accuracy", direction="down")
    assert loop.advance().state == "waiting_for_labels"
    loop.label(right=20, wrong=0)
    loop.clock.advance(minutes=1)
    run = loop.advance()
    assert (run.state, run.outcome) == ("training", "alarm 2 shows a loss of accuracy")


def test_a_run_whose_alarms_are_resolved_is_skipped(loop: Loop) -> None:
    """A run without alarms has no purpose."""
    number = loop.alarm()
    loop.run()
    loop.writer.submit(lambda c: resolve_alarm(c, number, loop.clock.now, "by hand")).result()
    assert loop.advance().state == "skipped"


def test_a_candidate_that_is_worse_on_a_protected_slice_is_rejected(loop: Loop) -> None:
    """The champion stays, and the reason names the slice."""
    loop.pairs = BAD
    loop.alarm(kind="accuracy")
    loop.run(5)
    (run,) = loop.runs()
    assert run.state == "rejected"
    assert run.outcome.startswith("a is worse: difference -9.5")
    assert loop.registry.alias(CHAMPION) == 1
    assert loop.launcher.deleted == ["rejected"]


def test_a_candidate_with_too_few_rows_is_held_and_can_be_approved(loop: Loop) -> None:
    """An unverified protected slice holds the candidate; promotion by a person ends the run."""
    loop.pairs = FEW
    loop.alarm(kind="accuracy")
    loop.run(5)
    (run,) = loop.runs()
    assert (run.state, loop.registry.alias(CHAMPION)) == ("held", 1)
    assert run.candidate is not None
    loop.promotions.promote(run.candidate, None, "looked at by hand", "ada")
    (run,) = loop.runs()
    assert (run.state, run.outcome) == ("promoted", "approved by ada: looked at by hand")


def test_a_failed_training_is_retried_up_to_the_limit(loop: Loop) -> None:
    """After two attempts the last reason is the outcome."""
    loop.launcher.scripts = [[TrainingFailed("no rows")], [TrainingFailed("still none")]]
    loop.alarm(kind="accuracy")
    loop.run(5)
    (run,) = loop.runs()
    assert (run.attempts, run.outcome) == (1, "attempt 1 failed and will be retried: no rows")
    loop.clock.advance(minutes=1)
    loop.run(2)
    (run,) = loop.runs()
    assert (run.state, run.attempts, run.outcome) == ("failed", 2, "still none")


def test_a_training_that_cannot_start_is_a_failed_attempt(loop: Loop) -> None:
    """The outcome names the full disk."""
    loop.launcher.disk_full = True
    loop.alarm(kind="accuracy")
    loop.run(2)
    assert "and will be retried: training could not start: [Errno 28] No space left" in loop.runs()[0].outcome
    loop.clock.now += timedelta(minutes=2)
    assert loop.advance().state == "failed"


def test_a_candidate_that_cannot_be_used_is_another_failed_attempt(loop: Loop) -> None:
    """A damaged candidate counts as an attempt, and the next one follows."""
    loop.alarm(kind="accuracy")
    loop.launcher.scripts = [[None], [None]]
    loop.run(2)
    loop.launcher.stored = loop.result()
    (loop.launcher.stored.candidate / "weights.safetensors").write_bytes(b"")
    loop.restart()
    assert "the candidate cannot be used" in loop.advance().outcome
    loop.clock.advance(minutes=1)
    assert loop.advance().attempts == 2


def test_training_that_gives_the_champion_again_is_skipped(loop: Loop) -> None:
    """No version is promoted over itself."""
    loop.alarm(kind="accuracy")
    loop.launcher.scripts = [[replace(loop.result(), candidate=loop.registry.path(1))]]
    loop.run(3)
    (run,) = loop.runs()
    assert (run.state, len(loop.registry.history(CHAMPION))) == ("skipped", 1)
    assert run.outcome == "nothing new to learn from: training reproduced version 1 bit for bit"


def test_an_interrupted_training_is_started_again(loop: Loop) -> None:
    """A restart without a result starts another attempt."""
    loop.launcher.scripts = [[None], [None]]
    loop.alarm(kind="accuracy")
    loop.run(3)
    loop.restart()
    loop.clock.advance(minutes=1)
    run = loop.advance()
    assert (run.state, run.attempts) == ("training", 2)
    loop.restart()
    assert loop.advance().outcome == "training was interrupted 2 times"


def test_an_orderly_stop_does_not_count_as_an_attempt(loop: Loop) -> None:
    """After any number of orderly stops the training starts again."""
    loop.launcher.scripts = [[None], [None], [None], [None]]
    loop.alarm(kind="accuracy")
    for _ in range(4):
        loop.run(2)
        loop.job.stop(loop.clock.now)
        loop.restart()
    (run,) = loop.runs()
    assert (run.state, run.attempts, len(loop.launcher.started)) == ("training", 0, 4)


def test_a_promotion_of_another_store_is_ignored(loop: Loop) -> None:
    """An older change with the same run number and reason does not count as this promotion."""
    loop.job.request("requested by hand", "ada", loop.clock.now)
    before = loop.registry.get(1)
    old = loop.registry.put(replace(before, lineage={**before.lineage, "old": True}))
    long_ago = loop.clock.now - timedelta(days=30)
    loop.registry.promote(old, expected=1, reason="run 1: requested by hand", at=long_ago)
    loop.run(4)
    (run,) = loop.runs()
    assert run.state == "promoted"
    assert loop.registry.alias(CHAMPION) == run.candidate == old + 1


def test_an_interrupted_promotion_can_be_repeated(loop: Loop) -> None:
    """Repeating it after the alias moved ends the run, and writes one audit entry."""
    loop.pairs = FEW
    loop.alarm(kind="accuracy")
    loop.run(5)
    (run,) = loop.runs()
    assert run.candidate is not None
    loop.registry.promote(run.candidate, expected=1, reason="looked at", at=loop.clock.now)
    for _ in range(2):
        loop.promotions.promote(run.candidate, None, "again", "ada")
    (run,) = loop.runs()
    assert (run.state, run.outcome) == ("promoted", "approved by ada: looked at")
    with loop.store.read() as connection:
        actions = [entry.action for _, entry in entries(connection)]
    assert actions.count("model.promoted") == 1


def test_alarms_of_a_version_that_is_no_longer_champion_open_nothing(loop: Loop) -> None:
    """Until the promoted version is active, alarms of the old version trigger nothing."""
    loop.alarm(kind="accuracy")
    before = loop.registry.get(1)
    other = loop.registry.put(replace(before, lineage={**before.lineage, "other": True}))
    loop.registry.promote(other, expected=1, reason="by hand", at=loop.clock.now)
    assert loop.run(2) is None


def test_a_training_finished_before_a_restart_is_not_repeated(loop: Loop) -> None:
    """Its result is read from the folder of the attempt."""
    loop.launcher.scripts = [[None]]
    loop.alarm(kind="accuracy")
    loop.run(2)
    loop.launcher.stored = loop.result()
    loop.restart()
    assert loop.advance().state == "gated"
    assert len(loop.launcher.started) == 1


def test_a_restart_between_gate_and_promotion_promotes_once(loop: Loop) -> None:
    """A promotion that was done but not recorded is not done again."""
    loop.alarm(kind="accuracy")
    loop.run(4)
    (run,) = loop.runs()
    assert run.state == "gated"
    assert run.candidate is not None
    reason = f"run {run.id}: {run.reason}"
    loop.registry.promote(run.candidate, expected=1, reason=reason, at=loop.clock.now)
    loop.restart()
    assert loop.advance().state == "promoted"
    assert [each.version for each in loop.registry.history(CHAMPION)] == [1, 2]


def damage(loop: Loop, sequence: int) -> None:
    """Damage a change of the champion."""
    folder = loop.registry.path(1).parents[1] / "aliases" / CHAMPION
    (folder / f"{sequence:06d}.json").write_text("damaged")


def test_an_old_change_that_is_damaged_holds_up_no_promotion(loop: Loop) -> None:
    """The candidate follows the last change."""
    loop.registry.promote(1, expected=1, reason="once more", at=loop.clock.now)
    damage(loop, 1)
    loop.alarm(kind="accuracy")
    loop.run(5)
    (run,) = loop.runs()
    assert (run.state, loop.registry.alias(CHAMPION)) == ("promoted", run.candidate)


def test_a_promotion_waits_for_a_champion_that_can_be_read(loop: Loop) -> None:
    """The run says so, and names the file."""
    loop.alarm(kind="accuracy")
    loop.run(4)
    damage(loop, 1)
    run = loop.advance()
    assert run.state == "gated"
    assert run.outcome.startswith(f"version {run.candidate} waits to be promoted: ")
    assert "aliases/champion/000001.json" in run.outcome


def test_a_candidate_is_held_if_the_champion_changed_meanwhile(loop: Loop) -> None:
    """The candidate was compared with another version than the one it would replace."""
    loop.alarm(kind="accuracy")
    loop.run(4)
    other = loop.registry.get(1)
    version = loop.registry.put(replace(other, lineage={**other.lineage, "other": True}))
    loop.registry.promote(version, expected=1, reason="by hand", at=loop.clock.now)
    run = loop.advance()
    assert run.state == "held"
    assert f"the champion is now version {version}" in run.outcome


def test_a_run_can_be_requested(loop: Loop) -> None:
    """It trains at once, and a second request is refused."""
    run = loop.job.request("new words everywhere", "ada", loop.clock.now)
    assert (run.state, run.trigger, run.reason) == ("training", "request", "new words everywhere")
    with pytest.raises(RunActive, match="run 1"):
        loop.job.request("again", "ada", loop.clock.now)
    with loop.store.read() as connection:
        (_, entry), *_ = entries(connection)
    assert (entry.actor, entry.action, entry.subject) == ("ada", "run.opened", "run 1")


def test_without_automatic_retraining_alarms_open_no_run(loop: Loop) -> None:
    """Requests still do."""
    loop.restart(automatic=False)
    loop.alarm()
    assert loop.run(2) is None
    loop.job.request("please", "ada", loop.clock.now)
    assert loop.advance().attempts == 1


def test_stopping_kills_the_training(loop: Loop) -> None:
    """No process is left running."""
    loop.launcher.scripts = [[None]]
    loop.alarm(kind="accuracy")
    loop.run(2)
    loop.job.stop(loop.clock.now)
    assert loop.launcher.started[0][2].killed
