"""Options of the trainer, checkpoints, logs, and the order of batches."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models.batch_schedulers import SequentialScheduler, ShuffledScheduler, batch_schedulers
from models.checkpointer import Checkpointer
from models.dataset import DictDataLoader, DictDataset
from models.errors import ConfigError, ModelError
from models.multitask import MultitaskClassifier, Operation, Task
from models.slice_aware import SliceAwareClassifier
from models.trainer import EpochRecord, History, Trainer, learning_rate, make_optimizer
from models.trainer_config import TrainerConfig
from models.training_log import LogManager, LogWriter, TensorBoardWriter
from sfs.matrix import SliceMatrix

LOSS = "model/all/train/loss"


def loader(split: str, rows: int = 60, name: str = "data") -> DictDataLoader:
    torch.manual_seed(len(split))
    X = torch.randn(rows, 4)
    dataset = DictDataset(name, split, {"x": X}, {"task": (X[:, 0] > 0).long()})
    return DictDataLoader(dataset, batch_size=10)


def classifier() -> MultitaskClassifier:
    torch.manual_seed(0)
    head = nn.ModuleDict({"head": nn.Linear(4, 2)})
    return MultitaskClassifier([Task("task", head, [Operation("head", [("_input_", "x")])])])


def test_nested_options_change_alone() -> None:
    """Those that are not named keep their value."""
    config = Trainer(
        n_epochs=3,
        optimizer_config={"adam_config": {"betas": (0.8, 0.9)}},
        lr_scheduler_config={"exponential_config": {"gamma": 0.5}, "min_lr": 0.3},
        lr_scheduler="exponential",
        lr=1.0,
    ).config
    assert config.optimizer_config.adam_config.betas == (0.8, 0.9)
    assert not config.optimizer_config.adam_config.amsgrad
    assert [learning_rate(config, 9, epoch) for epoch in range(3)] == [1.0, 0.5, 0.3]
    assert make_optimizer([nn.Parameter(torch.ones(1))], config).param_groups[0]["betas"] == (0.8, 0.9)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer_config": {"adam": {}}}, "unknown training option 'optimizer_config.adam'; known are sgd_config"),
        ({"lr_scheduler_config": {"warmup_unit": "rows"}}, "warmup_unit must be 'batches' or 'epochs', got 'rows'"),
        ({"lr_scheduler_config": {"warmup_percentage": 2}}, "warmup_percentage from 0 to 1"),
        ({"batch_scheduler": "random"}, "Unrecognized batch scheduler option"),
        ({"log_writer": "csv"}, "Unrecognized writer option"),
        ({"optimizer_config": 3}, "optimizer_config must be a dictionary of options, got 3"),
        ({"lr_scheduler_config": {"step_config": {"step_size": 0}}}, "step_size must be at least 1, got 0"),
    ],
)
def test_options_that_do_not_exist_are_refused(options: dict[str, Any], said: str) -> None:
    """By the place where they stand."""
    with pytest.raises(ConfigError, match=said):
        Trainer(**options)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"warmup_steps": 4}, 4),
        ({"warmup_steps": 0.5, "warmup_unit": "epochs"}, 3),
        ({"warmup_percentage": 0.25}, 3),
        ({}, 0),
    ],
)
def test_a_warm_up_is_counted_in_batches_epochs_or_shares(options: dict[str, Any], steps: int) -> None:
    """Of two epochs of six batches; after the warm-up the rate is the full one."""
    trainer = Trainer(n_epochs=2, lr=1e-3, lr_scheduler_config=options)
    assert trainer.config.lr_scheduler_config.steps(2, 6) == steps
    history = trainer.fit(classifier(), [loader("train")])
    assert [epoch.learning_rate for epoch in history.epochs] == [1e-3, 1e-3]
    short = Trainer(n_epochs=1, lr=1e-3, lr_scheduler_config={"warmup_steps": 12})
    (epoch,) = short.fit(classifier(), [loader("train")]).epochs
    assert epoch.learning_rate == pytest.approx(0.5e-3)


def test_scores_of_every_epoch_are_logged(tmp_path: Path) -> None:
    """Losses in training, rate, and the scores on the validation rows, with the settings beside them."""
    options = {"log_dir": str(tmp_path), "run_name": "first"}
    trainer = Trainer("named", n_epochs=3, lr=0.1, logging=True, log_writer="json", log_writer_config=options)
    trainer.fit(classifier(), [loader("train"), loader("valid")])
    log = json.loads((tmp_path / "first" / "log.json").read_text())
    assert set(log) == {LOSS, "model/all/train/lr", "task/data/train/loss", "task/data/valid/accuracy"}
    assert [step for step, _ in log[LOSS]] == [60, 120, 180]  # rows
    assert log[LOSS][-1][1] < log[LOSS][0][1]
    assert log["task/data/train/loss"] == log[LOSS]
    assert log["task/data/valid/accuracy"][-1][1] == trainer.metrics["task/data/valid/accuracy"] > 0.8
    assert json.loads((tmp_path / "first" / "config.json").read_text())["n_epochs"] == 3


def test_a_loss_is_the_mean_over_labels(tmp_path: Path) -> None:
    """Of the rows since the last evaluation, whatever the size of a batch."""
    options = {"log_dir": str(tmp_path), "run_name": "r"}
    model, rows = classifier(), loader("train", rows=25)
    trainer = Trainer(lr=1e-12, logging=True, log_writer="json", log_writer_config=options)
    trainer.fit(model, [rows])
    X, Y = rows.dataset.X_dict["x"], rows.dataset.Y_dict["task"]
    whole = model.calculate_loss({"x": X}, {"task": Y})[0]["task"]
    assert trainer.metrics[LOSS] == pytest.approx(whole.item(), rel=1e-5)


def test_parts_of_a_slice_aware_loss_are_logged(tmp_path: Path) -> None:
    """Each by its name, and their sum."""
    torch.manual_seed(0)
    model = SliceAwareClassifier(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), 8, ["half"])
    X = torch.randn(40, 4)
    rows = DictDataset("data", "train", {"input_data": X}, {"task": (X[:, 0] > 0).long()})
    batches = model.make_slice_dataloader(rows, SliceMatrix(["half"], (X[:, 1:2] > 0).numpy()), batch_size=10)
    options = {"log_dir": str(tmp_path), "run_name": "r"}
    trainer = Trainer(logging=True, log_writer="json", log_writer_config=options)
    trainer.fit(model, [batches])
    parts = [f"{name}/data/train/loss" for name in ("task", "task_indicators", "task_experts")]
    assert set(trainer.metrics) == {LOSS, "model/all/train/lr", *parts}
    assert trainer.metrics[LOSS] == pytest.approx(sum(trainer.metrics[part] for part in parts), rel=0.01)


def test_runs_without_a_name_are_numbered(tmp_path: Path) -> None:
    """The first free number."""
    first, second = (LogWriter(log_dir=str(tmp_path)) for _ in range(2))
    assert (first.run_name, second.run_name) == ("run_1", "run_2")
    first.write_text("hello", "note.txt")
    assert (tmp_path / "run_1" / "note.txt").read_text() == "hello"


def test_without_tensorboard_the_reason_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And another writer."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=r"slicewatch\[tensorboard\].*, or set log_writer='json'"):
        TensorBoardWriter(log_dir=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_tensorboard_gets_the_same_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Scalars and settings, and it is closed at the end."""
    heard: list[tuple[Any, ...]] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            heard.append(("open", folder))

        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: heard.append((name, *arguments))

    module = type(sys)("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    options = {"log_dir": str(tmp_path), "run_name": "r"}
    trainer = Trainer(n_epochs=2, logging=True, log_writer_config=options)
    trainer.fit(classifier(), [loader("train")])
    log = json.loads((tmp_path / "r" / "log.json").read_text())
    assert heard[0] == ("open", str(tmp_path / "r"))
    assert heard[1][:2] == ("add_text", "config")
    assert [each[2:] for each in heard if each[:2] == ("add_scalar", LOSS)] == [(v, int(s)) for s, v in log[LOSS]]
    assert heard[-1] == ("close",)


def test_training_ends_with_the_best_checkpoint(tmp_path: Path) -> None:
    """The best by its metric, of one each epoch; the others are deleted, or stay if asked for."""
    for clear in (True, False):
        folder = tmp_path / str(clear)
        options = {
            "checkpoint_dir": str(folder),
            "checkpoint_metric": "task/data/valid/accuracy:max",
            "checkpoint_clear": clear,
            "checkpoint_runway": 2,
        }
        model = classifier()
        trainer = Trainer(n_epochs=4, lr=0.5, checkpointing=True, checkpointer_config=options)
        trainer.fit(model, [loader("train"), loader("valid")])
        found = sorted(path.name for path in folder.iterdir())
        kept = [] if clear else [f"checkpoint_{epoch}.safetensors" for epoch in (2, 3, 4)]
        assert found == ["best_model_task_data_valid_accuracy.safetensors", *kept]
        best = classifier()
        best.load(folder / found[0])
        for mine, other in zip(model.parameters(), best.parameters(), strict=True):
            assert torch.equal(mine, other)
        assert trainer.checkpointer is not None
        (score,) = model.score([loader("valid")]).values()
        assert score == trainer.checkpointer.best_metric_dict["task/data/valid/accuracy"]


class Numbered:
    """A model whose weights are one number."""

    number = 0

    def save(self, path: str | Path) -> None:
        Path(path).write_text(str(self.number))

    def load(self, path: str | Path) -> None:
        self.number = int(Path(path).read_text())


def test_the_best_of_each_metric_is_kept(tmp_path: Path) -> None:
    """The earlier of two equal ones; what is no number is never the best. A name may have a slash."""
    metrics = {"checkpoint_metric": "a/x_slice:s/d/v/loss:min", "checkpoint_task_metrics": ("b/d/v/f1:max",)}
    checkpointer, model = Checkpointer("epochs", 1, checkpoint_dir=str(tmp_path), **metrics), Numbered()
    losses, scores = (3, 1, 1, float("nan")), (0.1, 0.3, 0.5, 0.4)
    for model.number, (loss, score) in enumerate(zip(losses, scores, strict=True)):
        checkpointer.checkpoint(model.number, model, {"a/x_slice:s/d/v/loss": loss, "b/d/v/f1": score})
    assert checkpointer.best_metric_dict == {"a/x_slice:s/d/v/loss": 1, "b/d/v/f1": 0.5}
    assert checkpointer.load_best_model(model).number == 1
    assert (tmp_path / "best_model_b_d_v_f1.safetensors").read_text() == "2"
    other = Checkpointer("points", 1, checkpoint_dir=str(tmp_path))
    model.number = 9
    assert other.load_best_model(model).number == 9
    for points in (1_234_567, 1_234_568):
        other.checkpoint(points, model, {})
    other.clear()
    left = {path.name for path in tmp_path.glob("checkpoint_*")}
    assert left == {f"checkpoint_{n}.safetensors" for n in range(4)}  # of the other training


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"checkpoint_metric": "model/all/train/loss"}, "Metric must be of the form 'metric_name:mode'"),
        (
            {"checkpoint_metric": "model/all/train/loss:least"},
            "Unrecognized checkpoint metric mode least for metric model/all/train/loss",
        ),
        (
            {"checkpoint_metric": "loss:min"},
            "checkpoint_metric must be formatted 'task/dataset/split/metric:mode', got 'loss:min'",
        ),
        ({"checkpoint_runway": -1}, "Invalid checkpoint_runway -1, must be at least 0"),
        ({"checkpoint_factor": 0}, "Invalid checkpoint freq: checkpoint_factor must be at least 1 .* got 0 and 1"),
        ({"checkpoint_task_metrics": "a/b/c/d:max"}, "checkpoint_task_metrics must be a list"),
        ({"checkpoint_task_metrics": ["model/all/train/loss:max"]}, "has both modes"),
    ],
)
def test_checkpoints_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    """The message names the setting."""
    with pytest.raises(ConfigError, match=said):
        Checkpointer("epochs", 1, **options)


