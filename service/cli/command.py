"""What every command shares: its context, its help with an example, and the common options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeAlias

from service.settings.project import FILE_NAME

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


@dataclass(frozen=True, slots=True)
class Context:
    """What the world hands to a command: the clock (UTC) and the variables."""

    now: Callable[[], datetime]
    environ: Mapping[str, str]


Run: TypeAlias = Callable[[argparse.Namespace, Context], int]


def add_command(
    commands: Commands, name: str, says: str, examples: str, run: Run | None = None
) -> argparse.ArgumentParser:
    """Declare a command whose help ends with examples."""
    parser = commands.add_parser(
        name,
        help=says,
        description=says[0].upper() + says[1:] + ".",
        epilog=f"example:\n  {examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if run is not None:
        parser.set_defaults(run=run)
    return parser


def add_config(parser: argparse.ArgumentParser) -> None:
    """Declare ``--config FILE``."""
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"settings file (default: {FILE_NAME})")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")


def config_file(args: argparse.Namespace, context: Context) -> Path:
    """Return the settings file: ``--config``, else ``SLICEWATCH_CONFIG``, else ``slicewatch.yaml`` here."""
    return args.config or Path(context.environ.get("SLICEWATCH_CONFIG") or FILE_NAME)
