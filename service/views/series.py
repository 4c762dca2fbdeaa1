"""A slice over time, in steps that the kept blocks fit into."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from service.events import SliceEstimate


@dataclass(frozen=True, slots=True)
class Point:
    """The rows predicted in [start, end)."""

    start: datetime
    end: datetime
    estimate: SliceEstimate


@dataclass(frozen=True, slots=True)
class SeriesEvent:
    """Something that happened to the slice's model or function, for people."""

    at: datetime
    kind: Literal["promotion", "function_version"]
    detail: str


@dataclass(frozen=True, slots=True)
class SliceSeries:
    """One slice of one model version over time; points have one length and follow each other without gaps."""

    name: str
    model: str
    version: int | None
    step_seconds: int
    points: tuple[Point, ...]
    events: tuple[SeriesEvent, ...]
