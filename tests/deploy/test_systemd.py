"""Units of systemd."""

from configparser import ConfigParser
from pathlib import Path

import pytest

from service.__main__ import build_parser
from service.handover import BACKLOG
from service.settings.schema import ServeSettings

DEFAULTS = ServeSettings()


@pytest.fixture(name="unit")
def unit_(root: Path) -> ConfigParser:
    """The service and its socket, as one document."""
    parser = ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # names of systemd have capitals
    found = parser.read([root / "deploy/systemd/slicewatch.socket", root / "deploy/systemd/slicewatch.service"])
    assert len(found) == 2
    return parser


def test_the_socket_has_the_address_of_the_settings(unit: ConfigParser) -> None:
    """Commands find the service by `serve.host` and `serve.port`, whose defaults these are."""
    assert unit["Socket"]["ListenStream"] == f"{DEFAULTS.host}:{DEFAULTS.port}"
    assert unit["Socket"]["Backlog"] == str(BACKLOG)
    assert unit["Unit"]["Requires"] == "slicewatch.socket"


def test_the_service_runs_a_command_that_exists(unit: ConfigParser) -> None:
    """Its arguments are those of the command line."""
    _, *arguments = unit["Service"]["ExecStart"].split()
    args = build_parser().parse_args(arguments)
    assert str(args.config).startswith(unit["Service"]["ReadWritePaths"])


def test_a_reload_is_a_restart_without_a_gap(unit: ConfigParser) -> None:
    """It sends SIGUSR2; the process reports when it is ready, and which process is the service then."""
    assert unit["Service"]["ExecReload"] == "/bin/kill -USR2 $MAINPID"
    assert (unit["Service"]["Type"], unit["Service"]["NotifyAccess"]) == ("notify", "main")


def test_a_stop_may_take_as_long_as_the_service_waits(unit: ConfigParser) -> None:
    """Requests, and then the log, have `serve.drain_seconds` each before systemd kills the process."""
    assert float(unit["Service"]["TimeoutStopSec"]) >= 2 * DEFAULTS.drain_seconds + 10
