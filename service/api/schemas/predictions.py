"""Predictions and labels as they travel: what is asked, and what is answered."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from service.api.schemas.fields import Body, ClassName, Name, RecordFields, Share, Text, Time
from service.events import LabelOutcome


class PredictIn(Body):
    """Records to be predicted."""

    instances: Annotated[list[RecordFields], Field(min_length=1, fail_fast=True)] = Field(
        description="Records: the feature columns by name, and whatever else the slices read.",
        examples=[[{"text": "Check out my channel", "likes": 3}]],
    )
    ids: Annotated[list[Name], Field(fail_fast=True)] | None = Field(
        None, description="One for each record, to label it by; without them, ids are made."
    )


class LoggedIn(Body):
    """One record that another server has predicted."""

    features: RecordFields
    label: ClassName = Field(description="The predicted class.")
    probabilities: dict[str, Share] | None = Field(None, description="By class, for all classes or none.")
    id: Name | None = None
    predicted_at: Time | None = Field(None, description="Now, where it is not given; at most 30 days ago.")
    version: Annotated[int, Field(ge=1, lt=2**31, strict=True)] | None = Field(
        None, description="Of the model; where it is not given, the one in force, or 0."
    )


class PredictionsIn(Body):
    """Records that another server has predicted."""

    predictions: Annotated[list[LoggedIn], Field(min_length=1, fail_fast=True)]


class LabelIn(Body):
    """What a record truly was."""

    id: Name = Field(description="Of its prediction.")
    label: ClassName
    observed_at: Time | None = Field(None, description="Now, where it is not given. The latest one counts.")
    labeller: Text = ""
    idempotency_key: Name | None = Field(None, description="The same key is taken once.")


class LabelsIn(Body):
    """Labels, in the order in which they count as arrived."""

    labels: Annotated[list[LabelIn], Field(min_length=1, fail_fast=True)]


class ModelOut(BaseModel):
    """Which model answered; no version where none is in force."""

    name: str
    version: int | None


class PredictionOut(BaseModel):
    """One answer."""

    id: str
    label: str
    probabilities: dict[str, float] | None
    slices: list[str] = Field(description="Those the record is in.")
    unknown_slices: list[str] = Field(description="Those whose function could not tell.")
    version: int = Field(description="Of the model that made this answer.")
    repeated: bool = Field(description="The id was there with the same content, and its answer stands.")


class PredictionsOut(BaseModel):
    """The answers, in the order of the records; all of them are in the log."""

    model: ModelOut
    predictions: list[PredictionOut]


class LabelOut(BaseModel):
    """What became of one label."""

    id: str
    outcome: LabelOutcome
    reason: str | None = Field(description="Why it does not count, or not yet.")


class LabelsOut(BaseModel):
    """What became of each label, in their order."""

    labels: list[LabelOut]


class LiveOut(BaseModel):
    """The process lives."""

    status: Literal["ok"] = "ok"


class ReadyOut(BaseModel):
    """The service is ready."""

    ready: Literal[True] = True
