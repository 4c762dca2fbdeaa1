"""Conformance of the service with its OpenAPI description, by schemathesis."""

import subprocess
import sys
from pathlib import Path
from typing import Any

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
EXAMPLES = 25


def test_it_is_as_it_says(running: Any, tmp_path: Path) -> None:
    """For any request, no 5xx, and status, content type and document conform to ``/openapi.json``."""
    command = [
        Path(sys.executable).with_name("st"), "run", f"http://127.0.0.1:{running.port}/openapi.json",
        "--checks", CHECKS, "--max-examples", str(EXAMPLES), "--seed", "1", "--phases", "examples,coverage,fuzzing",
        "--request-timeout", "150", "--continue-on-failure", "--no-shrink", "--warnings", "off", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1200)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in running.lines() if line["level"] == "ERROR"] == []
