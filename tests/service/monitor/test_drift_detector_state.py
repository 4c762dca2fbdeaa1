"""The recursion of the drift detector against a slow twin, and its guarantee."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.monitor.alternatives import ALTERNATIVES, Alternatives
from service.monitor.drift_detector import MOST_EVIDENCE, DetectorState

Zone = tuple[float, float]


def against_zones(*zones: Zone) -> Alternatives:
    """Return the alternatives to bands, given by their limits."""
    return Alternatives.of(*np.array(zones, np.float64).reshape(-1, 2).T)


@dataclass
class Alternative:
    """One alternative, in plain floats: the rate q against the limit m."""

    m: float
    q: float
    weight: int = 1
    log_sum: float = -math.inf
    cusum: float = 0.0
    since: int = 0
    count: int = 0
    n: int = 0

    def add(self, count: int, n: int, start: int) -> None:
        log_e = count * math.log(self.q / self.m) + (n - count) * math.log((1 - self.q) / (1 - self.m))
        larger = max(0.0, self.log_sum)
        grown = larger + math.log(math.exp(-larger) + math.exp(self.log_sum - larger))
        self.log_sum = grown + log_e
        if self.cusum == 0:
            self.since, self.count, self.n = start, 0, 0
        self.cusum = max(0.0, self.cusum + log_e)
        self.count, self.n = self.count + count, self.n + n


@dataclass
class Twin:
    """One rate: all its alternatives, one by one."""

    lower: float
    upper: float
    alternatives: dict[int, Alternative] = field(default_factory=dict)

    def __post_init__(self) -> None:
        down, up = [0.9, 0.8, 0.65, 0.5, 0.25, 0.05], [1.1, 1.25, 1.5, 2, 3, 6]
        pairs = [(self.lower, f) for f in down] + [(self.upper, f) for f in up]
        for c, ((m, f), weight) in enumerate(zip(pairs, 2 * [1, 2, 3, 2, 1, 1], strict=True)):
            if 0 < m < 1:
                odds = f * m / (1 - m)
                self.alternatives[c] = Alternative(m, odds / (1 + odds), weight)

    def add(self, count: int, n: int, start: int) -> None:
        for each in self.alternatives.values() if n else ():
            each.add(count, n, start)

    @property
    def evidence(self) -> float:
        alternatives = self.alternatives.values()
        logs = [each.log_sum for each in alternatives]
        if not logs or max(logs) == -math.inf:
            return 0.0
        largest = max(logs)
        total = sum(each.weight * math.exp(each.log_sum - largest) for each in alternatives)
        return max(0.0, largest + math.log(total / sum(each.weight for each in alternatives)))


limits = st.one_of(st.just(0.0), st.floats(1e-4, 0.99))
zones = st.tuples(limits, st.one_of(st.just(1.0), limits)).map(lambda pair: (min(pair), max(pair)))
counts = st.integers(0, 2_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@settings(deadline=None, max_examples=100)
@given(data=st.data(), keys=st.lists(zones, max_size=4))
def test_the_detector_equals_its_slow_twin(data: st.DataObject, keys: list[Zone]) -> None:
    """Evidence, cusum and counts since the change agree for every alternative, evidence until it reaches its limit."""
    twins = [Twin(*key) for key in keys]
    against, standing = against_zones(*keys), DetectorState.zeros(len(keys))
    size, within = len(keys), [True] * len(keys)
    for start in range(data.draw(st.integers(0, 12))):
        block = np.array(data.draw(st.lists(counts, min_size=size, max_size=size)), np.int64).reshape(-1, 2).T
        standing.advance(against, block[0], block[1], np.zeros(size, np.int64), start)
        for twin, count, n in zip(twins, *block.tolist(), strict=True):
            twin.add(count, n, start)
        for k, twin in enumerate(twins):
            within[k] &= all(each.log_sum < MOST_EVIDENCE for each in twin.alternatives.values())
            assert standing.evidence[k] <= MOST_EVIDENCE
            if within[k]:
                assert standing.evidence[k] == pytest.approx(twin.evidence, rel=1e-9, abs=1e-9)
    for k, twin in enumerate(twins):
        for c, each in twin.alternatives.items():
            assert standing.cusum[c, k] == pytest.approx(each.cusum, rel=1e-9, abs=1e-9)
            if each.cusum > 1e-6:
                past = standing.past_count[c, k], standing.past_n[c, k]
                since = standing.since[c, k], standing.count[k] - past[0], standing.n[k] - past[1]
                assert since == (each.since, each.count, each.n)
        assert not np.delete(standing.cusum[:, k], list(twin.alternatives)).any()


@pytest.mark.parametrize(("lower", "upper", "p"), [(0.005, 0.01, 0.01), (0.9, 1.0, 0.9)])
def test_false_alarms_at_the_limit_of_the_zone(lower: float, upper: float, p: float) -> None:
    """At c = 500 a rate at a limit alarms at most 40 times in 20,000 blocks; a dead detector less than 10 times."""
    streams, blocks, rng = 200, 20_000, np.random.default_rng(0)
    against, standing = against_zones(*[(lower, upper)] * streams), DetectorState.zeros(streams)
    rows, alarms = np.full(streams, 10), 0
    for start in range(blocks):
        standing.advance(against, rng.binomial(10, p, streams), rows, np.zeros(streams, np.int64), start)
        alarmed = np.flatnonzero(standing.evidence >= math.log(500))
        if alarmed.size:
            alarms += len(alarmed)
            standing.reset(alarmed)
    assert 10 <= alarms / streams <= blocks / 500


@pytest.mark.parametrize(
    "bounds",
    [(0.0, 1e-300), (1e-12, 2e-12), (0.0, 1.0), (0.3, 1 - 1e-16), (1 - 1e-9, 1.0), (1.0, 1.0), (0, 0)],
)
def test_limits_near_the_ends_of_the_scale_give_numbers(bounds: Zone) -> None:
    """The evidence stays finite for extreme blocks."""
    against, standing = against_zones(bounds), DetectorState.zeros(1)
    for start, (count, n) in enumerate([(0, 1), (1, 1), (10**9, 10**9), (0, 10**9), (0, 0), (5, 10**6)]):
        standing.advance(against, np.array([count]), np.array([n]), np.array([0]), start)
        assert all(np.isfinite(array).all() for array in standing.arrays())
    assert standing.evidence[0] >= 0


def test_a_zone_without_limits_never_gathers_evidence() -> None:
    """A band of [0, 1] has no alternatives."""
    against, standing = against_zones((0, 1)), DetectorState.zeros(1)
    for start, count in enumerate([0, 1_000] * 5):
        standing.advance(against, np.array([count]), np.array([1_000]), np.array([0]), start)
    assert standing.evidence.tolist() == [0.0]


def test_the_mixture_is_over_the_alternatives_that_there_are() -> None:
    """Weights sum to 1 even if a side is missing."""
    against = against_zones((0.1, 0.2), (0, 0.2), (0.8, 1.0))
    shares: Any = against.weight
    assert shares.sum(axis=0) == pytest.approx([1, 1, 1])
    assert (shares > 0).sum(axis=0).tolist() == [ALTERNATIVES, 6, 6]
