"""Training: seeds and threads, one loop for all networks, and the trainer of data loaders."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from tqdm.auto import tqdm

from models.batch_schedulers import batch_schedulers
from models.checkpointer import Checkpointer
from models.errors import ConfigError, DataError, ModelError
from models.multitask import find_device
from models.trainer_config import TrainerConfig, merge_config
from models.training_log import LogManager, LogWriter, TensorBoardWriter


def set_seed(seed: int) -> None:
    """Seed the global random states of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the global state is the purpose
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside the block, and restore its random state afterwards.

    Examples
    --------
    >>> with seeded(7):
    ...     first = torch.nn.Linear(2, 2)
    >>> with seeded(7):
    ...     second = torch.nn.Linear(2, 2)
    >>> torch.equal(first.weight, second.weight)
    True
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def single_threaded() -> Iterator[None]:
    """Compute on one thread inside the block: fastest for small networks, and reproducible on any machine.

    This covers torch and the linear algebra of NumPy, SciPy and scikit-learn; both settings are restored.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


T = TypeVar("T")
Loss: TypeAlias = Tensor | Mapping[str, Tensor]
"""Loss to minimise, or named losses to sum."""


def learning_rate(config: TrainerConfig, step: int, epoch: int) -> float:
    """Return the rate of a step (counted over the whole training) in an epoch, both from 0.

    Examples
    --------
    >>> [round(learning_rate(TrainerConfig(lr=1.0, warmup_steps=3), step, 0), 2) for step in range(4)]
    [0.33, 0.67, 1.0, 1.0]
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    options = config.lr_scheduler_config
    decay = {
        "constant": 1.0,
        "linear": 1 - epoch / config.n_epochs,
        "exponential": options.exponential_config.gamma**epoch,
        "step": options.step_config.gamma ** (epoch // options.step_config.step_size),
    }[config.lr_scheduler]
    return warmup * max(config.lr * decay, options.min_lr)


def make_optimizer(parameters: Sequence[nn.Parameter], config: TrainerConfig) -> torch.optim.Optimizer:
    """Return the configured optimizer of some parameters."""
    fused = all(p.dtype == torch.float32 and p.device.type in ("cpu", "cuda") for p in parameters)
    rate, decay, options = config.lr, config.l2, config.optimizer_config
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, options.sgd_config.momentum, weight_decay=decay, fused=fused)
    if config.optimizer == "adamax":
        adamax = options.adamax_config
        return torch.optim.Adamax(parameters, rate, adamax.betas, adamax.eps, decay)
    kind, adam = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam, options.adam_config
    return kind(parameters, rate, adam.betas, weight_decay=decay, amsgrad=adam.amsgrad, fused=fused)


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """Result of one epoch: mean loss of its steps, score where evaluated, learning rate of the last step.

    ``parts`` is the mean of each named loss over the steps in which it occurred.
    """

    epoch: int
    loss: float
    score: float | None
    learning_rate: float
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class History:
    """All epochs, the best of them (None where nothing was evaluated), and the time taken.

    Examples
    --------
    >>> History((EpochRecord(0, 0.75, None, 0.01), EpochRecord(1, 0.5, None, 0.01)), None, 3.2)
    History(2 epochs, loss 0.75 to 0.5, 3.2 s)
    """

    epochs: tuple[EpochRecord, ...]
    best_epoch: int | None
    seconds: float

    def __repr__(self) -> str:
        losses = f", loss {self.epochs[0].loss:.3g} to {self.epochs[-1].loss:.3g}" if self.epochs else ""
        best = "" if self.best_epoch is None else f", best epoch {self.best_epoch}"
        return f"{type(self).__name__}({len(self.epochs)} epochs{losses}{best}, {self.seconds:.1f} s)"


