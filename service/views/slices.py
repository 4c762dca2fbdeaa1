"""Every slice in one window: what the snapshot says, beside what is known of the slice and expected of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from service.events import Estimate, NotEnough, SliceEstimate, WindowName
from service.views.current import FunctionHealth, Origin
from sfs.metadata import Metadata

SliceKind: TypeAlias = Literal["slice", "labeling", "none", "all"]
SliceState: TypeAlias = Literal["ok", "coverage_off", "accuracy_low", "unknown_high", "too_few"]


@dataclass(frozen=True, slots=True)
class SliceView:
    """One slice in one window.

    Parameters
    ----------
    name, fingerprint
        The slice, and the version of its function; None for the extra columns, which no function makes.
    kind
        A slice, the answers of a labelling function, the rows of no slice, or all rows.
    metadata
        What people know about it.
    origin
        Where its function is defined; None for the extra columns.
    reference
        The coverage that is expected.
    estimate
        What was seen.
    health
        Of its function, where it can be kept out.
    state
        A plain comparison of these, no alarm: what a reader should look at first.
    """

    name: str
    kind: SliceKind
    metadata: Metadata
    origin: Origin | None
    fingerprint: str | None
    reference: Estimate | NotEnough
    estimate: SliceEstimate
    health: FunctionHealth | None
    state: SliceState


@dataclass(frozen=True, slots=True)
class SlicesView:
    """Every slice in one window of one snapshot: all rows first, then the rows of no slice, then the slices."""

    at: datetime
    model: str
    version: int
    window: WindowName
    start: datetime
    end: datetime
    last_label_at: datetime | None
    slices: tuple[SliceView, ...]
