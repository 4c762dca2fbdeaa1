"""Seeds of the generated scenario through the drift detectors: the slices that alarm are those that left their band.

SLICEWATCH_DEMO_SEEDS sets the number of seeds; `make bench` runs all ten.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.decisions import RateKey
from service.demo.checks import Coverages, coverages, slice_truths
from service.demo.project import LIKES_YAML, SLICES_PY, SLICES_YAML
from service.demo.scenario import PHASES, Scenario, generated_comments, phase_at
from service.monitor.drift_detector import DriftDetector, Observation, log_threshold
from service.monitor.tolerance_band import coverage_band
from sfs.apply import apply_with_stats
from sfs.intervals import Rate
from sfs.registry import FunctionSet

TOLERANCE, MAX_SLICES, FALSE_ALARMS = 0.1, 200, 1.0  # the settings' defaults
SERVED_ROWS = 17_000  # fewer than come before the promotion
BLOCK_ROWS = 33
BLOCK = timedelta(seconds=10)
START = datetime(2026, 5, 1, tzinfo=UTC)
SEEDS = int(os.environ.get("SLICEWATCH_DEMO_SEEDS", "3"))


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> FunctionSet:
    """The slices of the demo."""
    folder: Path = tmp_path_factory.mktemp("demo")
    (folder / "slices.yaml").write_text(SLICES_YAML + LIKES_YAML, encoding="utf-8")
    (folder / "slices.py").write_text(SLICES_PY, encoding="utf-8")
    return FunctionSet.from_files([str(folder / "slices.yaml"), str(folder / "slices.py")])


def _blocks(scenario: Scenario, functions: FunctionSet) -> Iterator[Observation]:
    rows = scenario.rows(0, SERVED_ROWS).drop(columns="label")
    member = apply_with_stats(functions, rows).matrix.member
    for number, first in enumerate(range(0, SERVED_ROWS, BLOCK_ROWS)):
        part = member[first : first + BLOCK_ROWS]
        sums = part.sum(axis=0).tolist()
        counts = {_key(functions, name): Rate(n, len(part)) for name, n in zip(functions.names, sums, strict=True)}
        yield Observation.of(START + number * BLOCK, START + (number + 1) * BLOCK, counts)


def _key(functions: FunctionSet, name: str) -> RateKey:
    return RateKey(name, functions.fingerprints[name], "coverage")


def _phase_coverages(scenario: Scenario, functions: FunctionSet) -> dict[str, Coverages]:
    return {phase.name: coverages(functions, scenario.sample(phase), "label") for phase in PHASES}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_alarmed_slices_are_those_that_left(seed: int, functions: FunctionSet) -> None:
    """No slice alarms in the calm phase; then exactly the slices whose coverage left its band do, also by dilution."""
    scenario = generated_comments(seed, sample_rows=15_000)
    threshold = log_threshold(MAX_SLICES, FALSE_ALARMS)
    learned = coverages(functions, scenario.base(), "label")
    zones = {_key(functions, name): coverage_band(rate, TOLERANCE, MAX_SLICES) for name, rate in learned.items()}
    watch = DriftDetector(zones, threshold)
    verdicts = [verdict for block in _blocks(scenario, functions) for verdict in watch.advance(block)]

    changed = START + PHASES[1].start // BLOCK_ROWS * BLOCK
    assert [each.drift.slice for each in verdicts if each.at <= changed] == []
    shown = {key.slice: {"lower": z.lower, "upper": z.upper, "threshold": threshold} for key, z in zones.items()}
    served = {(1, phase.name): 0 for phase in PHASES}
    for position in range(0, SERVED_ROWS, BLOCK_ROWS):
        served[1, phase_at(PHASES, position).name] += BLOCK_ROWS
    alarms = [{"version": 1, "slice": each.drift.slice, "kind": each.drift.kind} for each in verdicts]
    found = slice_truths({1: shown}, served, _phase_coverages(scenario, functions), alarms)
    assert {each.slice for each in found if each.left} == {each.slice for each in found if each.alarmed}
    assert {each.slice for each in found if each.left} == {"short_link", "any_link", "html_markup"}
