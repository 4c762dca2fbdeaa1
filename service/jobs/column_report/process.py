"""Comparison of columns in a child process, which alone loads Evidently, seen from the service.

A report has a folder of its own. The values are returned; the compared columns, without texts, stay in the
folder for the page, which is rendered at the first request.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal

from models.bundle.files import create_private
from service.jobs.child_process import ChildProcess

if TYPE_CHECKING:
    from service.serving.table_reference import TableReference
    from service.store.training_rows import TrafficRow

SPEC, ROWS, VALUES, COLUMNS = "spec.json", "rows.jsonl", "values.json", "columns.json.gz"
SAMPLE, FIRST = "sample.jsonl", "first.jsonl"
PAGE, REASON = "report.html", "reason.txt"
"""Page of the report; reason why the child failed."""

KEEP = 20
"""Latest reports whose folders are kept."""

_POLL_SECONDS = 0.2
_NAME = "%Y%m%dT%H%M%S.%fZ"

_log = logging.getLogger(__name__)


class ReportFailed(Exception):
    """The columns could not be compared, or the page could not be rendered."""


@dataclass(frozen=True, slots=True)
class ReportSpec:
    """Input of a comparison.

    Parameters
    ----------
    bundle
        Folder of the version's bundle, whose sample is the reference; None for a version that is served elsewhere.
    rows
        The traffic, or a sample of it; read once, row by row.
    functions, added
        Files and modules of the live functions, and declarations of those added over HTTP; memberships of a
        function that cannot be loaded are unknown to the model.
    table, features
        Reference of a version that is served elsewhere, and the kinds of its columns.
    first
        Predictions of the version's first interval, in place of those that the table lacks.
    """

    bundle: Path | None
    rows: Iterable[TrafficRow]
    functions: Sequence[str] = ()
    added: Sequence[Mapping[str, Any]] = ()
    table: TableReference | None = None
    features: Mapping[str, str] = field(default_factory=dict)
    first: Iterable[TrafficRow] = ()


def report_folder(root: Path, at: datetime) -> Path:
    """Return the folder of the report of a time; names sort by time.

    >>> report_folder(Path("reports"), datetime(2026, 5, 1, 12, tzinfo=UTC)).name
    '20260501T120000.000000Z'
    """
    return root / at.astimezone(UTC).strftime(_NAME)


def compare_columns(
    folder: Path,
    spec: ReportSpec,
    timeout_seconds: float,
    *,
    stop: Event | None = None,
    python: str | None = None,
) -> tuple[int, int, tuple[Mapping[str, Any], ...]]:
    """Return the numbers of reference and of traffic rows, and a record per column as in `DriftReport`.

    Parameters
    ----------
    folder
        See `report_folder`; created, and deleted if the comparison fails.
    stop
        Kills the child when set.

    Raises
    ------
    ReportFailed
        If the child fails.
    """
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)  # private: it holds texts until the comparison ends
    except OSError as error:
        raise ReportFailed(str(error)) from error
    try:
        inputs: dict[str, Any] = {"functions": [*spec.functions], "added": [*spec.added], "features": {**spec.features}}
        inputs |= {"bundle": None if spec.bundle is None else str(spec.bundle), "schema": []}
        if spec.table is not None:
            inputs["schema"] = spec.table.schema.to_json()
            with create_private(folder / SAMPLE) as stream:
                for record, label in spec.table.sample:
                    stream.write(json.dumps({"features": record, "label": label}).encode() + b"\n")
        (folder / SPEC).write_text(json.dumps(inputs))
        _write_rows(folder / ROWS, spec.rows)
        _write_rows(folder / FIRST, spec.first)
        _run_worker("values", folder, timeout_seconds, stop, python)
        values = json.loads((folder / VALUES).read_bytes())
        for name in (SPEC, ROWS, VALUES, FIRST, SAMPLE):
            (folder / name).unlink(missing_ok=True)
        return values["reference_rows"], values["current_rows"], tuple(values["columns"])
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, OSError):
            raise ReportFailed(str(error)) from error
        if isinstance(error, ValueError | LookupError | TypeError):  # the text may quote a record
            raise ReportFailed(f"its files cannot be read ({type(error).__name__})") from error
        raise


def _write_rows(file: Path, rows: Iterable[TrafficRow]) -> None:
    with create_private(file) as stream:
        for row in rows:
            label, probabilities = json.dumps(row.label), json.dumps(row.probabilities)
            features = row.features or "null"
            line = f'{{"features": {features}, "label": {label}, "probabilities": {probabilities}, '
            stream.write(f'{line}"content": {row.content_hash}}}\n'.encode())


def render_page(folder: Path, timeout_seconds: float, *, stop: Event | None = None, python: str | None = None) -> Path:
    """Return the page of a report, rendered at the first call, as in `compare_columns`. For one thread at a time."""
    page = folder / PAGE
    try:
        if not page.exists():
            _run_worker("page", folder, timeout_seconds, stop, python)
    except OSError as error:
        raise ReportFailed(str(error)) from error
    return page


def prune(root: Path, keep: int = KEEP) -> None:
    """Delete unfinished reports, and finished ones but the latest. No report or page may be in progress."""
    finished: list[Path] = []
    with suppress(FileNotFoundError):
        for folder in sorted(root.iterdir()):
            with suppress(ValueError):  # not the folder of a report
                datetime.strptime(folder.name, _NAME)
                if (folder / COLUMNS).exists() and not (folder / ROWS).exists():
                    finished.append(folder)
                else:
                    shutil.rmtree(folder, ignore_errors=True)
        for folder in finished[: max(0, len(finished) - keep)]:
            shutil.rmtree(folder, ignore_errors=True)


def _run_worker(
    mode: Literal["values", "page"], folder: Path, seconds: float, stop: Event | None, python: str | None
) -> None:
    process = ChildProcess(
        "service.jobs.column_report.worker",
        mode,
        folder,
        seconds,
        folder=folder,
        environment={"DO_NOT_TRACK": "1", "PYTHONWARNINGS": "ignore"},
        python=python,
    )
    try:
        end = monotonic() + seconds
        while not process.wait(_POLL_SECONDS):
            if stop is not None and stop.is_set():
                raise ReportFailed("the service is stopping")
            if monotonic() > end:
                raise ReportFailed(f"not finished within {seconds:g} s")
    finally:
        process.kill()
    if process.exit_code != 0:
        _log.warning("the report process %s", process.describe_exit())
        _log.debug("output of the report process: %s", process.output)  # may quote records
        with suppress(FileNotFoundError):
            raise ReportFailed((folder / REASON).read_text())
        raise ReportFailed(f"the report process {process.describe_exit()}")
