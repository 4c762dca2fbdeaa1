"""A small client of the service's HTTP API; it stands on nothing but Python and ``service.errors``."""

from service.client.answers import LabelAnswer, LabelItem, PredictionAnswer, Predictions, Readiness
from service.client.calls import DEFAULT_URL, LABEL_ROWS, Client
from service.client.failures import ClientError, NoAnswer, NotRunning

__all__ = [
    "DEFAULT_URL",
    "LABEL_ROWS",
    "Client",
    "ClientError",
    "LabelAnswer",
    "LabelItem",
    "NoAnswer",
    "NotRunning",
    "PredictionAnswer",
    "Predictions",
    "Readiness",
]
