"""A retraining from its cause to its end, with trainings that are scripted."""

import errno
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from models.bundle.model_bundle import ModelBundle
from models.registry import CHAMPION, ModelRegistry
from service.decisions import DriftDetected, DriftStatus, PairedCounts, Run, RunState, ToleranceBand
from service.jobs.promotion import PromotionService
from service.jobs.retraining import GateRules, Retraining, RetrainParts
from service.jobs.snapshot import SnapshotJob
from service.jobs.training.process import TrainingFailed, TrainingResult
from service.monitor.estimates import EstimateConfig
from service.monitor.retrain_policy import RetrainRules
from service.store.alarms import open_alarm, resolve_alarm
from service.store.audit import entries
from service.store.engine import Store
from service.store.errors import RunActive
from service.store.runs import runs
from service.store.writer import Writer
from service.views.current import Current
from sfs.function import ALL_ROWS
from sfs.intervals import Rate
from sfs.validation import Metadata

GOOD = (PairedCounts(ALL_ROWS, 2000, 1800, 10, 100), PairedCounts("a", 1000, 850, 5, 100))
BAD = (PairedCounts(ALL_ROWS, 2000, 1800, 10, 100), PairedCounts("a", 1000, 850, 100, 5))
FEW = (PairedCounts(ALL_ROWS, 2000, 1800, 10, 100), PairedCounts("a", 20, 15, 0, 4))
Scripted = TrainingResult | TrainingFailed | None


class Training:
    """A training that says what it was told to, look by look; the last for ever."""

    def __init__(self, says: Sequence[Scripted]) -> None:
        self.says, self.killed = list(says), False

    def poll(self) -> Scripted:
        return self.says.pop(0) if len(self.says) > 1 else self.says[0]

    def kill(self) -> None:
        self.killed = True


class Loop:
    """A log, a registry with a champion, and the job over both, restarted at will."""

    def __init__(self, desk: Any, log: tuple[Store, Writer], registry: ModelRegistry, folder: Path) -> None:
        self.desk, (self.store, self.writer), self.registry = desk, log, registry
        self.now, self.folder = desk.start, folder
        self.pairs: tuple[PairedCounts, ...] = GOOD
        self.scripts: list[list[Scripted]] = []
        self.begun: list[tuple[Run, int, Training]] = []
        self.ended: list[RunState] = []
        self.done: TrainingResult | None = None
        self.full = False
        self.current = Current(
            desk.in_force_of(
                promoted_at=desk.start - timedelta(hours=1),
                references={"a": Rate(200, 10_000), "b": Rate(500, 10_000)},
                metadata={"a": Metadata(protected=True)},
            )
        )
        self.rules = RetrainRules.of(new_labels=10)
        self.promotions = PromotionService(registry, self.writer, "m", lambda: self.now)
        self.restart()

    def restart(self, automatic: bool = True) -> None:
        parts = RetrainParts(
            store=self.store,
            writer=self.writer,
            current=self.current,
            registry=self.registry,
            begin=self.begin,  # type: ignore[arg-type]
            finished=lambda run: self.done,
            zone=lambda name: ToleranceBand(Rate(95, 100), 0.9, 1.0, 0.01),
            ended=lambda run: self.ended.append(run.state),
        )
        self.job = Retraining(parts, self.rules, GateRules(0.02, 50, 2), automatic)

    def begin(self, run: Run, champion: int) -> Training:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        says = self.scripts.pop(0) if self.scripts else [None, self.result()]
        self.begun.append((run, champion, Training(says)))
        return self.begun[-1][2]

    def result(self) -> TrainingResult:
        """A candidate that differs from the champion in its lineage alone."""
        bundle: ModelBundle = self.registry.get(1)
        other = replace(bundle, lineage={**bundle.lineage, "again": len(self.begun)})
        folder = self.folder / f"candidate-{len(list(self.folder.iterdir()))}"
        other.save(folder)
        return TrainingResult(folder, other.hash, self.pairs, {"base_rows": 240})

    def alarm(self, name: str = "a", kind: str = "coverage", direction: str = "up") -> int:
        zone = ToleranceBand(Rate(200, 10_000), 0.017, 0.023, 0.1)
        drift = DriftStatus(name, "1", kind, zone, 20.0, 18.0, self.now, direction, Rate(80, 1000), 0.06, 0.1)  # type: ignore[arg-type]
        opened = self.writer.submit(lambda c: open_alarm(c, "m", 1, DriftDetected(self.now, drift))).result()
        assert opened is not None
        return opened.id

    def labelled(self, right: int, wrong: int) -> None:
        """Answer and label members of slice a, and let the monitor count them."""
        at = self.now
        rows = [self.desk.prediction(f"{at}{i}", at, member=b"\x01") for i in range(right + wrong)]
        self.writer.append(rows).result()
        given = [self.desk.label(r.id, at, "x" if i < right else "y") for i, r in enumerate(rows)]
        self.writer.label("m", given).result()
        SnapshotJob(self.store, self.writer, self.current, EstimateConfig, lambda _: None).tick(at)

    def step(self, times: int = 1) -> Run | None:
        for _ in range(times):
            self.now += timedelta(seconds=10)
            self.job.step(self.now)
        return next(iter(self.runs()), None)

    def runs(self) -> list[Run]:
        with self.store.read() as connection:
            return runs(connection, "m")

    def stand(self) -> Run:
        run = self.step()
        assert run is not None
        return run


