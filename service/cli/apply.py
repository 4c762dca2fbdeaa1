"""``slicewatch apply``: apply the functions to a file of any size, batch by batch, and count."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from service.cli.apply_partitions import (
    ENGINES,
    LOCAL,
    MAX_DEFAULT_WORKERS,
    apply_to_partitions,
    is_partitioned,
    partitions_json,
    partitions_text,
)
from service.cli.parser import (
    Commands,
    Context,
    add_command,
    add_format,
    add_options,
    config_file,
    integer_between,
)
from service.cli.project import CHAMPION, feature_specs, load_functions, load_settings, open_registry, other_source
from service.cli.terminal import (
    format_counts,
    format_interval,
    format_table,
    print_json,
    print_message,
    row_progress,
)
from service.errors import MisuseError
from service.formatting import percent

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from models.bundle.model_bundle import ModelBundle
    from models.training_rows import DataSource
    from service.settings.schema import Settings
    from sfs.apply import ApplyResult
    from sfs.matrix import SliceMatrix
    from sfs.registry import FunctionSet

MAX_CONTENTS = 1_000_000
"""Maximum rows whose contents are kept: memory does not grow with the file beyond it."""


def declare(commands: Commands) -> None:
    """Declare the command."""
    examples = (
        "slicewatch apply new.parquet --out sliced.parquet --with-predictions\n"
        "  slicewatch apply events --out sliced --engine dask"
    )
    summary = "apply the slicing functions to a file, or to a folder of Parquet files"
    parser = add_command(commands, "apply", summary, examples, run)
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="CSV, TSV, Parquet or JSON lines, or a folder of Parquet files"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the rows with a column per slice (true, false, empty for unknown); replaces FILE. Of a folder, and "
        "with another engine, a folder with a file per partition: a run that ended early goes on with those that lack",
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default=LOCAL,
        help="where partitions (the files, or a million rows of a larger one) are computed: in processes of this "
        "machine, on Dask or on Spark (default: local)",
    )
    parser.add_argument(
        "--workers",
        type=integer_between(1),
        metavar="N",
        help=f"processes for partitions on this machine (default: one per core, at most {MAX_DEFAULT_WORKERS})",
    )
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="running Dask scheduler (tcp://host:8786) or Spark master (spark://host:7077), whose workers read and "
        "write the same paths (default: processes of this machine)",
    )
    parser.add_argument(
        "--functions",
        action="append",
        metavar="FILE",
        help="Python or YAML file instead of the project's functions; repeatable",
    )
    parser.add_argument(
        "--with-predictions", action="store_true", help="add the model's label and probabilities to --out"
    )
    parser.add_argument(
        "--with-split",
        action="store_true",
        help="add a column `split` to --out: train, valid or held_out, as `train` splits these rows",
    )
    parser.add_argument(
        "--model",
        metavar="VERSION",
        help="version that predicts, with --with-predictions (default: champion)",
    )
    add_format(parser)
    add_options(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Apply, print coverage per slice, and write the rows to ``--out``."""
    in_partitions = is_partitioned(args)
    if args.with_predictions and args.out is None:
        raise MisuseError("--with-predictions needs --out FILE to write the predictions to")
    if args.with_split and args.out is None:
        raise MisuseError("--with-split needs --out FILE to write the split to")
    if args.model and not args.with_predictions:
        raise MisuseError("--model selects the version that predicts: add --with-predictions")
    if args.out is not None and args.out.resolve() == args.file.resolve():
        raise MisuseError(f"--out would overwrite {args.file}: name another file")
    if args.out is not None and not args.out.resolve().parent.is_dir():
        raise MisuseError(f"--out: no folder {args.out.resolve().parent}: create it first")
    # A file of functions can be applied without settings.
    optional = args.functions and not (args.with_predictions or args.with_split)
    settings = None
    if not optional or config_file(args, context).exists():
        settings = load_settings(args, context)
    files = args.functions or (settings.functions if settings else ())
    functions = load_functions(files)
    if not len(functions):
        raise MisuseError("no functions: list some under `functions` in the settings, or pass --functions FILE")
    predictor = None
    if args.with_predictions and settings is not None:
        predictor = _file_predictor(settings, args.model or CHAMPION, functions)
    if in_partitions:
        source = other_source(args.file, settings, given="table", partitioned=True)
        result = apply_to_partitions(args, source, files, functions)
        counted = ApplySummary(functions.names)
        counted.counts = result.counts
        return _print(args, counted, {"partitions": partitions_json(result)}, partitions_text(result))
    schema = predictor.bundle.schema if predictor else None
    source = other_source(args.file, settings, schema, args.format)
    splits = _splits(settings, source) if args.with_split and settings is not None else None
    summary = apply_file(source, functions, args.out, predictor, splits=splits, settings=settings)
    return _print(args, summary)


