"""Ordered sets of slicing functions, with explicit registration and a hash."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from sfs.declarations import read_templates
from sfs.errors import DuplicateName, InvalidFunction, UnknownName
from sfs.function import LabelingFunction, LabelingFunctionSlice, SlicingFunction
from sfs.loading import load_module
from sfs.template import Template
from sfs.template_plan import TemplatePlan
from sfs.validation import short_repr, validate_monitored_name


class FunctionSet:
    """Ordered set of slicing functions with distinct names.

    Parameters
    ----------
    functions
        Slicing functions with distinct names.

    Raises
    ------
    DuplicateName
        If two functions share a name.
    InvalidFunction
        If an item is not a slicing function.

    Examples
    --------
    >>> from sfs.template import template
    >>> functions = FunctionSet([template("no_price", missing={"field": "price"})])
    >>> functions.names, "no_price" in functions, len(functions)
    (('no_price',), True, 1)
    """

    def __init__(self, functions: Iterable[SlicingFunction]) -> None:
        self._functions: tuple[SlicingFunction, ...] = validate_functions(functions, SlicingFunction)
        self._named = {each.name: each for each in self._functions}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the K functions, in order."""
        return tuple(each.name for each in self._functions)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Fingerprints by function name, SHA-256 in hexadecimal."""
        return {each.name: each.fingerprint for each in self._functions}

    @cached_property
    def hash(self) -> str:
        """SHA-256 of names and fingerprints, in order, in hexadecimal."""
        return hashlib.sha256(json.dumps(list(self.fingerprints.items())).encode()).hexdigest()

    @property
    def labeling_functions(self) -> tuple[LabelingFunction, ...]:
        """Labelling functions whose votes are slices of the set, in order."""
        return tuple(each.function for each in self._functions if isinstance(each, LabelingFunctionSlice))

    @cached_property
    def plan(self) -> TemplatePlan:
        """Compiled plan of the templates among the functions."""
        return TemplatePlan(each.spec for each in self._functions if isinstance(each, Template))

    def __len__(self) -> int:
        return len(self._functions)

    def __iter__(self) -> Iterator[SlicingFunction]:
        return iter(self._functions)

    def __contains__(self, name: object) -> bool:
        return name in self._named

    def __getitem__(self, name: str) -> SlicingFunction:
        if name not in self._named:
            raise UnknownName(f"no function {name!r}; the functions are {list(self.names)}")
        return self._named[name]

    def __add__(self, other: FunctionSet) -> FunctionSet:
        """Return the functions of this set, followed by those of the other."""
        return FunctionSet([*self, *other])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FunctionSet) and self.hash == other.hash

    def __hash__(self) -> int:
        return int(self.hash[:15], 16)

    def __repr__(self) -> str:
        return f"FunctionSet({list(self.names)})"

    def __reduce__(self) -> tuple[type[FunctionSet], tuple[tuple[SlicingFunction, ...]]]:
        return FunctionSet, (self._functions,)

    @classmethod
    def from_module(cls, where: str | Path) -> FunctionSet:
        """Return the slicing functions of a Python file, or of an installed module by its dotted name.

        A module-level tuple ``SLICES`` selects and orders them; the default is all top-level slicing functions,
        in order of definition. A module with labelling functions only gives an empty set.

        Raises
        ------
        UnreadableFile
            If the file does not exist.
        InvalidFunction
            If the module cannot be imported (the message names the file, the line and the error), or has no
            functions.

        Examples
        --------
        >>> FunctionSet.from_module("sfs.library.spam").names[:2]
        ('short_comment', 'keyword_please')
        """
        module = load_module(where)
        functions = _functions_of(module)
        slices = getattr(module, "SLICES", None)
        if slices is None:
            slices = [each for each in functions if isinstance(each, SlicingFunction)]
        if not isinstance(slices, (list, tuple)) or not all(isinstance(s, SlicingFunction) for s in slices):
            raise InvalidFunction(f"{where}: SLICES must be a tuple of slicing functions, got {slices!r:.120}")
        if not slices and all(isinstance(each, SlicingFunction) for each in functions):
            raise InvalidFunction(
                f"{where}: no slicing functions: decorate a function with @slicing_function(), or declare a template"
            )
        return cls(slices)

    @classmethod
    def from_yaml(cls, path: str | Path) -> FunctionSet:
        """Return the templates of a YAML file; see ``sfs.declarations.read_templates``."""
        return cls(read_templates(path))

    @classmethod
    def from_file(cls, path: str | Path) -> FunctionSet:
        """Return the functions of a ``.py``, ``.yaml`` or ``.yml`` file, or of a module by its dotted name."""
        suffix = Path(path).suffix
        if suffix == ".py":
            return cls.from_module(Path(path))
        if suffix in (".yaml", ".yml"):
            return cls.from_yaml(path)
        if all(part.isidentifier() for part in str(path).split(".")):
            return cls.from_module(str(path))
        raise InvalidFunction(f"{path}: functions come from .py, .yaml or .yml files, or modules such as a.b.c")

    @classmethod
    def from_files(cls, paths: Iterable[str | Path], *, votes: bool = False) -> FunctionSet:
        """Return the functions of several files or modules in order, with names that the service can monitor.

        Parameters
        ----------
        paths
            Files and modules, in the forms that ``from_file`` accepts.
        votes
            Whether to append a ``LabelingFunctionSlice`` for every labelling function. Use True for monitoring
            and False for training.

        Raises
        ------
        DuplicateName
            If a name is defined twice; the message names both files.
        InvalidFunction
            If a name cannot be part of a URL; the message names the file.
        """
        if isinstance(paths, (str, Path)):
            raise InvalidFunction(f"expected a list of files or modules: [{str(paths)!r}]")
        files = list(paths)
        defined = [(each, path) for path in files for each in cls.from_file(path)]
        if votes:
            defined += [(LabelingFunctionSlice(each), p) for p in files for each in labeling_functions_in(p)]
        origins: dict[str, str | Path] = {}
        for each, path in defined:
            if each.name in origins:
                where = f"{origins[each.name]} and {path}" if origins[each.name] != path else f"{path} twice"
                raise DuplicateName(f"{each.name!r} is defined in {where}: rename one")
            try:
                validate_monitored_name(each.name)
            except InvalidFunction as error:
                raise InvalidFunction(f"{path}: {error}") from None
            origins[each.name] = path
        return cls(each for each, _ in defined)


def validate_functions(functions: Iterable[Any], kind: type[LabelingFunction]) -> tuple[Any, ...]:
    """Return functions as a tuple; raise an error unless all are of one type and have distinct names."""
    if isinstance(functions, LabelingFunction):
        raise InvalidFunction(f"expected a list of functions, got a single function: pass [{functions.name}]")
    if not isinstance(functions, Iterable):
        raise InvalidFunction(f"expected a list of functions, got {short_repr(functions)}")
    chosen = tuple(functions)
    if isinstance(functions, FunctionSet):  # validated at construction
        return chosen
    for function in chosen:
        if not isinstance(function, kind):
            decorator = "slicing_function" if kind is SlicingFunction else "labeling_function"
            raise InvalidFunction(
                f"expected a {kind.__name__}, got {short_repr(function)}: create it with @{decorator}()"
            )
    names = [function.name for function in chosen]
    if len(set(names)) != len(names):
        name, count = Counter(names).most_common(1)[0]
        raise DuplicateName(f"Operator names not unique: {count} operators with name {name}: rename all but one")
    return chosen


def labeling_functions_in(path: str | Path) -> list[LabelingFunction]:
    """Return the labelling functions of a file or module, as in ``FunctionSet.from_file``; none for YAML."""
    suffix = Path(path).suffix
    if suffix in (".yaml", ".yml"):
        return []
    functions = _functions_of(load_module(Path(path) if suffix == ".py" else str(path)))
    return [each for each in functions if not isinstance(each, SlicingFunction)]


def _functions_of(module: ModuleType) -> list[LabelingFunction]:
    """Return the functions of both kinds at a module's top level, without duplicates."""
    functions = [value for value in vars(module).values() if isinstance(value, LabelingFunction)]
    return list({id(each): each for each in functions}.values())
