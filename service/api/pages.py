"""How lists of numbered things are asked for: one by its id, or a page of those before an id."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from fastapi import Path, Query

Id: TypeAlias = Annotated[int, Path(ge=1, lt=2**53)]
Before: TypeAlias = Annotated[
    int | None, Query(ge=1, lt=2**53, description="The ``next`` of a page, to go on there.")
]
Limit: TypeAlias = Annotated[int, Query(ge=1, le=200)]
Number: TypeAlias = Annotated[int, Path(ge=1, lt=2**31, description="Of the version.")]
