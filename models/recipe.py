"""The recipe of a training: its settings, and the optimizer and learning rates that they mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from models.errors import ConfigError

_OPTIMIZERS = ("adam", "adamw", "adamax", "sgd")
_SCHEDULES = ("constant", "linear", "exponential", "step")


@dataclass(frozen=True, slots=True)
class TrainerConfig:
    """How to train.

    Parameters
    ----------
    n_epochs, batch_size
        Passes over the rows, and rows in a step.
    lr, lr_scheduler, warmup_steps
        The rate rises in ``warmup_steps`` equal steps to ``lr``; from epoch to epoch it stays (``constant``),
        falls to ``lr / n_epochs`` in the last (``linear``), or is multiplied by .9 after every
        (``exponential``) or every fifth one (``step``).
    l2
        Weight decay.
    grad_clip
        Largest norm of the gradient; None leaves it alone.
    seed
        Decides the order of rows and whatever the network draws while it trains.
    optimizer
        ``adam``, ``adamw``, ``adamax``, or ``sgd`` (momentum .9).
    patience
        Stop after that many evaluations without a better score; None never stops early.
    evaluate_every
        Epochs from one evaluation to the next; the last epoch is always evaluated.
    keep_best
        End with the weights of the best evaluation rather than the last.
    progress_bar
        Show the epochs on stderr.

    Raises
    ------
    ConfigError
        If a value cannot be.
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
        least = {
            "n_epochs": 1,
            "batch_size": 1,
            "evaluate_every": 1,
            "warmup_steps": 0,
            "l2": 0,
            "patience": 1,
        }
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"{name} must be at least {low}, got {value!r}")
        for name in ("lr", "grad_clip"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be above 0, got {value!r}")
        for name, known in (("optimizer", _OPTIMIZERS), ("lr_scheduler", _SCHEDULES)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")


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
    """Return the optimizer of a recipe over some parameters."""
    fused = all(p.dtype == torch.float32 and p.device.type in ("cpu", "cuda") for p in parameters)
    rate, decay = config.lr, config.l2
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=decay, fused=fused)
    if config.optimizer == "adamax":
        return torch.optim.Adamax(parameters, rate, weight_decay=decay)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, rate, weight_decay=decay, fused=fused)