@pytest.mark.parametrize(("unit", "freq", "due"), [("epochs", 0.5, 5), ("batches", 3, 3), ("points", 45, 5)])
def test_an_evaluation_is_due_by_its_unit(unit: str, freq: float, due: int) -> None:
    """Counts begin again after it; those since the start do not."""
    log = LogManager(10, counter_unit=unit, evaluation_freq=freq)
    for batch in range(1, 3 * due + 1):
        log.update(10)
        assert log.trigger_evaluation() is (batch % due == 0)
    assert (log.batch_total, log.point_total, log.epoch_total) == (3 * due, 30 * due, 3 * due / 10)
    assert (log.batch_count, log.unit_count) == (0, 0)
    assert not log.trigger_checkpointing()


def test_a_checkpoint_is_due_after_some_evaluations(tmp_path: Path) -> None:
    """As its factor says."""
    log = LogManager(1, checkpointer=Checkpointer("epochs", 1, checkpoint_dir=str(tmp_path), checkpoint_factor=2))
    told = []
    for _ in range(6):
        log.update(1)
        log.trigger_evaluation()
        told.append(log.trigger_checkpointing())
    assert told == [False, True] * 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"counter_unit": "rows"}, "Unrecognized counter_unit: rows is none of"),
        ({"evaluation_freq": 0}, "above 0, got 0"),
    ],
)
def test_units_that_cannot_be_are_refused(options: dict[str, Any], said: str) -> None:
    """The message names the value."""
    with pytest.raises(ConfigError, match=said):
        LogManager(1, **options)


