"""``slicewatch up``: the whole service in one process."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from service.cli.parser import Commands, Context, add_command, add_options, integer_between
from service.cli.project import load_settings

EXAMPLES = """slicewatch up
  slicewatch up --port 9000"""


def declare(commands: Commands) -> None:
    """Declare the command."""
    summary = "serve the champion and monitor its slices, in one process"
    parser = add_command(commands, "up", summary, EXAMPLES, run)
    parser.add_argument("--host", type=_host, help="address to listen on (default: serve.host, 127.0.0.1)")
    parser.add_argument(
        "--port",
        type=integer_between(0, 65_535),
        help="port to listen on (default: serve.port, 8000; 0 picks a free one)",
    )
    add_options(parser, json=False)


def run(args: argparse.Namespace, context: Context) -> int:
    """Serve until SIGTERM or Ctrl+C, then shut down gracefully; 0 if nothing was lost."""
    settings = load_settings(args, context)
    overrides = {name: value for name in ("host", "port") if (value := getattr(args, name)) is not None}
    settings = replace(settings, serve=replace(settings.serve, **overrides))
    from service.server import serve

    debug = bool(context.environ.get("SLICEWATCH_DEBUG"))
    return serve(settings, context.now, sys.stderr, debug=debug)


def _host(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected an address, got {text!r}")
    return text