@pytest.fixture
def loop(desk: Any, log: tuple[Store, Writer], trained: Path, tmp_path: Path) -> Loop:
    registry = ModelRegistry(trained.parent / ".slicewatch/registry", name="orders")
    (tmp_path / "candidates").mkdir()
    return Loop(desk, log, registry, tmp_path / "candidates")


def test_without_a_cause_nothing_happens(loop: Loop) -> None:
    """A calm day opens no run."""
    assert loop.step(3) is None


def test_from_a_coverage_alarm_to_a_promotion(loop: Loop) -> None:
    """The run waits for labels, trains, is gated and then promoted, each in a step of its own."""
    alarm = loop.alarm()
    assert loop.stand().state == "waiting_for_labels"
    assert loop.stand().outcome == "waiting for labels: a has 0 of 10 labels"
    loop.labelled(right=5, wrong=7)
    assert loop.stand().state == "waiting_for_labels"  # labels are counted once a minute
    loop.now += timedelta(minutes=1)
    states = [loop.stand().state for _ in range(6)]
    assert states == ["training", "training", "training", "gated", "promoted", "promoted"]
    (run,) = loop.runs()
    assert (run.alarms, run.slices, run.attempts, run.champion, run.candidate) == ((alarm,), ("a",), 1, 1, 2)
    assert loop.registry.alias(CHAMPION) == 2
    assert loop.ended == ["promoted"]
    assert run.decision is not None
    assert [each.outcome for each in run.decision.slices] == ["better", "better"]


def test_what_will_be_expected_is_kept_with_the_decision(loop: Loop) -> None:
    """Of the slice that moved, what was counted since; of the other, what was expected before."""
    loop.alarm()
    loop.step()
    loop.labelled(right=5, wrong=7)
    loop.step(4)
    (run,) = loop.runs()
    assert run.data is not None
    kept = {each["slice"]: (each["count"], each["n"]) for each in run.data["baseline"]}
    assert kept == {"a": (12, 12), "b": (500, 10_000)}
    assert run.data["base_rows"] == 240


def test_a_slice_that_is_as_accurate_as_before_needs_no_training(loop: Loop) -> None:
    """Benign: there are more rows of it, and the model is right on them."""
    loop.alarm()
    loop.step()
    loop.labelled(right=20, wrong=0)
    run = loop.stand()
    assert run.state == "skipped"
    assert run.outcome.startswith("benign: accuracy on a is 100%")
    assert loop.step(3) == run


def test_an_accuracy_alarm_trains_at_once(loop: Loop) -> None:
    """Nothing has to be waited for: the labels have spoken."""
    loop.alarm(kind="accuracy", direction="down")
    assert loop.stand().state == "training"


def test_an_accuracy_alarm_stands_against_benign(loop: Loop) -> None:
    """What it shows is not called benign, whatever the labels say; they are waited for all the same."""
    loop.alarm()
    loop.step()
    loop.alarm(kind="accuracy", direction="down")
    assert loop.stand().state == "waiting_for_labels"
    loop.labelled(right=20, wrong=0)
    loop.now += timedelta(minutes=1)
    run = loop.stand()
    assert (run.state, run.outcome) == ("training", "alarm 2 says that accuracy suffers")


def test_a_run_whose_alarms_are_resolved_is_skipped(loop: Loop) -> None:
    """There is nothing left that it would answer."""
    number = loop.alarm()
    loop.step()
    loop.writer.submit(lambda c: resolve_alarm(c, number, loop.now, "by hand")).result()
    assert loop.stand().state == "skipped"


