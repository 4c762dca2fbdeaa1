"""``slicewatch up``: the whole service in one process."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from service.cli.command import Commands, Context, add_command, add_config
from service.cli.project import load_settings

EXAMPLES = """slicewatch up
  slicewatch up --port 9000"""


def declare(commands: Commands) -> None:
    """Declare the command."""
    parser = add_command(
        commands, "up", "serve the champion and watch its slices, in one process", EXAMPLES, run
    )
    parser.add_argument("--host", help="address to listen on (default: the setting serve.host, 127.0.0.1)")
    parser.add_argument(
        "--port", type=_port, help="port to listen on (default: serve.port, 8000; 0: a free one)"
    )
    add_config(parser)


def run(args: argparse.Namespace, context: Context) -> int:
    """Serve until SIGTERM or Ctrl+C, then finish what is in hand; 0 when nothing was lost."""
    settings = load_settings(args, context)
    given = {name: value for name in ("host", "port") if (value := getattr(args, name)) is not None}
    settings = replace(settings, serve=replace(settings.serve, **given))
    from service.server import serve

    return serve(settings, context.now, sys.stderr)


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to 65535, got {text!r}")
    return int(text)
