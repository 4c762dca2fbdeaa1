"""The versions of the model, without loading one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sfs.intervals import Rate


@dataclass(frozen=True, slots=True)
class ModelView:
    """One version.

    Parameters
    ----------
    version, hash
        Its number, and what its content hashes to; the hash of a damaged one is empty.
    created
        When its folder was written.
    aliases
        Those that are on it.
    in_force
        Whether it answers here.
    classes
        The C classes; none where the version is damaged.
    references
        Held-out coverage by slice, ``__all__`` included, with n.
    damaged
        What is wrong with its folder; None where nothing is.
    """

    version: int
    hash: str
    created: datetime
    aliases: tuple[str, ...]
    in_force: bool
    classes: tuple[str, ...]
    references: Mapping[str, Rate]
    damaged: str | None
