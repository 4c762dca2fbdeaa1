"""Client of the service's HTTP API; depends on the standard library and ``service.errors`` alone."""

from service.client.client import DEFAULT_URL, LABEL_ROWS, Client
from service.client.errors import ClientError, NoResponse, NotRunning
from service.client.responses import LabelItem, LabelResponse, PredictionResponse, Predictions, Readiness

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
