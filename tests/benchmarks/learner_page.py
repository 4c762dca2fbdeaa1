"""Tables and verdicts of the learner benchmark, from its finished cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bench_learner import PEERS, SMALL_NET
from learner_cells import ATTENTION
from learner_setups import problems
from our_learners import BATCH, COST_SLICES, UNKNOWN
from scipy import stats

LEARNERS = ("default", "slice residual")
ADAPTERS = ("adapter on linear", "adapter on trees", "adapter on network")
CLEAN_GAIN = ("SMS", "keyword text K=100")
"""Set-ups where slices are clean and tell more than the features."""
TRUE_DISCS = 2
"""Of the slices that are judged in the geometry, the first are the true discs."""
NOT_MEASURED = "not measured"
Table = tuple[Sequence[str], list[Sequence[str]]]


class SetUpName(NamedTuple):
    """A set-up and the share of flipped memberships."""

    set_up: str
    flips: float = 0.0

    def __str__(self) -> str:
        return f"{self.set_up}, {self.flips:.0%} flipped" if self.flips else self.set_up


class Paired(NamedTuple):
    """Differences by seed, in accuracy."""

    values: Sequence[float]

    @property
    def mean(self) -> float:
        """Mean difference in points."""
        return 100 * float(np.mean(self.values))

    def __str__(self) -> str:
        n = len(self.values)
        if n < 2:
            return f"{self.mean:+.1f}"
        half = stats.t.ppf(0.975, n - 1) * np.std(self.values, ddof=1) / np.sqrt(n)
        return f"{self.mean:+.1f} ±{100 * half:.1f}"


class LearnerFigures:
    """Finished cells by set-up, method and seed.

    Parameters
    ----------
    cells
        Those of ``bench_learner.py``.
    """

    def __init__(self, cells: Sequence[Mapping[str, Any]]) -> None:
        self._cells: dict[SetUpName, dict[str, dict[int, Mapping[str, Any]]]] = {}
        for cell in cells:
            of_set_up = self._cells.setdefault(SetUpName(cell["set_up"], cell["flips"]), {})
            of_set_up.setdefault(cell["method"], {})[cell["seed"]] = cell

    def __iter__(self) -> Iterator[SetUpName]:
        return iter(self._cells)

    def seeds(self, name: SetUpName, *methods: str) -> list[int]:
        """Return the seeds for which all of these methods have a cell."""
        found = [set(self._cells.get(name, {}).get(method, {})) for method in methods]
        return sorted(set.intersection(*found)) if found else []

    def cells(self, name: SetUpName, method: str, seeds: Sequence[int]) -> list[Mapping[str, Any]]:
        """Return a method's cells."""
        return [self._cells[name][method][seed] for seed in seeds]

    def values(self, name: SetUpName, method: str, measure: str, seeds: Sequence[int]) -> list[float]:
        """Return a measure by seed: ``overall``, ``worst``, ``mean`` (of slices) or ``discs`` (mean of the true)."""
        return [measured(cell, measure) for cell in self.cells(name, method, seeds)]

    def best_peer(self, name: SetUpName, seeds: Sequence[int]) -> str:
        """Return the peer with the best mean of the worst slice over these seeds, on test rows."""
        return max(PEERS, key=lambda peer: float(np.mean(self.values(name, peer, "worst", seeds))))

    def compared(self, name: SetUpName, method: str) -> list[int]:
        """Return the seeds for which a method and all peers have a cell."""
        return self.seeds(name, method, *PEERS)

    def difference(self, name: SetUpName, method: str, other: str, measure: str) -> Paired | None:
        """Return a method's advantage over another by seed; None without a common seed."""
        if not (seeds := self.seeds(name, method, other)):
            return None
        pairs = zip(*(self.values(name, each, measure, seeds) for each in (method, other)), strict=True)
        return Paired([a - b for a, b in pairs])

    def to_best(self, name: SetUpName, method: str, measure: str) -> Paired | None:
        """Return a method's advantage over the best blind peer; None if they have no common seed."""
        if not (seeds := self.compared(name, method)):
            return None
        theirs = self.values(name, self.best_peer(name, seeds), measure, seeds)
        return Paired([a - b for a, b in zip(self.values(name, method, measure, seeds), theirs, strict=True)])


def measured(cell: Mapping[str, Any], measure: str) -> float:
    """Return a measure of a cell."""
    slices: list[float] = cell["slices"]
    if measure == "discs":
        return float(np.mean(slices[:TRUE_DISCS]))
    return float({"overall": cell["overall"], "worst": min(slices), "mean": np.mean(slices)}[measure])


def mean(values: Sequence[float]) -> str:
    """Return a mean in percent."""
    return f"{100 * np.mean(values):.1f}"


