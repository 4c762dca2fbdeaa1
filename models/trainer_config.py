"""Settings of the trainer, after Snorkel's: optimizers, schedules, batches, checkpoints and logs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, TypeVar

from models.batch_schedulers import batch_schedulers
from models.checkpointer import CheckpointerConfig
from models.errors import ConfigError
from models.training_log import LogManagerConfig, LogWriterConfig

_OPTIMIZERS = ("adam", "adamw", "adamax", "sgd")
_SCHEDULES = ("constant", "linear", "exponential", "step")
_MINIMUM = {"n_epochs": 1, "batch_size": 1, "evaluate_every": 1, "warmup_steps": 0, "l2": 0, "patience": 1}
_CHOICES = {
    "optimizer": _OPTIMIZERS,
    "lr_scheduler": _SCHEDULES,
    "batch_scheduler": tuple(batch_schedulers),
    "log_writer": ("json", "tensorboard"),
}

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class SGDOptimizerConfig:
    """Options of ``sgd``."""

    momentum: float = 0.9


@dataclass(frozen=True, slots=True)
class AdamOptimizerConfig:
    """Options of ``adam`` and ``adamw``."""

    amsgrad: bool = False
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True, slots=True)
class AdamaxOptimizerConfig:
    """Options of ``adamax``."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8


@dataclass(frozen=True, slots=True)
class OptimizerConfig:
    """Options of the optimizers, of which the chosen one has its own."""

    sgd_config: SGDOptimizerConfig = field(default_factory=SGDOptimizerConfig)
    adam_config: AdamOptimizerConfig = field(default_factory=AdamOptimizerConfig)
    adamax_config: AdamaxOptimizerConfig = field(default_factory=AdamaxOptimizerConfig)


@dataclass(frozen=True, slots=True)
class ExponentialLRSchedulerConfig:
    """Factor of the rate after every epoch."""

    gamma: float = 0.9


@dataclass(frozen=True, slots=True)
class StepLRSchedulerConfig:
    """Factor of the rate after every ``step_size`` epochs."""

    gamma: float = 0.9
    step_size: int = 5

    def __post_init__(self) -> None:
        if self.step_size < 1:
            raise ConfigError(f"step_size must be at least 1, got {self.step_size!r}")


@dataclass(frozen=True, slots=True)
class LRSchedulerConfig:
    """Options of the schedules.

    Parameters
    ----------
    warmup_steps, warmup_unit
        Length of the warm-up, in ``batches`` or ``epochs``.
    warmup_percentage
        The same as a share of the training, if ``warmup_steps`` is 0.
    min_lr
        Lowest rate after the warm-up.
    """

    warmup_steps: float = 0
    warmup_unit: str = "batches"
    warmup_percentage: float = 0.0
    min_lr: float = 0.0
    exponential_config: ExponentialLRSchedulerConfig = field(default_factory=ExponentialLRSchedulerConfig)
    step_config: StepLRSchedulerConfig = field(default_factory=StepLRSchedulerConfig)

    def __post_init__(self) -> None:
        if self.warmup_unit not in ("batches", "epochs"):
            raise ConfigError(f"warmup_unit must be 'batches' or 'epochs', got {self.warmup_unit!r}")
        if self.warmup_steps < 0 or not 0 <= self.warmup_percentage <= 1 or self.min_lr < 0:
            raise ConfigError(
                "warmup_steps and min_lr must be at least 0, warmup_percentage from 0 to 1, got "
                f"{self.warmup_steps!r}, {self.min_lr!r}, {self.warmup_percentage!r}"
            )

    def steps(self, n_epochs: int, epoch_batches: int) -> int:
        """Return the batches of the warm-up; ``epoch_batches`` is the number of batches in each epoch."""
        if self.warmup_steps:
            return round(self.warmup_steps * (epoch_batches if self.warmup_unit == "epochs" else 1))
        return round(self.warmup_percentage * n_epochs * epoch_batches)


@dataclass(frozen=True, slots=True)
class ClassifierConfig:
    """Where a classifier is trained: ``device`` and ``dataparallel`` as for `models.MultitaskClassifier`."""

    device: int | str | None = None
    dataparallel: bool = False


