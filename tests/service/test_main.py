"""The entry point: help, version, exit codes, and errors without tracebacks."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from service.__main__ import main

HEAVY = ("torch", "pandas", "scipy", "pydantic", "numpy", "sklearn", "pyarrow")
COMMANDS = (
    ["init"], ["check"], ["train"], ["apply"], ["doctor"], ["sfs"], ["sfs", "list"], ["sfs", "check"],
    ["sfs", "stats"], ["models"], ["models", "list"], ["models", "show"], ["models", "promote"],
    ["models", "rollback"], ["up"], ["labels"], ["migrate"], ["drift"], ["drift", "alarms"],
    ["drift", "show"], ["drift", "acknowledge"], ["drift", "resolve"], ["drift", "replay"], ["retrain"],
    ["reference"],
    ["retrain", "list"], ["retrain", "show"], ["backup"], ["restore"],
    ["keys"], ["keys", "add"], ["keys", "list"], ["keys", "revoke"], ["keys", "rotate"],
)  # fmt: skip


def python(*argv: str, cwd: Path | None = None, **environ: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONWARNINGS": "error", **environ}
    return subprocess.run(
        [sys.executable, *argv],
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_help_imports_nothing_heavy() -> None:
    """Help of every command imports neither torch nor pandas, numpy or pydantic."""
    code = f"""
import sys, io, contextlib
from service.__main__ import main
for command in {[[], *COMMANDS]!r}:
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([*command, "--help"]) == 0
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    assert python("-c", code).stdout.strip() == "[]"


@pytest.mark.parametrize("command", [["models", "list"], ["sfs", "list"], ["drift"], ["retrain", "list"]], ids=" ".join)
def test_a_command_without_a_network_is_quick(project: Path, command: list[str]) -> None:
    """It imports no torch, and neither tables, SQL, the web nor the parts of SciPy."""
    heavy = ("torch", "pandas", "sklearn", "sqlalchemy", "alembic", "fastapi", "uvicorn", "scipy.special", "evidently")
    code = f"""
import sys
from service.__main__ import main
main({[*command, "--config", str(project)]!r})
print([name for name in {heavy!r} if name in sys.modules])
"""
    assert python("-c", code).stdout.splitlines()[-1] == "[]"


def test_the_server_imports_nothing_that_it_may_not_need() -> None:
    """Reports, statistics and training are imported when they are used."""
    heavy = ("torch", "evidently", "sklearn", "sympy", "scipy.stats", "scipy.spatial")
    code = f"import service.server, sys; print([name for name in {heavy!r} if name in sys.modules])"
    assert python("-c", code).stdout.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_has_an_example(cli: Callable, command: list[str]) -> None:
    """The help of every command ends with an example."""
    answer = cli(*command, "--help")
    assert answer.code == 0
    assert f"slicewatch {' '.join(command)}" in answer.out.split("example:")[1]


@pytest.mark.parametrize("host", ["", " "])
def test_a_blank_host_is_misuse(cli: Callable, project: Path, host: str) -> None:
    """A blank address, as from an unset variable, is refused by its option."""
    answer = cli("up", "--host", host, "--config", project)
    assert answer.code == 2
    assert f"argument --host: expected an address, got {host!r}" in answer.err


def test_the_module_is_the_command() -> None:
    """``python -m service`` does what ``slicewatch`` does."""
    answer = python("-m", "service", "--version")
    assert (answer.returncode, answer.stdout[:11]) == (0, "slicewatch ")


@pytest.mark.parametrize("door", [[Path(sys.executable).with_name("slicewatch")], [sys.executable, "-m", "service"]])
def test_folders_of_the_user_do_not_shadow_ours(project: Path, door: list[object]) -> None:
    """A project may have folders called models and sfs beside its settings."""
    for name in ("models", "sfs"):
        (project.parent / name).mkdir()
        (project.parent / name / "__init__.py").write_text("raise SystemExit('the wrong package')")
    answer = subprocess.run(
        [*door, "sfs", "list"], cwd=project.parent, capture_output=True, text=True, check=False, timeout=600
    )
    assert (answer.returncode, answer.stderr) == (0, "")


@pytest.mark.parametrize("argv", [[], ["fly"], ["train", "--epochs", "0"], ["train", "--seed", "x"], ["apply"]])
def test_a_wrong_command_line_is_misuse(cli: Callable, argv: list[str]) -> None:
    """Errors of argparse end with code 2."""
    answer = cli(*argv)
    assert (answer.code, answer.out) == (2, "")
    assert "error:" in answer.err


def test_an_error_is_one_line(cli: Callable, tmp_path: Path) -> None:
    """An error is one line with the program and the message."""
    answer = cli("check", "--config", tmp_path / "absent.yaml")
    assert answer.code == 2
    assert answer.err.startswith("slicewatch: error: no ")
    assert answer.err.count("\n") == 1


def test_debugging_shows_the_traceback(cli: Callable, tmp_path: Path) -> None:
    """With SLICEWATCH_DEBUG, the exception is raised."""
    with pytest.raises(Exception, match="slicewatch init"):
        cli("check", "--config", tmp_path / "absent.yaml", SLICEWATCH_DEBUG="1")


def test_the_config_may_come_from_a_variable(cli: Callable, tmp_path: Path) -> None:
    """SLICEWATCH_CONFIG names the settings file where --config does not."""
    answer = cli("check", SLICEWATCH_CONFIG=str(tmp_path / "elsewhere.yaml"))
    assert "elsewhere.yaml" in answer.err


def test_a_closed_pipe_is_no_traceback(project: Path) -> None:
    """``slicewatch sfs list | head -0`` ends quietly."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        answer = subprocess.run(
            [sys.executable, "-m", "service", "sfs", "list", "--config", project],
            stdout=closed, stderr=subprocess.PIPE, text=True, check=False, timeout=600,
        )  # fmt: skip
    assert (answer.returncode, answer.stderr) == (1, "")


def test_the_version_is_printed(cli: Callable) -> None:
    """--version prints to stdout."""
    answer = cli("--version")
    assert (answer.code, answer.err, answer.out.split()[0]) == (0, "", "slicewatch")


def test_a_failing_disk_is_named(cli: Callable, table_file: Path) -> None:
    """An error of the operating system is one line with the path, and code 1."""
    answer = cli("init", table_file / "project")
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert str(table_file / "project") in answer.err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            ZeroDivisionError("oh"),
            1,
            "unexpected ZeroDivisionError: oh; SLICEWATCH_DEBUG=1 prints the traceback",
        ),
        (MemoryError(), 1, "out of memory"),
        (KeyboardInterrupt(), 130, "slicewatch: interrupted"),
    ],
)
def test_no_error_is_a_traceback(
    trained: Path, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, message: str
) -> None:
    """An internal error is one line too."""

    def broken_clock() -> datetime:
        raise error

    assert main(["models", "promote", "1", "--config", str(trained)], now=broken_clock, environ={}) == code
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
