"""Entry point of the command ``slicewatch``, also ``python -m service``: its commands and its exit codes."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.cli import (
    apply,
    backup,
    check,
    demo,
    doctor,
    drift,
    init,
    keys,
    labels,
    migrate,
    models,
    reference,
    retrain,
    sfs,
    train,
    up,
)
from service.cli.parser import Context
from service.cli.terminal import only_documents
from service.errors import ServiceError

NOUNS = (
    demo, init, check, train, up, labels, drift, reference, retrain, apply, sfs, models, keys, migrate, backup, doctor
)  # fmt: skip


def utc_now() -> datetime:
    """Return the current time; the only place that reads the clock."""
    return datetime.now(UTC)  # noqa: TID251 - every other place takes this function as an argument


def main(
    argv: Sequence[str] | None = None,
    *,
    now: Callable[[], datetime] = utc_now,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Run one command and return its exit code: 0, 1 (failed), 2 (misused), 130 (interrupted)."""
    variables = os.environ if environ is None else environ
    try:
        args = build_parser().parse_args(argv)
        with only_documents() if getattr(args, "json", False) else nullcontext():
            code: int = args.run(args, Context(now, variables))
        sys.stdout.flush()  # here, where a closed pipe is still handled
    except SystemExit as leaving:  # argparse has printed the reason
        return int(leaving.code or 0)
    except KeyboardInterrupt:
        print("slicewatch: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter complains at exit
        return 1
    except Exception as error:
        if variables.get("SLICEWATCH_DEBUG"):
            raise
        exit_code, problems = describe_error(error)
        for problem in problems:
            print(f"slicewatch: error: {' '.join(problem.split())}", file=sys.stderr)
        return exit_code
    return code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="slicewatch",
        description="Monitors ML models slice by slice: define slices, train with them, serve, and get alarms.",
        epilog="example:\n  slicewatch init shop --data orders.csv --label returned",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for noun in NOUNS:
        noun.declare(commands)
    return parser


class _Version(argparse.Action):
    """Prints the version, which is looked up on demand."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"slicewatch {version('slicewatch')}")
        parser.exit()


def describe_error(error: Exception) -> tuple[int, Sequence[str]]:
    """Return the exit code and the messages of an error."""
    if isinstance(error, ServiceError):
        return error.exit_code, error.problems
    from models.errors import ConfigError, DataError, ModelError
    from sfs.errors import EngineError, SliceError

    if isinstance(error, SliceError | DataError | ConfigError):
        return 2, [str(error)]
    if isinstance(error, ModelError | EngineError):
        return 1, [str(error)]
    if isinstance(error, MemoryError):
        return 1, ["out of memory: use fewer rows, or a machine with more memory"]
    if isinstance(error, OSError):
        advice = ": check the permissions of the file and its folder" if isinstance(error, PermissionError) else ""
        return 1, [f"{error.filename or 'standard output'}: {error.strerror or error}{advice}"]
    kind = type(error).__name__
    return 1, [f"unexpected {kind}: {error}; SLICEWATCH_DEBUG=1 prints the traceback: please report it"]


if __name__ == "__main__":
    # `-m` puts the current folder first, where a user's folder called `models` or `sfs` would shadow ours.
    here = Path.cwd()
    if Path(__file__).parents[1] != here:
        sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    sys.exit(main())
