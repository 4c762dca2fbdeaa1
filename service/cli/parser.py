"""Parts that commands share: context, help with examples, common options, argument types."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

from service.errors import MisuseError
from service.settings import FILE_NAME, KEY_VARIABLE, TABLE_FORMATS

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


@dataclass(frozen=True, slots=True)
class Context:
    """Environment of a command: the clock (UTC) and the variables."""

    now: Callable[[], datetime]
    environ: Mapping[str, str]


Run: TypeAlias = Callable[[argparse.Namespace, Context], int]


def add_command(
    commands: Commands, name: str, summary: str, examples: str, run: Run | None = None
) -> argparse.ArgumentParser:
    """Declare a command whose help ends with examples."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if run is not None:
        parser.set_defaults(run=run)
    return parser


def add_subcommands(parser: argparse.ArgumentParser) -> Commands:
    """Declare actions of a command that also runs by itself.

    Options before an action apply to it too; an option of the action alone needs a default
    of its own.
    """

    class Action(argparse.ArgumentParser):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options, argument_default=argparse.SUPPRESS)

    return parser.add_subparsers(title="actions", metavar="ACTION", parser_class=Action)


def add_options(parser: argparse.ArgumentParser, *, config: bool = True, json: bool = True, url: bool = False) -> None:
    """Declare ``--url``, ``--config`` and ``--json``, as selected."""
    if url:
        parser.add_argument("--url", help="address of the service (default: serve.host and serve.port in the settings)")
        parser.add_argument("--ca", metavar="FILE", help="certificates to trust with https (default: SLICEWATCH_CA)")
        add_key_file(parser)
    if config:
        about = f"settings file (default: {FILE_NAME})"
        parser.add_argument("--config", type=Path, metavar="FILE", help=about)
    if json:
        about = "print one JSON document instead of a table"
        parser.add_argument("--json", action="store_true", help=about)


def add_key_file(parser: argparse.ArgumentParser) -> None:
    """Declare ``--key-file`` of a command that calls the service."""
    about = f"file with the API key (default: the variable {KEY_VARIABLE} has the key)"
    parser.add_argument("--key-file", type=Path, metavar="FILE", help=about)


def api_key(args: argparse.Namespace, context: Context) -> str | None:
    """Return the API key of ``--key-file``, else that of the variable; None for none.

    Raises
    ------
    MisuseError
        If it has characters that no key has.
    """
    text = (
        context.environ.get(KEY_VARIABLE, "") if args.key_file is None else args.key_file.read_text("utf-8", "replace")
    )
    key: str = text.strip()
    if not re.fullmatch(r"[A-Za-z0-9_.~+/=-]*", key):
        raise MisuseError(f"{args.key_file or KEY_VARIABLE} has no key: expected one line, such as sw_...")
    return key or None


def add_format(parser: argparse.ArgumentParser) -> None:
    """Declare ``--format`` of a file of rows."""
    about = "format of FILE (default: by its suffix, else by its content)"
    parser.add_argument("--format", choices=TABLE_FORMATS, help=about)


def add_author(parser: argparse.ArgumentParser, note: str, stored: str) -> None:
    """Declare ``--by`` and ``--note`` of a change; the other name of the note, ``--reason``, is accepted too."""
    parser.add_argument("--by", default="", metavar="NAME", help="your name")
    names = ("--note", "--reason") if note == "note" else ("--reason", "--note")
    parser.add_argument(*names, dest=note, default="", metavar="TEXT", help=stored)


def integer_between(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Return an argument type that accepts an integer from ``minimum`` to ``maximum``."""
    limits = f", at least {minimum}" if maximum is None else f" from {minimum} to {maximum}"

    def parse(text: str) -> int:
        if not text.isdecimal() or not minimum <= int(text) <= (maximum or 2**53):
            raise argparse.ArgumentTypeError(f"expected an integer{limits}, got {text!r}")
        return int(text)

    return parse


def config_file(args: argparse.Namespace, context: Context) -> Path:
    """Return the settings file: ``--config``, else ``SLICEWATCH_CONFIG``, else ``slicewatch.yaml``."""
    return args.config or Path(context.environ.get("SLICEWATCH_CONFIG") or FILE_NAME)
