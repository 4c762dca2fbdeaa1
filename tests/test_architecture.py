"""The house stands: floors, rooms, names, and the page that describes them."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("sfs", "models", "service")
MAX_FILE_LINES = 700


def sources(root: Path) -> list[Path]:
    return sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))


def test_public_class_names_are_unique(root: Path) -> None:
    """No two public classes of the product share a name."""
    places: dict[str, list[str]] = {}
    for path in sources(root):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path.relative_to(root)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_no_file_holds_several_ideas(root: Path) -> None:
    """No source file has more than 700 lines."""
    lengths = {str(path.relative_to(root)): path.read_text().count("\n") for path in sources(root)}
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def test_the_architecture_names_files_that_exist(root: Path) -> None:
    """Every file that the page names exists."""
    named = re.findall(r"(?:sfs|models|service|tests)/[\w/]+\.py", (root / "docs/architecture.md").read_text())
    assert len(named) > 30
    assert [name for name in named if not (root / name).is_file()] == []


def test_the_architecture_names_every_room(root: Path) -> None:
    """Every folder and module at the top of ``service`` is in the drawing."""
    drawing = (root / "docs/architecture.md").read_text().split("```")[1]
    rooms = {path for path in (root / "service").iterdir() if (path / "__init__.py").is_file()}
    rooms |= {path for path in (root / "service").glob("*.py") if path.name != "__init__.py"}
    assert sorted(str(path.relative_to(root)) for path in rooms if f"service/{path.name}" not in drawing) == []


@pytest.mark.parametrize(("walk", "most"), [("request", 12), ("label", 14), ("drift", 20)])
def test_a_path_is_short(root: Path, walk: str, most: int) -> None:
    """A path through the rooms takes few files."""
    page = (root / "docs/architecture.md").read_text()
    text = page.partition(f"<!-- walk: {walk} -->")[2].partition("<!-- end -->")[0]
    assert 0 < len(set(re.findall(r"`([\w/]+\.py)`", text))) <= most


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
