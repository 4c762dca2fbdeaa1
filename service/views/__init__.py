"""Read models shared by the API and the console, from the deployment and one reading of the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class Page(Generic[ItemT]):
    """Items of a list, newest first; ``next`` is the ``before`` of the next page, None on the last page."""

    items: tuple[ItemT, ...]
    next: int | None


def first_page(items: Sequence[ItemT], limit: int, id_of: Callable[[ItemT], int]) -> Page[ItemT]:
    """Return the first ``limit`` items as a page; read one item more to know whether a page follows.

    Examples
    --------
    >>> first_page([9, 8, 7], 2, int), first_page([9, 8], 2, int)
    (Page(items=(9, 8), next=8), Page(items=(9, 8), next=None))
    """
    return Page(tuple(items[:limit]), id_of(items[limit - 1]) if len(items) > limit else None)
