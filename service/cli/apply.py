"""``slicewatch apply``: the functions on a file of any size, batch by batch."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.cli.command import Commands, Context, add_command, add_config, add_json, config_file
from service.cli.project import CHAMPION, load_functions, load_settings, open_registry, other_source
from service.cli.tally import Tally
from service.cli.terminal import print_json, rows_bar, say
from service.errors import MisuseError

if TYPE_CHECKING:
    import pandas as pd

    from models.bundle import ModelBundle
    from models.project_rows import Source
    from service.settings.project import Settings
    from sfs.matrix import SliceMatrix
    from sfs.registry import FunctionSet


def declare(commands: Commands) -> None:
    """Declare the command."""
    examples = "slicewatch apply new.parquet --out sliced.parquet --with-predictions"
    parser = add_command(commands, "apply", "apply the slicing functions to a file", examples, run)
    parser.add_argument("file", type=Path, metavar="FILE", help="CSV, TSV, Parquet or JSON lines")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="write rows with one column per slice (true, false, empty: unknown); replaces the file",
    )
    parser.add_argument(
        "--functions",
        action="append",
        metavar="FILE",
        help="Python or YAML file instead of the project's; may be repeated",
    )
    parser.add_argument(
        "--with-predictions", action="store_true", help="add the model's label and probabilities to --out"
    )
    parser.add_argument(
        "--model",
        metavar="VERSION",
        help="which version predicts, with --with-predictions (default: champion)",
    )
    add_config(parser)
    add_json(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Apply, print coverage per slice, and write the rows where asked."""
    if args.with_predictions and args.out is None:
        raise MisuseError("--with-predictions needs --out FILE: that is where predictions go")
    if args.model and not args.with_predictions:
        raise MisuseError("--model says which version predicts: add --with-predictions")
    if args.out is not None:
        _refuse_out(args.file, args.out)
    settings = _settings(args, context)
    functions = load_functions(args.functions or (settings.functions if settings else ()))
    if not len(functions):
        raise MisuseError(
            "no functions: name some under `functions` in the settings, or pass --functions FILE"
        )
    predictor = _predictor(args, settings, functions) if args.with_predictions else None
    tally = apply_file(other_source(args.file, settings), functions, args.out, predictor)
    _report(args, tally)
    return 0


@dataclass(frozen=True, slots=True)
class Predictor:
    """A bundle, and the fingerprints by which it trusts a slice or takes it as unknown."""

    bundle: ModelBundle
    fingerprints: Mapping[str, str]

    def columns(self, frame: pd.DataFrame, S: SliceMatrix) -> dict[str, Any]:
        """Return the predicted class and the probability of each class, one column each."""
        P = self.bundle.predict_proba(frame, self.bundle.trusted(S, self.fingerprints))  # [N, C]
        classes = self.bundle.classes
        predicted = [classes[c] for c in P.argmax(axis=1)]
        return {"predicted": predicted, **{f"p_{name}": P[:, c] for c, name in enumerate(classes)}}

    def changed(self) -> list[str]:
        """Return the model's slices whose function is absent, or is no longer the one of the training."""
        then = self.bundle.function_fingerprints
        return [name for name in self.bundle.slice_names if self.fingerprints.get(name) != then[name]]


def apply_file(
    source: Source,
    functions: FunctionSet,
    out: Path | None = None,
    predictor: Predictor | None = None,
    command: str = "apply",
) -> Tally:
    """Apply functions to a file and count; rows with their slices go to ``out`` where it is given."""
    tally = Tally(functions.names)
    with rows_bar(command, source.total()) as done:
        frames = _sliced(source, functions, tally, predictor, done)
        if out is None:
            for _ in frames:
                pass
        else:
            from sfs.tables import write_batches

            write_batches(out, frames)
    return tally


def _sliced(
    source: Source,
    functions: FunctionSet,
    tally: Tally,
    predictor: Predictor | None,
    done: Callable[[int], None],
) -> Iterator[pd.DataFrame]:
    from sfs.apply import apply_with_stats

    for frame in source.batches():
        applied = apply_with_stats(functions, source.visible(frame))
        tally.add(applied)
        yield _with_columns(frame, applied.matrix, predictor)
        done(len(frame))


def _with_columns(frame: pd.DataFrame, S: SliceMatrix, predictor: Predictor | None) -> pd.DataFrame:
    import pandas as pd

    added: dict[str, Any] = {
        name: pd.arrays.BooleanArray(S.member[:, k].copy(), S.unknown[:, k].copy())
        for k, name in enumerate(S.names)
    }
    added |= predictor.columns(frame, S) if predictor else {}
    both = sorted(set(map(str, frame.columns)) & set(added))
    if both:
        raise MisuseError(f"the file already has columns {both}: rename the slices or the columns")
    return frame.assign(**added)


def _settings(args: argparse.Namespace, context: Context) -> Settings | None:
    """Return the settings; a file of functions can be applied without any."""
    if args.functions and not args.with_predictions and not config_file(args, context).exists():
        return None
    return load_settings(args, context)


def _predictor(args: argparse.Namespace, settings: Settings | None, functions: FunctionSet) -> Predictor:
    from service.cli.models import find_version

    if settings is None:
        raise MisuseError("--with-predictions needs the project's settings: pass --config FILE")
    registry = open_registry(settings)
    predictor = Predictor(
        registry.get(find_version(registry, args.model or CHAMPION)), functions.fingerprints
    )
    if changed := predictor.changed():
        say(f"note: the model takes {changed} as unknown: the functions changed since, or are absent")
    return predictor


def _refuse_out(file: Path, out: Path) -> None:
    if out.resolve() == file.resolve():
        raise MisuseError(f"--out would overwrite {file}: name another file")
    if not out.resolve().parent.is_dir():
        raise MisuseError(f"--out: there is no folder {out.resolve().parent}")


def _report(args: argparse.Namespace, tally: Tally) -> None:
    if args.json:
        print_json(
            {"rows": tally.rows, "out": str(args.out) if args.out else None, "slices": tally.to_json()}
        )
        return
    print(tally.to_text())
    print(f"\n{tally.rows:,} rows" + (f", written to {args.out}" if args.out else ""))
