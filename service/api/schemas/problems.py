"""Problem documents: ``application/problem+json``."""

from __future__ import annotations

from pydantic import BaseModel

from service.api.schemas.predictions import PredictionOut


class FieldProblem(BaseModel):
    """One field of a request, such as ``instances[3].likes``, and what is wrong with it."""

    field: str
    message: str


class Problem(BaseModel):
    """Why there is no answer."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = None
    request_id: str | None = None


class IdConflictProblem(Problem):
    """Some ids are taken; every other row of the request was logged, and is answered here."""

    predictions: list[PredictionOut | None] | None = None


class NotReadyProblem(Problem):
    """Why the service is not ready, by name."""

    reasons: dict[str, str] | None = None
