"""Builders of the values that pages show, and a reader of their HTML."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

from service.console.pages.slices import (
    OverviewParams,
    SliceActivity,
    SliceParams,
    example_commands,
    render_overview,
    render_slice,
)
from service.decisions import (
    Alarm,
    Decision,
    DriftReport,
    DriftStatus,
    PairedCounts,
    Run,
    SliceDecision,
    ToleranceBand,
)
from service.events import (
    Estimate,
    InsufficientData,
    Performance,
    SliceEstimate,
    Snapshot,
    WindowEstimates,
    WindowName,
)
from service.serving.deployment import FunctionHealth
from service.views.records import RecordsView, RecordView
from service.views.series import Point, SeriesEvent, SliceSeries
from service.views.slices import SlicesView, SliceView
from sfs.function import ALL_ROWS, NO_SLICE
from sfs.intervals import Rate
from sfs.validation import Metadata

NOW = datetime(2026, 5, 1, 12, 0, 7, tzinfo=UTC)
EVIL = '"><script>alert("1")</script>'
BLOCKS = frozenset({"dd", "dt", "h1", "h2", "h3", "li", "p", "small", "td", "th"})
VOID = frozenset({"meta", "link", "input", "br", "col"})


def rate(count: int, n: int, needed: int = 1, unit: str = "rows") -> Estimate | InsufficientData:
    """Return a rate with its exact interval."""
    if n < needed:
        return InsufficientData(n, needed, f"{n} {unit} in this window, of at least {needed}")
    return Estimate(Rate(count, n), *Rate(count, n).interval(), "clopper-pearson")


def performance(correct: int, labelled: int) -> Performance:
    """Return an accuracy, and an arbitrary F1."""
    share = rate(correct, labelled, 20, "labelled rows")
    return Performance(labelled, share, share.value - 0.02 if isinstance(share, Estimate) else share)


def estimate(
    name: str, members: int, n: int, correct: int = 0, labelled: int = 0, unknown: int = 0, absent: int = 0
) -> SliceEstimate:
    """Return the estimate of a slice with some members among n rows."""
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
    """Return a view of a slice."""
    missing = InsufficientData(0, 1, "the model was not trained with this function")
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
    """Return the views of all rows, and of the rows in no slice."""
    every = slice_view(estimate(ALL_ROWS, n, n, correct, labelled), kind="all")
    return [every, slice_view(estimate(NO_SLICE, n // 3, n, correct // 3, labelled // 3), kind="none")]


def slices_view(slices: Sequence[SliceView], n: int = 2000, labelled: int = 400, **changes: Any) -> SlicesView:
    """Return a window with some slices."""
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
    """Return a wrongly predicted record."""
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


def slice_series(name: str, found: Sequence[SliceEstimate], events: Sequence[SeriesEvent] = ()) -> SliceSeries:
    """Return a series with one estimate a minute, up to now."""
    start = NOW.replace(second=0) - timedelta(minutes=len(found))
    minutes = [start + timedelta(minutes=i) for i in range(len(found) + 1)]
    points = tuple(Point(*span, each) for *span, each in zip(minutes, minutes[1:], found, strict=False))
    return SliceSeries(name, "spam", 4, 60, points, tuple(events))


def drift(name: str = "links", count: int = 81, n: int = 1000, **changes: Any) -> DriftStatus:
    """Return a coverage that rose from 2% of 20,000 rows beyond the alarm threshold."""
    values: dict[str, Any] = {
        "slice": name,
        "fingerprint": f"{name:f<64}"[:64],
        "kind": "coverage",
        "zone": ToleranceBand(Rate(400, 20_000), 0.0164, 0.0241, 0.1),
        "evidence": 18.6,
        "threshold": 18.1,
        "since": NOW - timedelta(minutes=21),
        "direction": "up",
        "observed": Rate(count, n),
        "lower": 0.055,
        "upper": 0.112,
    }
    return DriftStatus(**(values | changes))


def accuracy_drift(name: str = "links", **changes: Any) -> DriftStatus:
    """Return an accuracy that fell from 92% of 250 rows beyond the alarm threshold."""
    zone = ToleranceBand(Rate(230, 250), 0.862, 1.0, 0.01)
    values: dict[str, Any] = {
        "kind": "accuracy",
        "zone": zone,
        "direction": "down",
        "lower": 0.41,
        "upper": 0.73,
    }
    return drift(name, 34, 60, **(values | changes))


def alarm(id_: int = 7, found: DriftStatus | None = None, **changes: Any) -> Alarm:
    """Return an open alarm."""
    values: dict[str, Any] = {
        "id": id_,
        "model": "spam",
        "version": 4,
        "at": NOW - timedelta(minutes=12),
        "drift": found or drift(),
    }
    return Alarm(**(values | changes))


def slice_decision(name: str, outcome: str, pairs: tuple[int, int, int, int], **changes: Any) -> SliceDecision:
    """Return a decision about a slice, with an arbitrary interval."""
    found = PairedCounts(name, *pairs)
    difference = (found.only_candidate - found.only_champion) / found.n if found.n else 0.0
    values: dict[str, Any] = {
        "pairs": found,
        "protected": True,
        "difference": difference,
        "lower": difference - 1 / max(found.n, 1) ** 0.5 if found.n else 0.0,
        "upper": difference + 1 / max(found.n, 1) ** 0.5 if found.n else 0.0,
        "outcome": outcome,
        "reason": f"{name}: what was counted says {outcome}.",
    }
    return SliceDecision(**(values | changes))


def decision(outcome: str = "promote", **changes: Any) -> Decision:
    """Return a decision about slices of every outcome."""
    values: dict[str, Any] = {
        "outcome": outcome,
        "reasons": ("The candidate is shown to be better on links.", "No protected slice is worse."),
        "slices": (
            slice_decision("__all__", "as_good", (412, 360, 12, 20)),
            slice_decision("links", "better", (96, 50, 2, 36)),
            slice_decision("short", "worse", (140, 90, 44, 4)),
            slice_decision("asks/what?", "no_harm", (60, 50, 4, 5), protected=False),
            slice_decision("rare", "not_verified", (7, 5, 1, 1)),
            slice_decision("none yet", "not_verified", (0, 0, 0, 0)),
        ),
        "margin": 0.02,
        "confidence": 0.95,
    }
    return Decision(**(values | changes))


def run(id_: int = 3, state: str = "promoted", **changes: Any) -> Run:
    """Return a run that responds to alarm 7, and trained version 5."""
    values: dict[str, Any] = {
        "id": id_,
        "model": "spam",
        "state": state,
        "trigger": "coverage",
        "reason": "coverage of links is 8.1% since 11:39 UTC, expected 1.6% to 2.4%",
        "opened_at": NOW - timedelta(minutes=12),
        "updated_at": NOW - timedelta(minutes=4),
        "alarms": (7,),
        "slices": ("links",),
        "since": NOW - timedelta(minutes=21),
        "attempts": 1,
        "champion": 4,
        "candidate": 5,
        "data": {"base_rows": 1955, "traffic_rows": 640, "held_out_rows": 412, "baseline": [{"n": 1}]},
        "decision": decision(),
        "outcome": "version 5 was promoted",
    }
    return Run(**(values | changes))


def report(id_: int = 2, **changes: Any) -> DriftReport:
    """Return a report in which one of three columns drifted."""
    told = [
        ("words", "feature", "wasserstein", 0.1, 0.731, True),
        ("likes", "feature", "wasserstein", 0.1, 0.03219, False),
        ("prediction", "prediction", "jensenshannon", 0.1, 0.0412, False),
    ]
    shares = {"shares": {"spam": [0.25, 0.31], "ham": [0.75, 0.69]}}
    names = ("column", "kind", "method", "threshold", "value", "drifted")
    values: dict[str, Any] = {
        "id": id_,
        "model": "spam",
        "version": 4,
        "at": NOW - timedelta(hours=2),
        "start": NOW - timedelta(hours=26),
        "end": NOW - timedelta(hours=2),
        "reference_rows": 1000,
        "current_rows": 4980,
        "columns": tuple(
            dict(zip(names, each, strict=True), **further)
            for each, further in zip(told, ({"mean": [3.2, 5.4]}, {"error": "no rows have it"}, shares), strict=True)
        ),
    }
    return DriftReport(**(values | changes))


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
        """Return the elements of a tag, and of a class if given."""
        return [
            each
            for each in self
            if each.tag == tag and (not class_ or class_ in each.attributes.get("class", "").split())
        ]

    def words(self) -> str:
        """Return the text with single spaces."""
        return " ".join(self.text.split())


class _Reader(HTMLParser):
    """Builds elements, and checks that tags match."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Element("page", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].inside.append(made)
        if tag in BLOCKS:
            self.handle_data(" ")
        if tag not in VOID:
            self.open.append(made)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].inside.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, f"</{tag}> closes something else"
        if tag in BLOCKS:
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        for each in self.open:
            each.text += data