def test_the_order_of_batches() -> None:
    """One loader after the other, or in random turn; all of them, each with its loader, in the loader's order."""
    first, second = loader("train", 30, "first"), loader("train", 50, "second")
    drawn = [own.dataset.name for _, own in SequentialScheduler().get_batches([first, second])]
    assert drawn == ["first"] * 3 + ["second"] * 5
    generator = torch.Generator().manual_seed(0)
    turns = list(ShuffledScheduler().get_batches([first, second], generator))
    assert sorted(own.dataset.name for _, own in turns) == drawn
    assert [own.dataset.name for _, own in turns] != drawn
    for own in (first, second):
        rows = torch.cat([batch[0]["x"] for batch, of in turns if of is own])
        assert torch.equal(rows, own.dataset.X_dict["x"])
    assert set(batch_schedulers) == {"sequential", "shuffled"}


def test_batches_in_sequence_give_other_weights() -> None:
    """The setting counts."""
    weights = []
    for scheduler in batch_schedulers:
        model = classifier()
        Trainer(batch_scheduler=scheduler).fit(model, [loader("train"), loader("train", 40)])
        weights.append(torch.cat([p.flatten() for p in model.parameters()]))
    assert not torch.equal(*weights)


def test_splits_may_have_other_names(tmp_path: Path) -> None:
    """Those of the settings; the loss of all has one name."""
    options = {"checkpoint_dir": str(tmp_path)}
    trainer = Trainer(train_split="fit", valid_split="dev", checkpointing=True, checkpointer_config=options)
    history = trainer.fit(classifier(), [loader("fit"), loader("dev")])
    assert history.best_epoch == 0
    assert set(trainer.metrics) == {LOSS, "model/all/train/lr", "task/data/fit/loss", "task/data/dev/accuracy"}
    assert trainer.checkpointer is not None
    assert trainer.checkpointer.best_metric_dict == {LOSS: trainer.metrics[LOSS]}


