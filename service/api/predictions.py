"""``POST /v1/predict`` and ``POST /v1/predictions``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from fastapi import APIRouter
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from models.errors import DataError, ModelError
from service.api import openapi
from service.api.errors import FieldError, IdConflict, InvalidRequest
from service.api.requests import (
    JSON,
    ReadPool,
    read_body,
    request_context,
    require_distinct,
    require_finite,
    require_rows,
    run_off_loop,
)
from service.api.schemas.fields import Name
from service.api.schemas.predictions import LoggedIn, PredictIn, PredictionsIn, PredictionsOut
from service.api.schemas.slices import RecordOut
from service.api.short_path import JsonResponse
from service.errors import RowsFailed
from service.monitor.block_counts import unpack_bitmaps
from service.serving.prediction_factory import (
    ExternalPrediction,
    PredictionRequest,
    PredictionResult,
    names_of,
)
from service.store.prediction_log import LogResult
from service.store.queries import function_set
from service.views.models import model_view
from service.views.records import record_view
from sfs.schema import ClassReader

if TYPE_CHECKING:
    from service.events import Prediction
    from service.metrics.process import ProcessMetrics
    from service.runtime.runtime import Runtime
    from service.serving.predictions import LoggedResult

MAX_AGE = timedelta(days=30)
"""Maximum age of an external prediction, unless rows are deleted sooner: no window reaches back further."""
MAX_CLOCK_SKEW = timedelta(minutes=5)
"""Maximum lead of another server's clock."""
MAX_VERSIONS = 20
"""Maximum number of different versions in a request of external predictions."""
_SUM_TOLERANCE = 0.01

UNNUMBERED = 0
"""Version recorded when an external prediction names none; versions of the registry start at 1."""

_CACHED = 64


def router(runtime: Runtime, readers: ReadPool) -> APIRouter:
    """Return the routes."""
    routes = APIRouter(prefix="/v1", tags=["predictions"])
    model, metrics, limits = runtime.model, runtime.metrics, runtime.settings.serve
    past = PastAnswers(runtime)
    max_age = timedelta(days=min(MAX_AGE.days, runtime.settings.log.keep_days or MAX_AGE.days))

    @routes.post("/predict", **openapi.openapi_post(PredictIn, PredictionsOut, 409, 429, 503, 504, id_conflicts=True))
    async def predict(request: Request) -> Response:
        """Predict records, and return their slices. Every answer is committed to the log before it is sent.

        Either all records are answered, or none. A repeated id with the same record returns its earlier prediction.
        """
        body = await read_body(request, PredictIn, metrics)

        def rows_of_body() -> list[PredictionRequest]:
            require_rows(request, body.instances, limits.request_rows, "instances")
            return _prediction_requests(body)

        rows = await run_off_loop(request, rows_of_body)
        context = request_context(request)
        seconds = limits.request_seconds - context.enqueue()
        try:
            results = await model.predictions.predict(rows, seconds)
        except RowsFailed as failed:
            raise _rows_error(failed, len(rows)) from None
        context.timer = results[0].result.timer
        first = results[0].result.prediction
        answered_by = {"name": first.model, "version": first.version}
        return await respond(metrics, past, results, "ids[{}]", answered_by)

    @routes.post(
        "/predictions",
        **openapi.openapi_post(PredictionsIn, PredictionsOut, 409, 429, 503, 504, id_conflicts=True),
    )
    async def log(request: Request) -> Response:
        """Log predictions made by another server, and monitor them like local ones.

        Accepted classes are those of the model, or those in the settings. A request may have 20 different versions,
        and a day 100 new ones.
        """
        classes = model.deployment.require_classes()
        body = await read_body(request, PredictionsIn, metrics)
        require_rows(request, body.predictions, limits.request_rows, "predictions")
        state, now = model.deployment.state, runtime.clock()
        version = state.version or UNNUMBERED
        rows = await run_off_loop(
            request, lambda: _external_predictions(body.predictions, classes, version, now, max_age)
        )
        await model.external_versions.admit({row.version for row in rows})
        context = request_context(request)
        context.enqueue()
        results = await model.predictions.slice_external(rows)
        context.timer = results[0].result.timer
        answered_by = {"name": state.model, "version": state.version}
        return await respond(metrics, past, results, "predictions[{}].id", answered_by)

    @routes.get(
        "/predictions/{id:path}", response_model=RecordOut, responses=openapi.error_responses(404, 422, 503, 504)
    )
    async def get_prediction(id: Name) -> Response:
        """Return one logged prediction with its label and its whole record."""

        def record() -> bytes:
            return RecordOut.model_validate(record_view(runtime.store, model.deployment, id)).model_dump_json().encode()

        return Response(await readers.run(record), media_type=JSON)

    return routes


