"""Conformance of the service with its OpenAPI description, by schemathesis."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import utc_now
from service.keys import KeyFile

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
IS_LONG = "SLICEWATCH_TEST_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("SLICEWATCH_TEST_EXAMPLES", "8"))
"""Generated requests of a route, beside those that cover its description; of a service with keys half as many."""
PHASES = "examples,coverage,fuzzing"
KEYED_PHASES = PHASES if IS_LONG else "fuzzing"
"""Without a key all answers are alike, and with one they are those of a service without keys."""


def conforms(port: int, folder: Path, phases: str, examples: int, *options: str) -> subprocess.CompletedProcess[str]:
    """Check a service against its description, and return the finished run."""
    command = [
        Path(sys.executable).with_name("st"), "run", f"http://127.0.0.1:{port}/openapi.json",
        "--checks", CHECKS, "--max-examples", str(examples), "--seed", "1", "--phases", phases,
        "--request-timeout", "150", "--continue-on-failure", "--no-shrink", "--warnings", "off", "--no-color", *options,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1200)
    print(done.stdout)
    return done


def test_it_is_as_it_says(running: Any, tmp_path: Path) -> None:
    """For any request, no 5xx, and status, content type and document conform to ``/openapi.json``."""
    done = conforms(running.port, tmp_path, PHASES, EXAMPLES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in running.lines() if line["level"] == "ERROR"] == []


@pytest.mark.parametrize("scope", [None, "admin"])
def test_a_service_with_keys_is_as_it_says(up: Callable[..., Any], project: Path, tmp_path: Path, scope: str) -> None:
    """Without a key, and with one that may do everything."""
    file = KeyFile(project / ".slicewatch" / "keys.json")
    token = file.add("key", (scope or "read",), utc_now()).token
    service = up(project)
    options = () if scope is None else ("--header", f"Authorization: Bearer {token}")
    done = conforms(service.port, tmp_path, KEYED_PHASES, EXAMPLES // 2, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = service.lines()
    assert [line for line in lines if line["level"] == "ERROR"] == []
    statuses = Counter(line["status"] for line in lines if line["message"] == "request")
    assert statuses[401 if scope is None else 200] > 20
