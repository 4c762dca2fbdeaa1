"""The house stands: floors, rooms, and the lengths of files and functions."""

import ast
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("sfs", "models", "service")
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
# name -> reason; every entry is a debt
LONG_FUNCTIONS: dict[str, str] = {}


def sources(root: Path) -> list[Path]:
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def function_lengths(path: Path) -> dict[str, int]:
    """Lines of each function's body, without its docstring."""
    out = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            if body:
                out[f"{path.parent.name}/{path.name}:{node.name}"] = (
                    (body[-1].end_lineno or 0) - body[0].lineno + 1
                )
    return out


def test_no_file_is_longer_than_a_room(root: Path) -> None:
    """No source file has more than 300 lines."""
    lengths = {str(path.relative_to(root)): path.read_text().count("\n") for path in sources(root)}
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_functions_are_short(root: Path) -> None:
    """Function bodies have a median of at most 8 lines, a 90th percentile of at most 30, and none over 40."""
    lengths = {name: n for path in sources(root) for name, n in function_lengths(path).items()}
    ordered = sorted(lengths.values())
    assert {k: n for k, n in lengths.items() if n > MAX_FUNCTION_LINES and k not in LONG_FUNCTIONS} == {}
    assert statistics.median(ordered) <= 8
    assert ordered[int(0.9 * (len(ordered) - 1))] <= 30
    assert set(LONG_FUNCTIONS) <= {name for name, n in lengths.items() if n > MAX_FUNCTION_LINES}


def test_modules_do_not_import_their_own_package(root: Path) -> None:
    """A module names the module it needs, never its own package's __init__."""
    guilty = []
    for path in sources(root):
        package = path.relative_to(root).parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == package and path.name != "__init__.py":
                guilty.append(f"{path.relative_to(root)}:{node.lineno}")
    assert guilty == []


def test_import_contracts_hold(root: Path) -> None:
    """The floors, the rooms and the purity contracts are kept."""
    linter = Path(sys.executable).parent / "lint-imports"
    result = subprocess.run([linter, "--no-cache"], cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("package", "heavy"), [("sfs", "torch"), ("service", "torch"), ("service", "pandas"), ("models", "torch")]
)
def test_importing_a_package_is_light(package: str, heavy: str) -> None:
    """Importing a package brings in nothing heavy: its parts do, when they are used."""
    code = f"import {package}, sys; sys.exit({heavy!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
