"""The public surface changes only where fixtures/surface.json is changed with it."""

import json

from surface import FILE, as_text, differences, surface


def test_the_surface_equals_the_file() -> None:
    """Routes, metrics, commands, settings and Python names are those of the file."""
    found = json.loads(as_text(surface()))
    lines = "\n".join(differences(json.loads(FILE.read_text()), found))
    assert not lines, f"the surface has changed; if this is intended, run python tests/surface.py --write:\n{lines}"


def test_a_difference_names_its_place() -> None:
    """Removed, added and changed entries are named down to the smallest value."""
    expected = {"commands": {"up": {"--port": {"default": 1}, "--host": {}}}}
    found = {"commands": {"up": {"--port": {"default": 2}, "--bind": {}}}}
    assert [*differences(expected, found)] == [
        "+ commands > up > --bind: {}",
        "- commands > up > --host: {}",
        "! commands > up > --port > default: 2, not 1",
    ]
