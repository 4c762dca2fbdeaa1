"""Seeds and threads: for the whole process, or for a block of code."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from tqdm.auto import tqdm

from models.errors import ConfigError, DataError, ModelError


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

_OPTIMIZERS = ("adam", "adamw", "adamax", "sgd")
_SCHEDULES = ("constant", "linear", "exponential", "step")
_MINIMUM = {"n_epochs": 1, "batch_size": 1, "evaluate_every": 1, "warmup_steps": 0, "l2": 0, "patience": 1}


@dataclass(frozen=True, slots=True)
class TrainerConfig:
    """Training settings.

    Parameters
    ----------
    n_epochs, batch_size
        Passes over the rows, and rows in a step.
    lr, lr_scheduler, warmup_steps
        The rate rises in ``warmup_steps`` equal steps to ``lr``; from epoch to epoch it is ``constant``, falls
        to ``lr / n_epochs`` in the last (``linear``), or is multiplied by .9 after every epoch
        (``exponential``) or every fifth one (``step``).
    l2
        Weight decay.
    grad_clip
        Largest norm of the gradient; None disables clipping.
    seed
        Seed of the order of rows and of random draws of the network during training.
    optimizer
        ``adam``, ``adamw``, ``adamax``, or ``sgd`` (momentum .9).
    patience
        Stop after this many evaluations without a better score; None never stops early.
    evaluate_every
        Epochs from one evaluation to the next; the last epoch is always evaluated.
    keep_best
        End with the weights of the best evaluation instead of the last.
    progress_bar
        Show the epochs on stderr.

    Raises
    ------
    ConfigError
        If a value is out of range.
    """

    n_epochs: int = 12
    lr: float = 3e-3
    l2: float = 0.0
    batch_size: int = 64
    grad_clip: float | None = 1.0
    seed: int = 0
    optimizer: str = "adam"
    lr_scheduler: str = "constant"
    warmup_steps: int = 0
    patience: int | None = None
    evaluate_every: int = 1
    progress_bar: bool = False
    keep_best: bool = True

    def __post_init__(self) -> None:
        for name, low in _MINIMUM.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"{name} must be at least {low}, got {value!r}")
        for name in ("lr", "grad_clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0, got {value!r}")
        for name, known in (("optimizer", _OPTIMIZERS), ("lr_scheduler", _SCHEDULES)):
            if getattr(self, name) not in known:
                expected = f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                raise ConfigError(f"Unrecognized {name.replace('_', ' ')} option: {expected}")


def learning_rate(config: TrainerConfig, step: int, epoch: int) -> float:
    """Return the rate of a step (counted over the whole training) in an epoch, both from 0.

    Examples
    --------
    >>> [round(learning_rate(TrainerConfig(lr=1.0, warmup_steps=3), step, 0), 2) for step in range(4)]
    [0.33, 0.67, 1.0, 1.0]
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    decay = {
        "constant": 1.0,
        "linear": 1 - epoch / config.n_epochs,
        "exponential": 0.9**epoch,
        "step": 0.9 ** (epoch // 5),
    }[config.lr_scheduler]
    return config.lr * warmup * decay


def make_optimizer(parameters: Sequence[nn.Parameter], config: TrainerConfig) -> torch.optim.Optimizer:
    """Return the configured optimizer of some parameters."""
    fused = all(p.dtype == torch.float32 and p.device.type in ("cpu", "cuda") for p in parameters)
    rate, decay = config.lr, config.l2
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=decay, fused=fused)
    if config.optimizer == "adamax":
        return torch.optim.Adamax(parameters, rate, weight_decay=decay)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, rate, weight_decay=decay, fused=fused)


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
    """All epochs, the best of them (None where nothing was evaluated), and the time taken."""

    epochs: tuple[EpochRecord, ...]
    best_epoch: int | None
    seconds: float


def fit(
    model: nn.Module,
    batches: Callable[[torch.Generator], Iterable[T]],
    loss: Callable[[T], Loss],
    config: TrainerConfig,
    *,
    score: Callable[[], float] | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
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

    Raises
    ------
    ModelError
        If the loss stops being a finite number.
    DataError
        If an epoch has no batch.
    """
    started = time.perf_counter()
    with seeded(config.seed):
        run = _Run(model, config, score)
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


class _Run:
    """State of a training run."""

    def __init__(self, model: nn.Module, config: TrainerConfig, score: Callable[[], float] | None) -> None:
        self.model, self.config, self.score = model, config, score
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(self.parameters, config)
        self.records: list[EpochRecord] = []
        self.best_epoch: int | None = None
        self.best_score, self.best_state = -math.inf, dict[str, Tensor]()
        self.step_count, self.evaluations_since_best = 0, 0

    def epoch(self, epoch: int, batches: Iterable[T], loss: Callable[[T], Loss]) -> EpochRecord:
        self.model.train()
        totals: dict[str, Tensor] = {}
        counts: dict[str, int] = {}
        for batch in batches:
            for name, value in self.step(epoch, loss(batch)).items():
                totals[name] = totals[name] + value if name in totals else value
                counts[name] = counts.get(name, 0) + 1
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
            self.optimizer.zero_grad(set_to_none=True)
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

    Raises
    ------
    ConfigError
        If an override names no field of TrainerConfig.
    """

    def __init__(self, config: TrainerConfig | None = None, **overrides: Any) -> None:
        known = [f.name for f in fields(TrainerConfig)]
        for name in overrides:
            if name not in known:
                raise ConfigError(f"unknown training option {name!r}; known are {', '.join(known)}")
        self.config = replace(config or TrainerConfig(n_epochs=1, lr=0.01, keep_best=False), **overrides)

    def fit(self, model: nn.Module, dataloaders: Sequence[Any]) -> History:
        """Train on the loaders whose dataset's split is ``train``; the score is minus the loss on ``valid``.

        Raises
        ------
        DataError
            If no loader has split ``train``, or one has a split of another name than train, valid and test.
        """
        for loader in dataloaders:
            if loader.dataset.split not in ("train", "valid", "test"):
                raise DataError(f"Dataloader splits must be one of train, valid and test, got {loader.dataset.split!r}")
        train, valid = ([d for d in dataloaders if d.dataset.split == s] for s in ("train", "valid"))
        if not train:
            raise DataError(
                "Cannot find any dataloaders with split matching train split: give a dataset the split 'train'"
            )
        task: Any = model

        def score() -> float:
            losses = [sum(task.calculate_loss(X, Y)[0].values()) for loader in valid for X, Y in loader]
            return -float(sum(losses)) / len(losses) if losses else -math.nan

        return fit(
            model,
            lambda generator: _interleave(train, generator),
            lambda batch: task.calculate_loss(*batch)[0],
            self.config,
            score=score if valid else None,
        )


def _interleave(loaders: Sequence[Any], generator: torch.Generator) -> Iterator[Any]:
    """Yield every loader's batches, the loaders in random turn."""
    turns = np.repeat(np.arange(len(loaders)), [len(loader) for loader in loaders])
    iterators = [iter(loader) for loader in loaders]
    for turn in torch.randperm(len(turns), generator=generator).tolist():
        yield next(iterators[turns[turn]])
