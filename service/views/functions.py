"""The live functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from service.serving.deployment import Deployment, FunctionHealth, Origin
from sfs.declarations import to_declaration
from sfs.function import LabelingFunctionSlice, SlicingFunction
from sfs.template import Template
from sfs.validation import Metadata


@dataclass(frozen=True, slots=True)
class FunctionView:
    """One function; ``declaration`` is that of a template, and None for Python code."""

    name: str
    kind: Literal["slice", "labeling"]
    origin: Origin
    fingerprint: str
    metadata: Metadata
    declaration: Mapping[str, Any] | None
    health: FunctionHealth | None


def functions_view(deployment: Deployment) -> tuple[FunctionView, ...]:
    """Return the live functions, in order."""
    state, health = deployment.state, deployment.health()
    return tuple(
        FunctionView(
            each.name,
            kind_of(each),
            state.origins.get(each.name, "file"),
            each.fingerprint,
            state.metadata.get(each.name, each.metadata),
            to_declaration(each) if isinstance(each, Template) else None,
            health.get(each.name),
        )
        for each in state.functions
    )


def kind_of(function: SlicingFunction) -> Literal["slice", "labeling"]:
    """Return the kind of a function; the members of a labelling function are the rows that it labels."""
    return "labeling" if isinstance(function, LabelingFunctionSlice) else "slice"
