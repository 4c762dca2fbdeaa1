"""Python modules of functions: loading files under names of their own, and pickling functions by location."""

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
    """Source of a loaded module: the file, and the sha256 in hex of its content.

    Unpickling an origin loads the file, so that objects behind it in the pickle find the module.
    """

    path: str
    digest: str

    @property
    def module_name(self) -> str:
        stem = re.sub("[^0-9A-Za-z]", "_", Path(self.path).stem)
        digest = hashlib.sha256("\0".join(self).encode("utf-8", "surrogateescape")).hexdigest()
        return f"{_PREFIX}{stem}_{digest[:16]}"

    def module(self) -> ModuleType:
        """Return the module, loaded from the file if this process does not have it."""
        if self.module_name in sys.modules:
            return sys.modules[self.module_name]
        content = _read(Path(self.path), self.path)
        if hashlib.sha256(content).hexdigest() != self.digest:
            raise InvalidFunction(
                f"{self.path} has changed since its functions were sent: load the file and send them again"
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

    The file is loaded alone: it can import no file beside it, and no file beside it can shadow an installed
    package. Tracebacks and ``inspect`` show the code that was read, even if the file changes; nothing is
    written beside the file.

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
        If it cannot be imported; the message has file, line and error.
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
        The wrapper, which as a decorator's result replaced ``f`` in its module.
    f
        The wrapped function, or the wrapper's class.
    default_reduce
        Returns the reduction by parts, for a wrapper that no import finds.
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
    """Rebuild an object from parts of the origin's module, which unpickling the origin has loaded."""
    return make(*arguments)


def _name_in(module: str, wrapper: object, name: object) -> str | None:
    """Return the name of the wrapper in a module: the function's own, or any at the top level."""
    loaded = sys.modules.get(module)
    try:
        if isinstance(name, str) and reduce(getattr, name.split("."), loaded) is wrapper:
            return name
    except AttributeError:
        pass
    return next((key for key, value in vars(loaded).items() if value is wrapper), None) if loaded else None


def _origin_of(module_name: str) -> _Origin | None:
    """Return the origin of a module that ``load_file`` loaded, or None for any other."""
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
    # A second version of a file gets a path of its own, so that each keeps its own source lines.
    again = any(other is not None and other.path == origin.path for other in others)
    shown = f"{origin.path} ({origin.digest[:8]})" if again else origin.path
    sys.modules[origin.module_name] = module
    try:
        code = compile(content, shown, "exec", dont_inherit=True)
        lines = decode_source(content).splitlines(keepends=True)
        linecache.cache[shown] = (len(content), None, lines, shown)  # without a time it is never read again
        exec(code, vars(module))  # noqa: S102  # importing a module is running it
    except (Exception, SystemExit) as error:
        del sys.modules[origin.module_name]
        linecache.cache.pop(shown, None)
        raise InvalidFunction(_import_error(Path(origin.path), shown, error)) from error
    return module


def _import_error(file: Path, shown: str, error: BaseException) -> str:
    """Return the message with the file's own line, and advice for an import of a file beside it."""
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
            f"{message}; a functions file is loaded alone: move the code into it, or install it as a package"
        )
    return message
