"""The slicing functions of a Python file or of an installed module."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from sfs.errors import InvalidFunction
from sfs.function import SlicingFunction
from sfs.loaded_files import load_file

__all__ = ["functions_of", "load_file"]


def functions_of(where: str | Path) -> list[SlicingFunction]:
    """Return the functions of a Python file, or of an installed module by its dotted name.

    A module may name its functions in a tuple ``SLICES``; otherwise every slicing function at its top level
    counts, in the order of definition.

    Raises
    ------
    UnreadableFile
        If there is no such file.
    InvalidFunction
        If it cannot be imported, with file, line and error, or holds no slicing functions.
    """
    module = load_file(where) if _is_path(where) else _load_installed(str(where))
    listed = getattr(module, "SLICES", None)
    if listed is None:
        found = [value for value in vars(module).values() if isinstance(value, SlicingFunction)]
        listed = list({id(each): each for each in found}.values())
    if not isinstance(listed, (list, tuple)) or not all(isinstance(each, SlicingFunction) for each in listed):
        raise InvalidFunction(f"{where}: SLICES must be a tuple of slicing functions, got {listed!r:.120}")
    if not listed:
        raise InvalidFunction(
            f"{where}: no slicing functions: put @slicing_function() above a function, or declare a template"
        )
    return list(listed)


def _is_path(where: str | Path) -> bool:
    return isinstance(where, Path) or where.endswith(".py") or "/" in where or "\\" in where


def _load_installed(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise InvalidFunction(f"no module {name!r}: install it, or give a path ending in .py") from None
        raise InvalidFunction(f"{name} cannot be imported: {error}") from error
    except Exception as error:
        raise InvalidFunction(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
