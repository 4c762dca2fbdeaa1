"""Query parameters that several pages share, and the addresses made from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import quote, urlencode

from fastapi import Path, Query
from pydantic import BeforeValidator

Refresh: TypeAlias = Literal[0, 10, 60]
"""Seconds until the browser loads the page again; 0 is never."""
AlarmFilter: TypeAlias = Literal["all", "unresolved", "resolved"]

RefreshQuery: TypeAlias = Annotated[Refresh, BeforeValidator(int)]  # a literal number does not parse text
TextQuery: TypeAlias = Annotated[str, Query(max_length=200)]
BeforeQuery: TypeAlias = Annotated[int | None, Query(ge=1, lt=2**53)]
IdPath: TypeAlias = Annotated[int, Path(ge=1, lt=2**53)]


@dataclass(frozen=True, slots=True)
class ListParams:
    """Parameters of a list: only rows before the id ``before``, newest first."""

    path: str
    which: AlarmFilter = "all"
    before: int | None = None
    refresh: Refresh = 0

    def href(self, **changes: Any) -> str:
        """Return the address of the list with changed parameters."""
        values = asdict(self) | changes
        path: str = values.pop("path")
        return path + query_string(values, asdict(ListParams("")))


def query_string(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Return the query of the values that differ from their defaults.

    Examples
    --------
    >>> query_string({"window": "1d", "q": "a b", "owner": ""}, {"window": "1h", "owner": ""})
    '?window=1d&q=a+b'
    """
    changed = {name: value for name, value in values.items() if value != defaults.get(name)}
    return f"?{urlencode(changed)}" if changed else ""


def slice_href(name: str) -> str:
    """Return the address of a slice's page.

    Examples
    --------
    >>> slice_href("a/b & c")
    '/slices/a%2Fb%20%26%20c'
    """
    return f"/slices/{quote(name, safe='')}"
