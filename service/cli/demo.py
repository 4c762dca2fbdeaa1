"""``slicewatch demo``: the full monitoring loop on generated or real comments."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from service.cli.parser import Commands, Context, add_command, integer_between
from service.errors import MisuseError

FOLDER = Path("var/demo")
PORT = 8000
EXAMPLES = """slicewatch demo
  slicewatch demo --once --port 0"""


def declare(commands: Commands) -> None:
    """Declare the command."""
    summary = "show the full loop: drift, alarm, late labels, retraining, gate, promotion"
    parser = add_command(commands, "demo", summary, EXAMPLES, run)
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of the UCI YouTube files (default: generated comments)",
    )
    parser.add_argument("--once", action="store_true", help="exit at the end of the story; exit code 1 if it fails")
    parser.add_argument(
        "--port", type=integer_between(0, 65_535), metavar="N",
        help=f"port to listen on (default: {PORT}, or a free one if it is in use; 0 picks a free one)",
    )  # fmt: skip
    parser.add_argument(
        "--seed",
        type=integer_between(0),
        default=0,
        metavar="N",
        help="random seed of comments and labels (default: 0)",
    )
    parser.add_argument(
        "--dir", type=Path, default=FOLDER, metavar="DIR", dest="folder",
        help=f"folder of the project; an earlier demo in it is replaced (default: {FOLDER})",
    )  # fmt: skip
    parser.add_argument(
        "--minutes",
        type=_minutes,
        default=5.0,
        metavar="N",
        help="minutes without any progress after which the story is given up (default: 5)",
    )


def run(args: argparse.Namespace, context: Context) -> int:
    """Run the scenario; 0 if every step of the story happened."""
    from service.demo.runner import run_demo
    from service.demo.scenario import generated_comments, real_comments
    from service.demo.service_process import free_port, is_free

    port = args.port or 0
    if args.port is None and is_free(PORT):
        port = PORT
    elif port and not is_free(port):
        raise MisuseError(f"port {port} is in use: pass another --port, or 0 for a free one")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the service is stopped too
    scenario = real_comments(args.data, args.seed) if args.data else generated_comments(args.seed)
    return run_demo(
        scenario, args.seed, args.folder, port or free_port(), context.now, lambda line: print(line, flush=True),
        once=args.once, patience_seconds=args.minutes * 60,
    )  # fmt: skip


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < 1e4:
        raise argparse.ArgumentTypeError(f"expected a number of minutes above 0, got {text!r}")
    return minutes
