"""Problem documents: ``application/problem+json``."""

from __future__ import annotations

from pydantic import BaseModel

from service.api.schemas.predictions import PredictionOut


class FieldProblem(BaseModel):
    """Problem with one field of a request, such as ``instances[3].likes``."""

    field: str
    message: str


class Problem(BaseModel):
    """An error."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = None
    request_id: str | None = None


class IdConflictProblem(Problem):
    """Some ids belong to other records; all other rows are logged, with their predictions here."""

    predictions: list[PredictionOut | None] | None = None


class NotReadyProblem(Problem):
    """The service is not ready; reasons by name."""

    reasons: dict[str, str] | None = None
