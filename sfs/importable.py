"""Where a decorated function can be found again, so that what wraps it can be pickled by name."""

from __future__ import annotations

import sys
from functools import reduce
from importlib import import_module
from typing import Any


def reference(owner: object, f: object) -> tuple[str, str] | None:
    """Return (module, name) under which an import finds ``owner``, a wrapper that took the place of ``f``."""
    module, name = getattr(f, "__module__", None), getattr(f, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        return None
    try:
        found = reduce(getattr, name.split("."), sys.modules[module])
    except (AttributeError, KeyError):
        return None
    return (module, name) if found is owner else None


def load(module: str, name: str) -> Any:
    """Return what ``reference`` named."""
    return reduce(getattr, name.split("."), import_module(module))
