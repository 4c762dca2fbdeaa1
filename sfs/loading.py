"""Modules of user functions: loading files under unique module names, and pickling functions by location."""

from __future__ import annotations

import hashlib
import linecache
import re
import sys
import traceback
from collections.abc import Callable
from functools import partial, reduce
from importlib import import_module
from importlib.util import decode_source, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from sfs.errors import InvalidFunction, UnreadableFile

_PREFIX = "slicewatch_user_"


class _Origin(NamedTuple):
    """Source of a loaded module: the file, and the SHA-256 of its content in hexadecimal.

    Unpickling an origin loads the file, so that later objects in the pickle find the module.
    """

    path: str
    digest: str

    @property
    def module_name(self) -> str:
        stem = re.sub("[^0-9A-Za-z]", "_", Path(self.path).stem)
        digest = hashlib.sha256("\0".join(self).encode("utf-8", "surrogateescape")).hexdigest()
        return f"{_PREFIX}{stem}_{digest[:16]}"

    def module(self) -> ModuleType:
        """Return the module; load the file if the module is not in ``sys.modules``."""
        if self.module_name in sys.modules:
            return sys.modules[self.module_name]
        content = _read(Path(self.path), self.path)
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise InvalidFunction(
                f"{self.path} has changed since its functions were pickled: load the file and pickle them again"
            )
        return _execute(self, content)

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickle_origin, tuple(self)


def _unpickle_origin(path: str, digest: str) -> _Origin:
    origin = _Origin(path, digest)
    origin.module()
    return origin


def load_file(path: str | Path) -> ModuleType:
    """Import a Python file under a name derived from path and content; an unchanged file is imported once.

    The file is loaded in isolation: it cannot import modules from its own folder, and modules in that folder
    cannot shadow installed packages. Tracebacks and ``inspect`` show the code as loaded, even if the file
    changes. No files are written to the folder.

    Raises
    ------
    UnreadableFile
        If the file does not exist.
    InvalidFunction
        If importing the file raises.
    """
    file = Path(path).resolve()
    content = _read(file, path)
    origin = _Origin(str(file), hashlib.sha256(content).hexdigest())
    return sys.modules[origin.module_name] if origin.module_name in sys.modules else _execute(origin, content)


def load_module(where: str | Path) -> ModuleType:
    """Return the module of a Python file, or an installed module by its dotted name.

    Raises
    ------
    UnreadableFile
        If the file does not exist.
    InvalidFunction
        If the module cannot be imported; the message names the file, the line and the error.
    """
    if isinstance(where, Path) or where.endswith(".py") or "/" in where or "\\" in where:
        return load_file(where)
    try:
        return import_module(where)
    except ModuleNotFoundError as error:
        if error.name and (where == error.name or where.startswith(f"{error.name}.")):
            raise InvalidFunction(f"no module {where!r}: install it, or give a path ending in .py") from None
        raise InvalidFunction(f"{where} cannot be imported: {error}") from error
    except Exception as error:
        raise InvalidFunction(f"{where} cannot be imported: {type(error).__name__}: {error}") from error


def reduce_wrapper(wrapper: object, f: object, default_reduce: Callable[[], Any]) -> Any:
    """Return the result of ``wrapper.__reduce_ex__`` for a wrapper of ``f``.

    Parameters
    ----------
    wrapper
        Wrapper that replaced ``f`` in its module, as the result of a decorator.
    f
        Wrapped function, or class of the wrapper.
    default_reduce
        Function that returns the reduction by parts, for a wrapper that cannot be imported.
    """
    while isinstance(f, partial):
        f = f.func
    module = getattr(f, "__module__", None)
    if not isinstance(module, str):
        return default_reduce()
    origin = _origin_of(module)
    name = _name_in(module, wrapper, getattr(f, "__qualname__", None))
    if name is not None:
        return (_import_attribute, (module, name)) if origin is None else (_load_attribute, (origin, name))
    parts = default_reduce()
    if origin is None or isinstance(parts, str):
        return parts
    return (_rebuild, (origin, parts[0], *parts[1]), *parts[2:])


def _import_attribute(module: str, name: str) -> Any:
    return reduce(getattr, name.split("."), import_module(module))


def _load_attribute(origin: _Origin, name: str) -> Any:
    return reduce(getattr, name.split("."), origin.module())


def _rebuild(_origin: _Origin, make: Callable[..., Any], *arguments: Any) -> Any:
    """Rebuild an object from parts of the origin's module, already loaded by unpickling the origin."""
    return make(*arguments)


def _name_in(module: str, wrapper: object, name: object) -> str | None:
    """Return the name of the wrapper in a module: the name of the function, or any top-level name."""
    loaded = sys.modules.get(module)
    try:
        if isinstance(name, str) and reduce(getattr, name.split("."), loaded) is wrapper:
            return name
    except AttributeError:
        pass
    return next((key for key, value in vars(loaded).items() if value is wrapper), None) if loaded else None


def _origin_of(module_name: str) -> _Origin | None:
    """Return the origin of a module loaded by ``load_file``, or None for any other module."""
    state = getattr(getattr(sys.modules.get(module_name), "__spec__", None), "loader_state", None)
    return state if isinstance(state, _Origin) else None


def _read(file: Path, named: str | Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"{named}: cannot be read: {error.strerror or error}") from None


def _execute(origin: _Origin, content: bytes) -> ModuleType:
    spec = spec_from_file_location(origin.module_name, origin.path)
    if spec is None or spec.loader is None:
        raise UnreadableFile(f"{origin.path}: not a Python file: its name must end in .py")
    spec.loader_state = origin
    module = module_from_spec(spec)
    others = [_origin_of(name) for name in list(sys.modules) if name.startswith(_PREFIX)]
    # A second version of a file gets a distinct display path, so that both versions keep their source lines.
    again = any(other is not None and other.path == origin.path for other in others)
    shown = f"{origin.path} ({origin.digest[:8]})" if again else origin.path
    sys.modules[origin.module_name] = module
    try:
        code = compile(content, shown, "exec", dont_inherit=True)
        lines = decode_source(content).splitlines(keepends=True)
        linecache.cache[shown] = (
            len(content),
            None,
            lines,
            shown,
        )  # without an mtime, linecache never rereads it
        exec(code, vars(module))  # noqa: S102  # importing a module runs its code
    except (Exception, SystemExit) as error:
        del sys.modules[origin.module_name]
        linecache.cache.pop(shown, None)
        raise InvalidFunction(_import_error(Path(origin.path), shown, error)) from error
    return module


def _import_error(file: Path, shown: str, error: BaseException) -> str:
    """Return the error message with the line in the file, and advice on imports from the file's folder."""
    line: int | None = None
    if isinstance(error, SyntaxError) and error.filename == shown:
        line = error.lineno
    if not line:
        frames = traceback.extract_tb(error.__traceback__)
        line = next((frame.lineno for frame in reversed(frames) if frame.filename == shown), None)
    message = f"{file}, line {line or 1}: {type(error).__name__}: {error}"
    missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
    top = file.parent / missing.split(".")[0]
    if missing and (top.is_dir() or top.with_suffix(".py").exists()):
        return (
            f"{message}; a functions file cannot import from its own folder: move the code into the file, or "
            "install it as a package"
        )
    return message
