"""Log of a training: how often it is evaluated, and where losses and scores are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from itertools import count
from pathlib import Path
from typing import Any

from models.checkpointer import Checkpointer, M
from models.errors import ConfigError

_UNITS = ("epochs", "batches", "points")


@dataclass(frozen=True, slots=True)
class LogManagerConfig:
    """Settings of the log manager.

    Parameters
    ----------
    counter_unit
        ``epochs``, ``batches`` or ``points`` (rows).
    evaluation_freq
        Units from one evaluation to the next.
    """

    counter_unit: str = "epochs"
    evaluation_freq: float = 1.0


@dataclass(frozen=True, slots=True)
class LogWriterConfig:
    """Settings of the log writer.

    Parameters
    ----------
    log_dir, run_name
        Folder, and the folder in it of this run; by default the first of ``run_1``, ``run_2``, … that does not exist.
    """

    log_dir: str = "logs"
    run_name: str | None = None


class LogWriter:
    """Writes losses and scores as JSON.

    Parameters
    ----------
    **options
        Fields of ``LogWriterConfig``.

    Attributes
    ----------
    log_dir
        Folder of the run.
    run_log
        Steps and values by name.
    """

    def __init__(self, **options: Any) -> None:
        self.config = LogWriterConfig(**options)
        folder = Path(self.config.log_dir)
        free = (f"run_{n}" for n in count(1) if not (folder / f"run_{n}").exists())
        self.run_name = self.config.run_name or next(free)
        self.log_dir = str(folder / self.run_name)
        self.run_log: dict[str, list[list[float]]] = {}
        Path(self.log_dir).mkdir(parents=True, exist_ok=True)

    def add_scalar(self, name: str, value: float, step: float) -> None:
        """Note the value of a name at a step."""
        self.run_log.setdefault(name, []).append([step, value])

    def write_config(self, config: Any, config_filename: str = "config.json") -> None:
        """Write settings, a dataclass or mapping."""
        self.write_json(
            asdict(config) if is_dataclass(config) and not isinstance(config, type) else dict(config), config_filename
        )

    def write_log(self, log_filename: str) -> None:
        """Write steps and values by name."""
        self.write_json(self.run_log, log_filename)

    def write_text(self, text: str, filename: str) -> None:
        """Write a text file into the folder of the run."""
        (Path(self.log_dir) / filename).write_text(text, encoding="utf-8")

    def write_json(self, dict_to_write: Mapping[str, Any], filename: str) -> None:
        """Write a JSON file into the folder of the run."""
        self.write_text(json.dumps(dict_to_write, indent=1, default=str) + "\n", filename)

    def cleanup(self) -> None:
        """Write the log as ``log.json``."""
        self.write_log("log.json")


class TensorBoardWriter(LogWriter):
    """Writes losses and scores for TensorBoard, too.

    Raises
    ------
    ConfigError
        If the package ``tensorboard`` is not installed.
    """

    def __init__(self, **options: Any) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "TensorBoardWriter needs the package tensorboard: run `pip install 'slicewatch[tensorboard]'`, or set "
                "log_writer='json'"
            ) from error
        super().__init__(**options)
        self.writer = SummaryWriter(self.log_dir)

    def add_scalar(self, name: str, value: float, step: float) -> None:
        """Note the value of a name at a step, which TensorBoard has as a whole number."""
        super().add_scalar(name, value, step)
        self.writer.add_scalar(name, value, int(step))

    def write_config(self, config: Any, config_filename: str = "config.json") -> None:
        """Write settings as a file, and as a text for TensorBoard."""
        super().write_config(config, config_filename)
        text = (Path(self.log_dir) / config_filename).read_text(encoding="utf-8")
        self.writer.add_text("config", f"```\n{text}```", 0)

    def cleanup(self) -> None:
        """Write the log, and close the files."""
        super().cleanup()
        self.writer.close()


class LogManager:
    """Counts rows, batches and epochs, and tells when to evaluate and when to write a checkpoint.

    Parameters
    ----------
    n_batches_per_epoch
        Batches of an epoch.
    log_writer, checkpointer
        Optional; ``cleanup`` ends them.
    **options
        Fields of ``LogManagerConfig``.

    Attributes
    ----------
    point_count, batch_count, epoch_count, unit_count
        Rows, batches, epochs and units since the last evaluation.
    point_total, batch_total, epoch_total, unit_total
        The same since the start.

    Raises
    ------
    ConfigError
        If the unit is unknown, or the frequency is not positive.
    """

    def __init__(
        self,
        n_batches_per_epoch: int,
        log_writer: LogWriter | None = None,
        checkpointer: Checkpointer | None = None,
        **options: Any,
    ) -> None:
        self.config = LogManagerConfig(**options)
        if self.config.counter_unit not in _UNITS:
            raise ConfigError(f"Unrecognized counter_unit: {self.config.counter_unit} is none of {', '.join(_UNITS)}")
        if not self.config.evaluation_freq > 0:
            raise ConfigError(f"evaluation_freq must be above 0, got {self.config.evaluation_freq!r}")
        self.n_batches_per_epoch, self.log_writer, self.checkpointer = n_batches_per_epoch, log_writer, checkpointer
        self.counter_unit, self.evaluation_freq = self.config.counter_unit, self.config.evaluation_freq
        self.point_total = self.batch_total = 0
        self.trigger_count = 0
        self.reset()

    @property
    def epoch_count(self) -> float:
        """Epochs since the last evaluation."""
        return self.batch_count / self.n_batches_per_epoch

    @property
    def epoch_total(self) -> float:
        """Epochs since the start."""
        return self.batch_total / self.n_batches_per_epoch

    @property
    def unit_count(self) -> float:
        """Units since the last evaluation."""
        return {"epochs": self.epoch_count, "batches": self.batch_count, "points": self.point_count}[self.counter_unit]

    @property
    def unit_total(self) -> float:
        """Units since the start."""
        return {"epochs": self.epoch_total, "batches": self.batch_total, "points": self.point_total}[self.counter_unit]

    def update(self, batch_size: int) -> None:
        """Count a batch and its rows."""
        self.point_count += batch_size
        self.point_total += batch_size
        self.batch_count += 1
        self.batch_total += 1

    def trigger_evaluation(self) -> bool:
        """Return whether it is time to evaluate, and count from then on."""
        due = self.unit_count >= self.evaluation_freq
        if due:
            self.trigger_count += 1
            self.reset()
        return due

    def trigger_checkpointing(self) -> bool:
        """Return whether it is time for a checkpoint, and count from then on; False without a checkpointer."""
        due = self.checkpointer is not None and self.trigger_count >= self.checkpointer.checkpoint_factor
        if due:
            self.trigger_count = 0
        return due

    def reset(self) -> None:
        """Count from now on."""
        self.point_count = self.batch_count = 0

    def cleanup(self, model: M) -> M:
        """Return the model, with the weights of its best checkpoint if there are any, and end the log."""
        if self.checkpointer is not None:
            model = self.checkpointer.load_best_model(model)
            self.checkpointer.clear()
        if self.log_writer is not None:
            self.log_writer.cleanup()
        return model
