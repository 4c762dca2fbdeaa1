"""From estimates to plots: which interval is held against what."""

from __future__ import annotations

from markupsafe import Markup

from service.console.plots import Band, by_points, by_ratio, range_plot
from service.events import Estimate, InsufficientData


def band(name: str, found: Estimate | InsufficientData) -> Band | None:
    """Return an estimate as a band; None where there is no figure."""
    return Band(name, found.value, found.lower, found.upper) if isinstance(found, Estimate) else None


def exact(name: str, value: float | None) -> Band | None:
    """Return a share without an interval as a band; None where there is none."""
    return None if value is None else Band(name, value, value, value)


def coverage_plot(found: Estimate | InsufficientData, reference: Estimate | InsufficientData) -> Markup:
    """Return coverage beside the expected one; nothing where either is missing."""
    mine, expected = band("coverage", found), band("expected", reference)
    return range_plot(mine, expected, by_ratio) if mine and expected else Markup("")


def accuracy_plot(found: Estimate | InsufficientData, target: float | None) -> Markup:
    """Return accuracy beside its target; nothing where either is missing."""
    mine, wanted = band("accuracy", found), exact("target", target)
    return range_plot(mine, wanted, by_points) if mine and wanted else Markup("")
