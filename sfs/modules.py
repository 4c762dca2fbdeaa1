"""Python files of slicing functions, loaded under module names of their own so that they shadow nothing."""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
import traceback
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from sfs.errors import InvalidFunction, UnreadableFile
from sfs.function import SlicingFunction


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


def load_file(path: str | Path) -> ModuleType:
    """Import a Python file under a name made of its path and content; an unchanged file is imported once.

    The file is loaded alone: nothing beside it can be imported from it, and nothing beside it can take the
    place of an installed package.

    Raises
    ------
    UnreadableFile
        If there is no such file.
    InvalidFunction
        If it raises while it is imported.
    """
    file = Path(path).resolve()
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"{path}: cannot be read: {error.strerror or error}") from None
    digest = hashlib.sha256(str(file).encode() + b"\0" + content).hexdigest()[:16]
    name = f"slicewatch_user_{re.sub('[^0-9A-Za-z]', '_', file.stem)}_{digest}"
    return sys.modules[name] if name in sys.modules else _execute(name, file)


def _execute(name: str, file: Path) -> ModuleType:
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UnreadableFile(f"{file}: not a Python file: its name must end in .py")
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise InvalidFunction(_import_fault(file, error)) from error
    return module


def _import_fault(file: Path, error: BaseException) -> str:
    what = f"{file}, line {_line_in(file, error)}: {type(error).__name__}: {error}"
    missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
    top = file.parent / missing.split(".")[0]
    if missing and (top.is_dir() or top.with_suffix(".py").exists()):
        return f"{what}; a functions file is loaded alone: move the code into it, or install it as a package"
    return what


def _line_in(file: Path, error: BaseException) -> int:
    if isinstance(error, SyntaxError) and error.lineno and error.filename == str(file):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(file) and frame.lineno]
    return lines[-1] if lines else 1


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
