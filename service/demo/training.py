"""The first training, as a user would start it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from service.demo.project import Project
from service.demo.supervise import COMMAND, environment
from service.errors import ServiceError


def train(project: Project) -> dict[str, Any]:
    """Run ``slicewatch train`` in a process of its own, and return the document that it prints.

    Raises
    ------
    ServiceError
        If it fails, with its last words.
    """
    with project.training_log.open("wb") as log:
        done = subprocess.run(  # noqa: S603 - our own command
            [*COMMAND, "train", "--config", str(project.config), "--json"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=environment(), check=False,
        )  # fmt: skip
    if done.returncode:
        raise ServiceError(["the first training failed; its last words:", *_last_words(project.training_log)])
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _last_words(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
