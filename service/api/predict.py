"""``POST /v1/predict`` and ``POST /v1/predictions``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from models.errors import DataError
from service.api import document
from service.api.answering import Earlier, logged_and_answered
from service.api.fields import require_distinct, require_finite
from service.api.parts import Parts
from service.api.reading import aside, passage, read, require_classes, require_rows
from service.api.refusals import FieldError, InvalidRequest
from service.api.wire import LoggedIn, PredictIn, PredictionsIn, PredictionsOut
from service.serving import recording
from service.serving.batcher import Failed
from service.serving.refusals import NotTried

if TYPE_CHECKING:
    from service.serving.recording import Answer

OLDEST = timedelta(days=30)
"""A prediction that was made before this cannot be logged any more: it would be no news to any window."""
AHEAD = timedelta(minutes=5)
"""How far another server's clock may be ahead of ours."""
_SUM_WITHIN = 0.01

UNNUMBERED = 0
"""The version of what is predicted elsewhere by nobody knows which; versions of the registry begin at 1."""


def router(parts: Parts, earlier: Earlier) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1", tags=["predictions"])

    @routes.post("/predict", **document.posted(PredictIn, PredictionsOut, 409, 429, 503, 504, taken=True))
    async def predict(request: Request) -> Response:
        """Predict records, and say which slices they are in. Every answer is in the log before it is sent.

        Either every record is answered or none is. An id that was there before with the same record gets the
        answer that it got then.
        """
        body = await read(request, PredictIn, parts)
        rows = await aside(request, lambda: _asked(request, body, parts))
        outcomes = await parts.predict(rows, parts.limits.request_seconds - passage(request).seconds)
        answers = _all_answered(outcomes)
        first = answers[0].prediction
        model = {"name": first.model, "version": first.version}
        return await logged_and_answered(parts, earlier, answers, "ids[{}]", model)

    @routes.post(
        "/predictions", **document.posted(PredictionsIn, PredictionsOut, 409, 429, 503, 504, taken=True)
    )
    async def log(request: Request) -> Response:
        """Log what another server has predicted: the same slices, the same log, the same figures.

        It takes the classes that are known here: those of the model, or those in the settings.
        """
        classes = require_classes(parts)
        body = await read(request, PredictionsIn, parts)
        require_rows(request, body.predictions, parts.limits.rows, "predictions")
        in_force = parts.current.in_force
        version, now = in_force.version or UNNUMBERED, parts.clock()
        rows = await aside(request, lambda: _logged(body.predictions, classes, version, now))
        answers = await parts.observe(rows)
        model = {"name": in_force.model, "version": in_force.version}
        return await logged_and_answered(parts, earlier, answers, "predictions[{}].id", model)

    return routes


def _asked(request: Request, body: PredictIn, parts: Parts) -> list[recording.Request]:
    require_rows(request, body.instances, parts.limits.rows, "instances")
    require_finite(body.instances, "instances")
    if body.ids is None:
        return [recording.Request(each) for each in body.instances]
    if len(body.ids) != len(body.instances):
        message = (
            f"there are {len(body.ids)} ids for {len(body.instances)} instances: give one for each, or none"
        )
        raise InvalidRequest([FieldError("ids", message)])
    require_distinct(body.ids, "ids")
    return [recording.Request(each, id_) for each, id_ in zip(body.instances, body.ids, strict=True)]


def _all_answered(outcomes: Sequence[Answer | Failed]) -> list[Answer]:
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
        if not isinstance(error, (DataError, NotTried)):
            raise error
    raise InvalidRequest([FieldError(f"instances[{i}]", str(error)) for i, error in failures.items()])


def _logged(
    given: Sequence[LoggedIn], classes: tuple[str, ...], version: int, now: datetime
) -> list[recording.Logged]:
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
        recording.Logged(
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
