"""What the pages are given of the running service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from service.console.parts import ConsoleParts, Promises

if TYPE_CHECKING:
    from service.api.parts import Parts
    from service.app.switchboard import Switchboard
    from service.settings.project import Settings


def console_parts(parts: Parts, switchboard: Switchboard, settings: Settings, speed: float) -> ConsoleParts:
    """Return what the pages are made from, the same parts that the routes of the API speak to."""
    drift = settings.drift
    return ConsoleParts(
        current=parts.current,
        store=parts.store,
        clock=parts.clock,
        writer=parts.writer,
        registry=parts.registry,
        failures=parts.metrics.unknown_rows,
        example=lambda: example_of(switchboard),
        promises=Promises(
            tolerance=drift.tolerance,
            accuracy_tolerance=drift.accuracy_tolerance,
            false_alarms_a_month=drift.false_alarms_a_month,
            max_slices=drift.max_slices,
            report_hours=settings.report.every_hours,
        ),
        speed=speed,
    )


def example_of(switchboard: Switchboard) -> Mapping[str, Any] | None:
    """Return the features of a held-out record that the version in force keeps; None without a version."""
    predictor = switchboard.predictor
    if predictor is None:
        return None
    bundle = predictor.loaded.bundle
    record = bundle.sample[0] if bundle.sample else {}
    return {column: record.get(column) for column in bundle.feature_columns}
