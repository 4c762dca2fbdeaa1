"""Client of the HTTP API, on the standard library and ``service.errors`` alone; docs/how-to.md has an example."""

from service.client.client import DEFAULT_URL, LABEL_ROWS, Client
from service.client.responses import (
    ClientError,
    LabelItem,
    LabelResponse,
    NoResponse,
    NotRunning,
    PredictionResponse,
    Predictions,
    Readiness,
)

__all__ = [
    "DEFAULT_URL",
    "LABEL_ROWS",
    "Client",
    "ClientError",
    "LabelItem",
    "LabelResponse",
    "NoResponse",
    "NotRunning",
    "PredictionResponse",
    "Predictions",
    "Readiness",
]
