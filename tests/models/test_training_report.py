"""The stored form of a training report."""

import json
from typing import Any

import pytest

from models.errors import BundleError
from models.training_report import TrainingReport

ROW = {
    "slice": "__all__",
    "n": 2,
    "accuracy": 0.5,
    "accuracy_lower": 0.1,
    "accuracy_upper": 0.9,
    "f1": None,
    "coverage": 1.0,
    "unknown": 0,
    "effective_n": 2,
}
COMPARED = {
    "slice": "__all__",
    "n": 2,
    "only_first": 1,
    "only_second": 0,
    "difference": 0.5,
    "difference_lower": -0.1,
    "difference_upper": 0.9,
}
REPORT = {
    "form": "plain",
    "sentences": ["It was so."],
    "warnings": [],
    "rows": {"train": 5, "valid": 2, "held_out": 2},
    "classes": {"a": 4, "b": 5},
    "selection": [{"name": "ERM", "score": 0.5, "accuracy": 0.5, "worst": 0.5}],
    "shipped": [ROW],
    "peers": {"erm": [ROW]},
    "comparisons": {"erm": [COMPARED]},
    "functions": [{"name": "f", "unknown": {"KeyError": 3}, "first_fault": None}],
}


def test_a_report_comes_back() -> None:
    """The JSON of a report that was read is the JSON that was written."""
    assert TrainingReport.from_json(json.dumps(REPORT).encode()).to_json() == REPORT


def test_reports_of_earlier_versions_have_no_effective_n() -> None:
    """They are read, and their table has no column for it."""
    row = {key: value for key, value in ROW.items() if key != "effective_n"}
    report = TrainingReport.from_json(json.dumps({**REPORT, "shipped": [row], "peers": {"erm": [row]}}).encode())
    assert report.shipped[0].independent_n == 2
    assert "effective n" not in report.to_text()


def test_targets_and_protection_come_back() -> None:
    """A report with targets is stored with them; one of an earlier version has none, and stays as it is."""
    stored = {**REPORT, "targets": {"__all__": 0.9}, "protected": ["__all__"]}
    report = TrainingReport.from_json(json.dumps(stored).encode())
    assert report.to_json() == stored
    assert (report.targets, report.protected) == ({"__all__": 0.9}, ("__all__",))
    earlier = TrainingReport.from_json(json.dumps(REPORT).encode())
    assert (earlier.targets, earlier.protected) == ({}, ())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sentences": "text"}, "report.json, sentences: .* got 'text'"),
        ({"warnings": [1]}, "report.json, warnings, 0: .* got 1"),
        ({"rows": {"train": 1}}, "report.json, rows, valid: Field required"),
        ({"classes": {"a": True}}, "report.json, classes, a: .* got True"),
        ({"selection": [[]]}, "report.json, selection, 0: "),
        ({"shipped": [{**ROW, "n": "2"}]}, "report.json, shipped, 0, n: .* got '2'"),
        ({"shipped": [{**ROW, "accuracy_lower": None}]}, "shipped: slice __all__ has rows, but no interval"),
        ({"shipped": [{**ROW, "f1": 10**400}]}, "report.json, shipped, 0, f1: .* got 1000"),
        ({"peers": {"erm": []}}, "erm must have the slices of the shipped model"),
        ({"peers": {"other": [ROW]}}, "peers and comparisons must have the same keys"),
        ({"comparisons": {"erm": [{**COMPARED, "difference_upper": None}]}}, "has no interval"),
        ({"functions": [{"name": "f", "unknown": [], "first_fault": None}]}, "functions, 0, unknown: "),
        ({"targets": {"a": "high"}}, "report.json, targets, a: .* got 'high'"),
        ({"more": 1}, "report.json, more: Unexpected"),
    ],
)
def test_a_malformed_report_is_refused_by_its_part(changed: dict[str, Any], message: str) -> None:
    """The message names the place and the value."""
    with pytest.raises(BundleError, match=message):
        TrainingReport.from_json(json.dumps({**REPORT, **changed}).encode())
