"""The last steps of every prediction: into the log, committed, then counted and answered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from models.errors import DataError, ModelError
from service.api import openapi as document
from service.api.errors import FieldError, IdConflict, InvalidRequest
from service.api.parts import Parts
from service.api.requests import (
    read_body,
    request_context,
    require_classes,
    require_distinct,
    require_finite,
    require_rows,
    run_off_loop,
)
from service.api.schemas.predictions import LoggedIn, PredictIn, PredictionsIn, PredictionsOut
from service.monitor.block_counts import unpack
from service.serving import prediction_factory as recording
from service.serving.batcher import Failed
from service.serving.errors import NotAttempted
from service.serving.prediction_factory import names_of
from service.store.queries import function_set
from service.views.models import model_view

if TYPE_CHECKING:
    from service.events import Prediction
    from service.serving.prediction_factory import PredictionResult
    from service.store.prediction_log import LogResult

JSON = "application/json"
_KEPT = 64


@dataclass(frozen=True, slots=True)
class PastAnswers:
    """What is needed to read answers of other function sets and versions; each is looked up once.

    Parameters
    ----------
    parts
        Where they are looked up.
    """

    parts: Parts
    _names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _classes: dict[int, tuple[str, ...]] = field(default_factory=dict)

    def names(self, set_hash: str) -> tuple[str, ...]:
        """Return the K names that bitmaps of a set speak of. Blocking."""
        names = self._names.get(set_hash)
        if names is None:
            with self.parts.store.read() as connection:
                found = function_set(connection, set_hash)
            names = () if found is None else found.names
            _cache(self._names, set_hash, names)
        return names

    def classes(self, version: int) -> tuple[str, ...]:
        """Return the classes of a version; none where nobody knows them any more. Blocking."""
        classes = self._classes.get(version)
        if classes is None and self.parts.registry is not None:
            try:
                classes = model_view(self.parts.registry, version).classes
            except ModelError:
                classes = ()
            _cache(self._classes, version, classes)
        return classes or ()

    def described(self, standing: Prediction, answer: PredictionResult) -> dict[str, Any]:
        """Return what was answered when the id came first. Blocking."""
        names = self.names(standing.set_hash)
        known = standing.version == answer.prediction.version or standing.source == "logged"
        classes = answer.classes if known else self.classes(standing.version)
        p = standing.probabilities or ()
        return {
            "id": standing.id,
            "label": standing.label,
            "probabilities": dict(zip(classes, p, strict=True)) if p and len(p) == len(classes) else None,
            "slices": names_of(unpack([standing.member], len(names)), names)[0],
            "unknown_slices": names_of(unpack([standing.unknown], len(names)), names)[0],
            "version": standing.version,
            "repeated": True,
        }


async def log_and_respond(
    parts: Parts,
    earlier: PastAnswers,
    answers: Sequence[PredictionResult],
    field_of: str,
    model: Mapping[str, Any],
) -> Response:
    """Log the answers to one request, and return the response once they are committed.

    Parameters
    ----------
    parts
        Where they are logged and counted.
    earlier
        For rows whose ids were there before.
    answers
        N answers.
    field_of
        Where the ids are in the request, with ``{}`` for the row.
    model
        What the response says of the model.

    Raises
    ------
    TakenIds
        If ids are taken by other content; the other rows are logged all the same.
    StoreError
        If they cannot be logged now.
    """
    began = perf_counter()
    logged = await _append(parts, [each.prediction for each in answers])
    parts.metrics.stage_took("log", perf_counter() - began)
    began = perf_counter()
    if all(each.outcome == "stored" for each in logged):
        predictions: list[dict[str, Any] | None] = [_response(each) for each in answers]
    else:
        predictions = await anyio.to_thread.run_sync(_responses, earlier, answers, logged)
    if None in predictions:
        raise _id_conflict(logged, predictions, field_of)
    content = to_json({"model": model, "predictions": predictions})
    parts.metrics.stage_took("encode", perf_counter() - began)
    return Response(content, media_type=JSON)


async def _append(parts: Parts, predictions: Sequence[Prediction]) -> list[LogResult]:
    future = parts.writer.append(predictions)
    # also where nobody waits for it any more
    future.add_done_callback(lambda done: _count(parts, done, len(predictions)))
    return await asyncio.wrap_future(future)


def _count(parts: Parts, done: Future[list[LogResult]], rows: int) -> None:
    if done.cancelled() or done.exception() is not None:
        parts.metrics.lost(rows)
    else:
        parts.metrics.predicted(each.prediction for each in done.result() if each.outcome == "stored")


def _responses(
    earlier: PastAnswers, answers: Sequence[PredictionResult], logged: Sequence[LogResult]
) -> list[dict[str, Any] | None]:
    found: list[dict[str, Any] | None] = []
    for answer, each in zip(answers, logged, strict=True):
        if each.outcome == "repeated":
            found.append(earlier.described(each.prediction, answer))
        else:
            found.append(_response(answer) if each.outcome == "stored" else None)
    return found


def _response(answer: PredictionResult) -> dict[str, Any]:
    prediction = answer.prediction
    p = prediction.probabilities
    return {
        "id": prediction.id,
        "label": prediction.label,
        "probabilities": None if p is None else dict(zip(answer.classes, p, strict=True)),
        "slices": answer.slices,
        "unknown_slices": answer.unknown_slices,
        "version": prediction.version,
        "repeated": False,
    }


def _id_conflict(logged: Sequence[LogResult], predictions: Sequence[Any], field_of: str) -> IdConflict:
    errors = [
        FieldError(field_of.format(i), f"{each.prediction.id!r} stands in the log with other content")
        for i, each in enumerate(logged)
        if each.outcome == "conflict"
    ]
    others = len(logged) - len(errors)
    rest = "nothing was logged"
    if others:
        rest = f"the other {others} rows are in the log, and their answers are in 'predictions'"
    message = f"{len(errors)} ids are taken by other content: choose new ones for these rows; {rest}"
    return IdConflict(message, errors, predictions)


def _cache(known: dict[Any, Any], key: Any, value: Any) -> None:
    if len(known) >= _KEPT:
        known.clear()
    known[key] = value


OLDEST = timedelta(days=30)
"""A prediction that was made before this cannot be logged any more: it would be no news to any window."""
AHEAD = timedelta(minutes=5)
"""How far another server's clock may be ahead of ours."""
_SUM_WITHIN = 0.01

