"""Expected coverage and accuracy of a slice, and the baselines of runs."""

from dataclasses import replace
from typing import Any

import pytest
from factories import PATIENT_LIMITS

from models.bundle.model_bundle import ModelBundle
from service.serving.deployment import ActiveModel
from service.serving.live_functions import LiveFunctions
from service.serving.references import reference_accuracy, reference_coverage, run_baseline
from sfs.intervals import Rate
from sfs.registry import FunctionSet
from sfs.template import template


def test_unchanged_functions_have_the_counts_of_training(bundle: ModelBundle, active: ActiveModel) -> None:
    """Coverage is that of all rows, with fewer independent rows; accuracy is that of the held-out members."""
    expected = reference_coverage(bundle, active.live)
    assert list(expected) == ["short", "clicks"]
    for name, rate in expected.items():
        counts = bundle.reference[name]
        assert counts.n == 240 > rate.n > 200
        assert rate.value == pytest.approx(counts.member / counts.n, abs=0.005)
    accuracies = reference_accuracy(bundle, active.live)
    assert set(accuracies) == {"__all__", "short", "clicks"}
    assert accuracies["short"] == bundle.reference["short"].accuracy


def test_a_new_function_is_applied_to_the_sample(
    bundle: ModelBundle, active: ActiveModel, live_of: Any
) -> None:
    """Templates and Python functions have an expected coverage, and no accuracy."""
    popular = template("popular", compare={"field": "likes", "above": 4})
    code = "@slicing_function()\ndef about_money(x): return 'money' in x.text"
    live = live_of(code, *active.live.functions, popular)
    expected = reference_coverage(bundle, live)
    rows = bundle.sample
    assert expected["about_money"] == Rate(sum("money" in row["text"] for row in rows), len(rows))
    assert expected["popular"] == Rate(sum(row["likes"] > 4 for row in rows), len(rows))
    assert expected["short"] == reference_coverage(bundle, active.live)["short"]
    assert set(reference_accuracy(bundle, live)) == {"__all__", "short", "clicks"}


def test_a_changed_function_is_a_new_one(bundle: ModelBundle, active: ActiveModel) -> None:
    """The counts of training belong to its earlier fingerprint."""
    changed = template("short", length={"field": "text", "unit": "words", "below": 5})
    live = LiveFunctions(FunctionSet([changed, active.live.functions["clicks"]]))
    rows = bundle.sample
    members = sum(len(row["text"].split()) < 5 for row in rows)
    assert reference_coverage(bundle, live)["short"] == Rate(members, len(rows))
    assert set(reference_accuracy(bundle, live)) == {"__all__", "clicks"}


def test_a_function_that_fails_on_the_sample_has_no_reference(bundle: ModelBundle, live_of: Any) -> None:
    """The sample may lack its column, which says nothing about its coverage or about traffic."""
    limits = replace(PATIENT_LIMITS, faults=3)
    live = live_of("@slicing_function()\ndef odd(x): return x['no such column'] > 1", limits=limits)
    assert "odd" not in reference_coverage(bundle, live)
    assert live.disabled_reasons() == {"odd": None}
    live.apply(bundle.sample)
    assert live.disabled_reasons() == {"odd": "faults"}  # as traffic its faults count


def test_the_baseline_of_a_run_has_the_coverage_since_the_change() -> None:
    """Other slices keep their references; slices without a function, or without rows, have no part in it."""
    references = {"moved": Rate(10, 100), "calm": Rate(20, 100), "removed": Rate(30, 100)}
    moved = {"moved": Rate(60, 90), "calm": Rate(0, 0)}
    assert run_baseline(references, moved, {"moved": "m1", "calm": "c1", "idle": "i1"}) == {
        ("moved", "m1"): Rate(60, 90),
        ("calm", "c1"): Rate(20, 100),
    }
