"""``slicewatch demo``: the whole loop on generated comments, or on real ones."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from service.cli.command import Commands, Context, add_command
from service.errors import MisuseError

if TYPE_CHECKING:
    from service.demo.script import Script

FOLDER = Path("var/demo")
PORT = 8000
EXAMPLES = """slicewatch demo
  slicewatch demo --once --port 0"""


def declare(commands: Commands) -> None:
    """Declare the command."""
    says = "show the whole loop: drift, alarm, late labels, retraining, gate, promotion"
    parser = add_command(commands, "demo", says, EXAMPLES, run)
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="folder of the UCI YouTube files (default: generated)"
    )
    parser.add_argument(
        "--once", action="store_true", help="end with the story; exit code 1 if it did not happen"
    )
    parser.add_argument(
        "--port", type=_whole, metavar="N", help=f"port to listen on (default: {PORT}; 0: a free one)"
    )
    parser.add_argument(
        "--seed", type=_whole, default=0, metavar="N", help="of comments and labels (default: 0)"
    )
    parser.add_argument(
        "--dir", type=Path, default=FOLDER, metavar="DIR", dest="folder",
        help=f"folder of the project; that of an earlier demo is replaced (default: {FOLDER})",
    )  # fmt: skip
    parser.add_argument(
        "--minutes",
        type=_minutes,
        default=5.0,
        metavar="N",
        help="after which the story is given up (default: 5)",
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Play the story; 0 if it happened."""
    from service.demo.run import Options, run_demo

    options = Options(args.folder, _port(args.port), args.once, args.seed, args.minutes * 60)
    signal.signal(signal.SIGTERM, _interrupt)  # so that the service is stopped too
    return run_demo(_script(args), options, context.now, _say)


def _script(args: argparse.Namespace) -> Script:
    if args.data is None:
        from service.demo.generated import generated_comments

        return generated_comments(args.seed)
    from service.demo.real import real_comments

    return real_comments(args.data, args.seed)


def _port(asked: int | None) -> int:
    from service.demo.supervise import free_port, is_free

    if asked is None:
        return PORT if is_free(PORT) else free_port()
    if asked and not is_free(asked):
        raise MisuseError(f"port {asked} is taken: choose another with --port, or 0 for a free one")
    return asked or free_port()


def _say(line: str) -> None:
    print(line, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < 1e4:
        raise argparse.ArgumentTypeError(f"expected a number of minutes, got {text!r}")
    return minutes
