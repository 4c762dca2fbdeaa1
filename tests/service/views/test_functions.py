"""The live functions."""

from __future__ import annotations

from collections.abc import Callable

from service.serving.deployment import Deployment, FunctionHealth
from service.serving.live_functions import LiveFunctions
from service.views.functions import functions_view
from sfs.declarations import from_declaration
from sfs.registry import FunctionSet


def test_functions_are_listed_in_order(deployment: Deployment, open_breaker: Callable[..., None]) -> None:
    """Every function has its kind, origin, fingerprint, metadata and health."""
    open_breaker("short", "over budget")
    cheap, short, loud = functions_view(deployment)
    assert [(each.name, each.kind, each.origin) for each in (cheap, short, loud)] == [
        ("cheap", "slice", "http"),
        ("short", "slice", "file"),
        ("loud", "labeling", "file"),
    ]
    fingerprints = [each.fingerprint for each in (cheap, short, loud)]
    assert fingerprints == list(deployment.state.functions.fingerprints.values())
    assert (cheap.health, short.health) == (None, FunctionHealth("short", "open", "over budget"))
    assert short.metadata.description == "A short text."


def test_a_template_has_its_declaration(deployment: Deployment) -> None:
    """The declaration makes the same function again; Python code has none."""
    cheap, short, loud = functions_view(deployment)
    assert cheap.declaration is not None
    assert from_declaration(cheap.declaration).fingerprint == cheap.fingerprint
    assert (short.declaration, loud.declaration) == (None, None)


def test_no_functions(deployment: Deployment, change: Callable[..., None]) -> None:
    """A service without functions lists none."""
    change(live=LiveFunctions(FunctionSet([])))
    assert functions_view(deployment) == ()