def test_a_split_within_the_name_of_another_is_another() -> None:
    """Snorkel looked for a part of a name, and so scored training rows as validation rows."""
    trainer = Trainer(train_split="val", valid_split="eval", test_split="evaluation")
    trainer.fit(classifier(), [loader("val"), loader("eval", name="other"), loader("evaluation", name="third")])
    assert set(trainer.metrics) == {LOSS, "model/all/train/lr", "task/other/eval/accuracy"}


def test_a_training_that_fails_leaves_its_log(tmp_path: Path) -> None:
    """The values until then."""
    options = {"log_dir": str(tmp_path), "run_name": "r"}
    trainer = Trainer(n_epochs=3, logging=True, log_writer="json", log_writer_config=options)

    class Failing(MultitaskClassifier):
        def score(self, *_: Any, **__: Any) -> Any:
            if trainer.metrics:
                raise OSError("disk full")
            return {}

    model = classifier()
    model.__class__ = Failing
    with pytest.raises(OSError, match="disk full"):
        trainer.fit(model, [loader("train"), loader("valid")])
    assert [step for step, _ in json.loads((tmp_path / "r" / "log.json").read_text())[LOSS]] == [60]


def test_a_trainer_is_saved_with_its_settings(tmp_path: Path) -> None:
    """Name and settings are read again; another file is refused."""
    trainer = Trainer("mine", n_epochs=4, seed=None, optimizer_config={"sgd_config": {"momentum": 0.1}})
    trainer.save(tmp_path / "folder" / "trainer.json")
    other = Trainer()
    assert other.name == "Trainer"
    other.load(tmp_path / "folder" / "trainer.json", classifier())
    assert (other.name, other.config) == ("mine", trainer.config)
    assert hash(other.config) == hash(trainer.config)
    for damaged in ("[]", "{", '{"name": "a", "config": 3}'):
        (tmp_path / "other").write_text(damaged)
        with pytest.raises(ModelError, match="is no saved trainer"):
            other.load(tmp_path / "other")


