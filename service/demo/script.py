"""The script: which comments come when, what of them is labelled, and what has to come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the traffic whose nature does not change.

    Parameters
    ----------
    name, says
        A word for it, and a sentence.
    start
        Position of its first row in the traffic; it ends where the next one begins.
    """

    name: str
    says: str
    start: int


@dataclass(frozen=True, slots=True)
class Goal:
    """How right the model has to be on a slice before and after; with how many labels that is to be shown."""

    slice: str
    at_most_before: float
    at_least_after: float
    labelled: int


@dataclass(frozen=True, slots=True)
class Labelling:
    """How labels come.

    Parameters
    ----------
    share
        Of the rows, those that are ever labelled.
    first_minutes, last_minutes
        How late a label comes at the earliest and at the latest; in between all orders of magnitude are alike.
    early, twice, corrected
        Of the labels, those that come before their prediction, those that are sent a second time, and those
        that are wrong at first.
    """

    share: float = 0.45
    first_minutes: float = 2.0
    last_minutes: float = 60.0
    early: float = 0.01
    twice: float = 0.04
    corrected: float = 0.01


@dataclass(frozen=True, slots=True)
class Learning:
    """What the project says of its model.

    Parameters
    ----------
    features
        Column and kind.
    kind, epochs, seed
        Of the learner.
    new_labels
        Labels that each slice that rose needs before it is trained again.
    """

    features: Mapping[str, str]
    kind: str
    epochs: int
    seed: int
    new_labels: int


@dataclass(frozen=True, slots=True)
class Script:
    """Comments, as a stream with phases: generated ones, or real ones.

    Parameters
    ----------
    title
        What is shown.
    phases
        The parts of the traffic, in order.
    rows_a_second
        Of the wall's clock: how fast the traffic comes.
    goal
        What retraining has to bring; None where it is open whether it brings anything.
    length
        Rows after which the traffic ends; None where it goes on.
    learning, labelling
        What the model is made of, and how labels come.
    base
        Returns the labelled rows that the first model learns from.
    rows
        Takes a position and a number, and returns as many rows of the traffic from there on, with their label.
    sample
        Returns rows of the nature that a phase has, enough of them to tell its coverages by.
    """

    title: str
    phases: tuple[Phase, ...]
    rows_a_second: float
    goal: Goal | None
    length: int | None
    learning: Learning
    labelling: Labelling
    base: Callable[[], pd.DataFrame]
    rows: Callable[[int, int], pd.DataFrame]
    sample: Callable[[Phase], pd.DataFrame]


def phase_at(phases: Sequence[Phase], position: int) -> Phase:
    """Return the phase that a position lies in.

    Examples
    --------
    >>> phases = [Phase("calm", "", 0), Phase("campaign", "", 100)]
    >>> phase_at(phases, 99).name, phase_at(phases, 100).name
    ('calm', 'campaign')
    """
    return [phase for phase in phases if phase.start <= position][-1]