def learners_table(figures: LearnerFigures) -> Table:
    """Return our learners on each set-up, against the best blind peer and ERM."""
    head = ("set-up", "seeds", "learner", "overall", "worst slice", "mean slice", "best blind peer")
    head += ("minus it: overall", "worst slice", "minus ERM: overall", "worst slice")
    rows: list[Sequence[str]] = []
    for name in figures:
        for method in LEARNERS:
            if not (seeds := figures.compared(name, method)):
                continue
            peer = figures.best_peer(name, seeds)
            own = [mean(figures.values(name, method, each, seeds)) for each in ("overall", "worst", "mean")]
            theirs = " / ".join(mean(figures.values(name, peer, each, seeds)) for each in ("overall", "worst"))
            gains = [
                str(figures.difference(name, method, other, each))
                for other in (peer, "ERM")
                for each in ("overall", "worst")
            ]
            rows.append((str(name), str(len(seeds)), method, *own, f"{peer} {theirs}", *gains))
    return head, rows


def peers_table(figures: LearnerFigures) -> Table:
    """Return overall and worst slice of the peers on each set-up."""
    methods = (*PEERS, ATTENTION)
    rows = []
    for name in figures:
        if not (every := figures.seeds(name, *PEERS)):
            continue
        cells = []
        for method in methods:
            seeds = [seed for seed in figures.seeds(name, method) if seed in every]
            both = ("overall", "worst") if seeds else ()
            cells.append(" / ".join(mean(figures.values(name, method, measure, seeds)) for measure in both))
        rows.append((str(name), str(len(every)), *cells))
    return ("set-up", "seeds", *methods), rows


def adapters_table(figures: LearnerFigures) -> Table:
    """Return frozen bases with and without the slice adapter."""
    rows = []
    for name in figures:
        for method in ADAPTERS:
            if not (seeds := figures.seeds(name, method)):
                continue
            cells = figures.cells(name, method, seeds)
            pairs = [
                " / ".join(mean([measured(each, measure) for each in of]) for measure in ("overall", "worst"))
                for of in ([cell["base"] for cell in cells], cells)
            ]
            gains = [str(adapter_gain(figures, name, method, measure)) for measure in ("overall", "worst")]
            rows.append((str(name), str(len(seeds)), method.removeprefix("adapter on "), *pairs, *gains))
    return ("set-up", "seeds", "base", "base alone", "adapted", "difference: overall", "worst slice"), rows


def adapter_gain(figures: LearnerFigures, name: SetUpName, method: str, measure: str) -> Paired | None:
    """Return the advantage of an adapted base over the base; None where there is none."""
    cells = figures.cells(name, method, figures.seeds(name, method))
    return Paired([measured(cell, measure) - measured(cell["base"], measure) for cell in cells]) if cells else None


class Verdict(NamedTuple):
    """A figure for each learner, its target, and whether the default reaches it (None if not measured)."""

    what: str
    figures: Sequence[str]
    target: str
    met: bool | None

    def row(self) -> Sequence[str]:
        """Return the row of the table."""
        met = NOT_MEASURED if self.met is None else "yes" if self.met else "**no**"
        return (self.what, *self.figures, self.target, met)


def lowest(found: Mapping[SetUpName, Paired | None]) -> tuple[str, float | None]:
    """Return the lowest of differences with its set-up, and its mean; None if no one is measured."""
    known = {name: paired for name, paired in found.items() if paired is not None}
    if not known:
        return NOT_MEASURED, None
    name = min(known, key=lambda each: known[each].mean)
    where = f" ({name}{of_all(len(known), len(found))})" if len(found) > 1 else ""
    return f"{known[name]}{where}", known[name].mean


def of_all(known: int, every: int) -> str:
    """Return of how many only some are measured."""
    return f"; {known} of {every} measured" if known < every else ""


def of_both(what: str, target: str, least: float, found: Mapping[str, Mapping[SetUpName, Paired | None]]) -> Verdict:
    """Return the verdict on the lowest difference of each learner; ``found`` is by learner and set-up."""
    texts = {method: lowest(of_method) for method, of_method in found.items()}
    reached = texts[LEARNERS[0]][1]
    return Verdict(what, [text for text, _ in texts.values()], target, None if reached is None else reached >= least)


def verdicts(figures: LearnerFigures, cost: Sequence[Mapping[str, Any]]) -> Iterator[Verdict]:
    """Yield the rows of the targets for models; figures are points, or shares where said."""
    geometry, many = SetUpName("geometry K=2"), SetUpName("geometry K=100")
    text, few = SetUpName("keyword text K=100"), SetUpName("keyword text K=4")

    def against(other: str, measure: str, names: Sequence[SetUpName]) -> dict[str, dict[SetUpName, Paired | None]]:
        return {m: {name: figures.difference(name, m, other, measure) for name in names} for m in LEARNERS}

    def to_best(names: Sequence[SetUpName]) -> dict[str, dict[SetUpName, Paired | None]]:
        return {m: {name: figures.to_best(name, m, "worst") for name in names} for m in LEARNERS}

    one = [geometry]
    yield of_both("geometry: true discs, minus 41-parameter net", ">= +20", 20, against(SMALL_NET, "discs", one))
    yield of_both("geometry: true discs, minus ERM of equal size", ">= +3", 3, against("ERM", "discs", one))
    yield of_both("geometry: overall, minus ERM of equal size", ">= -0.3", -0.3, against("ERM", "overall", one))
    for large, small in ((many, geometry), (text, few)):
        fallen = {m: {large: across(figures, m, large, small)} for m in LEARNERS}
        yield of_both(f"worst slice, {large} minus {small.set_up.rpartition(' ')[2]}", ">= -3", -3, fallen)
    yield shares(figures, text)
    every = [SetUpName(each.name, flips) for each in problems(Path()) for flips in each.flips]
    clean = [name for name in every if not name.flips]
    noisy = [name for name in every if name.flips]
    yield of_both("noisy functions: worst slice, minus best blind peer", ">= -1", -1, to_best(noisy))
    yield of_both("noisy functions: overall, minus ERM", ">= 0", 0, against("ERM", "overall", noisy))
    hidden = {m: {name: unknown_gain(figures, name, m) for name in clean} for m in LEARNERS}
    yield of_both("unknown memberships: worst slice, minus best blind peer", ">= 0", 0, hidden)
    yield of_both("every set-up: worst slice, minus best blind peer", ">= 0", 0, to_best(clean))
    gained = [SetUpName(each) for each in CLEAN_GAIN]
    yield of_both("clean functions (SMS, keyword text): the same", ">= +3", 3, to_best(gained))
    yield of_both("every set-up: overall, minus ERM", ">= -0.3", -0.3, against("ERM", "overall", clean))
    yield from adapter_verdicts(figures, every)
    yield forward_cost(cost)


