"""``slicewatch labels``: send labels from a file, to the running service or into its store."""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast, get_args

from service.cli.parser import Commands, Context, add_command, add_format, add_options, api_key
from service.cli.project import (
    CHAMPION,
    load_settings,
    named_client,
    open_registry,
    project_client,
    require_model,
    service_url,
)
from service.cli.terminal import format_table, print_json, row_progress
from service.errors import MisuseError, ServiceError

if TYPE_CHECKING:
    import pandas as pd

    from service.api.schemas.predictions import LabelIn
    from service.client import Client, LabelItem
    from service.settings.schema import Settings

DAY_SECONDS = 86_400
STORE_ROWS = 1_000
"""Labels in one transaction."""

SHOWN_ROWS = 10
OPTIONAL_FIELDS = ("observed_at", "labeller", "idempotency_key")
TEXT_FIELDS = ("id", "labeller", "idempotency_key")
"""Fields that stay text in a text file: ``007`` is an id, not 7."""

EXAMPLES = """slicewatch labels reviewed.csv
  slicewatch labels reviewed.csv --id-column comment_id --label-column verdict"""
DESCRIPTION = """\
The file has a column with the ids of predictions and one with their labels. Optional columns:
observed_at (ISO 8601; UTC without a zone; now if empty), labeller, and idempotency_key.
Labels are sent to the service, or written to its store while it is not running.
Of several rows of one id without a time, or with the same time, the last counts.
Sending a file again changes nothing: labels without a time are identified by the path, the content and the row.
A file at another path that repeats an earlier label is a correction. Labels that do not count are reported."""

Outcome: TypeAlias = tuple[str, str | None]
"""Outcome of a label, and the reason if the label does not count."""


