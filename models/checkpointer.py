"""Checkpoints of a training: weights at intervals, and the best of each metric."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from models.errors import ConfigError

_log = logging.getLogger(__name__)


class Saveable(Protocol):
    """A model that writes its weights and reads them, such as `models.MultitaskClassifier`."""

    def save(self, path: str | Path) -> None:
        """Write the weights."""

    def load(self, path: str | Path) -> None:
        """Read the weights."""


M = TypeVar("M", bound=Saveable)


@dataclass(frozen=True, slots=True)
class CheckpointerConfig:
    """Settings of the checkpointer.

    Parameters
    ----------
    checkpoint_dir
        Folder of the files; runs that share one overwrite each other's.
    checkpoint_factor
        Evaluations from one checkpoint to the next.
    checkpoint_metric
        Metric and mode by which a checkpoint is the best, as ``model/all/train/loss:min``.
    checkpoint_task_metrics
        Further metrics whose best checkpoints are kept.
    checkpoint_runway
        Units of the log manager before the first checkpoint.
    checkpoint_clear
        Whether only the best checkpoints stay at the end.
    """

    checkpoint_dir: str = "checkpoints"
    checkpoint_factor: int = 1
    checkpoint_metric: str = "model/all/train/loss:min"
    checkpoint_task_metrics: Sequence[str] | None = None
    checkpoint_runway: float = 0
    checkpoint_clear: bool = True


class Checkpointer:
    """Writes checkpoints of one training as safetensors.

    Parameters
    ----------
    counter_unit, evaluation_freq
        Unit of the iterations, which is for the reader only, and how many of them pass from one evaluation to the next.
    **options
        Fields of ``CheckpointerConfig``.

    Attributes
    ----------
    best_metric_dict
        Best value so far of each metric.

    Raises
    ------
    ConfigError
        If a metric has no mode, or a number is out of range.
    """

    def __init__(self, counter_unit: str, evaluation_freq: float, **options: Any) -> None:
        self.config = CheckpointerConfig(**options)
        if self.config.checkpoint_runway < 0:
            raise ConfigError(f"Invalid checkpoint_runway {self.config.checkpoint_runway}, must be at least 0")
        self.checkpoint_factor, self.checkpoint_unit = self.config.checkpoint_factor, counter_unit
        if not self.checkpoint_factor >= 1 or not evaluation_freq > 0:
            raise ConfigError(
                f"Invalid checkpoint freq: checkpoint_factor must be at least 1 and evaluation_freq above 0, got "
                f"{self.checkpoint_factor!r} and {evaluation_freq!r}"
            )
        further = self.config.checkpoint_task_metrics or ()
        if isinstance(further, str):
            raise ConfigError(f"checkpoint_task_metrics must be a list of metrics: [{further!r}]")
        self._modes: dict[str, str] = {}
        for metric, mode in map(_metric_and_mode, (self.config.checkpoint_metric, *further)):
            if self._modes.setdefault(metric, mode) != mode:
                raise ConfigError(f"checkpoint metric {metric!r} has both modes: use 'min' or 'max'")
        self.best_metric_dict: dict[str, float] = {}
        self._folder = Path(self.config.checkpoint_dir)
        self._written: set[Path] = set()

    def checkpoint(self, iteration: float, model: Saveable, metric_dict: Mapping[str, float]) -> None:
        """Write a checkpoint, unless it is too early, and keep it where it is the best of a metric."""
        if iteration < self.config.checkpoint_runway:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"checkpoint_{iteration:.15g}.safetensors"
        model.save(path)
        self._written.add(path)
        for metric in self._new_best(metric_dict):
            shutil.copyfile(path, self._best(metric))
            _log.info("best checkpoint of %s so far: %s", metric, path)

    def load_best_model(self, model: M) -> M:
        """Read the best checkpoint into a model; without one it stays as it is."""
        metric, _ = _metric_and_mode(self.config.checkpoint_metric)
        if metric in self.best_metric_dict:
            model.load(self._best(metric))
        else:
            _log.warning("no checkpoint has the metric %s: the last weights stay", metric)
        return model

    def clear(self) -> None:
        """Delete the checkpoints of this training but for the best ones, if ``checkpoint_clear``."""
        for path in self._written if self.config.checkpoint_clear else ():
            path.unlink(missing_ok=True)
        self._written.clear()

    def _best(self, metric: str) -> Path:
        return self._folder / f"best_model_{metric.replace('/', '_')}.safetensors"

    def _new_best(self, metrics: Mapping[str, float]) -> list[str]:
        new = []
        for metric, mode in self._modes.items():
            value, best = metrics.get(metric), self.best_metric_dict.get(metric)
            if (
                value is not None
                and value == value
                and (best is None or (value > best if mode == "max" else value < best))
            ):
                self.best_metric_dict[metric] = value
                new.append(metric)
        return new


def _metric_and_mode(name: str) -> tuple[str, str]:
    metric, colon, mode = name.rpartition(":")
    if not colon:
        raise ConfigError(f"Metric must be of the form 'metric_name:mode', with the mode 'min' or 'max', got {name!r}")
    if mode not in ("min", "max"):
        raise ConfigError(f"Unrecognized checkpoint metric mode {mode} for metric {metric}, must be 'min' or 'max'")
    if metric.count("/") < 3:  # a name may have some, too
        raise ConfigError(f"checkpoint_metric must be formatted 'task/dataset/split/metric:mode', got {name!r}")
    return metric, mode
