"""Reference of a model that is served elsewhere: counts of the slices on a table, kept beside the store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.bundle.reference import FamilyCounts, SliceCounts, slice_counts
from models.errors import BundleError
from service.errors import ServiceError
from service.monitor.reference_period import MINIMUM_CONTENTS
from sfs.function import ALL_ROWS
from sfs.intervals import Rate
from sfs.schema import Schema

if TYPE_CHECKING:
    from service.settings.schema import Settings

FOLDER = "reference"
"""Folder beside the store, closed to other users."""
COUNTS, SAMPLE, GIVEN = "counts.json", "sample.jsonl", "given.json"
"""Counts of the slices; records of the table; the file that replaces the project's table, if any."""


@dataclass(frozen=True, slots=True)
class ReferenceSource:
    """Table of reference.

    Parameters
    ----------
    path, name, format
        The table, its name for messages, and its format as of `models.training_rows.DataSource`.
    label, predicted
        Columns with the true and the predicted class; no column of predictions is None.
    version
        Version that predicted; None for the version that is followed.
    """

    path: Path
    name: str
    format: str
    label: str
    predicted: str | None = None
    version: int | None = None

    @classmethod
    def of(cls, settings: Settings) -> ReferenceSource:
        """Return the file that was set as the reference, else the project's table.

        Raises
        ------
        ServiceError
            If the description of the file is damaged.
        """
        folder = settings.store.parent / FOLDER
        try:
            given = json.loads((folder / GIVEN).read_bytes())
            return cls(**{**given, "path": folder / Path(given["path"]).name})
        except FileNotFoundError:
            return cls(settings.data, settings.data.name, settings.format, settings.label)
        except (ValueError, TypeError, KeyError) as error:
            raise ServiceError(f"{folder / GIVEN} is damaged: set the reference again ({error!r:.100})") from None

    def state(self) -> list[tuple[str, int, int]]:
        """Return name, size in bytes and time of change of every file. Raises OSError if one cannot be read."""
        files = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path]
        return [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]

    def key(self, settings: Settings) -> str:
        """Return a digest of the contents and the columns, and one of the settings by which they are read.

        Raises
        ------
        OSError
            If a file cannot be read.
        """
        table = hashlib.sha256(repr((self.name, self.format, self.label, self.predicted, self.version)).encode())
        for name, *_ in self.state():
            if not Path(name).is_dir():
                with Path(name).open("rb") as file:
                    table.update(hashlib.file_digest(file, "sha256").digest())
        read_by = settings.label, settings.classes, [*settings.features.items()], settings.table_schema.to_json()
        return f"{table.hexdigest()}-{hashlib.sha256(repr(read_by).encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class TableReference:
    """Counts of slices on a table, and records of it.

    Parameters
    ----------
    name, key, rows
        Name, `ReferenceSource.key` and number of rows of the table.
    has_predictions, version
        Whether it has predicted and true classes, and the version that they belong to; None if that is open.
    fingerprints
        Fingerprint of the function by slice.
    counts
        Counts by slice, and of all rows (``__all__``); rows with both classes are the held-out ones.
    schema
        Types of the columns, by which records are read.
    sample
        Random records, each with its predicted class; None if the table has none.
    families
        Counts of families, of a table with predictions.
    """

    name: str
    key: str
    rows: int
    has_predictions: bool
    version: int | None
    fingerprints: Mapping[str, str]
    counts: Mapping[str, SliceCounts]
    schema: Schema = field(default_factory=Schema)
    sample: tuple[tuple[Mapping[str, Any], str | None], ...] = field(default=(), repr=False)
    families: Mapping[str, FamilyCounts] = field(default_factory=dict)

    def coverages(self, fingerprints: Mapping[str, str]) -> dict[str, Rate]:
        """Return the expected coverage of functions; its effective n is the number of distinct contents."""
        rates = {name: self.counts[name].coverage for name in self._counted(fingerprints)}
        return {name: rate for name, rate in rates.items() if rate.is_informative}

    def accuracies(self, fingerprints: Mapping[str, str], version: int | None) -> dict[str, Rate]:
        """Return the expected accuracy of all rows (``__all__``) and of functions; empty for another version."""
        if not self.has_predictions or version is None or version != self.version:
            return {}
        rates = {name: self.counts[name].accuracy for name in (ALL_ROWS, *self._counted(fingerprints))}
        return {name: rate for name, rate in rates.items() if rate.effective_n >= MINIMUM_CONTENTS}

    def _counted(self, fingerprints: Mapping[str, str]) -> list[str]:
        return [name for name, fingerprint in fingerprints.items() if self.fingerprints.get(name) == fingerprint]

    def to_json(self) -> str:
        """Return everything but the sample."""
        counts = {name: asdict(count) for name, count in self.counts.items()}
        values = {name: getattr(self, name) for name in ("name", "key", "rows", "has_predictions", "version")}
        families = {name: asdict(family) for name, family in self.families.items()}
        values |= {"fingerprints": dict(self.fingerprints), "counts": counts, "families": families}
        return json.dumps({**values, "schema": self.schema.to_json()})

    @classmethod
    def load(cls, folder: Path) -> TableReference | None:
        """Return the stored reference; None if there is none.

        Raises
        ------
        ServiceError
            If a file of it is damaged.
        """
        try:
            saved = json.loads((folder / COUNTS).read_bytes())
            lines = (folder / SAMPLE).read_text(encoding="utf-8").splitlines()
            sample = tuple((row["features"], row["label"]) for row in map(json.loads, lines))
            counts = {name: slice_counts(count) for name, count in saved.pop("counts").items()}
            families = FamilyCounts.from_json(saved.pop("families", {}), saved["fingerprints"])
            parts = {"counts": counts, "schema": Schema.from_json(saved["schema"]), "families": families}
            return cls(**{**saved, **parts, "sample": sample})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, LookupError, AttributeError, BundleError) as error:
            raise ServiceError(f"the stored reference is damaged, and is counted again: {error!r:.200}") from error
