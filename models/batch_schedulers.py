"""Order of the batches of several data loaders."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch


class Scheduler(ABC):
    """Order of the batches of an epoch."""

    @abstractmethod
    def get_batches(
        self, dataloaders: Sequence[Any], generator: torch.Generator | None = None
    ) -> Iterator[tuple[Any, Any]]:
        """Yield every batch of every loader, each with its loader.

        Parameters
        ----------
        dataloaders
            Loaders with a length.
        generator
            Source of chance; by default that of torch.
        """


class SequentialScheduler(Scheduler):
    """One loader after the other."""

    def get_batches(
        self, dataloaders: Sequence[Any], generator: torch.Generator | None = None
    ) -> Iterator[tuple[Any, Any]]:
        """Yield the batches of the first loader, then of the second, and so on."""
        for loader in dataloaders:
            for batch in loader:
                yield batch, loader


class ShuffledScheduler(Scheduler):
    """The loaders in random turn; each keeps the order of its own batches."""

    def get_batches(
        self, dataloaders: Sequence[Any], generator: torch.Generator | None = None
    ) -> Iterator[tuple[Any, Any]]:
        """Yield the next batch of a loader drawn by chance, in proportion to the batches that it has."""
        turns = np.repeat(np.arange(len(dataloaders)), [len(loader) for loader in dataloaders])
        iterators = [iter(loader) for loader in dataloaders]
        for turn in torch.randperm(len(turns), generator=generator).tolist():
            yield next(iterators[turns[turn]]), dataloaders[turns[turn]]


batch_schedulers: dict[str, type[Scheduler]] = {"sequential": SequentialScheduler, "shuffled": ShuffledScheduler}
"""Schedulers by the names of ``batch_scheduler``."""
