"""How a version did on the rows that were held out for it, without loading it."""

from __future__ import annotations

import json
from pathlib import Path

from models.errors import ModelError
from models.reference import slice_counts
from service.events import Estimate, NotEnough
from service.views.rates import estimate_of
from sfs.function import ALL_ROWS


def held_out_accuracy(folder: Path) -> Estimate | NotEnough:
    """Return how often a stored version was right on its held-out rows; why nobody knows, where it is damaged."""
    try:
        counts = slice_counts(json.loads((folder / "reference.json").read_bytes())[ALL_ROWS])
    except (OSError, LookupError, TypeError, ValueError, ModelError) as error:
        return NotEnough(0, 1, f"reference.json cannot be read: {error!r:.100}")
    return estimate_of(counts.accuracy.count, counts.accuracy.n, "no rows were held out")
