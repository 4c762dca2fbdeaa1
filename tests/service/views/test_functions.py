"""The functions in force, for people and clients."""

from __future__ import annotations

from collections.abc import Callable

from service.views.current import Current, FunctionHealth
from service.views.functions import functions_view
from sfs.declarations import from_declaration


def test_functions_are_listed_with_what_is_known_of_them(current: Current) -> None:
    """In their order; labelling functions are told from slices, breakers from health."""
    current.health = lambda: {"short": FunctionHealth("short", "open", "over budget")}
    cheap, short, loud = functions_view(current)
    assert [(each.name, each.kind, each.origin) for each in (cheap, short, loud)] == [
        ("cheap", "slice", "http"),
        ("short", "slice", "file"),
        ("loud", "labeling", "file"),
    ]
    assert [each.fingerprint for each in (cheap, short, loud)] == list(
        current.in_force.functions.fingerprints.values()
    )
    assert (cheap.health, short.health) == (None, FunctionHealth("short", "open", "over budget"))
    assert short.metadata.description == "A short text."


def test_a_template_carries_its_declaration(current: Current) -> None:
    """It can be sent back as it is, and code has none."""
    cheap, short, loud = functions_view(current)
    assert cheap.declaration is not None
    assert from_declaration(cheap.declaration).fingerprint == cheap.fingerprint
    assert (short.declaration, loud.declaration) == (None, None)


def test_no_functions(current: Current, put: Callable[..., None]) -> None:
    """A service without functions lists none."""
    put(functions=type(current.in_force.functions)([]))
    assert functions_view(current) == ()
