"""Conditions on which ``slicewatch up`` refuses to start."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

Fails = Callable[..., tuple[int, str]]


def words(said: str) -> str:
    """Return standard error as one line."""
    return " ".join(said.split())


def test_two_on_one_store_are_refused(running: Any, refused_up: Fails) -> None:
    """The error for a second process on one store names the first process, and requires PostgreSQL."""
    code, said = refused_up(running.log.parent, "--port", "0")
    assert code == 1
    assert f"is in use by process {running.process.pid}: more than one process needs PostgreSQL" in words(said)


def test_a_port_in_use_is_refused(running: Any, project: Path, refused_up: Fails) -> None:
    """The error for a port in use names the port and the option for another port."""
    code, said = refused_up(project, "--port", str(running.port))
    assert code == 1
    assert re.search(
        rf"cannot listen on 127\.0\.0\.1 port {running.port}: .*choose another address with --host and --port",
        words(said),
    )
    assert not (project / ".slicewatch" / "store.sqlite3").exists()


def test_other_machines_are_let_in_only_when_asked_for(project: Path, refused_up: Fails) -> None:
    """A non-loopback address is refused; the error names the setting that allows it."""
    code, said = refused_up(project, "--host", "0.0.0.0", "--port", "0")  # noqa: S104
    assert code == 2
    assert "'0.0.0.0' is open to other machines" in words(said)
    assert "serve.insecure" in said
