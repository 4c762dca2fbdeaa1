"""The slicing and labelling functions of a Python file or of an installed module."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from sfs.errors import InvalidFunction
from sfs.function import LabelingFunction, SlicingFunction
from sfs.loaded_files import load_file

__all__ = ["functions_of", "labelers_of", "load_file"]


def functions_of(where: str | Path) -> list[SlicingFunction]:
    """Return the slicing functions of a Python file, or of an installed module by its dotted name.

    A module may name its functions in a tuple ``SLICES``; otherwise every slicing function at its top level
    counts, in the order of definition. A module that holds labelling functions only has none.

    Raises
    ------
    UnreadableFile
        If there is no such file.
    InvalidFunction
        If it cannot be imported, with file, line and error, or holds no functions.
    """
    module = _module(where)
    listed = getattr(module, "SLICES", None)
    if listed is None:
        listed = [each for each in _defined(module) if isinstance(each, SlicingFunction)]
    if not isinstance(listed, (list, tuple)) or not all(isinstance(each, SlicingFunction) for each in listed):
        raise InvalidFunction(f"{where}: SLICES must be a tuple of slicing functions, got {listed!r:.120}")
    if not listed and not _labelers(module):
        raise InvalidFunction(
            f"{where}: no slicing functions: put @slicing_function() above a function, or declare a template"
        )
    return list(listed)


def labelers_of(where: str | Path) -> list[LabelingFunction]:
    """Return the labelling functions at the top level of a Python file or an installed module, in order.

    Errors are those of ``functions_of``, but a module without any is none.
    """
    return _labelers(_module(where))


def _labelers(module: ModuleType) -> list[LabelingFunction]:
    return [each for each in _defined(module) if not isinstance(each, SlicingFunction)]


def _defined(module: ModuleType) -> list[LabelingFunction]:
    """Return the functions of both kinds at a module's top level, each once."""
    found = [value for value in vars(module).values() if isinstance(value, LabelingFunction)]
    return list({id(each): each for each in found}.values())


def _module(where: str | Path) -> ModuleType:
    return load_file(where) if _is_path(where) else _load_installed(str(where))


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
