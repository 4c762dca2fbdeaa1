"""Read models shared by the API and the console, from the deployment and one reading of the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")

PAGE_SIZE = 10_000
"""Values with which a page of a list ends: a megabyte or two."""


@dataclass(frozen=True, slots=True)
class Page(Generic[ItemT]):
    """Items of a list, newest first; ``next`` is the ``before`` of the next page, None on the last page."""

    items: tuple[ItemT, ...]
    next: int | None


def first_page(
    items: Iterable[ItemT], limit: int, id_of: Callable[[ItemT], int], size_of: Callable[[ItemT], int] = lambda _: 0
) -> Page[ItemT]:
    """Return the first items as a page, up to ``limit`` of them, or until their size reaches ``PAGE_SIZE``.

    Give one item more to tell whether a page follows.

    Examples
    --------
    >>> first_page([9, 8, 7], 2, int), first_page([9, 8], 2, int)
    (Page(items=(9, 8), next=8), Page(items=(9, 8), next=None))
    """
    taken: list[ItemT] = []
    size = 0
    for item in items:
        if len(taken) == limit or size >= PAGE_SIZE:
            return Page(tuple(taken), id_of(taken[-1]))
        taken.append(item)
        size += size_of(item)
    return Page(tuple(taken), None)
