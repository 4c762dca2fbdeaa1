"""Accuracy that is expected of all rows, of slices and of families, with its counts by class."""

from __future__ import annotations

from collections.abc import Mapping

from service.decisions import RateKey
from service.jobs.drift_observations import EVERY_ROW
from service.monitor.accuracy_detector import AccuracyReference, Pairs
from service.monitor.reference_period import MINIMUM_CONTENTS
from service.monitor.tolerance_band import accuracy_band
from service.serving.deployment import DeploymentState
from service.settings.schema import DriftSettings
from sfs.intervals import Rate
from sfs.validation import NO_METADATA


def family_rates(state: DeploymentState) -> dict[RateKey, dict[str, str]]:
    """Return fingerprint by slice of every family, by its rate."""
    return {RateKey.of_family(family, own): own for family, own in state.families.items()}


def accuracy_references(
    state: DeploymentState,
    settings: DriftSettings,
    learned: Mapping[RateKey, tuple[Rate, Pairs]],
    accepted: Mapping[RateKey, tuple[Rate, Pairs]],
) -> dict[RateKey, AccuracyReference]:
    """Return the expected accuracy of every rate, and with the stream ``votes`` that of labelling functions.

    Parameters
    ----------
    state, settings
        Held-out counts and targets; tolerance and number of slices.
    learned, accepted
        Accuracies on first labels, and accepted ones, with their counts by class.
    """
    slices = max(settings.max_slices, len(state.functions_version.names))
    counts, references = state.class_counts, {}
    for key in _keys(state):
        rate, pairs = accepted.get(key) or learned.get(key) or (None, ())
        if key not in accepted and (expected := _held_out(state, key)) is not None:
            held = counts[key].confusion if key in counts and counts[key].accuracy == expected else ()
            rate, pairs = expected, held or (pairs if rate == expected else ())
        target = state.metadata.get(key.slice, NO_METADATA).target if key.kind == "accuracy" else None
        band = None
        if rate or target is not None:  # a target is monitored without a reference, too
            band = accuracy_band(rate or Rate(0, 0), settings.accuracy_tolerance, slices, target)
        references[key] = AccuracyReference(band, pairs)
    for key, (_, rate) in monitored_votes(state, settings).items():  # of one predicted class, so not by class
        expected = accepted[key][0] if key in accepted else rate
        references[key] = AccuracyReference(accuracy_band(expected, settings.accuracy_tolerance, slices))
    return references


def monitored_votes(state: DeploymentState, settings: DriftSettings) -> dict[RateKey, tuple[str, Rate]]:
    """Return class and expected accuracy of the labelling functions whose votes are monitored."""
    return state.vote_accuracies if "votes" in settings.streams else {}


def lacking_accuracy(state: DeploymentState, learned: Mapping[RateKey, tuple[Rate, Pairs]]) -> list[RateKey]:
    """Return the rates of an external version without an expected accuracy; none of a local one."""
    keys = _keys(state) if state.is_external else []
    return [key for key in keys if key not in learned and _held_out(state, key) is None]


def _keys(state: DeploymentState) -> list[RateKey]:
    slices = [RateKey(name, fingerprint, "accuracy") for name, fingerprint in state.fingerprints.items()]
    return [EVERY_ROW, *slices, *family_rates(state)]


def _held_out(state: DeploymentState, key: RateKey) -> Rate | None:
    """Return the accuracy on labelled rows of the bundle or the table, or on the first labels; None without any."""
    if key.kind == "accuracy":
        return state.accuracies.get(key.slice)
    rate = state.class_counts[key].accuracy if key in state.class_counts else None
    least = MINIMUM_CONTENTS if state.is_external else 2
    return rate if rate is not None and rate.effective_n >= least else None
