"""Python files loaded as modules under names of their own, and found again by path and content."""

from __future__ import annotations

import hashlib
import linecache
import re
import sys
import traceback
from importlib.util import decode_source, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from sfs.errors import InvalidFunction, UnreadableFile

_PREFIX = "slicewatch_user_"


class Origin(NamedTuple):
    """Where a loaded module came from: the file, and the sha256 in hex of what it held.

    Unpickling one loads the file, so that whatever stands behind it in the pickle finds the module.
    """

    path: str
    digest: str

    @property
    def module_name(self) -> str:
        """The module's name, made of the path and the content."""
        stem = re.sub("[^0-9A-Za-z]", "_", Path(self.path).stem)
        mark = _digest("\0".join(self).encode("utf-8", "surrogateescape"))
        return f"{_PREFIX}{stem}_{mark[:16]}"

    def module(self) -> ModuleType:
        """Return the module, loaded from the file if this process does not have it.

        Raises
        ------
        UnreadableFile
            If the file is gone.
        InvalidFunction
            If it holds something else by now.
        """
        if self.module_name in sys.modules:
            return sys.modules[self.module_name]
        content = _content(Path(self.path), self.path)
        if _digest(content) != self.digest:
            raise InvalidFunction(
                f"{self.path} has changed since its functions were sent here: load it again and send them anew"
            )
        return _execute(self, content)

    def __reduce__(self) -> tuple[Any, ...]:
        return _found_again, tuple(self)


def _found_again(path: str, digest: str) -> Origin:
    origin = Origin(path, digest)
    origin.module()
    return origin


def origin_of(module_name: str) -> Origin | None:
    """Return where a module was loaded from by ``load_file``, or None if it was not."""
    state = getattr(getattr(sys.modules.get(module_name), "__spec__", None), "loader_state", None)
    return state if isinstance(state, Origin) else None


def load_file(path: str | Path) -> ModuleType:
    """Import a Python file under a name made of its path and content; an unchanged file is imported once.

    The file is loaded alone: nothing beside it can be imported from it, and nothing beside it can take the
    place of an installed package. What was read runs, and is shown by tracebacks and ``inspect``, whatever
    becomes of the file; nothing is written beside it.

    Raises
    ------
    UnreadableFile
        If there is no such file.
    InvalidFunction
        If it raises while it is imported.
    """
    file = Path(path).resolve()
    content = _content(file, path)
    origin = Origin(str(file), _digest(content))
    return sys.modules[origin.module_name] if origin.module_name in sys.modules else _execute(origin, content)


def _content(file: Path, named: str | Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UnreadableFile(f"{named}: cannot be read: {error.strerror or error}") from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _execute(origin: Origin, content: bytes) -> ModuleType:
    spec = spec_from_file_location(origin.module_name, origin.path)
    if spec is None or spec.loader is None:
        raise UnreadableFile(f"{origin.path}: not a Python file: its name must end in .py")
    spec.loader_state = origin
    module = module_from_spec(spec)
    shown = _shown_path(origin)
    sys.modules[origin.module_name] = module
    try:
        code = compile(content, shown, "exec", dont_inherit=True)
        lines = decode_source(content).splitlines(keepends=True)
        linecache.cache[shown] = (len(content), None, lines, shown)  # without a time it is never read again
        exec(code, vars(module))  # noqa: S102  # importing a module is running it
    except (Exception, SystemExit) as error:
        del sys.modules[origin.module_name]
        linecache.cache.pop(shown, None)
        raise InvalidFunction(_import_fault(Path(origin.path), shown, error)) from error
    return module


def _shown_path(origin: Origin) -> str:
    """Return the path that the code says it is from: a path of its own if another version is loaded already."""
    others = (origin_of(name) for name in list(sys.modules) if name.startswith(_PREFIX))
    again = any(other is not None and other.path == origin.path for other in others)
    return f"{origin.path} ({origin.digest[:8]})" if again else origin.path


def _import_fault(file: Path, shown: str, error: BaseException) -> str:
    what = f"{file}, line {_line_in(shown, error)}: {type(error).__name__}: {error}"
    missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
    top = file.parent / missing.split(".")[0]
    if missing and (top.is_dir() or top.with_suffix(".py").exists()):
        return f"{what}; a functions file is loaded alone: move the code into it, or install it as a package"
    return what


def _line_in(shown: str, error: BaseException) -> int:
    if isinstance(error, SyntaxError) and error.lineno and error.filename == shown:
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == shown and frame.lineno]
    return lines[-1] if lines else 1
