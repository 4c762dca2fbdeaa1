"""Commands to copy, for those who find a page empty."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Examples:
    """Commands that bring the first predictions, labels and functions."""

    predict: str
    logged: str
    label: str
    function: str


SHORT_CHARACTERS = 60
"""Of a text in a command; the rest is left out."""


def examples(
    base_url: str,
    prediction_id: str | None,
    classes: tuple[str, ...],
    record: Mapping[str, Any] | None = None,
) -> Examples:
    """Return commands for the service at an address.

    Parameters
    ----------
    base_url
        Where the reader reaches the service.
    prediction_id
        A prediction that could be labelled; None for one that the reader has to fill in.
    classes
        Of the model, the first is taken as the label.
    record
        What the model takes; None where that is not known.
    """
    label = {"id": prediction_id or "THE-ID-OF-A-PREDICTION", "label": classes[0] if classes else "A-CLASS"}
    features = {name: _short(value) for name, value in (record or {"text": "check this out"}).items()}
    column = next(iter(features))
    return Examples(
        predict=_curl(base_url, "predict", {"instances": [features]}),
        logged=_curl(
            base_url, "predictions", {"predictions": [{"features": features, "label": label["label"]}]}
        ),
        label=_curl(base_url, "labels", {"labels": [label]}),
        function=_curl(base_url, "functions", {"name": f"no_{column}", "missing": {"field": column}}),
    )


def _short(value: Any) -> Any:
    return value[:SHORT_CHARACTERS] if isinstance(value, str) else value


def _curl(base_url: str, path: str, body: Any) -> str:
    address = shlex.quote(f"{base_url.rstrip('/')}/v1/{path}")
    content = shlex.quote(json.dumps(body, ensure_ascii=False))
    return f"curl {address} -H 'Content-Type: application/json' \\\n  -d {content}"