def test_a_candidate_that_is_worse_on_a_protected_slice_is_rejected(loop: Loop) -> None:
    """The champion stays, and the reason names the slice."""
    loop.pairs = BAD
    loop.alarm(kind="accuracy")
    loop.step(5)
    (run,) = loop.runs()
    assert run.state == "rejected"
    assert run.outcome.startswith("a is worse: difference -9.5")
    assert loop.registry.alias(CHAMPION) == 1
    assert loop.ended == ["rejected"]


def test_a_candidate_with_too_few_rows_is_held_and_can_be_approved(loop: Loop) -> None:
    """Not verified is not passed; a person who promotes the candidate ends the run."""
    loop.pairs = FEW
    loop.alarm(kind="accuracy")
    loop.step(5)
    (run,) = loop.runs()
    assert (run.state, loop.registry.alias(CHAMPION)) == ("held", 1)
    assert run.candidate is not None
    loop.promotions.promote(run.candidate, None, "looked at by hand", "ada")
    (run,) = loop.runs()
    assert (run.state, run.outcome) == ("promoted", "approved by ada: looked at by hand")


def test_a_training_that_fails_is_tried_again_and_then_given_up(loop: Loop) -> None:
    """Two attempts are allowed here; the last reason is the outcome."""
    loop.scripts = [[TrainingFailed("no rows")], [TrainingFailed("still none")]]
    loop.alarm(kind="accuracy")
    loop.step(5)
    (run,) = loop.runs()
    assert (run.attempts, run.outcome) == (1, "attempt 1 failed, another follows: no rows")
    loop.now += timedelta(minutes=1)
    loop.step(2)
    (run,) = loop.runs()
    assert (run.state, run.attempts, run.outcome) == ("failed", 2, "still none")


def test_a_training_that_cannot_begin_says_why(loop: Loop) -> None:
    """A full disk is in the outcome, not only in the log."""
    loop.full = True
    loop.alarm(kind="accuracy")
    loop.step(2)
    assert "another follows: it could not begin: [Errno 28] No space left" in loop.runs()[0].outcome
    loop.now += timedelta(minutes=2)
    assert loop.stand().state == "failed"


def test_a_candidate_that_cannot_be_used_is_another_failed_attempt(loop: Loop) -> None:
    """What was damaged on the way is not tried for ever; the next attempt follows."""
    loop.alarm(kind="accuracy")
    loop.scripts = [[None], [None]]
    loop.step(2)
    loop.done = loop.result()
    (loop.done.candidate / "weights.safetensors").write_bytes(b"")
    loop.restart()
    assert "its candidate cannot be used" in loop.stand().outcome
    loop.now += timedelta(minutes=1)
    assert loop.stand().attempts == 2


def test_training_that_gives_the_champion_again_is_skipped(loop: Loop) -> None:
    """There was nothing new to learn from; no version is promoted over itself."""
    loop.alarm(kind="accuracy")
    loop.scripts = [[replace(loop.result(), candidate=loop.registry.path(1))]]
    loop.step(3)
    (run,) = loop.runs()
    assert (run.state, len(loop.registry.history(CHAMPION))) == ("skipped", 1)
    assert run.outcome == "nothing new to learn from: training gave version 1 again, bit for bit"


def test_a_training_that_was_cut_off_is_begun_again(loop: Loop) -> None:
    """A restart finds the run in training and nobody at it: that is another attempt."""
    loop.scripts = [[None], [None]]
    loop.alarm(kind="accuracy")
    loop.step(3)
    loop.restart()
    loop.now += timedelta(minutes=1)
    run = loop.stand()
    assert (run.state, run.attempts) == ("training", 2)
    loop.restart()
    assert loop.stand().outcome == "training was cut off 2 times"


def test_a_training_that_the_service_ended_does_not_count(loop: Loop) -> None:
    """However often the service is stopped in an orderly way, the training is begun again."""
    loop.scripts = [[None], [None], [None], [None]]
    loop.alarm(kind="accuracy")
    for _ in range(4):
        loop.step(2)
        loop.job.stop(loop.now)
        loop.restart()
    (run,) = loop.runs()
    assert (run.state, run.attempts, len(loop.begun)) == ("training", 0, 4)


