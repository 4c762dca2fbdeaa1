"""Functions, models, and trials of functions as they travel."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas.fields import Body, Name, RecordFields
from service.api.schemas.slices import HealthOut, MetadataOut, ShareOut, health_out, share_out
from service.runtime.functions import FunctionPreview
from service.serving.deployment import Origin
from service.views.functions import FunctionView
from service.views.models import ModelView


class FunctionIn(BaseModel):
    """A declared function: a name, one kind with its body, and any of the metadata, as in a YAML file."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        json_schema_extra={
            "examples": [{"name": "short", "length": {"field": "text", "below": 20}, "owner": "me"}]
        },
    )

    name: Name

    @property
    def declaration(self) -> Mapping[str, Any]:
        """All that was declared."""
        return {"name": self.name, **(self.model_extra or {})}


class PreviewIn(Body):
    """A declared function, and records to try it on; without them, it is tried on the model's sample."""

    function: FunctionIn
    records: Annotated[list[RecordFields], Field(min_length=1, fail_fast=True)] | None = None


class FunctionOut(BaseModel):
    """One function in force."""

    name: str
    kind: Literal["slice", "labeling"]
    origin: Origin
    fingerprint: str
    metadata: MetadataOut
    declaration: dict[str, Any] | None = Field(description="What it was declared as; null for code.")
    health: HealthOut | None


class FunctionsOut(BaseModel):
    """The functions in force, in their order."""

    functions: list[FunctionOut]


class PreviewOut(BaseModel):
    """What a function would do; it was registered nowhere."""

    name: str
    fingerprint: str
    source: Literal["given", "sample"] = Field(description="Where the records came from.")
    rows: int
    members: int
    unknown: int
    coverage: ShareOut
    reasons: dict[str, int] = Field(description="Why memberships are unknown.")
    examples: list[dict[str, Any]] = Field(description="Some of the members.")


class ReferenceOut(BaseModel):
    """A held-out coverage: members of the n rows whose membership is known."""

    value: float | None
    count: int
    n: int


class ModelVersionOut(BaseModel):
    """One version."""

    version: int
    hash: str
    created: datetime
    aliases: list[str]
    in_force: bool = Field(description="Whether it answers here.")
    classes: list[str]
    references: dict[str, ReferenceOut] = Field(description="Held-out coverage by slice.")
    damaged: str | None = Field(description="What is wrong with its files.")


class ModelsOut(BaseModel):
    """Every version of the model."""

    model: str
    models: list[ModelVersionOut]


def function_out(view: FunctionView) -> FunctionOut:
    """Return a function."""
    return FunctionOut(
        name=view.name,
        kind=view.kind,
        origin=view.origin,
        fingerprint=view.fingerprint,
        metadata=MetadataOut.model_validate(view.metadata),
        declaration=None if view.declaration is None else dict(view.declaration),
        health=health_out(view.health),
    )


def preview_out(view: FunctionPreview) -> PreviewOut:
    """Return what a function would do."""
    return PreviewOut(
        name=view.name,
        fingerprint=view.fingerprint,
        source=view.source,
        rows=view.rows,
        members=view.members,
        unknown=view.unknown,
        coverage=share_out(view.coverage),
        reasons=dict(view.reasons),
        examples=[dict(each) for each in view.examples],
    )


def model_out(view: ModelView) -> ModelVersionOut:
    """Return a version."""
    return ModelVersionOut(
        version=view.version,
        hash=view.hash,
        created=view.created,
        aliases=list(view.aliases),
        in_force=view.in_force,
        classes=list(view.classes),
        references={
            name: ReferenceOut(value=rate.value, count=rate.count, n=rate.n)
            for name, rate in view.references.items()
        },
        damaged=view.damaged,
    )