def _print(
    args: argparse.Namespace, summary: ApplySummary, more: Mapping[str, Any] = MappingProxyType({}), note: str = ""
) -> int:
    if args.json:
        out = str(args.out) if args.out else None
        print_json({"rows": summary.rows, "out": out, **more, "slices": summary.to_json()})
    else:
        print(summary.to_text())
        parts = f" in {note}" if note else ""
        print(f"\n{summary.rows:,} rows{parts}" + (f", written to {args.out}" if args.out else ""))
    return 0


@dataclass(frozen=True, slots=True)
class FilePredictor:
    """Predicts rows of a file: a bundle, and the fingerprints of the functions that were applied."""

    bundle: ModelBundle
    fingerprints: Mapping[str, str]

    def columns(self, frame: pd.DataFrame, S: SliceMatrix) -> dict[str, Any]:
        """Return a column with the predicted class, and one per class with its probability."""
        P = self.bundle.predict_proba(frame, self.bundle.usable_memberships(S, self.fingerprints))  # [N, C]
        classes = self.bundle.classes
        predicted = [classes[c] for c in P.argmax(axis=1)]
        return {"predicted": predicted, **{f"p_{name}": P[:, c] for c, name in enumerate(classes)}}


class ApplySummary:
    """Counts of every function, summed over batches; with ``compare``, also of every two."""

    def __init__(self, names: Sequence[str], *, compare: bool = False) -> None:
        from sfs.counts import ApplyCounts

        self.counts = ApplyCounts(names)
        self._in_both: Any = 0 if compare else None
        self._contents: list[Any] = []
        self._bits: list[Any] = []  # of members and of unknown rows, eight slices a byte

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.counts.rows

    def add(self, applied: ApplyResult, contents: Any = None) -> None:
        """Add a batch, with the hashes of its contents; without those of every batch, all rows count as distinct."""
        import numpy as np

        matrix = applied.matrix
        if contents is None:
            self._contents, self._bits = [], []
        else:
            self._contents.append(contents)
            self._bits.append(np.packbits([matrix.member, matrix.unknown], axis=2))
        self.counts.add(applied)
        if self._in_both is not None:
            from sfs.analysis import shared_members

            self._in_both = self._in_both + shared_members(matrix.member)

    def redundant(self) -> dict[str, str]:
        """Return a sentence for every slice that is constant, a near duplicate, or within another one."""
        import numpy as np

        from sfs.analysis import redundant_slices

        if not self.counts.slices or self._in_both is None:
            return {}
        known = np.array([count.rows - count.unknown for count in self.counts.slices.values()])
        return redundant_slices([*self.counts.slices], known, self._in_both)

    def to_json(self) -> list[dict[str, Any]]:
        """Return an object per slice."""
        import numpy as np

        from sfs.intervals import effective_n

        if not self._contents or sum(map(len, self._contents)) < self.rows:
            return [count.to_json(None) for count in self.counts.slices.values()]
        contents, bits = np.concatenate(self._contents), np.concatenate(self._bits, axis=1)
        columns = [(bits[..., k // 8] >> (7 - k % 8) & 1).astype(bool) for k in range(len(self.counts.slices))]
        effective = [effective_n(contents[~unknown], member[~unknown]) for member, unknown in columns]
        return [count.to_json(n) for count, n in zip(self.counts.slices.values(), effective, strict=True)]

    def to_text(self) -> str:
        """Return a table with a line per slice, then the first fault of each faulty function."""
        counts, rows = self.to_json(), []
        has_repeats = any(count["effective_n"] < count["known"] for count in counts)
        for count in counts:
            spent = count["microseconds_per_row"]
            rows.append(
                [
                    count["slice"],
                    count["members"],
                    percent(count["coverage"]),
                    format_interval(count["coverage_interval"]) if count["known"] else None,
                    *[count["effective_n"]] * has_repeats,
                    percent(count["overlap"]),
                    count["unknown"],
                    None if spent is None else f"{spent:.2f}",
                    format_counts(count["reasons"]),
                ]
            )
        columns = (
            "slice", "members", "coverage", "95% interval", *["effective n"] * has_repeats, "overlap", "unknown",
            "us/row", "why unknown",
        )  # fmt: skip
        slices = self.counts.slices.values()
        faults = [f"{count.name}: first fault at {count.first_fault}" for count in slices if count.first_fault]
        return "\n".join([format_table(columns, rows), *faults])


def apply_file(
    source: DataSource,
    functions: FunctionSet,
    out: Path | None = None,
    predictor: FilePredictor | None = None,
    command: str = "apply",
    *,
    compare: bool = False,
    splits: Sequence[str | None] | None = None,
    settings: Settings | None = None,
) -> ApplySummary:
    """Apply functions to a source and count; write the rows with their slices to ``out`` if it is given.

    With ``compare``, the members that every two slices share are counted too. ``splits`` has the split of every
    row. The features of ``settings`` define contents; where they cannot be read, and beyond a million rows, all rows
    count as distinct.
    """
    from models.errors import DataError
    from models.splits import content_hashes
    from sfs.apply import apply_with_stats

    summary, features = ApplySummary(functions.names, compare=compare), feature_specs(settings) if settings else ()
    with row_progress(command, source.total()) as progress:

        def sliced() -> Iterator[pd.DataFrame]:
            for frame in source.batches():
                applied = apply_with_stats(functions, source.visible(frame))
                contents = None
                with suppress(DataError):
                    if features and summary.rows + len(frame) <= MAX_CONTENTS:
                        contents = content_hashes(frame, features)
                summary.add(applied, contents)
                of_frame = None if splits is None else splits[summary.rows - len(frame) : summary.rows]
                yield _with_columns(frame, applied.matrix, predictor, of_frame)
                progress(len(frame))

        if out is None:
            for _ in sliced():
                pass
        else:
            from sfs.tables import write_batches

            write_batches(out, sliced())
    return summary


def _splits(settings: Settings, source: DataSource) -> list[str | None]:
    """Return the split of every row of a table with labels; None for a row without one."""
    from models.classes import read_known_labels, read_labels
    from models.function_labels import PartialLabels
    from models.splits import content_hashes

    rows = source.read()
    if settings.label not in rows.columns:
        raise MisuseError(f"--with-split: no column {settings.label!r}: the split depends on the labels")
    read = read_known_labels if settings.labels_from_functions else read_labels
    labels = PartialLabels.of(read(rows, settings.label), settings.label)
    parts = labels.split(content_hashes(rows, feature_specs(settings)))
    names: list[str | None] = [None] * len(rows)
    for name in ("train", "valid", "held_out"):
        for row in getattr(parts, name).tolist():
            names[row] = name
    return names


def _with_columns(
    frame: pd.DataFrame, S: SliceMatrix, predictor: FilePredictor | None, splits: Sequence[str | None] | None
) -> pd.DataFrame:
    import pandas as pd

    added: dict[str, Any] = {
        name: pd.arrays.BooleanArray(S.member[:, k].copy(), S.unknown[:, k].copy()) for k, name in enumerate(S.names)
    }
    more = predictor.columns(frame, S) if predictor else {}
    more |= {} if splits is None else {"split": list(splits)}
    taken = set(map(str, frame.columns))
    if both := sorted(taken & {*added, *more} | added.keys() & more):
        raise MisuseError(f"two columns would be named {both}: rename the slices, or the columns of the file")
    return pd.concat([frame, pd.DataFrame(added | more, index=frame.index)], axis=1)


def _file_predictor(settings: Settings, version: str, functions: FunctionSet) -> FilePredictor:
    from service.cli.models import find_version

    registry = open_registry(settings)
    bundle, fingerprints = registry.get(find_version(registry, version)), functions.fingerprints
    trained = bundle.function_fingerprints
    changed = [name for name in bundle.slice_names if fingerprints.get(name) != trained[name]]
    if changed:
        print_message(
            f"note: slices {changed} are unknown to the model: their functions are missing or have changed "
            "since training"
        )
    return FilePredictor(bundle, fingerprints)