@dataclass(frozen=True, slots=True)
class TrainerConfig:
    """Training settings.

    Parameters
    ----------
    n_epochs, batch_size
        Passes over the rows, and rows in a step.
    lr, lr_scheduler, warmup_steps
        The rate rises in ``warmup_steps`` equal steps to ``lr``; from epoch to epoch it is ``constant``, falls
        to ``lr / n_epochs`` in the last (``linear``), or is multiplied by ``gamma`` after every epoch
        (``exponential``) or every ``step_size`` (``step``).
    l2
        Weight decay.
    grad_clip
        Largest norm of the gradient; None disables clipping.
    seed
        Seed of the order of rows and of random draws of the network during training.
    optimizer
        ``adam``, ``adamw``, ``adamax`` or ``sgd``.
    patience
        Stop after this many evaluations without a better score; None never stops early.
    evaluate_every
        Epochs from one evaluation to the next; the last epoch is always evaluated.
    keep_best
        End with the weights of the best evaluation instead of the last.
    progress_bar
        Show the epochs on stderr.
    train_split, valid_split, test_split
        Names of the splits of data loaders.
    model_config, optimizer_config, lr_scheduler_config
        Where the model is trained, and options of optimizers and schedules.
    batch_scheduler
        Batches of several loaders in random turn (``shuffled``), or one loader after the other.
    checkpointing, checkpointer_config
        Whether to write checkpoints and to end with the best of them.
    logging, log_writer, log_writer_config
        Whether to write losses and scores, as ``json`` or for ``tensorboard``.
    log_manager_config
        How often scores are computed, checkpoints written and lines logged.

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
    train_split: str = "train"
    valid_split: str = "valid"
    test_split: str = "test"
    model_config: ClassifierConfig = field(default_factory=ClassifierConfig)
    optimizer_config: OptimizerConfig = field(default_factory=OptimizerConfig)
    lr_scheduler_config: LRSchedulerConfig = field(default_factory=LRSchedulerConfig)
    batch_scheduler: str = "shuffled"
    checkpointing: bool = False
    checkpointer_config: CheckpointerConfig = field(default_factory=CheckpointerConfig)
    logging: bool = False
    log_writer: str = "tensorboard"
    log_writer_config: LogWriterConfig = field(default_factory=LogWriterConfig)
    log_manager_config: LogManagerConfig = field(default_factory=LogManagerConfig)

    def __post_init__(self) -> None:
        for name, low in _MINIMUM.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"{name} must be at least {low}, got {value!r}")
        for name in ("lr", "grad_clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0, got {value!r}")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                option = name.removeprefix("log_").replace("_", " ")
                expected = f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                raise ConfigError(f"Unrecognized {option} option: {expected}")


def merge_config(config: C, config_updates: Mapping[str, Any], place: str = "") -> C:
    """Return settings with other values; those of nested settings may be dictionaries of some of them.

    Raises
    ------
    ConfigError
        If an option does not exist.

    Examples
    --------
    >>> config = merge_config(TrainerConfig(), {"lr": 0.1, "optimizer_config": {"sgd_config": {"momentum": 0.5}}})
    >>> config.lr, config.optimizer_config.sgd_config.momentum
    (0.1, 0.5)
    """
    known = [each.name for each in fields(config)]  # type: ignore[arg-type]
    changed: dict[str, Any] = {}
    for name, value in config_updates.items():
        if name not in known:
            raise ConfigError(f"unknown training option {place + name!r}; known are {', '.join(known)}")
        before = getattr(config, name)
        if is_dataclass(before) and not isinstance(value, (Mapping, type(before))):
            raise ConfigError(f"{place}{name} must be a dictionary of options, got {value!r}")
        nested = is_dataclass(before) and isinstance(value, Mapping)
        plain = tuple(value) if isinstance(value, list) else value  # as JSON has them
        changed[name] = merge_config(before, value, f"{place}{name}.") if nested else plain
    return replace(config, **changed)  # type: ignore[type-var]
