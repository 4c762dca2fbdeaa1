"""What a function would do, tried on records before it is put in force."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from service.api.parts import PreviewView
from service.views.rates import estimate_of
from sfs.apply import run
from sfs.declarations import from_declaration

EXAMPLES = 10
"""Members that are shown, at most."""


def preview(
    declaration: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    source: Literal["given", "sample"],
) -> PreviewView:
    """Apply a declared function to records.

    Raises
    ------
    InvalidFunction
        If the declaration is wrong.
    """
    function = from_declaration(declaration)
    applied = run([function], records)
    member, unknown = applied.matrix.member[:, 0], applied.matrix.unknown[:, 0]
    members = [record for record, is_member in zip(records, member, strict=True) if is_member]
    return PreviewView(
        name=function.name,
        fingerprint=function.fingerprint,
        source=source,
        rows=len(records),
        members=len(members),
        unknown=int(unknown.sum()),
        coverage=estimate_of(len(members), len(records) - int(unknown.sum())),
        reasons=applied.runs[0].unknown,
        examples=tuple(members[:EXAMPLES]),
    )
