"""Expected coverage and accuracy of a slice, and the baselines of runs."""

from dataclasses import replace
from typing import Any

import pytest
from factories import PATIENT_LIMITS, START

from models.bundle.model_bundle import ModelBundle
from models.bundle.reference import SliceCounts
from models.splits import content_hashes
from service.decisions import Run
from service.serving.deployment import ActiveModel
from service.serving.live_functions import LiveFunctions
from service.serving.references import (
    BASELINE_KEY,
    baseline_of_run,
    baseline_to_json,
    reference_accuracy,
    reference_coverage,
    run_baseline,
)
from sfs.intervals import Rate, effective_n
from sfs.registry import FunctionSet
from sfs.template import template


def test_unchanged_functions_have_the_counts_of_training(bundle: ModelBundle, active: ActiveModel) -> None:
    """Coverage is that of all rows, with a smaller effective n; accuracy is that of the held-out members."""
    expected = reference_coverage(bundle, active.live)
    assert list(expected) == ["short", "clicks"]
    for name, rate in expected.items():
        counts = bundle.reference[name]
        assert counts.n == 240 == rate.n > counts.contents > rate.effective_n > 100
        assert rate.count == counts.member
    accuracies = reference_accuracy(bundle, active.live)
    assert set(accuracies) == {"__all__", "clicks"}  # of short, one content is held out
    assert accuracies["clicks"] == bundle.reference["clicks"].accuracy


def test_a_new_function_is_applied_to_the_sample(bundle: ModelBundle, active: ActiveModel, live_of: Any) -> None:
    """Templates and Python functions have an expected coverage, and no accuracy."""
    popular = template("popular", compare={"field": "likes", "above": 4})
    code = "@slicing_function()\ndef about_money(x): return 'money' in x.text"
    live = live_of(code, *active.live.functions, popular)
    expected = reference_coverage(bundle, live)
    rows = bundle.sample
    contents = content_hashes(rows, bundle.featurizer.specs)
    slices = {"about_money": ["money" in row["text"] for row in rows], "popular": [row["likes"] > 4 for row in rows]}
    for name, member in slices.items():
        effective = effective_n(contents, member)
        assert 1 < effective < len(rows)
        assert expected[name] == Rate(sum(member), len(rows), effective)
    assert expected["short"] == reference_coverage(bundle, active.live)["short"]
    assert set(reference_accuracy(bundle, live)) == {"__all__", "clicks"}


def test_a_changed_function_is_a_new_one(bundle: ModelBundle, active: ActiveModel) -> None:
    """The counts of training belong to its earlier fingerprint."""
    changed = template("short", length={"field": "text", "unit": "words", "below": 5})
    live = LiveFunctions(FunctionSet([changed, active.live.functions["clicks"]]))
    rows = bundle.sample
    members = sum(len(row["text"].split()) < 5 for row in rows)
    rate = reference_coverage(bundle, live)["short"]
    assert (rate.count, rate.n) == (members, len(rows))
    assert set(reference_accuracy(bundle, live)) == {"__all__", "clicks"}


def test_a_function_that_was_counted_is_not_applied_again(bundle: ModelBundle, active: ActiveModel) -> None:
    """Its rate is kept, the counts of training are preferred, and a name that is no longer live is left out."""
    popular = template("popular", compare={"field": "likes", "above": 4})
    live = LiveFunctions(FunctionSet([*active.live.functions, popular]))
    counted = dict.fromkeys(("short", "popular", "removed"), Rate(3, 4))
    trained = reference_coverage(bundle, active.live)
    assert reference_coverage(bundle, live, counted) == {**trained, "popular": Rate(3, 4)}


@pytest.mark.parametrize(("contents", "effective", "is_expected"), [(1, 1, False), (2, 2, True), (2, 1, False)])
def test_of_one_content_no_accuracy_is_expected(
    bundle: ModelBundle, active: ActiveModel, contents: int, effective: int, is_expected: bool
) -> None:
    """Sixty held-out rows are one content, two half each, or one and a few rows of another."""
    counts = SliceCounts(240, 240, 0, 12, 60, 58, contents, effective, 12)
    few = replace(bundle, reference={**bundle.reference, "__all__": counts})
    assert ("__all__" in reference_accuracy(few, active.live)) is is_expected


def test_a_sample_of_one_content_expects_no_coverage(bundle: ModelBundle, active: ActiveModel) -> None:
    """All of its rows are in a new slice, or none is, and traffic has other contents."""
    popular = template("popular", compare={"field": "likes", "above": 4})
    live = LiveFunctions(FunctionSet([*active.live.functions, popular]))
    repeated = replace(bundle, sample=bundle.sample[:1] * 60)
    assert "popular" not in reference_coverage(repeated, live)
    assert "popular" in reference_coverage(bundle, live)


def made_with(data: dict[str, Any]) -> Run:
    """Return a run with these data."""
    return Run(1, "comments", "promoted", "request", "monthly", START, START, data=data)


def test_a_baseline_keeps_its_effective_n() -> None:
    """It is stored with the run; runs of earlier versions have none."""
    baseline = {("a", "f"): Rate(40, 90, 12), ("b", "g"): Rate(1, 4)}
    run = made_with({BASELINE_KEY: baseline_to_json(baseline)})
    assert baseline_of_run(run) == baseline
    earlier = made_with({BASELINE_KEY: [{"slice": "a", "fingerprint": "f", "count": 40, "n": 90}]})
    assert baseline_of_run(earlier) == {("a", "f"): Rate(40, 90)}


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