def across(figures: LearnerFigures, method: str, large: SetUpName, small: SetUpName) -> Paired | None:
    """Return by how much the worst slice is better with many slices than with few, by seed."""
    seeds = sorted({*figures.seeds(large, method)} & {*figures.seeds(small, method)})
    if not seeds:
        return None
    pairs = zip(*(figures.values(name, method, "worst", seeds) for name in (large, small)), strict=True)
    return Paired([a - b for a, b in pairs])


def unknown_gain(figures: LearnerFigures, name: SetUpName, method: str) -> Paired | None:
    """Return the lowest advantage over the best blind peer of the shares of rows with unknown memberships."""
    if not (seeds := figures.compared(name, method)):
        return None
    theirs = figures.values(name, figures.best_peer(name, seeds), "worst", seeds)
    found = []
    for share in UNKNOWN:
        own = [measured(cell["unknown"][f"{share:g}"], "worst") for cell in figures.cells(name, method, seeds)]
        found.append(Paired([a - b for a, b in zip(own, theirs, strict=True)]))
    return min(found, key=lambda paired: paired.mean)


def shares(figures: LearnerFigures, text: SetUpName) -> Verdict:
    """Return the verdict on the share of the true slice."""
    texts, reached = [], None
    for method in LEARNERS:
        cells = figures.cells(text, method, figures.seeds(text, method))
        known = [cell["share"] for cell in cells if cell["share"] is not None]
        texts.append(f"{np.mean(known):.2f} ({len(known)} of {len(cells)} seeds)" if known else NOT_MEASURED)
        if method == LEARNERS[0] and known:
            reached = float(np.mean(known)) >= 0.5
    return Verdict("keyword text K=100: share of the true slice", texts, ">= 0.5", reached)


def adapter_verdicts(figures: LearnerFigures, every: Sequence[SetUpName]) -> Iterator[Verdict]:
    """Yield the verdicts on the slice adapter: the lowest figure of both bases."""
    gained = [SetUpName(each) for each in CLEAN_GAIN]
    for what, measure, names, target, least in (
        ("slice adapter: overall, minus base", "overall", every, ">= -0.2", -0.2),
        ("slice adapter: worst slice, minus base", "worst", every, ">= -0.5", -0.5),
        ("slice adapter, clean functions: worst slice, minus base", "worst", gained, ">= +3", 3),
    ):
        found = {(m, name): adapter_gain(figures, name, m, measure) for name in names for m in ADAPTERS}
        known = {key: paired for key, paired in found.items() if paired is not None}
        if not known:
            yield Verdict(what, [NOT_MEASURED, ""], target, None)
            continue
        method, name = min(known, key=lambda key: known[key].mean)
        text = f"{known[method, name]} ({method.removeprefix('adapter on ')}, {name}{of_all(len(known), len(found))})"
        yield Verdict(what, [text, ""], target, known[method, name].mean >= least)


def forward_cost(cost: Sequence[Mapping[str, Any]]) -> Verdict:
    """Return the verdict on the cost of slices in the forward pass."""
    added = [each["sliced_ms"] - each["plain_ms"] for each in cost]
    texts = [
        f"{each['network']}: +{more / each['plain_ms']:.0%}, +{more:.2f} ms"
        for each, more in zip(cost, added, strict=True)
    ]
    met = all(more <= max(1.0, 0.15 * each["plain_ms"]) for each, more in zip(cost, added, strict=True))
    what = f"{COST_SLICES} slices, batch of {BATCH}: cost over the plain network"
    return Verdict(what, ["", "; ".join(texts)], "<= 15 % or 1 ms", met)


def verdicts_table(figures: LearnerFigures, cost: Sequence[Mapping[str, Any]]) -> Table:
    """Return the targets."""
    return ("measurement", *LEARNERS, "target", "met"), [each.row() for each in verdicts(figures, cost)]
