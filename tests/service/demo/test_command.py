"""Arguments of ``slicewatch demo``."""

import socket
from pathlib import Path

import pytest

from service.__main__ import main, utc_now


def test_a_taken_port_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A taken port is refused, and nothing is written."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code = main(["demo", "--port", port, "--dir", str(tmp_path / "demo")], now=utc_now, environ={})
    assert code == 2
    assert f"port {port} is in use" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_a_folder_with_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder with anything else than an earlier demo is refused."""
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["demo", "--port", "0", "--dir", str(tmp_path)], now=utc_now, environ={}) == 2
    assert "contains 'notes.txt' and is not a demo" in capsys.readouterr().err


def test_missing_files_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder without the files is refused."""
    argv = ["demo", "--port", "0", "--dir", str(tmp_path / "demo"), "--data", str(tmp_path)]
    assert main(argv, now=utc_now, environ={}) == 2
    assert "lacks Youtube01-Psy.csv" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--port", "x"], ["--minutes", "0"], ["--seed", "-1"]])
def test_arguments_are_checked(argv: list[str]) -> None:
    """Invalid numbers are refused."""
    assert main(["demo", *argv], now=utc_now, environ={}) == 2
