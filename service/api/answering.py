"""The last steps of every prediction: into the log, committed, then counted and answered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from pydantic_core import to_json
from starlette.responses import Response

from models.errors import ModelError
from service.api.parts import Parts
from service.api.refusals import FieldError, TakenIds
from service.monitor.blocks import unpack
from service.serving.recording import names_of
from service.store.queries import function_set
from service.views.models import model_view

if TYPE_CHECKING:
    from service.events import Prediction
    from service.serving.recording import Answer
    from service.store.log import Logged

JSON = "application/json"
_KEPT = 64


@dataclass(frozen=True, slots=True)
class Earlier:
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
            _keep(self._names, set_hash, names)
        return names

    def classes(self, version: int) -> tuple[str, ...]:
        """Return the classes of a version; none where nobody knows them any more. Blocking."""
        classes = self._classes.get(version)
        if classes is None and self.parts.registry is not None:
            try:
                classes = model_view(self.parts.registry, version).classes
            except ModelError:
                classes = ()
            _keep(self._classes, version, classes)
        return classes or ()

    def described(self, standing: Prediction, answer: Answer) -> dict[str, Any]:
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


async def logged_and_answered(
    parts: Parts, earlier: Earlier, answers: Sequence[Answer], field_of: str, model: Mapping[str, Any]
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
    logged = await _logged(parts, [each.prediction for each in answers])
    parts.metrics.stage_took("log", perf_counter() - began)
    began = perf_counter()
    if all(each.outcome == "stored" for each in logged):
        predictions: list[dict[str, Any] | None] = [_described(each) for each in answers]
    else:
        predictions = await anyio.to_thread.run_sync(_each, earlier, answers, logged)
    if None in predictions:
        raise _taken(logged, predictions, field_of)
    content = to_json({"model": model, "predictions": predictions})
    parts.metrics.stage_took("encode", perf_counter() - began)
    return Response(content, media_type=JSON)


async def _logged(parts: Parts, predictions: Sequence[Prediction]) -> list[Logged]:
    future = parts.writer.append(predictions)
    # also where nobody waits for it any more
    future.add_done_callback(lambda done: _count(parts, done, len(predictions)))
    return await asyncio.wrap_future(future)


def _count(parts: Parts, done: Future[list[Logged]], rows: int) -> None:
    if done.cancelled() or done.exception() is not None:
        parts.metrics.lost(rows)
    else:
        parts.metrics.predicted(each.prediction for each in done.result() if each.outcome == "stored")


def _each(
    earlier: Earlier, answers: Sequence[Answer], logged: Sequence[Logged]
) -> list[dict[str, Any] | None]:
    found: list[dict[str, Any] | None] = []
    for answer, each in zip(answers, logged, strict=True):
        if each.outcome == "repeated":
            found.append(earlier.described(each.prediction, answer))
        else:
            found.append(_described(answer) if each.outcome == "stored" else None)
    return found


def _described(answer: Answer) -> dict[str, Any]:
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


def _taken(logged: Sequence[Logged], predictions: Sequence[Any], field_of: str) -> TakenIds:
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
    return TakenIds(message, errors, predictions)


def _keep(known: dict[Any, Any], key: Any, value: Any) -> None:
    if len(known) >= _KEPT:
        known.clear()
    known[key] = value
