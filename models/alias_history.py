"""How an alias came to be where it is: changes in files that are numbered, created once and never changed."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, TypeAlias

from models.bundle_files import sync_folder
from models.errors import RegistryError

Change: TypeAlias = Literal["promote", "rollback"]


@dataclass(frozen=True, slots=True)
class AliasChange:
    """One step in an alias's history: which version it was put on, how, when and why."""

    sequence: int
    version: int
    hash: str
    change: Change
    reason: str
    at: datetime


def read_history(folder: Path) -> tuple[AliasChange, ...]:
    """Return every change of the alias whose folder it is, oldest first."""
    return tuple(map(_read_change, sorted(folder.glob("[0-9]*.json"))))


def read_last(folder: Path) -> AliasChange | None:
    """Return the change in force, or None where the alias was never put on any version."""
    paths = sorted(folder.glob("[0-9]*.json"))
    return _read_change(paths[-1]) if paths else None


def versions_before(history: Sequence[AliasChange]) -> list[int]:
    """Return the versions that a rollback can go back through, the one in force last."""
    stack: list[int] = []
    for step in history:
        if step.change == "rollback" and len(stack) > 1:
            stack.pop()
        elif not stack or stack[-1] != step.version:
            stack.append(step.version)
    return stack


def create_change(folder: Path, change: AliasChange) -> bool:
    """Write a change under its number; false if the number is taken. It is complete or absent, never half."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = folder / f".{uuid.uuid4().hex}.part"
    try:
        with beside.open("x") as stream:
            json.dump(asdict(change) | {"at": change.at.isoformat()}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        (folder / f"{change.sequence:06d}.json").hardlink_to(beside)
    except FileExistsError:
        return False
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(folder)
    return True


def _read_change(path: Path) -> AliasChange:
    try:
        fields = json.loads(path.read_text())
        return AliasChange(**fields | {"at": datetime.fromisoformat(fields["at"])})
    except (ValueError, KeyError, TypeError) as error:
        raise RegistryError(f"{path} is no change of an alias ({error}): remove or restore it") from error