UNNUMBERED = 0
"""The version of what is predicted elsewhere by nobody knows which; versions of the registry begin at 1."""


def router(parts: Parts, earlier: PastAnswers) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1", tags=["predictions"])

    @routes.post(
        "/predict", **document.openapi_post(PredictIn, PredictionsOut, 409, 429, 503, 504, taken=True)
    )
    async def predict(request: Request) -> Response:
        """Predict records, and say which slices they are in. Every answer is in the log before it is sent.

        Either every record is answered or none is. An id that was there before with the same record gets the
        answer that it got then.
        """
        body = await read_body(request, PredictIn, parts)
        rows = await run_off_loop(request, lambda: _asked(request, body, parts))
        outcomes = await parts.predict(rows, parts.limits.request_seconds - request_context(request).seconds)
        answers = _all_answered(outcomes)
        first = answers[0].prediction
        model = {"name": first.model, "version": first.version}
        return await log_and_respond(parts, earlier, answers, "ids[{}]", model)

    @routes.post(
        "/predictions", **document.openapi_post(PredictionsIn, PredictionsOut, 409, 429, 503, 504, taken=True)
    )
    async def log(request: Request) -> Response:
        """Log what another server has predicted: the same slices, the same log, the same figures.

        It takes the classes that are known here: those of the model, or those in the settings.
        """
        classes = require_classes(parts)
        body = await read_body(request, PredictionsIn, parts)
        require_rows(request, body.predictions, parts.limits.rows, "predictions")
        in_force = parts.current.in_force
        version, now = in_force.version or UNNUMBERED, parts.clock()
        rows = await run_off_loop(
            request, lambda: _external_predictions(body.predictions, classes, version, now)
        )
        answers = await parts.observe(rows)
        model = {"name": in_force.model, "version": in_force.version}
        return await log_and_respond(parts, earlier, answers, "predictions[{}].id", model)

    return routes


