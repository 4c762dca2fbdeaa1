"""The door of the command ``slicewatch``, also ``python -m service``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from service.cli.command import Context
from service.cli.parser import build_parser
from service.errors import ServiceError


def utc_now() -> datetime:
    """Return the time; the one place that reads the clock."""
    return datetime.now(UTC)  # noqa: TID251 - every other place is given this function


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
        code: int = args.run(args, Context(now, variables))
        sys.stdout.flush()  # here, where a closed pipe can still be answered
    except SystemExit as leaving:  # argparse has already said why
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
        return _report(error)
    return code


def _report(error: Exception) -> int:
    for problem in error.problems if isinstance(error, ServiceError) else [_sentence(error)]:
        print(f"slicewatch: error: {' '.join(problem.split())}", file=sys.stderr)
    return _exit_code(error)


def _exit_code(error: Exception) -> int:
    if isinstance(error, ServiceError):
        return error.exit_code
    return 2 if isinstance(error, _misuses()) else 1


def _sentence(error: Exception) -> str:
    if isinstance(error, (*_misuses(), _model_error())):
        return str(error)
    if isinstance(error, MemoryError):
        return "out of memory: use fewer rows, or a machine with more"
    if isinstance(error, OSError):
        advice = ": check who owns it and its folder" if isinstance(error, PermissionError) else ""
        return f"{error.filename or 'standard output'}: {error.strerror or error}{advice}"
    kind = type(error).__name__
    return f"unexpected {kind}: {error}; SLICEWATCH_DEBUG=1 shows where, and please report it"


def _misuses() -> tuple[type[Exception], ...]:
    from models.errors import ConfigError, DataError
    from sfs.errors import SliceError

    return SliceError, DataError, ConfigError


def _model_error() -> type[Exception]:
    from models.errors import ModelError

    return ModelError


def _drop_current_folder() -> None:
    """Keep a user's folder called ``models`` or ``sfs`` from shadowing ours: ``-m`` puts it first."""
    here = Path.cwd()
    if Path(__file__).parents[1] != here:
        sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]


if __name__ == "__main__":
    _drop_current_folder()
    sys.exit(main())
