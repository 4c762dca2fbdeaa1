"""``slicewatch init``: a commented configuration and example slices, guessed from a file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from service.cli.command import Commands, Context, add_command, add_json
from service.cli.terminal import print_json, say, table
from service.errors import MisuseError
from service.settings.project import FILE_NAME

if TYPE_CHECKING:
    import pandas as pd

    from service.cli.guess import Column

DEMO_FILE = "comments.csv"
DEMO_ROWS = 5000
PYTHON_FILE, YAML_FILE = "slices.py", "slices.yaml"
COMMENT_SLICES = "sfs.library.spam"


def declare(commands: Commands) -> None:
    """Declare the command."""
    examples = "slicewatch init demo\n  slicewatch init shop --data orders.csv --label returned"
    parser = add_command(
        commands, "init", "write a commented slicewatch.yaml and example slices", examples, run
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the project; made if absent")
    parser.add_argument(
        "--data", type=Path, metavar="FILE", help="table to guess from (default: generated comments)"
    )
    parser.add_argument("--label", metavar="COLUMN", help="column that holds the class (default: guessed)")
    add_json(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Guess, then write every file, or none."""
    from service.cli.guess import guess_columns, guess_label

    data = args.data or args.folder / DEMO_FILE
    _refuse_to_overwrite(args.folder, with_data=args.data is None)
    frame = _sample(args.data)
    label = guess_label(frame, args.label)
    columns = guess_columns(frame, label)
    texts = _texts(args.folder, data, label, frame, columns)
    if args.data is None:
        texts[DEMO_FILE] = frame.to_csv(index=False)
    _write(args.folder, texts)
    _report(args, label, columns, list(texts))
    _warn_of_blank_labels(frame, label)
    return 0


def _sample(data: Path | None) -> pd.DataFrame:
    from service.cli.project import other_source

    if data is None:
        from models.comments.generate import generate

        return generate(DEMO_ROWS)
    return next(other_source(data).batches())


def _texts(
    folder: Path, data: Path, label: str, frame: pd.DataFrame, columns: list[Column]
) -> dict[str, str]:
    from service.cli.init_files import settings_text, slug
    from service.cli.init_slices import comment_lines, slices_texts
    from service.cli.project import other_source

    generated, kind = not data.exists(), other_source(data).format
    functions = (*([COMMENT_SLICES] if generated or kind != "table" else []), PYTHON_FILE, YAML_FILE)
    python, templates = slices_texts(frame, columns)
    name = slug(folder.resolve().name)
    settings = settings_text(name, _from(folder, data), kind, label, columns, functions)
    return {
        FILE_NAME: settings,
        PYTHON_FILE: python,
        YAML_FILE: templates + (comment_lines() if generated else ""),
    }


def _from(folder: Path, data: Path) -> str:
    beside = data.resolve().is_relative_to(folder.resolve().parent)
    return os.path.relpath(data.resolve(), folder.resolve()) if beside else str(data.resolve())


def _refuse_to_overwrite(folder: Path, with_data: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise MisuseError(f"{folder} is a file: name a folder for the project")
    names = [FILE_NAME, PYTHON_FILE, YAML_FILE, *([DEMO_FILE] if with_data else [])]
    there = [name for name in names if (folder / name).exists()]
    if there:
        raise MisuseError(f"{folder} already has {', '.join(there)}: nothing was written; use another folder")


def _write(folder: Path, texts: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        with (folder / name).open("x", encoding="utf-8", newline="") as file:
            file.write(text)


def _report(args: argparse.Namespace, label: str, columns: list[Column], written: list[str]) -> None:
    if args.json:
        kinds = {column.name: {"kind": column.kind, "why": column.why} for column in columns}
        print_json({"folder": str(args.folder), "files": written, "label": label, "columns": kinds})
        return
    rows = [[column.name, column.kind or "left out", column.why] for column in columns]
    print(table(("column", "taken for", "why"), [[label, "label", "what the model predicts"], *rows]))
    print(f"\nwrote {', '.join(written)} in {args.folder}: correct the guesses, then")
    print(f"  cd {args.folder} && slicewatch check && slicewatch train && slicewatch up")


def _warn_of_blank_labels(frame: pd.DataFrame, label: str) -> None:
    from service.cli.project import blank_rows

    blank = blank_rows(frame[label])
    if blank:
        say(
            f"note: {len(blank):,} rows have no {label!r}; `train` refuses them, so fill or remove them first"
        )