class PastAnswers:
    """Descriptions of earlier predictions; their function sets and versions are cached.

    Parameters
    ----------
    runtime
        Holds the log and the registry.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._store, self._registry = runtime.store, runtime.model.registry
        self._names: dict[str, tuple[str, ...]] = {}
        self._classes: dict[int, tuple[str, ...]] = {}

    def describe(self, earlier: Prediction, result: PredictionResult) -> dict[str, Any]:
        """Return the response to the first request with the id. Blocking."""
        names = self._names_of_set(earlier.set_hash)
        same = earlier.version == result.prediction.version or earlier.source == "logged"
        classes = result.classes if same else self._classes_of(earlier.version)
        p = earlier.probabilities or ()
        return {
            "id": earlier.id,
            "label": earlier.label,
            "probabilities": dict(zip(classes, p, strict=True)) if p and len(p) == len(classes) else None,
            "slices": names_of(unpack_bitmaps([earlier.member], len(names)), names)[0],
            "unknown_slices": names_of(unpack_bitmaps([earlier.unknown], len(names)), names)[0],
            "version": earlier.version,
            "repeated": True,
        }

    def _names_of_set(self, set_hash: str) -> tuple[str, ...]:
        if set_hash not in self._names:
            with self._store.read() as connection:
                functions = function_set(connection, set_hash)
            _cache(self._names, set_hash, () if functions is None else functions.names)
        return self._names[set_hash]

    def _classes_of(self, version: int) -> tuple[str, ...]:
        """Return the classes of a version; empty if it is no longer in the registry."""
        if version not in self._classes:
            try:
                classes = model_view(self._registry, version).classes
            except ModelError:
                classes = ()
            _cache(self._classes, version, classes)
        return self._classes[version]


async def respond(
    metrics: ProcessMetrics,
    past: PastAnswers,
    results: Sequence[LoggedResult],
    id_path: str,
    answered_by: Mapping[str, Any],
) -> Response:
    """Return the response to a request whose results are in the log.

    Parameters
    ----------
    metrics
        Counters.
    past
        Describes answers to known ids.
    results
        N results.
    id_path
        Path of an id in the request, with ``{}`` for the row.
    answered_by
        Name and version of the model in the response.

    Raises
    ------
    IdConflict
        If ids are in the log with other content; all other rows are logged.
    """
    began = perf_counter()
    predictions: list[dict[str, Any] | None]
    if all(entry.outcome == "stored" for _, entry in results):
        predictions = [_answer(result) for result, _ in results]
    else:
        predictions = await anyio.to_thread.run_sync(
            lambda: [
                None
                if entry.outcome == "conflict"
                else past.describe(entry.prediction, result)
                if entry.outcome == "repeated"
                else _answer(result)
                for result, entry in results
            ]
        )
    if None in predictions:
        raise _id_conflict([entry for _, entry in results], predictions, id_path)
    content = to_json({"model": answered_by, "predictions": predictions})
    metrics.observe_stage("encode", perf_counter() - began)
    return JsonResponse(content)


def _answer(result: PredictionResult) -> dict[str, Any]:
    prediction = result.prediction
    p = prediction.probabilities
    return {
        "id": prediction.id,
        "label": prediction.label,
        "probabilities": None if p is None else dict(zip(result.classes, p, strict=True)),
        "slices": result.slices,
        "unknown_slices": result.unknown_slices,
        "version": prediction.version,
        "repeated": False,
    }


def _id_conflict(logged: Sequence[LogResult], predictions: Sequence[dict[str, Any] | None], id_path: str) -> IdConflict:
    errors = [
        FieldError(id_path.format(i), f"{entry.prediction.id!r} is in the log with other content")
        for i, entry in enumerate(logged)
        if entry.outcome == "conflict"
    ]
    n_logged = len(logged) - len(errors)
    rest = "nothing was logged"
    if n_logged:
        rest = f"the other {n_logged} rows are logged, and their predictions are in 'predictions'"
    message = f"{len(errors)} ids are in the log with other content: choose new ids for these rows; {rest}"
    return IdConflict(message, errors, predictions)


def _cache(cache: dict[Any, Any], key: Any, value: Any) -> None:
    if len(cache) >= _CACHED:
        cache.clear()
    cache[key] = value


def _prediction_requests(body: PredictIn) -> list[PredictionRequest]:
    require_finite(body.instances, "instances")
    if body.ids is None:
        return [PredictionRequest(record) for record in body.instances]
    if len(body.ids) != len(body.instances):
        message = f"got {len(body.ids)} ids for {len(body.instances)} instances: give one id per instance, or none"
        raise InvalidRequest([FieldError("ids", message)])
    require_distinct(body.ids, "ids")
    return [PredictionRequest(record, id_) for record, id_ in zip(body.instances, body.ids, strict=True)]


def _rows_error(failed: RowsFailed, rows: int) -> Exception:
    """Return the error of a request: InvalidRequest if the model could not read some rows, else that of a row."""
    for error in failed.errors.values():
        if not isinstance(error, DataError):
            return error
    errors = [FieldError(f"instances[{i}]", str(error)) for i, error in failed.errors.items()]
    if failed.checked < rows:
        errors.insert(0, FieldError("instances", f"only the first {failed.checked} of {rows} records were checked"))
    return InvalidRequest(errors)


def _external_predictions(
    given: Sequence[LoggedIn], classes: tuple[str, ...], version: int, now: datetime, max_age: timedelta
) -> list[ExternalPrediction]:
    """Return the external predictions of a request. Raises InvalidRequest, with the errors of all rows."""
    require_distinct([row.id for row in given], "predictions", ".id")
    if (versions := len({row.version for row in given})) > MAX_VERSIONS:
        message = f"{versions} different versions; a request may have {MAX_VERSIONS}"
        raise InvalidRequest([FieldError("predictions", message)])
    require_finite([{"features": row.features} for row in given], "predictions")
    reader, names = ClassReader(classes), frozenset(classes)
    rows: list[ExternalPrediction] = []
    errors: list[FieldError] = []
    for i, row in enumerate(given):
        label, p = reader.read(row.label) or row.label, row.probabilities
        if p is not None and p.keys() != names:
            p = _by_class(p, reader)
        is_usual = p is None or (p.keys() == names and abs(sum(p.values()) - 1) <= _SUM_TOLERANCE)
        if not is_usual or label not in names or row.predicted_at is not None:
            wrong = _row_errors(label, p, row.predicted_at, classes, now, max_age)
            errors += [FieldError(f"predictions[{i}].{field}", message) for field, message in wrong]
        if not errors:
            probabilities = None if p is None else tuple([p[name] for name in classes])
            rows.append(
                ExternalPrediction(row.features, label, row.version or version, probabilities, row.id, row.predicted_at)
            )
    if errors:
        raise InvalidRequest(errors)
    return rows


def _by_class(given: dict[str, float], reader: ClassReader) -> dict[str, float]:
    """Return probabilities by class; as given, to be refused, if two spell one class."""
    read = {reader.read(name) or name: p for name, p in given.items()}
    return read if len(read) == len(given) else given


def _row_errors(
    label: str,
    p: Mapping[str, float] | None,
    at: datetime | None,
    classes: tuple[str, ...],
    now: datetime,
    max_age: timedelta,
) -> Iterator[tuple[str, str]]:
    """Yield the fields of a row that are wrong, each with the reason."""
    if label not in classes:
        yield "label", f"{label!r} is not a class; the classes are {_listed(classes)}"
    if p is not None and p.keys() != set(classes):
        yield "probabilities", f"give one probability per class ({_listed(classes)}), or none"
    elif p is not None and abs(sum(p.values()) - 1) > _SUM_TOLERANCE:
        yield "probabilities", f"probabilities must add up to 1, not {sum(p.values()):g}"
    if at is not None and not now - max_age <= at <= now + MAX_CLOCK_SKEW:
        message = f"{at.isoformat()} is more than {max_age.days} days old, or in the future; it is {now.isoformat()}"
        yield "predicted_at", message


def _listed(classes: tuple[str, ...]) -> str:
    return ", ".join(map(repr, classes[:20]))
