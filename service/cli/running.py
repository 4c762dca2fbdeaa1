"""The project's service as commands find it: at its address, and serving the project's model."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from service.cli.command import Commands, Context, add_config, add_json
from service.cli.project import load_settings
from service.errors import MisuseError

if TYPE_CHECKING:
    from models.registry import ModelRegistry
    from service.client import Client
    from service.settings.project import Settings


def add_url(parser: argparse.ArgumentParser) -> None:
    """Declare ``--url``."""
    parser.add_argument(
        "--url", help="where the service listens (default: by serve.host and serve.port in the settings)"
    )


def add_reach(parser: argparse.ArgumentParser) -> None:
    """Declare ``--url``, ``--config`` and ``--json``."""
    add_url(parser)
    add_config(parser)
    add_json(parser)


def actions_under(parser: argparse.ArgumentParser) -> Commands:
    """Return where the actions of a command are declared that also runs by itself.

    What stood before an action is not taken back by what the action leaves out; options that the action alone
    has need a default of their own.
    """
    return parser.add_subparsers(title="actions", metavar="ACTION", parser_class=_Action)


class _Action(argparse.ArgumentParser):
    """The parser of an action; an option that is not given leaves no value."""

    def __init__(self, **how: Any) -> None:
        super().__init__(**how, argument_default=argparse.SUPPRESS)


def address(settings: Settings) -> str:
    """Return where the project's service listens, as this machine reaches it."""
    host, port = settings.serve.host, settings.serve.port
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - it is compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def running_service(args: argparse.Namespace, context: Context) -> Iterator[Client]:
    """Yield the service at ``--url``, else the project's own.

    Raises
    ------
    NotRunning
        If nothing answers there.
    MisuseError
        If it serves another model than the project's.
    """
    from service.client import Client

    settings = None if args.url else load_settings(args, context)
    with Client(args.url if settings is None else address(settings)) as client:
        client.ready()
        if settings is not None:
            require_model(client, settings)
        yield client


@contextmanager
def service_of(settings: Settings, registry: ModelRegistry) -> Iterator[Client | None]:
    """Yield the service that serves these very versions; None where none runs at the project's address."""
    from service.client import Client, NotRunning

    with Client(address(settings)) as client:
        try:
            client.ready()
        except NotRunning:
            yield None
            return
        served = client.models()
        hashes = {each["version"]: each["hash"] for each in served["models"]}
        ours = served["model"] == settings.name and hashes == {v.number: v.hash for v in registry.list()}
        yield client if ours else None


def require_model(client: Client, settings: Settings) -> None:
    """Refuse a service that serves another model than the project's.

    Raises
    ------
    MisuseError
        If it does.
    """
    served = client.models().get("model")
    if served != settings.name:
        raise MisuseError(
            f"{client.url} serves the model {served!r}, and this project's is {settings.name!r}: stop it, or name "
            "the address of this project's service with --url"
        )