def read(html: str) -> Element:
    """Return the elements of a page, whose tags must match."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    assert len(reader.open) == 1, f"<{reader.open[-1].tag}> is not closed"
    return reader.open[0]


def finished_runs() -> list[Run]:
    """Return a run of every final state, and a waiting one."""
    return [
        run(1, "skipped", candidate=None, outcome="benign: accuracy on links did not suffer"),
        run(2, "failed", trigger="request", candidate=None, reason=EVIL, outcome=EVIL, alarms=()),
        run(3, "rejected", trigger="accuracy", decision=decision("reject"), outcome=f"worse on {EVIL}"),
        run(4, "held", alarms=(2,), decision=decision("hold"), outcome="rare has too few rows", slices=()),
        run(5, "promoted", alarms=(1, 3), slices=("links", EVIL), data={EVIL: EVIL, "notes": ["a"] * 400}),
        run(6, "waiting_for_labels", outcome="", candidate=None, champion=None, data=None, decision=None),
    ]


def overview(
    view: SlicesView,
    coverage_by_hour: Any = None,
    alarms: Sequence[Alarm] = (),
    speed: float = 1.0,
    **params: Any,
) -> Element:
    """Return the overview of a window."""
    commands = example_commands("http://here:8000/", "p-1", ("ham", "spam"))
    unresolved = {each.drift.slice: (each,) for each in alarms}
    html = render_overview(view, OverviewParams(**params), NOW, coverage_by_hour or {}, commands, unresolved, speed)
    return read(html)


def overview_of(slices: Sequence[SliceView] = (), coverage_by_hour: Any = None, **params: Any) -> Element:
    """Return the overview of some slices."""
    return overview(slices_view(slices), coverage_by_hour, **params)


def slice_page(
    slice_: SliceView,
    records: RecordsView | None = None,
    series: SliceSeries | None = None,
    activity: SliceActivity | None = None,
    **params: Any,
) -> Element:
    """Return a slice's page, with the same estimate in two windows."""
    view = slices_view([] if slice_.kind == "all" else [slice_])
    window = WindowEstimates(view.start, view.end, tuple(each.estimate for each in view.slices))
    windows: dict[WindowName, WindowEstimates] = {"5m": window, "1h": window}
    snapshot = Snapshot(view.at, "spam", 4, "set", windows, view.last_label_at)
    return read(
        render_slice(
            view,
            slice_,
            snapshot,
            series or slice_series(slice_.name, [slice_.estimate] * 5),
            records or RecordsView((), {}, 0, True, None),
            SliceParams(slice_.name, **params),
            NOW,
            activity or SliceActivity(),
        )
    )


def section(page: Element, heading: str) -> Element:
    """Return the section with a heading."""
    (found,) = [s for s in page.all("section") if [h.words() for h in s.all("h2")] == [heading]]
    return found
