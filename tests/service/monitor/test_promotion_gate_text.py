"""A decision as a table."""

from service.decisions import PairedCounts
from service.monitor.promotion_gate import decide, table

ROWS = [PairedCounts("__all__", 2000, 1800, 40, 44), PairedCounts("links", 40, 30, 1, 1)]
DECISION = decide(ROWS, {"gone"}, margin=0.02, minimum_rows=50)


def test_the_table_begins_with_what_was_decided_and_why() -> None:
    """The outcome, then its reasons."""
    said = table(DECISION).splitlines()
    assert said[:3] == ["hold", *(f"- {reason}" for reason in DECISION.reasons)]


def test_the_table_has_a_line_for_every_slice() -> None:
    """Protected slices carry a star, figures are flush right, and a slice without rows has no accuracy."""
    cut = len("slice       rows  champion  candidate  difference          interval  outcome")
    lines = table(DECISION).splitlines()[3:]
    assert [line[: cut + 5].rstrip() for line in lines] == [
        "slice       rows  champion  candidate  difference          interval  outcome",
        "__all__ *  2,000    92.0 %     92.2 %        +0.2      -0.6 to +1.0  as_good",
        "links         40    77.5 %     77.5 %        +0.0    -10.9 to +10.9  not_verified",
        "gone *         0         -          -        +0.0  -100.0 to +100.0  not_verified",
    ]
    assert [line[cut + 7 :] for line in lines[1:]] == [each.reason for each in DECISION.slices]
