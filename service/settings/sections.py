"""The sections of the settings; None leaves the part's own default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LearnerSettings:
    """How ``train`` learns."""

    kind: str = "slice_residual"
    epochs: int | None = None
    hidden: tuple[int, ...] | None = None
    learning_rate: float | None = None
    batch_rows: int | None = None
    search_rows: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Where the service listens, and how much it takes at once."""

    host: str = "127.0.0.1"
    port: int = 8000
    insecure: bool = False
    hosts: tuple[str, ...] = ()
    body_bytes: int = 4 * 2**20
    request_rows: int = 1000
    request_labels: int = 10_000
    request_seconds: float = 10.0
    queue_rows: int = 2048
    drain_seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is kept of every prediction, and what an acknowledged one survives."""

    features: tuple[str, ...] = ("all",)
    survives: str = "kill"


@dataclass(frozen=True, slots=True)
class MonitorSettings:
    """How figures are made from the log."""

    tick_seconds: float = 10.0
    minimum_labels: int = 20
    positive: str | None = None
    label_days: float = 30.0


@dataclass(frozen=True, slots=True)
class DriftSettings:
    """When a slice counts as moved, and how many false alarms are allowed."""

    tolerance: float = 0.1
    accuracy_tolerance: float = 0.01
    false_alarms_a_month: float = 1.0
    max_slices: int = 200


@dataclass(frozen=True, slots=True)
class RetrainSettings:
    """When a new version is trained, on what, and when it takes over."""

    automatic: bool = True
    new_labels: int = 200
    cool_down_hours: float = 24.0
    runs_a_month: int = 8
    wait_days: float = 14.0
    max_age_days: float | None = None
    traffic_rows: int = 50_000
    timeout_minutes: float = 120.0
    attempts: int = 3
    margin: float = 0.02
    minimum_rows: int = 50
    check_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """How often live traffic is compared with the reference column by column, and how much of it."""

    every_hours: float = 24.0
    rows: int = 5_000
    timeout_minutes: float = 10.0


@dataclass(frozen=True, slots=True)
class FunctionLimitSettings:
    """What plain functions may take of a request."""

    budget_ms: float | None = None
    least_ms: float | None = None
    hold_ms: float | None = None
    faults: int | None = None
    slow_batches: int | None = None
    back_off_seconds: float | None = None
    longest_back_off_seconds: float | None = None
