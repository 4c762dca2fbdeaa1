"""The functions in force, for people and for clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from service.views.current import FunctionHealth, Origin
from sfs.metadata import Metadata


@dataclass(frozen=True, slots=True)
class FunctionView:
    """One function; ``declaration`` is what a template was written as, and None for one that is code."""

    name: str
    kind: Literal["slice", "labeling"]
    origin: Origin
    fingerprint: str
    metadata: Metadata
    declaration: Mapping[str, Any] | None
    health: FunctionHealth | None