def fit(
    model: nn.Module,
    batches: Callable[[torch.Generator], Iterable[T]],
    loss: Callable[[T], Loss],
    config: TrainerConfig,
    *,
    score: Callable[[], float] | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_step: Callable[[T, Mapping[str, Tensor]], None] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> History:
    """Train a network in place, one optimizer step per batch, and leave it in eval mode.

    The same seed, data and starting weights give the same weights, bit for bit, on one machine with as many
    threads. The random state of the process is restored at the end.

    Parameters
    ----------
    batches
        Called once an epoch with the training's one generator; its items are the arguments of ``loss``.
    score
        Higher is better; called in eval mode without gradients after every ``evaluate_every`` epochs. The
        weights of the best evaluation are restored at the end (``keep_best``), of two equal ones the earlier.
    on_epoch
        Called at the end of each epoch.
    on_step
        Called after each step with its batch and its losses by name, in train mode.
    optimizer
        Of the trained parameters; by default that of the configuration.

    Raises
    ------
    ModelError
        If the loss stops being a finite number.
    DataError
        If an epoch has no batch.
    """
    started = time.perf_counter()
    with seeded(config.seed):
        run = _Run(model, config, score, on_step, optimizer)
        generator = torch.Generator().manual_seed(config.seed)
        epochs = tqdm(range(config.n_epochs), disable=not config.progress_bar, desc="epochs")
        for epoch in epochs:
            record = run.epoch(epoch, batches(generator), loss)
            if on_epoch is not None:
                on_epoch(record)
            if config.patience is not None and run.evaluations_since_best >= config.patience:
                break
        epochs.close()
    if config.keep_best and run.best_state:
        model.load_state_dict(run.best_state)
    model.eval()
    return History(tuple(run.records), run.best_epoch, time.perf_counter() - started)


class _Run(Generic[T]):
    """State of a training run."""

    def __init__(
        self,
        model: nn.Module,
        config: TrainerConfig,
        score: Callable[[], float] | None,
        on_step: Callable[[T, Mapping[str, Tensor]], None] | None,
        optimizer: torch.optim.Optimizer | None,
    ) -> None:
        self.model, self.config, self.score, self.on_step = model, config, score, on_step
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = optimizer or make_optimizer(self.parameters, config)
        self.stepped = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        self.records: list[EpochRecord] = []
        self.best_epoch: int | None = None
        self.best_score, self.best_state = -math.inf, dict[str, Tensor]()
        self.step_count, self.evaluations_since_best = 0, 0

    def epoch(self, epoch: int, batches: Iterable[T], loss: Callable[[T], Loss]) -> EpochRecord:
        self.model.train()
        totals: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        for batch in batches:
            losses = self.step(epoch, loss(batch))
            for name, value in losses.items():
                totals[name] = totals[name] + value if name in totals else value
                counts[name] = counts.get(name, 0) + 1
            if self.on_step is not None:
                self.on_step(batch, losses)
        if not totals:
            raise DataError("there are no rows to train on: an epoch had no batch")
        parts = {name: float(total) / counts[name] for name, total in totals.items()}
        mean = parts.pop("")
        if not math.isfinite(mean):
            raise ModelError(
                f"the loss of epoch {epoch} is {mean}: lower the learning rate (now {self.config.lr:g}), "
                "and check the features for infinite or very large values"
            )
        rate = self.optimizer.param_groups[0]["lr"]
        self.records.append(EpochRecord(epoch, mean, self.evaluate(epoch), rate, parts))
        return self.records[-1]

    def step(self, epoch: int, loss: Loss) -> dict[str, Tensor]:
        """Take one optimizer step; return the loss under the empty name, and its parts under theirs."""
        parts = {} if isinstance(loss, Tensor) else dict(loss)
        total = loss if isinstance(loss, Tensor) else sum(parts.values(), torch.zeros(()))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step_count, epoch)
        self.step_count += 1
        if total.requires_grad:  # false for a batch in which every label is unknown
            for parameter in self.stepped:  # `zero_grad` of the optimizer takes as long as many a layer
                parameter.grad = None
            total.backward()  # type: ignore[no-untyped-call]
            if self.config.grad_clip is not None:
                nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip)
            self.optimizer.step()
        return {"": total.detach()} | {name: part.detach() for name, part in parts.items()}

    def evaluate(self, epoch: int) -> float | None:
        last = epoch + 1 == self.config.n_epochs
        if self.score is None or ((epoch + 1) % self.config.evaluate_every and not last):
            return None
        self.model.eval()
        with torch.no_grad():
            score = float(self.score())
        self.evaluations_since_best += 1
        if score > self.best_score:
            self.best_score, self.best_epoch, self.evaluations_since_best = score, epoch, 0
            self.best_state = {name: value.clone() for name, value in self.model.state_dict().items()}
        return score


