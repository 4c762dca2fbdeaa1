"""The public surface changes only where fixtures/surface.json is changed with it."""

import json

from surface import FILE, as_text, differences, surface


def test_the_surface_is_the_written_one() -> None:
    """Routes, metrics, commands, settings and Python names are those of the file; --write renews it."""
    found = json.loads(as_text(surface()))
    lines = "\n".join(differences(json.loads(FILE.read_text()), found))
    assert not lines, f"python tests/surface.py --write, if this is meant:\n{lines}"


def test_a_difference_is_told_with_its_place() -> None:
    """What is gone, new or different is named down to the smallest value."""
    expected = {"commands": {"up": {"--port": {"default": 1}, "--host": {}}}}
    found = {"commands": {"up": {"--port": {"default": 2}, "--bind": {}}}}
    assert [*differences(expected, found)] == [
        "+ commands > up > --bind: {}",
        "- commands > up > --host: {}",
        "! commands > up > --port > default: 2, not 1",
    ]
