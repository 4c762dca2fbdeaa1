"""How what wraps a function is pickled: by where it can be found again, or after its file has been loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial, reduce
from importlib import import_module
from typing import Any

from sfs.loaded_files import Origin, origin_of


def reduced(owner: object, f: object, plainly: Callable[[], Any]) -> Any:
    """Return what ``owner.__reduce_ex__`` returns for a wrapper of ``f``.

    Parameters
    ----------
    owner
        The wrapper, which as a decorator's result took the place of ``f``.
    f
        What it wraps, or its class.
    plainly
        Returns how the wrapper is pickled where no import finds it: by its parts.
    """
    while isinstance(f, partial):
        f = f.func
    module = getattr(f, "__module__", None)
    if not isinstance(module, str):
        return plainly()
    origin = origin_of(module)
    name = _name_in(module, owner, getattr(f, "__qualname__", None))
    if name is not None:
        return (load, (module, name)) if origin is None else (_load_beside, (origin, name))
    made = plainly()
    if origin is None or isinstance(made, str):
        return made
    return (_made_beside, (origin, made[0], *made[1]), *made[2:])


def load(module: str, name: str) -> Any:
    """Return what an import finds under a module and a name."""
    return reduce(getattr, name.split("."), import_module(module))


def _load_beside(origin: Origin, name: str) -> Any:
    return reduce(getattr, name.split("."), origin.module())


def _made_beside(_origin: Origin, make: Callable[..., Any], *arguments: Any) -> Any:
    """Make an object of parts that the origin's module defines; unpickling the origin has loaded it."""
    return make(*arguments)


def _name_in(module: str, owner: object, name: object) -> str | None:
    """Return the name under which a module holds the wrapper: the function's own, or any at its top level."""
    around = sys.modules.get(module)
    try:
        if isinstance(name, str) and reduce(getattr, name.split("."), around) is owner:
            return name
    except AttributeError:
        pass
    return next((key for key, value in vars(around).items() if value is owner), None) if around else None
