"""Views as the pages are given them, and the parts of a page that tests ask for."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from service.console.choices import OverviewChoices, SliceChoices
from service.console.detail import detail
from service.console.examples import examples
from service.console.overview import overview
from service.events import (
    Estimate,
    NotEnough,
    Performance,
    SliceEstimate,
    Snapshot,
    WindowEstimates,
    WindowName,
)
from service.views.current import FunctionHealth
from service.views.records import RecordsView, RecordView
from service.views.series import Point, SeriesEvent, SliceSeries
from service.views.slices import SlicesView, SliceView
from sfs.function import ALL_ROWS, NO_SLICE
from sfs.intervals import Rate
from sfs.metadata import Metadata

NOW = datetime(2026, 5, 1, 12, 0, 7, tzinfo=UTC)
VOID = frozenset({"meta", "link", "input", "br", "col"})


def rate(count: int, n: int, needed: int = 1, unit: str = "rows") -> Estimate | NotEnough:
    """A share with its exact interval."""
    if n < needed:
        return NotEnough(n, needed, f"{n} {unit} in this window, of at least {needed}")
    return Estimate(Rate(count, n), *Rate(count, n).interval(), "clopper-pearson")


def performance(correct: int, labelled: int) -> Performance:
    """How right the model was; F1 is made up."""
    share = rate(correct, labelled, 20, "labelled rows")
    return Performance(labelled, share, share.value - 0.02 if isinstance(share, Estimate) else share)


def estimate(
    name: str, members: int, n: int, correct: int = 0, labelled: int = 0, unknown: int = 0, absent: int = 0
) -> SliceEstimate:
    """A slice with so many members of n."""
    outside = performance(int(labelled * 2.7), labelled * 3)
    fingerprint = None if name in (ALL_ROWS, NO_SLICE) else f"{name:f<64}"[:64]
    share = rate(members, n)
    return SliceEstimate(name, fingerprint, share, unknown, absent, performance(correct, labelled), outside)


def slice_view(
    found: SliceEstimate,
    state: str = "ok",
    reference: tuple[int, int] | None = None,
    kind: str = "slice",
    health: FunctionHealth | None = None,
    **metadata: Any,
) -> SliceView:
    """A slice's view."""
    missing = NotEnough(0, 1, "the model was not trained with this function")
    return SliceView(
        name=found.slice,
        kind=kind,  # type: ignore[arg-type]
        metadata=Metadata(**metadata),
        origin=None if found.fingerprint is None else "file",
        fingerprint=found.fingerprint,
        reference=rate(*reference) if reference else missing,
        estimate=found,
        health=health,
        state=state,  # type: ignore[arg-type]
    )


def extras(n: int, labelled: int, correct: int) -> list[SliceView]:
    """All rows, and the rows of no slice."""
    every = slice_view(estimate(ALL_ROWS, n, n, correct, labelled), kind="all")
    return [every, slice_view(estimate(NO_SLICE, n // 3, n, correct // 3, labelled // 3), kind="none")]


def slices_view(
    slices: Sequence[SliceView], n: int = 2000, labelled: int = 400, **changes: Any
) -> SlicesView:
    """A window with these slices."""
    values: dict[str, Any] = {
        "at": NOW - timedelta(seconds=7),
        "model": "spam",
        "version": 4,
        "window": "1h",
        "start": NOW - timedelta(hours=1, seconds=7),
        "end": NOW + timedelta(seconds=3),
        "last_label_at": NOW - timedelta(minutes=3) if labelled else None,
        "slices": (*extras(n, labelled, int(labelled * 0.92)), *slices),
    }
    return SlicesView(**(values | changes))


def record(id_: str = "r1", **changes: Any) -> RecordView:
    """A record that the model was wrong about."""
    values: dict[str, Any] = {
        "id": id_,
        "at": NOW - timedelta(minutes=4),
        "version": 4,
        "predicted": "ham",
        "label": "spam",
        "probabilities": {"ham": 0.61, "spam": 0.39},
        "features": {"text": "check out my channel"},
        "slices": ("short", "links"),
        "unknown_slices": (),
    }
    return RecordView(**(values | changes))


def series_of(name: str, found: Sequence[SliceEstimate], events: Sequence[SeriesEvent] = ()) -> SliceSeries:
    """A minute for each estimate, up to now."""
    start = NOW.replace(second=0) - timedelta(minutes=len(found))
    minutes = [start + timedelta(minutes=i) for i in range(len(found) + 1)]
    points = tuple(Point(*span, each) for *span, each in zip(minutes, minutes[1:], found, strict=False))
    return SliceSeries(name, "spam", 4, 60, points, tuple(events))


@dataclass
class Element:
    """An element of a page: its tag, attributes, and all the text in it."""

    tag: str
    attributes: dict[str, str]
    text: str = ""
    inside: list["Element"] = field(default_factory=list)

    def __iter__(self) -> Iterator["Element"]:
        yield self
        for each in self.inside:
            yield from each

    def all(self, tag: str, class_: str = "") -> list["Element"]:
        """The elements of a tag, and of a class if one is given."""
        return [
            each
            for each in self
            if each.tag == tag and (not class_ or class_ in each.attributes.get("class", "").split())
        ]

    def words(self) -> str:
        """The text with single spaces."""
        return " ".join(self.text.split())


class _Reader(HTMLParser):
    """Builds elements, and refuses tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("page", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].inside.append(made)
        if tag not in VOID:
            self.open.append(made)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].inside.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, f"</{tag}> closes something else"
        if tag in ("td", "th"):
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        for each in self.open:
            each.text += data


def read(html: str) -> Element:
    """The elements of a page, whose tags all match."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert len(reader.open) == 1, f"<{reader.open[-1].tag}> is not closed"
    return reader.open[0]


@dataclass(frozen=True)
class Pages:
    """Everything above, for tests to take as one fixture."""

    now: datetime = NOW
    estimate: Callable[..., SliceEstimate] = estimate
    slice_view: Callable[..., SliceView] = slice_view
    slices_view: Callable[..., SlicesView] = slices_view
    record: Callable[..., RecordView] = record
    series: Callable[..., SliceSeries] = series_of
    read: Callable[[str], Element] = read

    def overview(self, slices: Sequence[SliceView] = (), sparks: Any = None, **choices: Any) -> Element:
        """The overview of these slices."""
        return self.overview_of(slices_view(slices), sparks, **choices)

    def overview_of(self, view: SlicesView, sparks: Any = None, **choices: Any) -> Element:
        """The overview of a view."""
        commands = examples("http://here:8000/", "p-1", ("ham", "spam"))
        return read(overview(view, sparks or {}, OverviewChoices(**choices), commands, NOW))

    def detail(
        self,
        slice_: SliceView,
        records: RecordsView | None = None,
        series: SliceSeries | None = None,
        **choices: Any,
    ) -> Element:
        """A slice's page, the same in two windows."""
        view = slices_view([] if slice_.kind == "all" else [slice_])
        window = WindowEstimates(view.start, view.end, tuple(each.estimate for each in view.slices))
        windows: dict[WindowName, WindowEstimates] = {"5m": window, "1h": window}
        snapshot = Snapshot(view.at, "spam", 4, "set", windows, view.last_label_at)
        nothing = RecordsView((), {}, 0, True, None)
        history = series or series_of(slice_.name, [slice_.estimate] * 5)
        chosen = SliceChoices(slice_.name, **choices)
        return read(detail(view, slice_, snapshot, history, records or nothing, chosen, NOW))


@pytest.fixture(scope="session")
def pages() -> Pages:
    """Makes views and reads pages."""
    return Pages()