def declare(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(commands, "labels", "send labels of predictions from a file", EXAMPLES, run)
    parser.description = f"{parser.description}\n\n{DESCRIPTION}"
    parser.add_argument("file", type=Path, metavar="FILE", help="CSV, TSV, Parquet or JSON lines")
    parser.add_argument("--id-column", default="id", metavar="NAME", help="column with the ids (default: id)")
    parser.add_argument(
        "--label-column", default="label", metavar="NAME", help="column with the labels (default: label)"
    )
    add_format(parser)
    add_options(parser, url=True)


def run(args: argparse.Namespace, context: Context) -> int:
    """Send the labels and print their outcomes; 1 if any was rejected."""
    data_format = args.format or "table"
    columns = label_columns(args.file, args.id_column, args.label_column, data_format)
    with open_sink(args, context) as sink:
        summary = send_file(args.file, columns, sink, data_format)
    if args.json:
        print_json({**summary.to_json(), "columns": list(columns.values()), "sent_to": sink.name})
    else:
        read = f"{summary.rows:,} row{'s' * (summary.rows != 1)} of {args.file} (columns {', '.join(columns.values())})"
        print(f"{summary.to_text()}\n\n{read}, sent to {sink.name}")
    return int(bool(summary.rejected))


@dataclass(frozen=True, slots=True)
class LabelFileRow:
    """One row of a file, counted from 0: its label, or the reason why it has none."""

    number: int
    id: str | None
    label: LabelIn | None
    reason: str | None = None


@dataclass(slots=True)
class LabelSummary:
    """Outcomes of the labels so far."""

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    first_reasons: dict[str, str] = field(default_factory=dict)
    rejected: list[LabelFileRow] = field(default_factory=list)

    def add(self, rows: Sequence[LabelFileRow], outcomes: Mapping[int, Outcome]) -> None:
        """Add rows; ``outcomes`` maps the numbers of the sent rows to their outcomes."""
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
        """Return a table of counts, the first reason of each outcome, and the first rejected rows."""
        counts = {name: n for name, n in self.to_json()["outcomes"].items() if n}
        lines = [format_table(("outcome", "labels"), list(counts.items()))]
        lines += [
            f"{name}: {self.first_reasons[name]}"
            for name in counts
            if name in self.first_reasons and name != "rejected"
        ]
        for row in self.rejected[:SHOWN_ROWS]:
            row_id = "" if row.id is None else f" ({row.id!r:.60})"
            lines.append(f"rejected row {row.number}{row_id}: {row.reason}")
        if len(self.rejected) > SHOWN_ROWS:
            lines.append(f"and {len(self.rejected) - SHOWN_ROWS:,} more; --json lists all")
        return "\n".join(lines)


def label_columns(file: Path, id_column: str, label_column: str, data_format: str = "table") -> dict[str, str]:
    """Return the columns of the fields that a file has: field -> column.

    Raises
    ------
    UnreadableFile
        If the file cannot be read.
    MisuseError
        If it lacks the ids or the labels.
    """
    from sfs.errors import did_you_mean
    from sfs.tables import read_batches

    names = [str(name) for name in next(read_batches(file, 1, format=data_format)).columns]
    columns = {"id": id_column, "label": label_column}
    problems = [
        f"{file}: no column {column!r}{did_you_mean(column, names)}; name the column with --{field}-column"
        for field, column in columns.items()
        if column not in names
    ]
    if problems:
        raise MisuseError(problems)
    return columns | {name: name for name in OPTIONAL_FIELDS if name in names and name not in columns.values()}


def read_rows(
    file: Path, columns: Mapping[str, str], batch_rows: int, data_format: str = "table"
) -> Iterator[list[LabelFileRow]]:
    """Yield the rows of a file in batches; ``columns`` is the result of `label_columns`."""
    from sfs.tables import input_format, read_batches

    is_text = input_format(file, data_format) in (".csv", ".tsv")
    text = [columns[name] for name in (*TEXT_FIELDS, "label") if name in columns] if is_text else ()
    start, names = 0, list(dict.fromkeys(columns.values()))
    for frame in read_batches(file, batch_rows, names, text=text, format=data_format):
        yield [_read_row(start + n, fields) for n, fields in enumerate(_present_fields(frame, columns))]
        start += len(frame)


def _present_fields(frame: pd.DataFrame, columns: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    from sfs.record import none_if_missing

    values = {name: [none_if_missing(v) for v in frame[column].tolist()] for name, column in columns.items()}
    for row in zip(*values.values(), strict=True):
        fields = zip(values, row, strict=True)
        yield {name: v for name, v in fields if v is not None and not (isinstance(v, str) and not v.strip())}


def _read_row(number: int, fields: dict[str, Any]) -> LabelFileRow:
    from pydantic import ValidationError

    from service.api.requests import field_errors
    from service.api.schemas.predictions import LabelIn
    from sfs.record import text_of

    row_id = str(fields["id"]) if "id" in fields else None
    try:
        if absent := [name for name in ("id", "label") if name not in fields]:
            raise ValueError(f"the row has no {absent[0]}")
        values = fields | {name: text_of(fields[name]).strip() for name in TEXT_FIELDS if name in fields}
        if "observed_at" in fields:
            values["observed_at"] = _to_timestamp(fields["observed_at"])
        return LabelFileRow(number, row_id, LabelIn.model_validate(values))
    except ValidationError as invalid:
        errors = field_errors(invalid.errors(include_url=False, include_context=False, include_input=False))
        return LabelFileRow(number, row_id, None, "; ".join(f"{each.field}: {each.message}" for each in errors))
    except (ValueError, TypeError) as error:
        return LabelFileRow(number, row_id, None, str(error))


def _to_timestamp(value: Any) -> str:
    """Return a date and time as ISO 8601, in UTC if it has no zone."""
    text = str(value).strip()
    try:
        if text[4:5] != "-":
            raise ValueError  # digits alone would pass for a date
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"invalid observed_at {text!r:.60}: write it as 2026-05-01T12:00:00Z") from None
    return (at.replace(tzinfo=UTC) if at.tzinfo is None else at).isoformat()


@dataclass(frozen=True, slots=True)
class LabelSink:
    """Destination of labels: ``send`` takes at most ``batch_rows`` labels and returns their outcomes."""

    name: str
    batch_rows: int
    send: Callable[[Sequence[LabelIn]], list[Outcome]]


@contextmanager
def open_sink(args: argparse.Namespace, context: Context) -> Iterator[LabelSink]:
    """Yield the service at ``--url``; without it the project's service if it runs, else its store.

    Raises
    ------
    MisuseError
        If another model is served at the project's address, or there is no store yet.
    ServiceError
        If another process uses the store.
    """
    from service.client import NotRunning

    if args.url:
        with named_client(args, context) as client:
            client.ready()
            yield _service_sink(client)
        return
    settings = load_settings(args, context)
    with project_client(settings, args.ca, api_key(args, context)) as client:
        try:
            client.ready()
        except NotRunning:
            pass
        else:
            require_model(client, settings)
            yield _service_sink(client, settings.serve.request_labels)
            return
    with _store_sink(settings, context) as sink:
        yield sink


def _service_sink(client: Client, most_rows: int | None = None) -> LabelSink:
    from service.client import LABEL_ROWS

    def send(labels: Sequence[LabelIn]) -> list[Outcome]:
        items = [label.model_dump(mode="json", exclude_none=True) for label in labels]
        responses = client.label(cast("list[LabelItem]", items), batch_rows=len(items))
        return [(response.outcome, response.reason) for response in responses]

    return LabelSink(client.url, min(LABEL_ROWS, most_rows or LABEL_ROWS), send)


@contextmanager
def _store_sink(settings: Settings, context: Context) -> Iterator[LabelSink]:
    from service.events import Label
    from service.store.engine import Store
    from service.store.errors import StoreInUse
    from service.store.labels import LabelRules, all_results, as_classes
    from service.store.writer import Writer

    url = service_url(settings)
    if not settings.store.exists():
        raise MisuseError(
            f"no service answers at {url}, and there is no store at {settings.store} yet: start the service with "
            "`slicewatch up`, or pass its address with --url"
        )
    classes = settings.classes
    if settings.registry.is_dir():
        registry = open_registry(settings)
        classes = classes if registry.alias(CHAMPION) is None else registry.get(CHAMPION).classes
    if not classes:
        raise MisuseError(
            "the classes are not known yet: set `classes` in slicewatch.yaml, or train a model with `slicewatch train`"
        )
    try:
        store = Store(settings.store, synchronous="FULL" if settings.log.survives == "power" else "NORMAL")
    except StoreInUse as error:
        message = f"no service answers at {url}: pass the address where it listens with --url"
        raise ServiceError([message, *error.problems]) from error

    def send(labels: Sequence[LabelIn]) -> list[Outcome]:
        now = context.now()
        found = [
            Label(label.id, label.label, label.observed_at or now, now, label.labeller, label.idempotency_key)
            for label in labels
        ]
        given = as_classes(found, classes)
        written = writer.label(settings.name, [label for label in given if label.label in classes]).result()
        return [(result.outcome, result.reason) for result in all_results(given, classes, written)]

    with store:
        writer = Writer(store, rules=LabelRules(settings.late_after_seconds, keep_days=settings.log.keep_days))
        try:
            yield LabelSink(str(settings.store), STORE_ROWS, send)
        finally:
            writer.stop()


def send_file(file: Path, columns: Mapping[str, str], sink: LabelSink, data_format: str = "table") -> LabelSummary:
    """Send the labels of a file in batches, and return their outcomes.

    A label without a time and a key gets a key from path and content of the file and its row: sending the same
    file again adds no labels, and another file that repeats an earlier label corrects those in between. So does
    a label that returns to an earlier one at the same time: of equal times the last row counts.

    Raises
    ------
    ServiceError
        If a batch fails; the message says how many rows were sent before.
    """
    from sfs.tables import count_rows

    summary = LabelSummary()
    identity = repr((str(file.resolve()), sorted(columns.items())))
    start = hashlib.blake2b(identity.encode(errors="surrogateescape"), digest_size=16)
    stated: dict[tuple[str, datetime, str], str] = {}  # the last label of an id with a time
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, lambda: start).hexdigest()
    with row_progress("labels", count_rows(file, data_format)) as progress:
        try:
            for rows in read_rows(file, columns, sink.batch_rows, data_format):
                sent = {row.number: row.label for row in rows if row.label is not None}
                for number, label in sent.items():
                    is_unique = label.idempotency_key is not None
                    if label.observed_at is not None:
                        statement = (label.id, label.observed_at, label.labeller)
                        is_unique |= stated.setdefault(statement, label.label) == label.label
                        stated[statement] = label.label
                    if not is_unique:
                        sent[number] = label.model_copy(update={"idempotency_key": f"{digest}-{number}"})
                outcomes = sink.send(list(sent.values())) if sent else []
                summary.add(rows, dict(zip(sent, outcomes, strict=True)))
                progress(len(rows))
        except ServiceError as error:
            if not summary.rows:
                raise
            before = f"the first {summary.rows:,} rows were sent: send the file again, no label counts twice"
            raise ServiceError([*error.problems, before]) from error
    return summary