def test_a_promotion_of_another_store_is_not_taken_for_ours(loop: Loop) -> None:
    """A run of the same number and reason promoted something long ago: this candidate is still to be promoted."""
    loop.job.request("asked for by hand", "ada", loop.now)
    before = loop.registry.get(1)
    old = loop.registry.put(replace(before, lineage={**before.lineage, "old": True}))
    long_ago = loop.now - timedelta(days=30)
    loop.registry.promote(old, expected=1, reason="run 1: asked for by hand", at=long_ago)
    loop.step(4)
    (run,) = loop.runs()
    assert run.state == "promoted"
    assert loop.registry.alias(CHAMPION) == run.candidate == old + 1


def test_a_promotion_that_was_cut_off_can_be_asked_for_again(loop: Loop) -> None:
    """The alias had moved, and nothing was kept of it: asking again ends the run, and tells the audit once."""
    loop.pairs = FEW
    loop.alarm(kind="accuracy")
    loop.step(5)
    (run,) = loop.runs()
    assert run.candidate is not None
    loop.registry.promote(run.candidate, expected=1, reason="looked at", at=loop.now)
    for _ in range(2):
        loop.promotions.promote(run.candidate, None, "again", "ada")
    (run,) = loop.runs()
    assert (run.state, run.outcome) == ("promoted", "approved by ada: looked at")
    with loop.store.read() as connection:
        told = [entry.action for _, entry in entries(connection)]
    assert told.count("model.promoted") == 1


def test_alarms_of_a_version_that_is_no_longer_champion_open_nothing(loop: Loop) -> None:
    """Between a promotion and the moment when it answers, the old version's alarms are no cause."""
    loop.alarm(kind="accuracy")
    before = loop.registry.get(1)
    other = loop.registry.put(replace(before, lineage={**before.lineage, "other": True}))
    loop.registry.promote(other, expected=1, reason="by hand", at=loop.now)
    assert loop.step(2) is None


def test_a_training_that_was_done_before_a_restart_is_not_begun_again(loop: Loop) -> None:
    """Its result lies in the folder of the attempt."""
    loop.scripts = [[None]]
    loop.alarm(kind="accuracy")
    loop.step(2)
    loop.done = loop.result()
    loop.restart()
    assert loop.stand().state == "gated"
    assert len(loop.begun) == 1


def test_a_restart_between_gate_and_promotion_promotes_once(loop: Loop) -> None:
    """The decision stands in the log; a promotion that was done, and not yet kept, is not done again."""
    loop.alarm(kind="accuracy")
    loop.step(4)
    (run,) = loop.runs()
    assert run.state == "gated"
    assert run.candidate is not None
    reason = f"run {run.id}: {run.reason}"
    loop.registry.promote(run.candidate, expected=1, reason=reason, at=loop.now)
    loop.restart()
    assert loop.stand().state == "promoted"
    assert [each.version for each in loop.registry.history(CHAMPION)] == [1, 2]


def test_a_candidate_is_held_where_the_champion_changed_meanwhile(loop: Loop) -> None:
    """It was compared with another version than the one that it would replace."""
    loop.alarm(kind="accuracy")
    loop.step(4)
    other = loop.registry.get(1)
    version = loop.registry.put(replace(other, lineage={**other.lineage, "other": True}))
    loop.registry.promote(version, expected=1, reason="by hand", at=loop.now)
    run = loop.stand()
    assert run.state == "held"
    assert f"version {version} is champion by now" in run.outcome


def test_people_can_ask_for_a_run(loop: Loop) -> None:
    """It trains at once, and a second one has to wait."""
    run = loop.job.request("new words everywhere", "ada", loop.now)
    assert (run.state, run.trigger, run.reason) == ("training", "request", "new words everywhere")
    with pytest.raises(RunActive, match="run 1"):
        loop.job.request("again", "ada", loop.now)
    with loop.store.read() as connection:
        (_, told), *_ = entries(connection)
    assert (told.actor, told.action, told.subject) == ("ada", "run.opened", "run 1")


def test_where_it_is_not_automatic_only_people_ask(loop: Loop) -> None:
    """Alarms open no run then."""
    loop.restart(automatic=False)
    loop.alarm()
    assert loop.step(2) is None
    loop.job.request("please", "ada", loop.now)
    assert loop.stand().attempts == 1


def test_stopping_ends_the_training(loop: Loop) -> None:
    """No process is left behind."""
    loop.scripts = [[None]]
    loop.alarm(kind="accuracy")
    loop.step(2)
    loop.job.stop(loop.now)
    assert loop.begun[0][2].killed
