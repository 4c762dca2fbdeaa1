"""Scenarios of generated and of real comments."""

from pathlib import Path

import pandas as pd
import pytest

from models.features import FeatureSpec
from models.splits import content_hashes, held_out
from service.demo.checks import coverages
from service.demo.project import LIKES_YAML, SLICES_YAML
from service.demo.scenario import CAMPAIGN, PHASES, VANISHING, Scenario, generated_comments, real_comments
from sfs.registry import FunctionSet


@pytest.fixture(scope="module")
def scenario() -> Scenario:
    """The scenario of one seed."""
    return generated_comments(5, sample_rows=15_000)


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> FunctionSet:
    """The templates of the demo."""
    file = tmp_path_factory.mktemp("demo") / "slices.yaml"
    file.write_text(SLICES_YAML + LIKES_YAML, encoding="utf-8")
    return FunctionSet.from_files([str(file)])


def test_rows_are_the_same_in_any_batches(scenario: Scenario) -> None:
    """The stream does not depend on the batches."""
    start = PHASES[1].start - 50
    whole = scenario.rows(start, 100)
    parts = pd.concat([scenario.rows(start + k, 25) for k in range(0, 100, 25)], ignore_index=True)
    assert whole.equals(parts)


def test_the_traffic_is_not_what_was_learned_from(scenario: Scenario) -> None:
    """The first row of the traffic follows the last of the base."""
    assert not set(scenario.rows(0, 200)["text"][:50]) >= set(scenario.base()["text"][:50])


def test_the_campaign_raises_its_slice_and_no_other(scenario: Scenario, functions: FunctionSet) -> None:
    """The campaign's slice rises from 2 to 8%, all links with it, and no other slice changes by a tenth."""
    calm, campaign = (_coverages(scenario, functions, k) for k in (0, 1))
    assert (calm[CAMPAIGN], campaign[CAMPAIGN]) == (
        pytest.approx(0.02, abs=0.003),
        pytest.approx(0.08, abs=0.006),
    )
    others = [name for name in functions.names if name not in (CAMPAIGN, "any_link")]
    assert all(campaign[name] == pytest.approx(calm[name], rel=0.1) for name in others)
    assert campaign["any_link"] > 1.4 * calm["any_link"]


def test_another_slice_vanishes(scenario: Scenario, functions: FunctionSet) -> None:
    """No comment of the last phase contains markup."""
    assert _coverages(scenario, functions, 1)[VANISHING] > 0.05
    assert _coverages(scenario, functions, 2)[VANISHING] < 0.001


def test_served_rows_belong_to_their_phase(scenario: Scenario, functions: FunctionSet) -> None:
    """Served rows have the coverages of their phase."""
    served = scenario.rows(PHASES[2].start, 6_000)
    counted = coverages(functions, served, "label")
    expected = _coverages(scenario, functions, 2)
    assert counted[CAMPAIGN].value == pytest.approx(expected[CAMPAIGN], abs=0.015)
    assert counted[VANISHING].value == pytest.approx(expected[VANISHING], abs=0.001)


def _coverages(scenario: Scenario, functions: FunctionSet, phase: int) -> dict[str, float]:
    rates = coverages(functions, scenario.sample(scenario.phases[phase]), "label")
    return {name: rate.value or 0.0 for name, rate in rates.items()}


@pytest.mark.data
def test_calm_is_what_was_held_out(data_dir: Path) -> None:
    """The calm phase consists of all held-out comments of the first two videos."""
    scenario = real_comments(data_dir / "youtube-spam")
    calm = scenario.rows(0, scenario.phases[1].start)
    assert held_out(content_hashes(calm, [FeatureSpec("text", "text")])).all()
    assert set(calm["text"]) <= set(scenario.base()["text"])
    assert set(calm["text"]) == set(scenario.sample(scenario.phases[0])["text"])


@pytest.mark.data
def test_every_other_comment_comes_once_in_order(data_dir: Path) -> None:
    """The later phases are the other videos, every comment once."""
    scenario = real_comments(data_dir / "youtube-spam")
    assert [phase.name for phase in scenario.phases] == ["calm", "LMFAO", "Eminem", "Shakira"]
    ends = [*(phase.start for phase in scenario.phases[2:]), scenario.length or 0]
    for phase, end in zip(scenario.phases[1:], ends, strict=True):
        served = scenario.rows(phase.start, end - phase.start)
        assert served["text"].tolist() == scenario.sample(phase)["text"].tolist()
    assert len(scenario.rows((scenario.length or 0) - 10, 50)) == 10
