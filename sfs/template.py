"""Declarative slicing functions, evaluated column by column and without user code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from sfs.errors import InvalidFunction, InvalidReturnValue
from sfs.function import SlicingFunction
from sfs.grammar import GrammarError, Spec, canonical, leaves
from sfs.record import Columns
from sfs.template_plan import TemplatePlan
from sfs.validation import NO_METADATA, Metadata


class Template(SlicingFunction):
    """Declarative slicing function.

    Parameters
    ----------
    name
        Name of the slice.
    declaration
        One kind and its body, as in ``template``.
    metadata
        Description, owner and other metadata; not part of the fingerprint.

    Raises
    ------
    GrammarError
        If the declaration is invalid.
    """

    def __init__(self, name: str, declaration: Mapping[str, Any], metadata: Metadata = NO_METADATA) -> None:
        self.spec: Spec = canonical(declaration)
        super().__init__(name, self._member, metadata=metadata)

    @property
    def fields(self) -> frozenset[str]:
        """Columns that the template reads."""
        return frozenset(body["field"] for leaf in leaves(self.spec) for body in leaf.values())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the name and the canonical declaration in hexadecimal."""
        return hashlib.sha256(json.dumps([self.name, self.spec], sort_keys=True).encode()).hexdigest()

    def fingerprint_parts(self) -> tuple[Any, ...]:
        """Return the parts covered by the fingerprint of a function that references this template."""
        return self._kind, self.name, self.spec

    @cached_property
    def _plan(self) -> TemplatePlan:
        return TemplatePlan([self.spec])

    def _member(self, x: Any) -> bool:
        result = self._plan.evaluate(Columns([x]))
        if result.unknown[0, 0]:
            raise InvalidReturnValue(f"template {self.name!r} cannot read this row: {result.first_faults[0]}")
        return bool(result.member[0, 0])

    def __reduce_ex__(self, _protocol: Any) -> tuple[Any, ...]:
        return Template, (self.name, self.spec, self.metadata)

    def __repr__(self) -> str:
        return f"Template({self.name!r}, {self.spec})"


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
    """Create a declarative slicing function.

    Parameters
    ----------
    name
        Name of the slice.
    description, owner, severity, target, protected, family
        As in ``Metadata``.
    **kind
        Exactly one of ``keyword``, ``regex``, ``length``, ``compare``, ``one_of``, ``missing``, ``all``,
        ``any`` and ``not_`` (``not`` in YAML and inside other kinds) with its body. A missing value is a
        member of ``missing`` only. Membership is unknown if a value has the wrong type or the record lacks the
        field; ``missing`` treats an absent field as a missing value.

    Raises
    ------
    InvalidFunction
        If the declaration is invalid; the message names the function, the part and the value.

    Examples
    --------
    >>> asks = template("asks", keyword={"field": "text", "words": ["please", "plz"]}, owner="trust")
    >>> asks({"text": "PLZ subscribe"}), asks({"text": None})
    (True, False)
    """
    metadata = Metadata(description, owner, severity, target, protected, family)
    try:
        return Template(name, {"not" if key == "not_" else key: body for key, body in kind.items()}, metadata)
    except GrammarError as error:
        place = "".join(f"{' > ' if i else ', '}{part}" for i, part in enumerate(error.path))
        raise InvalidFunction(f"template {name!r}{place}: {error}") from None
