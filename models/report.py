"""What a training came to on held-out rows, beside its plain peers: kept in the bundle, and printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models.report_shape import check_report
from models.slice_report import HEAD, Comparison, aligned, cells

PEERS = {"erm": "ERM", "weighted_erm": "slice-weighted ERM"}
_SHORT = {"erm": "ERM", "weighted_erm": "weighted"}


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """The report of one training as JSON values.

    Parameters
    ----------
    values
        ``form`` (which form of the learner won), ``sentences`` (how it was chosen), ``warnings``; ``rows`` of
        each split and of each of the ``classes``; ``selection`` (every candidate's validation scores);
        ``shipped`` and ``peers`` (results per slice on held-out rows, as `models.slice_report.SliceReport` gives
        them); ``comparisons`` (shipped minus peer, paired, per slice); ``functions`` (rows unknown to each,
        and why).

    Raises
    ------
    BundleError
        If one of these is missing, or is not of its kind.
    """

    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        check_report(self.values)

    @property
    def form(self) -> str:
        """Which form of the learner is shipped."""
        return str(self.values["form"])

    @property
    def sentences(self) -> tuple[str, ...]:
        """How the form was chosen, in plain words."""
        return tuple(self.values["sentences"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to be careful about, in plain words."""
        return tuple(self.values["warnings"])

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return dict(self.values)

    def rows(self) -> list[dict[str, Any]]:
        """Return a record per slice, overall first: the shipped model's result, the peers', differences."""
        return [self._row(k, result) for k, result in enumerate(self.values["shipped"])]

    def _row(self, k: int, result: Mapping[str, Any]) -> dict[str, Any]:
        row = dict(result)
        for peer, results in self.values["peers"].items():
            row[f"{peer}_accuracy"] = results[k]["accuracy"]
            compared = self.values["comparisons"][peer][k]
            row |= {
                f"{peer}_{end}": compared[end]
                for end in ("difference", "difference_lower", "difference_upper")
            }
        return row

    def to_text(self) -> str:
        """Return the table per slice, the table beside the peers, then the sentences and warnings."""
        counts, rows = self.values["rows"], self.rows()
        about = (
            f"Accuracy on {counts['held_out']:,} held-out rows, after {counts['train']:,} training and "
            f"{counts['valid']:,} validation rows."
        )
        peers = list(self.values["peers"])
        head = [
            *HEAD,
            *(name for peer in peers for name in (f"gain on {_SHORT.get(peer, peer)}", "95 % interval")),
        ]
        body = [[*cells(row), *(gain for peer in peers for gain in _gain(row, peer))] for row in rows]
        names = " and ".join(PEERS.get(peer, peer) for peer in peers)
        gains = [f"Gains are paired differences to {names} on the same rows."] if peers else []
        warned = [f"Note: {warning}" for warning in self.warnings]
        return "\n".join([about, *gains, "", aligned([head, *body]), "", *self.sentences, *warned])


def compared(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Return paired comparisons as JSON values; a slice without rows has no difference."""
    return [
        {
            "slice": c.name,
            "n": c.n,
            "only_first": c.difference.only_first,
            "only_second": c.difference.only_second,
            "difference": c.difference.value,
            "difference_lower": c.difference.lower if c.n else None,
            "difference_upper": c.difference.upper if c.n else None,
        }
        for c in comparisons
    ]


def _gain(row: Mapping[str, Any], peer: str) -> tuple[str, str]:
    gain = row[f"{peer}_difference"]
    if gain is None:
        return "-", "-"
    lower, upper = row[f"{peer}_difference_lower"], row[f"{peer}_difference_upper"]
    return f"{gain:+.3f}", f"{lower:+.3f} to {upper:+.3f}"
