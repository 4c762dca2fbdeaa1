"""``slicewatch labels``: what records truly were, from a file."""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from service.cli.command import Commands, Context, add_command, add_config, add_json
from service.cli.label_rows import label_columns, read_rows
from service.cli.project import load_settings
from service.cli.running import add_url
from service.cli.terminal import print_json, rows_bar, table
from service.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from service.api.schemas.predictions import LabelIn
    from service.cli.label_doors import Door, Outcome
    from service.cli.label_rows import Row

SHOWN_ROWS = 10
EXAMPLES = """slicewatch labels reviewed.csv
  slicewatch labels reviewed.csv --id-column comment_id --label-column verdict"""
ABOUT = """\
The file has a column for the ids of predictions and one for their labels. It may have
observed_at (ISO 8601; UTC where no zone is given; now where it is empty), labeller, and
idempotency_key. Labels go to the service, or into its store while it does not run.
Sending a file again changes nothing: without a time, its rows are known by what the file holds."""


def declare(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(commands, "labels", "send labels of predictions from a file", EXAMPLES, run)
    parser.description = f"{parser.description}\n\n{ABOUT}"
    parser.add_argument("file", type=Path, metavar="FILE", help="CSV, TSV, Parquet or JSON lines")
    parser.add_argument("--id-column", default="id", metavar="NAME", help="column of the ids (default: id)")
    parser.add_argument(
        "--label-column", default="label", metavar="NAME", help="column of the labels (default: label)"
    )
    add_url(parser)
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Send the labels and say what became of them; 1 if one was rejected."""
    columns = label_columns(args.file, args.id_column, args.label_column)
    with _door(args, context) as door:
        found = send_file(args.file, columns, door)
    if args.json:
        print_json({**found.to_json(), "columns": list(columns.values()), "sent_to": door.where})
    else:
        read = ", ".join(columns.values())
        print(f"{found.to_text()}\n\n{found.rows:,} rows of {args.file} ({read}), sent to {door.where}")
    return int(bool(found.rejected))


@dataclass(slots=True)
class Outcomes:
    """What became of the labels so far."""

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    first_reasons: dict[str, str] = field(default_factory=dict)
    rejected: list[Row] = field(default_factory=list)

    def add(self, rows: Sequence[Row], outcomes: Mapping[int, Outcome]) -> None:
        """Add rows, with what became of those that were sent."""
        for row in rows:
            outcome, reason = outcomes.get(row.number, ("rejected", row.reason))
            self.counts[outcome] += 1
            if reason is not None:
                self.first_reasons.setdefault(outcome, reason)
            if outcome == "rejected":
                self.rejected.append(replace(row, label=None, reason=reason))
        self.rows += len(rows)

    def to_json(self) -> dict[str, Any]:
        """Return all counts, and every rejected row."""
        from service.events import LabelOutcome

        rejected = [{"row": row.number, "id": row.id, "reason": row.reason} for row in self.rejected]
        counts = {outcome: self.counts[outcome] for outcome in get_args(LabelOutcome)}
        return {"rows": self.rows, "outcomes": counts, "rejected": rejected}

    def to_text(self) -> str:
        """Return a table of counts, and the first rows that were rejected."""
        counts = {name: n for name, n in self.to_json()["outcomes"].items() if n}
        lines = [table(("outcome", "labels"), list(counts.items()))]
        told = [name for name in counts if name in self.first_reasons and name != "rejected"]
        lines += [f"{name}: {self.first_reasons[name]}" for name in told]
        for row in self.rejected[:SHOWN_ROWS]:
            named = "" if row.id is None else f" ({row.id!r:.60})"
            lines.append(f"rejected row {row.number}{named}: {row.reason}")
        if len(self.rejected) > SHOWN_ROWS:
            lines.append(f"and {len(self.rejected) - SHOWN_ROWS:,} more; --json tells all")
        return "\n".join(lines)


def _door(args: argparse.Namespace, context: Context) -> AbstractContextManager[Door]:
    from service.cli.label_doors import named_service, project_door

    return named_service(args.url) if args.url else project_door(load_settings(args, context), context)


def send_file(file: Path, columns: Mapping[str, str], door: Door) -> Outcomes:
    """Send the labels of a file batch by batch, and return what became of them.

    Raises
    ------
    ServiceError
        If a batch is refused; it says how many rows were taken before.
    """
    from sfs.tables import count_rows

    found = Outcomes()
    with rows_bar("labels", count_rows(file)) as done:
        try:
            _send_rows(file, columns, door, found, done)
        except ServiceError as error:
            if not found.rows:
                raise
            before = f"the first {found.rows:,} rows were taken: send the file again, none counts twice"
            raise ServiceError([*error.problems, before]) from error
    return found


def _send_rows(
    file: Path, columns: Mapping[str, str], door: Door, found: Outcomes, done: Callable[[int], None]
) -> None:
    digest = _digest(file, columns)
    for rows in read_rows(file, columns, door.batch_rows):
        sent = {
            row.number: _told_apart(row.label, digest, row.number) for row in rows if row.label is not None
        }
        outcomes = door.send(list(sent.values())) if sent else []
        found.add(rows, dict(zip(sent, outcomes, strict=True)))
        done(len(rows))


def _digest(file: Path, columns: Mapping[str, str]) -> str:
    """Return what a file and the columns that are read of it come to."""
    begun = hashlib.blake2b(repr(sorted(columns.items())).encode(), digest_size=16)
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: begun).hexdigest()


def _told_apart(label: LabelIn, digest: str, row: int) -> LabelIn:
    """Return a label that has a time or a key: sent again, with its file, it is no later statement."""
    if label.observed_at is not None or label.idempotency_key is not None:
        return label
    return label.model_copy(update={"idempotency_key": f"{digest}-{row}"})
