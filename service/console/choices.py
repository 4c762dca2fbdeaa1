"""What a reader has chosen, as it stands in the address of a page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias
from urllib.parse import quote, urlencode

from service.console.states import State
from service.events import WindowName
from service.views.records import RecordKind

Sort: TypeAlias = Literal["alarms", "worst", "name", "coverage", "accuracy"]
Refresh: TypeAlias = Literal[0, 10, 60]
Which: TypeAlias = Literal["all", "unresolved", "resolved"]

WINDOWS: dict[WindowName, str] = {
    "5m": "5 min",
    "1h": "1 hour",
    "1d": "1 day",
    "7d": "7 days",
    "since_promotion": "since promotion",
}
SORTS: dict[Sort, str] = {
    "alarms": "alarms first",
    "worst": "worst first",
    "name": "name",
    "coverage": "largest coverage",
    "accuracy": "lowest accuracy",
}
KINDS: dict[RecordKind, str] = {
    "errors": "errors",
    "correct": "correct",
    "unlabelled": "without label",
    "unknown": "unknown membership",
    "all": "all members",
}


@dataclass(frozen=True, slots=True)
class OverviewChoices:
    """Which slices, of which time, in which order, and every how many seconds again; 0 is never."""

    window: WindowName = "1h"
    sort: Sort = "alarms"
    q: str = ""
    owner: str = ""
    state: State | Literal[""] = ""
    refresh: Refresh = 0

    @property
    def filtered(self) -> bool:
        """Whether some slices may be left out."""
        return bool(self.q or self.owner or self.state)

    def href(self, **changes: Any) -> str:
        """Return the address of the overview with these choices but for the changes."""
        return "/" + _query(asdict(self) | changes, asdict(OverviewChoices()))


@dataclass(frozen=True, slots=True)
class SliceChoices:
    """Which time and which records of a slice; ``cursor`` is where they go on, or empty for the newest."""

    name: str
    window: WindowName = "1h"
    kind: RecordKind = "errors"
    cursor: str = ""

    def href(self, **changes: Any) -> str:
        """Return the address of the slice's page with these choices but for the changes."""
        chosen = asdict(self) | changes
        return slice_href(chosen.pop("name")) + _query(chosen, asdict(SliceChoices("")))


@dataclass(frozen=True, slots=True)
class ListChoices:
    """Which part of a list, from the newest or from before some number, and every how many seconds again."""

    path: str
    which: Which = "all"
    before: int | None = None
    refresh: Refresh = 0

    def href(self, **changes: Any) -> str:
        """Return the address of the list with these choices but for the changes."""
        chosen = asdict(self) | changes
        path: str = chosen.pop("path")
        return path + _query(chosen, asdict(ListChoices("")))


def slice_href(name: str) -> str:
    """Return the address of a slice's page.

    Examples
    --------
    >>> slice_href("a/b & c")
    '/slices/a%2Fb%20%26%20c'
    """
    return f"/slices/{quote(name, safe='')}"


def _query(chosen: dict[str, Any], defaults: dict[str, Any]) -> str:
    said = {key: value for key, value in chosen.items() if value != defaults.get(key)}
    return f"?{urlencode(said)}" if said else ""
