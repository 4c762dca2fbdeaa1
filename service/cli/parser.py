"""The command line: every command with its help, and nothing heavy."""

from __future__ import annotations

import argparse
from typing import Any

from service.cli import (
    apply,
    check,
    demo,
    doctor,
    drift,
    init,
    labels,
    migrate,
    models,
    retrain,
    sfs,
    train,
    up,
)

NOUNS = (demo, init, check, train, up, labels, drift, retrain, apply, sfs, models, migrate, doctor)


class _Version(argparse.Action):
    """Prints the version; it is looked up only when somebody asks."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"slicewatch {version('slicewatch')}")
        parser.exit()


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="slicewatch",
        description="Watches a model slice by slice: define slices, train with them, apply them.",
        epilog="example:\n  slicewatch init shop --data orders.csv --label returned",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for noun in NOUNS:
        noun.declare(commands)
    return parser
