"""Checks of the story: the log against the acknowledged requests, the alarms against the true coverages."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from scipy.special import rel_entr

from service.demo.client import Document
from service.demo.scenario import Goal
from service.formatting import percent_of
from service.store import queries
from service.store.engine import Store
from sfs.apply import apply_with_stats
from sfs.intervals import Rate
from sfs.registry import FunctionSet

SETTLED = ("accepted", "corrected", "pending", "duplicate")
"""Outcomes of labels that count, or counted when first sent."""

PATH = ("waiting_for_labels", "training", "gated", "promoted")
SLACK = 4.0
"""Multiple of the information-theoretic minimum of rows after which an alarm is required."""

Coverages = Mapping[str, Rate]


class RecordedPrediction(NamedTuple):
    """Predicted class, version of the model, and slices of the row."""

    label: str
    version: int
    slices: tuple[str, ...]


class LogRow(NamedTuple):
    """Row of the log: a prediction, and the label that counts for it."""

    id: str
    label: str
    version: int
    true: str | None


@dataclass(slots=True)
class Ledger:
    """Every acknowledged prediction and label.

    ``labels`` has the last label of each prediction; labels are sent in the order of their observation.
    """

    predictions: dict[str, RecordedPrediction] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)

    def add_label(self, id_: str, label: str, outcome: str) -> None:
        """Add a label and its outcome."""
        self.outcomes[outcome] += 1
        if outcome in SETTLED:
            self.labels[id_] = label

    def accuracy(self, slice_: str, version: int, ids: Iterable[str]) -> tuple[int, int]:
        """Return the numbers of correct and labelled predictions of a version on a slice, among some ids."""
        labelled = [id_ for id_ in ids if id_ in self.predictions and id_ in self.labels]
        predictions = {id_: self.predictions[id_] for id_ in labelled}
        members = {
            id_: prediction.label
            for id_, prediction in predictions.items()
            if prediction.version == version and slice_ in prediction.slices
        }
        return sum(self.labels[id_] == label for id_, label in members.items()), len(members)

    def differences(self, log: Sequence[LogRow]) -> list[str]:
        """Return the differences between a log and this ledger, as sentences."""
        acknowledged = {id_: (row.label, row.version) for id_, row in self.predictions.items()}
        logged = {row.id: (row.label, row.version) for row in log}
        counted = {row.id: row.true for row in log if row.true is not None}

        def changed(expected: Mapping[str, Any], actual: Mapping[str, Any]) -> int:
            return sum(expected[key] != actual[key] for key in expected.keys() & actual.keys())

        counts = {
            "predictions are in the log more than once": len(log) - len(logged),
            "acknowledged predictions are missing from the log": len(acknowledged.keys() - logged.keys()),
            "predictions differ between the log and the response": changed(acknowledged, logged),
            "predictions in the log were never acknowledged": len(logged.keys() - acknowledged.keys()),
            "acknowledged labels do not count": len(self.labels.keys() - counted.keys()),
            "predictions have a label other than the last one sent": changed(self.labels, counted),
            "labels were rejected": self.outcomes["rejected"],
        }
        return [f"{n:,} {text}" for text, n in counts.items() if n]


def read_log(path: Path, model: str) -> list[LogRow]:
    """Return the whole log of a service that has stopped.

    Raises
    ------
    StoreInUse
        If the service still runs.
    """
    since, until = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)
    with Store(path) as store, store.read() as connection:
        return [
            LogRow(record.prediction.id, record.prediction.label, record.prediction.version, record.label)
            for record in queries.records(connection, model, since=since, until=until)
        ]


@dataclass(frozen=True, slots=True)
class SliceTruth:
    """True coverage of a slice by phase under one version, its tolerance band, and whether it alarmed.

    ``left`` is whether a coverage lies outside the band; None if too few rows were served to detect it.
    """

    slice: str
    version: int
    lower: float
    upper: float
    coverages: Mapping[str, float]
    left: bool | None
    alarmed: bool


def coverages(functions: FunctionSet, rows: pd.DataFrame, label: str) -> Coverages:
    """Return the coverage of each slice on rows, without their label."""
    return apply_with_stats(functions, rows.drop(columns=label)).matrix.coverage()


def slice_truths(
    bands: Mapping[int, Mapping[str, Document]],
    served: Mapping[tuple[int, str], int],
    phases: Mapping[str, Coverages],
    alarms: Iterable[Document],
) -> list[SliceTruth]:
    """Return the truth of every monitored slice under every version.

    Parameters
    ----------
    bands, served
        Tolerance bands by version and slice, and number of served rows by version and phase.
    phases, alarms
        True coverages by phase, and all alarms of the service.
    """
    raised = {(alarm["version"], alarm["slice"]) for alarm in alarms if alarm["kind"] == "coverage"}
    truths = []
    for version, by_slice in sorted(bands.items()):
        rows = {phase: n for (server, phase), n in served.items() if server == version}
        for name, band in by_slice.items():
            lower, upper = band["lower"], band["upper"]
            coverages = {phase: phases[phase][name].value for phase in rows}
            values = {phase: value for phase, value in coverages.items() if value is not None}
            progress = {phase: rows[phase] / rows_to_detect(value, band) for phase, value in values.items()}
            detected = max(
                sum(progress[phase] for phase, value in values.items() if value > upper),
                sum(progress[phase] for phase, value in values.items() if value < lower),
            )
            left = None if 0 < detected < SLACK else detected > 0
            truths.append(SliceTruth(name, version, lower, upper, values, left, (version, name) in raised))
    return truths


def rows_to_detect(coverage: float, band: Document) -> float:
    """Return the minimum expected number of rows to detect a coverage outside a tolerance band.

    The log evidence of an alarm, divided by the expected log evidence of one row: the Kullback-Leibler divergence
    from the nearer edge of the band. Infinite for a coverage inside.

    References
    ----------
    Lorden (1971), Annals of Mathematical Statistics 42, 1897-1908.

    Examples
    --------
    >>> band = {"lower": 0.0173, "upper": 0.0253, "threshold": 18.5}
    >>> round(rows_to_detect(0.08, band)), round(rows_to_detect(0.026, band)), rows_to_detect(0.02, band)
    (475, 1878722, inf)
    """
    edge = min(max(coverage, band["lower"]), band["upper"])
    if coverage == edge:
        return math.inf
    divergence = rel_entr(coverage, edge) + rel_entr(1 - coverage, 1 - edge)
    return float(band["threshold"] / divergence)


@dataclass(frozen=True, slots=True)
class StoryResult:
    """Result of a scenario.

    Parameters
    ----------
    run, states
        Retraining run of the story (None if there was none), and the states that it went through.
    before, after
        Correct and labelled predictions on the goal's slice, from the change to the retraining and since.
    log, calm_alarms
        Problems with the log, and slices that alarmed before the first change.
    """

    run: Document | None
    states: Sequence[str] = ()
    truths: Sequence[SliceTruth] = ()
    before: tuple[int, int] = (0, 0)
    after: tuple[int, int] = (0, 0)
    log: Sequence[str] = ()
    calm_alarms: Collection[str] = ()


def find_failures(result: StoryResult, goal: Goal | None) -> list[str]:
    """Return the steps of the story that failed; none if the story happened.

    With a goal, a run must end in a promotion that reaches it. Without one, the run may also be held because a
    protected slice could not be verified.
    """
    failures = [*_run_failures(result, goal), *result.log]
    for truth in result.truths:
        if truth.left and not truth.alarmed:
            failures.append(f"{truth.slice} left its band under version {truth.version} without an alarm")
        if truth.alarmed and truth.left is False:
            failures.append(f"{truth.slice} alarmed under version {truth.version} inside its band")
    if result.calm_alarms:
        failures.append(f"alarms before any change: {', '.join(sorted(result.calm_alarms))}")
    if goal is not None:
        (right, n), (right_after, n_after) = result.before, result.after
        if not n or right > goal.at_most_before * n:
            accuracy = percent_of(right, n, "labels")
            failures.append(f"accuracy on {goal.slice} before was {accuracy}, expected at most {goal.at_most_before}")
        if n_after < goal.labelled:
            failures.append(f"only {n_after} of {goal.labelled} labels on {goal.slice} arrived after the promotion")
        elif right_after < goal.at_least_after * n_after:
            accuracy = percent_of(right_after, n_after, "labels")
            failures.append(f"accuracy on {goal.slice} after is {accuracy}, expected at least {goal.at_least_after}")
    return failures


def _run_failures(result: StoryResult, goal: Goal | None) -> Iterator[str]:
    run = result.run
    if run is None:
        yield "no retraining was started"
    elif run["state"] == "promoted":
        missing = [state for state in PATH if state not in result.states] if goal else []
        if missing:
            yield f"run {run['id']} was promoted, but was never {', '.join(missing)}"
    else:
        unverified = run["state"] == "held" and (run["decision"] or {}).get("outcome") == "hold"
        if goal is not None or not unverified:
            yield f"run {run['id']} is {run['state']}: {run['outcome'] or run['reason']}"
