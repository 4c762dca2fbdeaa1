"""Slicing functions that are declared, not coded: safe by construction, and evaluated column by column."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from sfs.errors import InvalidAnswer, InvalidFunction
from sfs.function import NO_METADATA, Metadata, SlicingFunction
from sfs.grammar import GrammarFault, Path, Spec, canonical, leaves
from sfs.plan import Plan
from sfs.record import Columns


class Template(SlicingFunction):
    """A declared slicing function.

    Parameters
    ----------
    name
        The slice's name.
    written
        One kind and its body, as in ``template``.
    metadata
        Description, owner and so on; never part of the fingerprint.

    Raises
    ------
    GrammarFault
        If the declaration is wrong.
    """

    def __init__(self, name: str, written: Mapping[str, Any], *, metadata: Metadata = NO_METADATA) -> None:
        self.spec: Spec = canonical(written)
        super().__init__(name, self._member, metadata=metadata)

    @property
    def fields(self) -> frozenset[str]:
        """The columns that the template reads."""
        return frozenset(leaf[kind]["field"] for leaf in leaves(self.spec) for kind in leaf)

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 in hex of the name and the canonical declaration."""
        return hashlib.sha256(json.dumps([self.name, self.spec], sort_keys=True).encode()).hexdigest()

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return what the fingerprint of a function that refers to this template covers of it."""
        return self._kind, self.name, self.spec

    @cached_property
    def _plan(self) -> Plan:
        return Plan([self])

    def _member(self, x: Any) -> bool:
        result = self._plan.evaluate(Columns([x]))
        if result.unknown[0, 0]:
            raise InvalidAnswer(f"template {self.name!r} cannot read this row: {result.first_faults[0]}")
        return bool(result.member[0, 0])

    def __reduce_ex__(self, _protocol: Any) -> tuple[Any, ...]:
        return _restored, (self.name, self.spec, self.metadata)

    def __repr__(self) -> str:
        return f"Template({self.name!r}, {self.spec})"


def _restored(name: str, spec: Spec, metadata: Metadata) -> Template:
    return Template(name, spec, metadata=metadata)


def template(
    name: str,
    *,
    description: str = "",
    owner: str = "",
    severity: str = "warning",
    target: float | None = None,
    protected: bool = False,
    family: str = "",
    **kind: Any,
) -> Template:
    """Declare a slicing function.

    Parameters
    ----------
    name
        The slice's name.
    description, owner, severity, target, protected, family
        As in ``Metadata``.
    **kind
        Exactly one of ``keyword``, ``regex``, ``length``, ``compare``, ``one_of``, ``missing``, ``all``,
        ``any`` and ``not_`` (``not`` in YAML and inside other kinds) with its body. A missing value is no
        member of any kind but ``missing``. A value of the wrong type, or a record without the field, makes
        the row's membership unknown, but to ``missing`` a field that is not there is missing too.

    Raises
    ------
    InvalidFunction
        If the declaration is wrong; the message names the function, the part and the value.

    Examples
    --------
    >>> asks = template("asks", keyword={"field": "text", "words": ["please", "plz"]}, owner="trust")
    >>> asks({"text": "PLZ subscribe"}), asks({"text": None})
    (True, False)
    """
    metadata = Metadata(description, owner, severity, target, protected, family)
    written = {"not" if key == "not_" else key: body for key, body in kind.items()}
    try:
        return Template(name, written, metadata=metadata)
    except GrammarFault as fault:
        raise InvalidFunction(f"template {name!r}{_place(fault.path)}: {fault}") from None


def _place(path: Path) -> str:
    return ", " + " > ".join(map(str, path)) if path else ""
