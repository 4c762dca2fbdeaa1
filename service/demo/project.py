"""The project folder of the demo: settings, slices, comments, clock; everything else in it is the service's."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from service.demo.project_texts import LIKES_YAML, SETTINGS, SLICES_PY, SLICES_YAML
from service.demo.script import Script
from service.errors import MisuseError
from service.settings.project import FILE_NAME

MODEL = "comments"
TABLE, CLOCK, LOG, TRAINING_LOG = "comments.csv", "clock.json", "service.log", "training.log"
FILES = (FILE_NAME, "slices.yaml", "slices.py", TABLE, CLOCK, LOG, TRAINING_LOG)
FOLDER = ".slicewatch"

_MARK = "# A project of `slicewatch demo`"


@dataclass(frozen=True, slots=True)
class Project:
    """Where everything lies."""

    folder: Path

    @property
    def config(self) -> Path:
        """The settings."""
        return self.folder / FILE_NAME

    @property
    def clock(self) -> Path:
        """The constants of the fast clock, which a restart reads again."""
        return self.folder / CLOCK

    @property
    def log(self) -> Path:
        """What the service writes to standard error."""
        return self.folder / LOG

    @property
    def training_log(self) -> Path:
        """What the first training writes to standard error."""
        return self.folder / TRAINING_LOG

    @property
    def store(self) -> Path:
        """The log of predictions and labels."""
        return self.folder / FOLDER / "store.sqlite3"

    @property
    def functions(self) -> tuple[Path, ...]:
        """The files of slices, as the settings name them."""
        return self.folder / "slices.yaml", self.folder / "slices.py"


def write_project(folder: Path, script: Script) -> Project:
    """Write the project of a script; one that an earlier demo left there is replaced.

    Raises
    ------
    MisuseError
        If there is something else in the folder.
    """
    _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    project = Project(folder)
    templates = SLICES_YAML + (LIKES_YAML if "likes" in script.learning.features else "")
    for path, text in zip(project.functions, (templates, SLICES_PY), strict=True):
        path.write_text(text, encoding="utf-8")
    project.config.write_text(_settings(script), encoding="utf-8")
    script.base().to_csv(folder / TABLE, index=False)
    return project


def _settings(script: Script) -> str:
    learning = script.learning
    features = ", ".join(f"{column}: {kind}" for column, kind in learning.features.items())
    return SETTINGS.format(
        mark=_MARK,
        title=script.title,
        name=MODEL,
        table=TABLE,
        clock=CLOCK,
        features=f"{{{features}}}",
        kind=learning.kind,
        epochs=learning.epochs,
        seed=learning.seed,
        new_labels=learning.new_labels,
    )


def _clear(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise MisuseError(f"{folder} is a file: name a folder for the demo with --dir")
    there = sorted(each.name for each in folder.iterdir()) if folder.exists() else []
    if not there:
        return
    settings = folder / FILE_NAME
    if not (settings.is_file() and settings.read_text(encoding="utf-8", errors="replace").startswith(_MARK)):
        raise MisuseError(f"{folder} holds {there[0]!r} and no demo: name an empty folder with --dir")
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    for name in (FOLDER, "__pycache__"):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
