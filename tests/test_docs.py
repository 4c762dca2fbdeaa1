"""The documentation runs, and is complete."""

import argparse
import contextlib
import importlib
import os
import random
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest
from factories import PATIENT

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(path: Path, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(path.read_text()) if kind == language]


@pytest.fixture(scope="module")
def readme_folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the README's shell block has run, as for a new user, but with few epochs."""
    folder = tmp_path_factory.mktemp("readme")
    script = "set -eu\n" + "\n".join(blocks(root / "README.md", "bash"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={**os.environ, **PATIENT, "PATH": path, "SLICEWATCH_LEARNER_EPOCHS": "2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_readmes_commands_run(readme_folder: Path) -> None:
    """They create a project, a bundle in its registry, and the slices of every row."""
    project = readme_folder / "comments"
    assert (project / "slices.parquet").stat().st_size > 0
    assert list((project / ".slicewatch/registry").rglob("manifest.json"))


def test_the_readmes_python_runs(root: Path, readme_folder: Path) -> None:
    """Its blocks run in order, in the project that its commands create."""
    script = "\n".join(blocks(root / "README.md", "python"))
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=readme_folder / "comments",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Rate(count=1, n=2)" in done.stdout


@pytest.fixture(scope="module")
def curled(root: Path, readme_folder: Path) -> Iterator[tuple[str, str, str]]:
    """Output of the README's calls, of the service that its command starts: responses, metrics, the client's lines."""
    project, page = readme_folder / "comments", root / "README.md"
    (project / "labels.csv").write_text("id,label\ncomment-1,spam\n")
    client = next(block for block in blocks(root / "docs/how-to.md", "py") if "service.client" in block)
    port = random.SystemRandom().randrange(20_000, 32_000)  # no client gets one of these meanwhile
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {
        **os.environ, "PATH": path, "SLICEWATCH_SERVE_PORT": str(port), "SLICEWATCH_MONITOR_TICK_SECONDS": "0.5"
    }  # fmt: skip
    (up,), (calls,) = blocks(page, "sh"), blocks(page, "shell")
    service = subprocess.Popen(["bash", "-c", f"exec {up}"], cwd=project, env=environ, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"http://127.0.0.1:{port}/v1/slices", service)
        script = "set -eu\n" + calls.replace(":8000", f":{port}").replace("curl ", "curl -sS --fail-with-body ")
        done = subprocess.run(
            ["bash", "-c", script], cwd=project, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        metrics = wait_for(f"http://127.0.0.1:{port}/metrics", service, "slicewatch_last_label_timestamp")
        script = client.replace(":8000", f":{port}")
        called = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert called.returncode == 0, called.stderr
        yield done.stdout, metrics, called.stdout
    finally:
        service.send_signal(signal.SIGTERM)
        assert service.wait(300) == 0


def wait_for(url: str, service: subprocess.Popen[bytes], text: str = "") -> str:
    """Return the response of a URL as soon as it contains a text."""
    end = monotonic() + 300
    while monotonic() < end and service.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url) as response:  # noqa: S310 - our own
            body = str(response.read().decode())
            if text in body:
                return body
        sleep(0.1)
    raise AssertionError(f"{url} did not answer")


def test_the_readmes_calls_succeed(curled: tuple[str, str, str]) -> None:
    """The responses contain a prediction with its slices, a label, figures, and gauges."""
    said = curled[0]
    assert '"slices":["regex_check_out","short_link"' in said
    assert '"outcome":"accepted"' in said
    assert '"window":"1h"' in said
    assert "slicewatch_predictions_total" in said


def test_the_example_of_the_client_runs(curled: tuple[str, str, str]) -> None:
    """The how-to predicts, labels, reads the slices with their F1, and shows an error of the service."""
    lines = curled[2].splitlines()
    assert re.fullmatch(r"\w+ \(.*'short_link'.*\) 1", lines[0])
    assert lines[1] == "accepted"
    assert any(re.fullmatch(r"__all__ \d+ (None .+|\S+ None)", line) for line in lines)
    assert lines[-1].startswith("404 there is no alarm 1000000")


def test_the_client_is_linked(root: Path) -> None:
    """README, reference and the package lead to the example of the client."""
    anchor = "how-to.md#call-the-service-from-python"
    assert "## Call the service from Python" in (root / "docs/how-to.md").read_text()
    for page in ("README.md", "docs/reference.md", "docs/service.md"):
        assert anchor in (root / page).read_text()
    assert "docs/how-to.md" in str(importlib.import_module("service.client").__doc__)


def test_the_how_tos_blocks_run(root: Path, tmp_path: Path) -> None:
    """Its functions load and its templates are valid."""
    from sfs import FunctionSet

    page = root / "docs/how-to.md"
    code, yaml = tmp_path / "slices.py", tmp_path / "slices.yaml"
    code.write_text("\n".join(blocks(page, "python")))
    yaml.write_text("\n".join(blocks(page, "yaml")))
    slices = ("shouting", "asks_for_a_favour", "several_sentences", "disputed", "overlapping")
    assert tuple(FunctionSet.from_file(code).names) == slices
    assert tuple(FunctionSet.from_file(yaml).names) == ("keyword_please", "long_and_unpriced")


def commands(parser: argparse.ArgumentParser) -> list[str]:
    """Return all commands with their subcommands, as typed."""
    out = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                out += commands(child) or [child.prog]
    return out


def test_every_command_is_in_the_reference(root: Path) -> None:
    """The reference names all commands."""
    from service.__main__ import build_parser

    text, named = (root / "docs/reference.md").read_text(), commands(build_parser())
    assert {"slicewatch init", "slicewatch sfs stats"} <= set(named)
    assert [name for name in named if f"| `{name}" not in text] == []


def test_every_setting_is_in_the_reference(root: Path) -> None:
    """The reference names all settings."""
    from service.settings.schema import SETTINGS

    text = (root / "docs/reference.md").read_text()
    assert [name for name in SETTINGS if f"| `{name}` |" not in text] == []


def test_every_route_is_in_the_page_of_the_service(root: Path) -> None:
    """docs/service.md names all routes."""
    from service.api.app import ROUTES

    text = (root / "docs/service.md").read_text()
    assert [route for route in ROUTES if f" {route.replace(':path}', '}')}" not in text] == []


def test_every_metric_is_in_the_page_of_the_service(root: Path, curled: tuple[str, str, str]) -> None:
    """The page lists exactly the exported metrics."""
    exported = set(re.findall(r"^# TYPE (slicewatch_\w+)", curled[1], re.MULTILINE))
    named = set(re.findall(r"`(slicewatch_\w+)`", (root / "docs/service.md").read_text()))
    assert len(exported) > 20
    assert exported == named


@pytest.mark.parametrize("package", ["sfs", "sfs.dask", "sfs.spark", "models"])
def test_every_public_name_is_in_the_reference(root: Path, package: str) -> None:
    """The reference names all public names, and they exist."""
    module = importlib.import_module(package)
    text = (root / "docs/reference.md").read_text()
    assert [name for name in module.__all__ if f"`{name}`" not in text or not getattr(module, name)] == []


def test_every_link_between_the_pages_works(root: Path) -> None:
    """Relative links name files that exist."""
    pages = [*root.glob("*.md"), *(root / "docs").rglob("*.md")]
    broken = []
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.name} -> {target}")
    assert broken == []
