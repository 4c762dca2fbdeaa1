"""Measures of tests/house.py on a small checkout."""

from pathlib import Path

import pytest
from house import Row, main, measure

SOURCE = '''"""What this module does."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Parts:
    """Carries the needs of another object."""

    store: Store
    begin: Callable[[], int]


class Twice:
    """Return nothing anew."""

    def _once(self):
        return 1

    def run(self):
        return self._once() + _unused(2) + _unused(3)


def _unused(x):
    return x if x < 0 else _unused(-x)
'''


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, Row]:
    """The measures of a checkout of two files, a conftest and a page with one walk."""
    for name, text in {
        "sfs/one.py": SOURCE,
        "service/two.py": "class Twice:\n    pass\n",
        "tests/conftest.py": "import x\n\nx._private(x._replace())\n",
        "docs/architecture.md": "<!-- walk: request -->`sfs/one.py`, `sfs/one.py`, `a/b.py`<!-- end -->",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return {row.key: row for row in measure(tmp_path)}


@pytest.mark.parametrize(
    ("key", "figure", "of"),
    [
        ("lines", SOURCE.count("\n") + 2, None),
        ("files", 2, None),
        ("short-files", 2, 2),
        ("once-called", 1, 2),
        ("small", 1, 1),
        ("bags", 1, None),
        ("names", 1, None),
        ("docstrings", 2, 3),
        ("request-walk", 2, None),
        ("drift-walk", None, None),
        ("conftest", 3, None),
        ("private-in-tests", 1, None),
    ],
)
def test_each_row_has_its_figure(rows: dict[str, Row], key: str, figure: int | None, of: int | None) -> None:
    """Each row has the known figure of the small checkout."""
    assert (rows[key].figure, rows[key].of) == (figure, of), rows[key].found


def test_a_row_that_is_above_its_aim_is_marked(
    rows: dict[str, Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The table marks missed aims, and --list prints the findings."""
    assert main(["--path", str(tmp_path)]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("bags"))
    assert line.endswith("<= 0 above")
    assert main(["--path", str(tmp_path), "--list", "names"]) == 0
    assert capsys.readouterr().out == "Twice: service/two.py:1, sfs/one.py:15\n"


def test_this_house_keeps_its_aims() -> None:
    """The checkout itself meets the aims that do not grow with the product."""
    rows = {row.key: row for row in measure(Path(__file__).parents[1])}
    kept = ("bags", "names", "docstrings", "request-walk", "drift-walk", "private-in-tests")
    assert {key: rows[key].found for key in kept if not rows[key].met} == {}