def test_a_trainer_can_be_saved_to_a_bare_file_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Snorkel it became a folder."""
    monkeypatch.chdir(tmp_path)
    Trainer("mine").save("trainer.json")
    assert (tmp_path / "trainer.json").is_file()


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """Snorkel logged that it saved a trainer, or a checkpoint, which it had not."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Trainer().save(tmp_path / "file" / "trainer.json")
    with pytest.raises(OSError, match="file"):
        classifier().save(tmp_path / "file" / "model.safetensors")
    options = {"checkpoint_dir": str(tmp_path / "file")}
    with pytest.raises(OSError, match="file"):
        Trainer(checkpointing=True, checkpointer_config=options).fit(classifier(), [loader("train")])


def test_a_history_prints_short() -> None:
    """Epochs, losses, the best epoch and the time."""
    epochs = tuple(EpochRecord(epoch, 1 / (epoch + 1), 0.0, 0.1) for epoch in range(50))
    assert repr(History(epochs, 7, 2.04)) == "History(50 epochs, loss 1 to 0.02, best epoch 7, 2.0 s)"
    assert repr(History((), None, 0.0)) == "History(0 epochs, 0.0 s)"


def test_defaults_have_no_warm_up_and_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As before."""
    monkeypatch.chdir(tmp_path)
    assert TrainerConfig().lr_scheduler_config.steps(3, 100) == 0
    trainer = Trainer()
    trainer.fit(classifier(), [loader("train")])
    assert (trainer.log_writer, trainer.checkpointer) == (None, None)
    assert not list(tmp_path.iterdir())


def test_a_trainer_has_the_parts_of_its_last_training() -> None:
    """Loss and rate of the last epoch, optimizer, order, and warm-up in batches, whether anything is logged or not."""
    trainer = Trainer(optimizer="sgd", batch_scheduler="sequential", lr_scheduler_config={"warmup_percentage": 0.5})
    model = classifier()
    history = trainer.fit(model, [loader("train")])
    assert trainer.metrics == {LOSS: history.epochs[-1].loss, "model/all/train/lr": 0.01}
    assert isinstance(trainer.optimizer, torch.optim.SGD)
    assert trainer.optimizer.param_groups[0]["params"] == [*model.parameters()]
    assert trainer.optimizer.state
    assert isinstance(trainer.batch_scheduler, SequentialScheduler)
    assert (trainer.warmup_steps, trainer.n_batches_per_epoch) == (3, 6)
    trainer.fit(classifier(), [loader("train"), loader("valid")])
    assert set(trainer.metrics) == {LOSS, "model/all/train/lr", "task/data/valid/accuracy"}


def test_a_model_is_trained_where_model_config_says() -> None:
    """Snorkel's trainer ignored it; several devices are refused."""
    moved: list[torch.device] = []

    class Moved(MultitaskClassifier):
        def to(self, *arguments: Any, **_: Any) -> Any:
            moved.extend(arguments)
            return self

    model = classifier()
    model.__class__ = Moved
    with pytest.raises(ConfigError, match="dataparallel=True is not supported"):
        Trainer(model_config={"dataparallel": True}).fit(model, [loader("train")])
    Trainer().fit(model, [loader("train")])
    assert not moved
    Trainer(model_config={"device": -1}).fit(model, [loader("train")])
    assert moved == [torch.device("cpu")]