def _asked(request: Request, body: PredictIn, parts: Parts) -> list[recording.PredictionRequest]:
    require_rows(request, body.instances, parts.limits.rows, "instances")
    require_finite(body.instances, "instances")
    if body.ids is None:
        return [recording.PredictionRequest(each) for each in body.instances]
    if len(body.ids) != len(body.instances):
        message = (
            f"there are {len(body.ids)} ids for {len(body.instances)} instances: give one for each, or none"
        )
        raise InvalidRequest([FieldError("ids", message)])
    require_distinct(body.ids, "ids")
    return [
        recording.PredictionRequest(each, id_) for each, id_ in zip(body.instances, body.ids, strict=True)
    ]


def _all_answered(outcomes: Sequence[PredictionResult | Failed]) -> list[PredictionResult]:
    """Return the answers, if every row has one.

    Raises
    ------
    InvalidRequest
        If the model could not read some rows; those that were not tried for that are named as well.
    Exception
        What a row failed with otherwise.
    """
    answers = [each for each in outcomes if not isinstance(each, Failed)]
    if len(answers) == len(outcomes):
        return answers
    failures = {i: each.error for i, each in enumerate(outcomes) if isinstance(each, Failed)}
    for error in failures.values():
        if not isinstance(error, (DataError, NotAttempted)):
            raise error
    raise InvalidRequest([FieldError(f"instances[{i}]", str(error)) for i, error in failures.items()])


def _external_predictions(
    given: Sequence[LoggedIn], classes: tuple[str, ...], version: int, now: datetime
) -> list[recording.ExternalPrediction]:
    """Return what is to be logged.

    Raises
    ------
    InvalidRequest
        If a class, a probability or a time cannot be; all rows are looked at.
    """
    require_distinct([each.id for each in given], "predictions", ".id")
    require_finite([{"features": each.features} for each in given], "predictions")
    errors = [
        FieldError(f"predictions[{i}].{name}", message)
        for i, each in enumerate(given)
        for name, message in _faults(each, classes, now)
    ]
    if errors:
        raise InvalidRequest(errors)
    return [
        recording.ExternalPrediction(
            record=each.features,
            label=each.label,
            version=each.version or version,
            probabilities=_in_order(each.probabilities, classes),
            id=each.id,
            at=each.predicted_at,
        )
        for each in given
    ]


def _in_order(probabilities: dict[str, float] | None, classes: tuple[str, ...]) -> tuple[float, ...] | None:
    return None if probabilities is None else tuple(probabilities[name] for name in classes)


def _faults(given: LoggedIn, classes: tuple[str, ...], now: datetime) -> list[tuple[str, str]]:
    """Return the fields of a row that cannot be, and why."""
    found = []
    shown = ", ".join(map(repr, classes[:20]))
    if given.label not in classes:
        found.append(("label", f"{given.label!r} is no class; the classes are {shown}"))
    p = given.probabilities
    if p is not None and set(p) != set(classes):
        found.append(("probabilities", f"give one for each class ({shown}), or none at all"))
    elif p is not None and abs(sum(p.values()) - 1) > _SUM_WITHIN:
        found.append(("probabilities", f"they add up to 1, these to {sum(p.values()):g}"))
    at = given.predicted_at
    if at is not None and not now - OLDEST <= at <= now + AHEAD:
        found.append(
            (
                "predicted_at",
                f"{at.isoformat()} is more than 30 days old, or in the future; it is {now.isoformat()}",
            )
        )
    return found
