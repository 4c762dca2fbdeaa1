"""Functions, previews of functions, and model versions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.schemas.alarms import EFFECTIVE_N, RateOut
from service.api.schemas.fields import Body, Name, Out, RecordFields
from service.api.schemas.slices import HealthOut, InsufficientDataOut, MetadataOut, ReferenceEstimateOut
from service.serving.deployment import Origin


class FunctionIn(BaseModel):
    """A declared function as in a YAML file: a name, one kind with its body, and optional metadata."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        json_schema_extra={"examples": [{"name": "short", "length": {"field": "text", "below": 20}, "owner": "me"}]},
    )

    name: Name

    @property
    def declaration(self) -> Mapping[str, Any]:
        """The complete declaration."""
        return {"name": self.name, **(self.model_extra or {})}


class PreviewIn(Body):
    """A declared function, and records to apply it to; default: the sample of the active model."""

    function: FunctionIn
    records: Annotated[list[RecordFields], Field(min_length=1, fail_fast=True)] | None = None


class FunctionOut(Out):
    """One live function."""

    name: str
    kind: Literal["slice", "labeling"]
    origin: Origin
    fingerprint: str
    metadata: MetadataOut
    declaration: dict[str, Any] | None = Field(description="Null for Python code.")
    health: HealthOut | None


class FunctionsOut(Out):
    """The live functions, in order."""

    functions: list[FunctionOut]


class PreviewOut(Out):
    """Result of a function on some records; the function is not added."""

    name: str
    fingerprint: str
    source: Literal["given", "sample"] = Field(description="Source of the records.")
    rows: int
    members: int
    unknown: int
    coverage: ReferenceEstimateOut | InsufficientDataOut
    reasons: dict[str, int] = Field(description="Number of unknown memberships by reason.")
    examples: list[dict[str, Any]] = Field(description="Some members; long values are cut.")


class ReferenceOut(RateOut):
    """Coverage of the labelled rows: members among the n rows of known membership."""

    effective_n: int = Field(description=EFFECTIVE_N)


class ModelVersionOut(Out):
    """One version of the model."""

    version: int
    hash: str
    created: datetime
    aliases: list[str]
    in_force: bool = Field(description="Whether it is the active version.")
    classes: list[str]
    references: dict[str, ReferenceOut] = Field(description="Expected coverage by slice.")
    damaged: str | None = Field(description="Problem with its files; null if they are intact.")


class ModelsOut(Out):
    """Every version of the model."""

    model: str
    models: list[ModelVersionOut]