class Trainer:
    """Snorkel's trainer: ``Trainer(n_epochs=2, lr=1e-4).fit(model, dataloaders)``.

    Without a config the defaults are Snorkel's (one epoch, lr .01, the last weights). The seed is used.

    Parameters
    ----------
    config
        Settings, or the name.
    name
        Name of the training.
    **overrides
        Fields of ``TrainerConfig``; nested settings may be dictionaries of some of their fields.

    Attributes
    ----------
    metrics
        Latest losses and scores, as ``label/dataset/split/metric``; loss and rate of all as
        ``model/all/train/loss`` and ``model/all/train/lr``.
    log_manager, log_writer, checkpointer, optimizer, batch_scheduler, warmup_steps, n_batches_per_epoch
        Those of the last ``fit``; the second and third are None unless settings ask for them.

    Raises
    ------
    ConfigError
        If an override is no setting.
    """

    def __init__(self, config: TrainerConfig | str | None = None, name: str | None = None, **overrides: Any) -> None:
        if isinstance(config, str):
            config, name = None, config
        if overrides.get("seed", 0) is None:  # Snorkel's default
            del overrides["seed"]
        self.name = name if name is not None else type(self).__name__
        self.config = merge_config(config or TrainerConfig(n_epochs=1, lr=0.01, keep_best=False), overrides)
        self.metrics: dict[str, float] = {}
        self.log_manager: LogManager | None = None
        self.log_writer: LogWriter | None = None
        self.checkpointer: Checkpointer | None = None

    def fit(self, model: nn.Module, dataloaders: Sequence[Any]) -> History:
        """Train on the loaders whose dataset's split is ``train``; the score is minus the loss on ``valid``.

        Scores on the ``valid`` loaders are computed every epoch, or as ``log_manager_config`` says, which may leave out
        the end of the training. Losses by task are kept only for logs or checkpoints.

        Raises
        ------
        DataError
            If no loader has split ``train``, or one has a split of another name than train, valid and test.
        """
        config = self.config
        splits = (config.train_split, config.valid_split, config.test_split)
        for loader in dataloaders:
            if loader.dataset.split not in splits:
                raise DataError(f"Dataloader splits must be one of {list(splits)}, got {loader.dataset.split!r}")
        train, valid = ([d for d in dataloaders if d.dataset.split == split] for split in splits[:2])
        if not train:
            raise DataError(
                f"Cannot find any dataloaders with split matching train split: {config.train_split}. "
                "Give that split to a dataset"
            )
        task: Any = model
        epoch_batches = self.n_batches_per_epoch = sum(map(len, train))
        self.warmup_steps = config.warmup_steps or config.lr_scheduler_config.steps(config.n_epochs, epoch_batches)
        config = merge_config(config, {"warmup_steps": self.warmup_steps})
        place = config.model_config
        if place.dataparallel:
            raise ConfigError("dataparallel=True is not supported: a model is trained on one device, leave it out")
        if place.device is not None:
            model.to(find_device(place.device))
        self.optimizer = make_optimizer([p for p in model.parameters() if p.requires_grad], config)
        self.batch_scheduler = batch_schedulers[config.batch_scheduler]()
        log = self._start_log(epoch_batches)
        running = _RunningLosses()

        def score() -> float:
            losses = [sum(task.calculate_loss(X, Y)[0].values()) for loader in valid for X, Y in loader]
            return -float(sum(losses)) / len(losses) if losses else -math.nan

        def loss(drawn: Any) -> Loss:
            losses, running.counts = task.calculate_loss(*drawn[0])
            return dict(losses)

        def on_step(drawn: Any, losses: Mapping[str, Tensor]) -> None:
            (_, Y), loader = drawn
            if log.checkpointer is not None or log.log_writer is not None:
                running.add(losses, loader.dataset)
            log.update(len(next(iter(Y.values()), ())))
            if log.trigger_evaluation():
                step = log.batch_total - 1
                rate = {"model/all/train/lr": learning_rate(config, step, step // epoch_batches)}
                self.metrics |= rate | running.means() | (task.score(valid) if valid else {})
                task.train()
                if log.log_writer is not None:
                    for name, value in self.metrics.items():
                        log.log_writer.add_scalar(name, value, log.point_total)
            if log.checkpointer is not None and log.trigger_checkpointing():
                log.checkpointer.checkpoint(log.unit_total, task, self.metrics)

        observed = valid or config.logging or config.checkpointing
        try:
            history = fit(
                model,
                lambda generator: self.batch_scheduler.get_batches(train, generator),
                loss,
                config,
                score=score if valid else None,
                on_step=on_step if observed else None,
                optimizer=self.optimizer,
            )
        except BaseException:
            if self.log_writer is not None:
                self.log_writer.cleanup()
            raise
        log.cleanup(task)
        last = history.epochs[-1]
        self.metrics = {"model/all/train/loss": last.loss, "model/all/train/lr": last.learning_rate} | self.metrics
        return history

    def save(self, trainer_path: str | Path) -> None:
        """Write name and settings as JSON, making the folder where needed."""
        path = Path(trainer_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"name": self.name, "config": asdict(self.config)}, indent=1), encoding="utf-8")

    def load(self, trainer_path: str | Path, model: nn.Module | None = None) -> None:
        """Read the name and settings that ``save`` wrote; the model, which Snorkel's has here, is not changed."""
        try:
            saved = json.loads(Path(trainer_path).read_text(encoding="utf-8"))
            self.name, self.config = str(saved["name"]), merge_config(TrainerConfig(), saved["config"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"{trainer_path} is no saved trainer: {error}") from error

    def _start_log(self, epoch_batches: int) -> LogManager:
        config, manager = self.config, asdict(self.config.log_manager_config)
        self.metrics, self.log_writer, self.checkpointer = {}, None, None
        if config.logging:
            kind = TensorBoardWriter if config.log_writer == "tensorboard" else LogWriter
            self.log_writer = kind(**asdict(config.log_writer_config))
            self.log_writer.write_config(config)
        if config.checkpointing:
            self.checkpointer = Checkpointer(**manager, **asdict(config.checkpointer_config))
        self.log_manager = LogManager(epoch_batches, self.log_writer, self.checkpointer, **manager)
        return self.log_manager


class _RunningLosses:
    """Mean losses since the last evaluation, weighted by the rows with a label."""

    def __init__(self) -> None:
        self.counts: Mapping[str, int] = {}  # of the last batch
        self._sums: dict[str, tuple[Tensor, int]] = {}

    def add(self, losses: Mapping[str, Tensor], dataset: Any) -> None:
        for name, value in losses.items():
            key = f"{name}/{dataset.name}/{dataset.split}/loss" if name else ""
            n = self.counts[name] if name else sum(self.counts.values())
            total, rows = self._sums.get(key, (torch.zeros(()), 0))
            self._sums[key] = total + value * n, rows + n

    def means(self) -> dict[str, float]:
        """Return the means, that of the whole loss as ``model/all/train/loss``, and begin again."""
        found = {name or "model/all/train/loss": float(total) / max(n, 1) for name, (total, n) in self._sums.items()}
        self._sums = {}
        return found
