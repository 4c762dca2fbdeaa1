"""``slicewatch keys``: add, list, revoke and rotate API keys."""

from __future__ import annotations

import argparse
import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from math import isfinite
from typing import TYPE_CHECKING, Any

from service.cli.parser import Commands, Context, add_command, add_options
from service.cli.project import load_settings
from service.cli.terminal import format_table, format_time, print_json, print_message
from service.errors import MisuseError

if TYPE_CHECKING:
    from service.keys import ApiKey, KeyFile, NewKey
    from service.settings.schema import Settings

EXAMPLES = """slicewatch keys add shop --scope predict,labels --expires 90d
  slicewatch keys rotate shop --overlap 1h"""
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def declare(commands: Commands) -> None:
    """Declare the commands."""
    parser = add_command(commands, "keys", "add, list, revoke or rotate API keys", EXAMPLES)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    summary = "add a key, and print it once"
    adding = add_command(actions, "add", summary, EXAMPLES.splitlines()[0], run_add)
    adding.add_argument("name", metavar="NAME", help="name in the audit and the request log")
    about = "what it allows, separated by commas: predict, labels, read, write, admin, metrics"
    adding.add_argument("--scope", required=True, metavar="SCOPES", help=about)
    adding.add_argument("--model", metavar="MODEL", help="the only model that it is for (default: any)")
    adding.add_argument("--expires", metavar="WHEN", help="time from now as 90d or 12h, or a date (default: never)")
    adding.add_argument("--rate", type=_rate, metavar="N", help="maximum requests per second (default: no limit)")
    listing = add_command(actions, "list", "list the keys, without their secrets", "slicewatch keys list", run_list)
    summary = "revoke all keys of a name at once"
    revoking = add_command(actions, "revoke", summary, "slicewatch keys revoke shop", run_revoke)
    summary = "replace a key by a new one, and print it once"
    rotating = add_command(actions, "rotate", summary, "slicewatch keys rotate shop --overlap 1h", run_rotate)
    about = "time for which the earlier key stays valid (default: 1h; 0s for none)"
    rotating.add_argument("--overlap", type=duration, default=timedelta(hours=1), metavar="TIME", help=about)
    for action in (revoking, rotating):
        action.add_argument("name", metavar="NAME", help="name of the key")
    for action in (adding, listing, revoking, rotating):
        add_options(action)


def run_add(args: argparse.Namespace, context: Context) -> int:
    """Add a key; its secret alone goes to stdout."""
    from service.settings.schema import slug

    settings, now = load_settings(args, context), context.now()
    try:
        slug(args.name)
    except ValueError as error:
        raise MisuseError(f"NAME: {error}") from None
    if args.model not in (None, settings.name):
        raise MisuseError(f"--model {args.model}: this project's model is {settings.name!r}")
    expires = None if args.expires is None else expiry(args.expires, now)
    made = _file(settings).add(args.name, scopes(args.scope), now, model=args.model, expires=expires, rate=args.rate)
    return _print_new(args, made)


def run_list(args: argparse.Namespace, context: Context) -> int:
    """Print a line per key."""
    settings, now = load_settings(args, context), context.now()
    keys = _file(settings).read()
    if args.json:
        print_json(
            {"file": str(settings.keys_file), "keys": [_fields(key) | {"state": key.state(now)} for key in keys]}
        )
    elif keys:
        columns = ("name", "id", "state", "scopes", "model", "created (UTC)", "expires (UTC)", "requests/s")
        rows = [
            [
                *(key.name, key.id, key.state(now), ",".join(key.scopes), key.model),
                *(at and format_time(at.isoformat()) for at in (key.created, key.expires)),
                None if key.rate is None else f"{key.rate:g}",
            ]
            for key in keys
        ]
        print(format_table(columns, rows))
    else:
        print("no keys: the service is open to this machine, and listens to no other")
    return 0


def run_revoke(args: argparse.Namespace, context: Context) -> int:
    """Revoke all keys of a name."""
    count = _file(load_settings(args, context)).revoke(args.name, context.now())
    if args.json:
        print_json({"name": args.name, "revoked": count})
    else:
        print_message(
            f"{count} {'key' if count == 1 else 'keys'} of {args.name} revoked; a running service refuses "
            f"{'it' if count == 1 else 'them'} within a second"
        )
    return 0


def run_rotate(args: argparse.Namespace, context: Context) -> int:
    """Add a key like an earlier one, which expires."""
    file = _file(load_settings(args, context))
    return _print_new(args, file.rotate(args.name, context.now(), args.overlap.total_seconds()))


def scopes(text: str) -> tuple[str, ...]:
    """Return the scopes in a list separated by commas. Raises MisuseError."""
    from service.keys import SCOPES
    from sfs.errors import nearest

    given = [part.strip() for part in text.split(",")]
    for scope in given:
        if scope not in SCOPES:
            raise MisuseError(f"unknown scope {scope!r}{nearest(scope, SCOPES)}: the scopes are {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in given)


def duration(text: str) -> timedelta:
    """Return a time such as ``90d``, ``12h``, ``30m`` or ``0s``."""
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a time such as 90d, 12h, 30m or 0s, got {text!r}")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


def expiry(text: str, now: datetime) -> datetime:
    """Return a time from now, or that of a date, which begins at midnight UTC.

    Examples
    --------
    >>> now = datetime(2026, 5, 1, 12, tzinfo=UTC)
    >>> f"{expiry('2d', now):%F %T}", f"{expiry('2026-12-24', now):%F %T}"
    ('2026-05-03 12:00:00', '2026-12-24 00:00:00')
    """
    try:
        return now + duration(text)
    except argparse.ArgumentTypeError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise MisuseError(f"--expires {text}: expected 90d, 12h, or a date such as 2027-01-31") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not (isfinite(rate) and rate > 0):
        raise argparse.ArgumentTypeError(f"expected a number of requests per second above 0, got {text!r}")
    return rate


def _file(settings: Settings) -> KeyFile:
    from service.keys import KeyFile

    return KeyFile(settings.keys_file)


def _fields(key: ApiKey) -> dict[str, Any]:
    """Return a key as JSON, without the hash of its secret."""
    fields = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in asdict(key).items()}
    return {name: value for name, value in fields.items() if name != "sha256"}


def _print_new(args: argparse.Namespace, made: NewKey) -> int:
    key = made.key
    until = "" if key.expires is None else f" until {key.expires:%Y-%m-%d %H:%M} UTC"
    print_message(
        f"key {key.id} of {key.name} allows {', '.join(key.scopes)}{until}; a running service takes it within a "
        "second; it is shown only now:"
    )
    if args.json:
        print_json(_fields(key) | {"key": made.token})
    else:
        print(made.token)
    return 0
