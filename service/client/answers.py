"""What the service is told and answers, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NotRequired, TypedDict


class LabelItem(TypedDict):
    """What one record truly was; it was observed now where ``observed_at`` is not given."""

    id: str
    label: str
    observed_at: NotRequired[datetime | str]
    labeller: NotRequired[str]
    idempotency_key: NotRequired[str]


@dataclass(frozen=True, slots=True)
class LabelAnswer:
    """What became of one label, and why where it does not count."""

    id: str
    outcome: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class PredictionAnswer:
    """What was answered for one record.

    Parameters
    ----------
    id
        By which the record can be labelled.
    label, probabilities
        The predicted class, and the probability of each; None where the model gave none.
    slices, unknown_slices
        The slices that the record is in, and those whose functions could not tell.
    version
        Of the model that made this answer.
    repeated
        Whether the id was there with the same record, and this is the answer from then.
    """

    id: str
    label: str
    probabilities: Mapping[str, float] | None
    slices: tuple[str, ...]
    unknown_slices: tuple[str, ...]
    version: int
    repeated: bool


@dataclass(frozen=True, slots=True)
class Predictions:
    """Which model is in force, and the answers in the order of the records; no version where none is."""

    model: str
    version: int | None
    predictions: tuple[PredictionAnswer, ...]


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the service is ready, and named reasons where it is not."""

    ready: bool
    reasons: Mapping[str, str]


def read_document(document: Any) -> dict[str, Any]:
    """Return a JSON object as it is."""
    return dict(document)


def read_labels(document: Any) -> list[LabelAnswer]:
    """Return what became of each label."""
    return [LabelAnswer(each["id"], each["outcome"], each.get("reason")) for each in document["labels"]]


def read_predictions(document: Any) -> Predictions:
    """Return the answers, with the model that is in force."""
    answers = tuple(map(_prediction, document["predictions"]))
    return Predictions(document["model"]["name"], document["model"]["version"], answers)


def _prediction(each: Mapping[str, Any]) -> PredictionAnswer:
    return PredictionAnswer(
        each["id"],
        each["label"],
        each["probabilities"],
        tuple(each["slices"]),
        tuple(each["unknown_slices"]),
        each["version"],
        each["repeated"],
    )
