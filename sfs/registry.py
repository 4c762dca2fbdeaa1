"""Sets of slicing functions: explicit, ordered, hashed; nothing registers itself."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

from sfs.declarations import read_templates
from sfs.errors import DuplicateName, InvalidFunction, UnknownName
from sfs.function import LabelingFunction, SlicingFunction
from sfs.modules import functions_of, labelers_of
from sfs.plan import Plan
from sfs.template import Template
from sfs.votes import VoteSlice


class FunctionSet:
    """Slicing functions in order, told apart by their names.

    Parameters
    ----------
    functions
        The functions.

    Raises
    ------
    DuplicateName
        If two carry one name.
    InvalidFunction
        If something else is among them.

    Examples
    --------
    >>> from sfs.template import template
    >>> functions = FunctionSet([template("no_price", missing={"field": "price"})])
    >>> functions.names, "no_price" in functions, len(functions)
    (('no_price',), True, 1)
    """

    def __init__(self, functions: Iterable[SlicingFunction]) -> None:
        self._functions = tuple(functions)
        for each in self._functions:
            if not isinstance(each, SlicingFunction):
                raise InvalidFunction(f"a function set holds slicing functions, got {type(each).__name__}")
        counts = Counter(self.names)
        if twice := [name for name, count in counts.items() if count > 1]:
            raise DuplicateName(f"two functions are called {twice[0]!r}: rename one")
        self._named = {each.name: each for each in self._functions}

    @property
    def names(self) -> tuple[str, ...]:
        """The K names, in order."""
        return tuple(each.name for each in self._functions)

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """Name to sha256 in hex of what the function computes."""
        return {each.name: each.fingerprint for each in self._functions}

    @cached_property
    def hash(self) -> str:
        """Sha256 in hex of names and fingerprints in order."""
        return hashlib.sha256(json.dumps(list(self.fingerprints.items())).encode()).hexdigest()

    @cached_property
    def plan(self) -> Plan:
        """The templates among the functions, compiled together once."""
        return Plan([each for each in self._functions if isinstance(each, Template)])

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
        """Return the functions of both, these first."""
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
        """Return the functions of a Python file, or of an installed module by its dotted name.

        Raises
        ------
        UnreadableFile
            If there is no such file.
        InvalidFunction
            If it cannot be imported, with file, line and error, or holds no slicing functions.

        Examples
        --------
        >>> FunctionSet.from_module("sfs.library.spam").names[:2]
        ('short_comment', 'keyword_please')
        """
        return cls(functions_of(where))

    @classmethod
    def from_yaml(cls, path: str | Path) -> FunctionSet:
        """Return the templates of a YAML file.

        Raises
        ------
        UnreadableFile
            If the file is absent or not YAML.
        InvalidFunction
            If a declaration is wrong; the message names file and line.
        """
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
        raise InvalidFunction(
            f"{path}: functions come from .py, .yaml or .yml files, or modules such as a.b.c"
        )

    @classmethod
    def from_files(cls, paths: Iterable[str | Path], *, votes: bool = False) -> FunctionSet:
        """Return the functions of several files or modules in order.

        Parameters
        ----------
        paths
            Files and modules, as ``from_file`` takes them.
        votes
            Whether a ``VoteSlice`` of every labelling function in them follows the slices: what is watched on
            live traffic. A model is trained on the slices alone.

        Raises
        ------
        DuplicateName
            If one name is defined twice; the message names both files.
        """
        places = list(paths)
        found = [(each, path) for path in places for each in cls.from_file(path)]
        if votes:
            found += [(VoteSlice(each), path) for path in places for each in labelers_in(path)]
        origin: dict[str, str | Path] = {}
        for each, path in found:
            if each.name in origin:
                where = f"{origin[each.name]} and {path}" if origin[each.name] != path else f"{path} twice"
                raise DuplicateName(f"{each.name!r} is defined in {where}: rename one")
            origin[each.name] = path
        return cls(each for each, _ in found)


def labelers_in(path: str | Path) -> list[LabelingFunction]:
    """Return the labelling functions of a file or module, as ``FunctionSet.from_file`` takes it; YAML has none."""
    suffix = Path(path).suffix
    if suffix in (".yaml", ".yml"):
        return []
    return labelers_of(Path(path) if suffix == ".py" else str(path))
