"""One plain, seeded training loop for every learner, and Snorkel's ``Trainer`` as a door on it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm.auto import tqdm

from models.errors import ConfigError, DataError, ModelError
from models.recipe import TrainerConfig, learning_rate, make_optimizer
from models.seeding import seeded

__all__ = ["EpochRecord", "History", "Trainer", "TrainerConfig", "fit", "shuffled_batches"]

T = TypeVar("T")
Loss: TypeAlias = Tensor | Mapping[str, Tensor]
"""One number to descend, or several by name, which are summed."""


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What one epoch came to: mean loss of its steps, score where evaluated, learning rate of the last step.

    ``parts`` is the mean of each named loss over the steps in which it occurred.
    """

    epoch: int
    loss: float
    score: float | None
    learning_rate: float
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class History:
    """Every epoch, the best of them (None where nothing was evaluated), and the time taken."""

    epochs: tuple[EpochRecord, ...]
    best_epoch: int | None
    seconds: float


def shuffled_batches(n_rows: int, batch_size: int, generator: torch.Generator) -> Iterator[NDArray[np.int64]]:
    """Yield positions 0 .. n_rows - 1 in random order, ``batch_size`` at a time; the last may be shorter."""
    order = torch.randperm(n_rows, generator=generator).numpy()
    for start in range(0, n_rows, batch_size):
        yield order[start : start + batch_size]


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
    threads. The process's own random state is as it was when this returns.

    Parameters
    ----------
    batches
        Called once an epoch with the training's one generator; whatever it yields goes to ``loss``.
    score
        Higher is better; called in eval mode without gradients after every ``evaluate_every`` epochs. The
        weights of the best evaluation are restored at the end (``keep_best``), of two equal ones the earlier.
    on_epoch
        Told of each epoch as it ends.

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
            if run.patience_is_over():
                break
        epochs.close()
    run.finish()
    return History(tuple(run.records), run.best_epoch, time.perf_counter() - started)


class _Run:
    """The state of one training."""

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
            for name, value in self._step(epoch, loss(batch)).items():
                totals[name] = totals[name] + value if name in totals else value
                counts[name] = counts.get(name, 0) + 1
        if not totals:
            raise DataError("there is nothing to train on: an epoch had no batch")
        parts = {name: float(total) / counts[name] for name, total in totals.items()}
        mean = parts.pop("")
        if not math.isfinite(mean):
            raise ModelError(
                f"the loss of epoch {epoch} is {mean}: lower lr (now {self.config.lr:g}), set grad_clip, "
                "and check the features for infinite or very large values"
            )
        rate = self.optimizer.param_groups[0]["lr"]
        self.records.append(EpochRecord(epoch, mean, self._evaluate(epoch), rate, parts))
        return self.records[-1]

    def _step(self, epoch: int, loss: Loss) -> dict[str, Tensor]:
        """Descend once; return the loss under the empty name, and its parts under theirs."""
        parts = {} if isinstance(loss, Tensor) else dict(loss)
        total = loss if isinstance(loss, Tensor) else sum(parts.values(), torch.zeros(()))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step_count, epoch)
        self.step_count += 1
        if total.requires_grad:  # nothing to learn from in a batch where every label is unknown
            self.optimizer.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            if self.config.grad_clip is not None:
                nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip)
            self.optimizer.step()
        return {"": total.detach()} | {name: part.detach() for name, part in parts.items()}

    def _evaluate(self, epoch: int) -> float | None:
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

    def patience_is_over(self) -> bool:
        return self.config.patience is not None and self.evaluations_since_best >= self.config.patience

    def finish(self) -> None:
        if self.config.keep_best and self.best_state:
            self.model.load_state_dict(self.best_state)
        self.model.eval()


class MultitaskModel(Protocol):
    """A network that gives a loss for every label of a batch."""

    def calculate_loss(
        self, X_dict: dict[str, Any], Y_dict: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Return the loss and the number of known labels by label name."""
        ...


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
                raise ConfigError(f"there is no training option {name!r}; the options are {', '.join(known)}")
        self.config = replace(config or TrainerConfig(n_epochs=1, lr=0.01, keep_best=False), **overrides)

    def fit(self, model: nn.Module, dataloaders: Sequence[Any]) -> History:
        """Train on the loaders whose dataset's split is ``train``; the score is minus the loss on ``valid``.

        Raises
        ------
        DataError
            If no loader has split ``train``.
        """
        by_split = {s: [d for d in dataloaders if d.dataset.split == s] for s in ("train", "valid")}
        if not by_split["train"]:
            found = [d.dataset.split for d in dataloaders]
            raise DataError(f"no loader's dataset has split 'train'; their splits are {found}")
        task: Any = model
        return fit(
            model,
            lambda generator: _interleaved(by_split["train"], generator),
            lambda batch: task.calculate_loss(*batch)[0],
            self.config,
            score=(lambda: -_mean_loss(task, by_split["valid"])) if by_split["valid"] else None,
        )


def _interleaved(loaders: Sequence[Any], generator: torch.Generator) -> Iterator[Any]:
    """Yield every loader's batches, the loaders in random turn."""
    turns = np.repeat(np.arange(len(loaders)), [len(loader) for loader in loaders])
    iterators = [iter(loader) for loader in loaders]
    for turn in torch.randperm(len(turns), generator=generator).tolist():
        yield next(iterators[turns[turn]])


def _mean_loss(model: MultitaskModel, loaders: Sequence[Any]) -> float:
    losses = [sum(model.calculate_loss(X, Y)[0].values()) for loader in loaders for X, Y in loader]
    return float(sum(losses)) / len(losses) if losses else math.nan
