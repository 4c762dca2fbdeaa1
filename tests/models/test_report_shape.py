"""The shape of a training report."""

from typing import Any

import pytest

from models.errors import BundleError
from models.report_shape import check_report

ROW = {
    "slice": "__all__",
    "n": 2,
    "accuracy": 0.5,
    "accuracy_lower": 0.1,
    "accuracy_upper": 0.9,
    "f1": None,
    "coverage": 1.0,
    "unknown": 0,
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


def test_a_report_as_it_is_made_passes() -> None:
    """Every part of its kind raises nothing."""
    check_report(REPORT)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"sentences": "text"}, "report.json, sentences: cannot be 'text'"),
        ({"warnings": [1]}, "report.json, warnings, 0: cannot be 1"),
        ({"rows": {"train": 1}}, "report.json, rows: must hold train, valid, held_out, got train"),
        ({"classes": {"a": True}}, "report.json, classes, a: cannot be True"),
        ({"selection": [[]]}, "report.json, selection, 0: cannot be"),
        ({"shipped": [{**ROW, "n": "2"}]}, "report.json, shipped, 0, n: cannot be '2'"),
        ({"shipped": [{**ROW, "accuracy_lower": None}]}, "shipped, __all__: has rows, but no interval"),
        ({"shipped": [{**ROW, "f1": 10**400}]}, "report.json, shipped, 0, f1: cannot be 1000"),
        ({"peers": {"erm": []}}, "peers, erm: must have the slices of the shipped model"),
        ({"peers": {"other": [ROW]}}, "must compare exactly the peers"),
        ({"comparisons": {"erm": [{**COMPARED, "difference_upper": None}]}}, "has no interval"),
        ({"functions": [{"name": "f", "unknown": [], "first_fault": None}]}, "functions, 0, unknown: cannot"),
        ({"more": 1}, "report.json must hold classes, comparisons"),
    ],
)
def test_a_report_of_another_shape_is_refused_by_its_part(changed: dict[str, Any], message: str) -> None:
    """The message names where and what."""
    with pytest.raises(BundleError, match=message):
        check_report({**REPORT, **changed})
