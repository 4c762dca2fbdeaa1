"""The script on generated comments."""

import pandas as pd
import pytest

from service.demo.generated import CAMPAIGN, PHASES, VANISHING, generated_comments
from service.demo.project_texts import LIKES_YAML, SLICES_YAML
from service.demo.script import Script
from service.demo.truth import coverages
from sfs.registry import FunctionSet


@pytest.fixture(scope="module")
def script() -> Script:
    """The script of one seed."""
    return generated_comments(5, sample_rows=15_000)


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> FunctionSet:
    """The templates of the demo."""
    file = tmp_path_factory.mktemp("demo") / "slices.yaml"
    file.write_text(SLICES_YAML + LIKES_YAML, encoding="utf-8")
    return FunctionSet.from_files([str(file)])


def test_rows_are_the_same_in_any_batches(script: Script) -> None:
    """A stream cut into batches is the stream."""
    whole = script.rows(13_950, 100)
    parts = pd.concat([script.rows(13_950 + k, 25) for k in range(0, 100, 25)], ignore_index=True)
    assert whole.equals(parts)


def test_the_traffic_is_not_what_was_learned_from(script: Script) -> None:
    """The first row of the traffic follows the last of the base."""
    assert not set(script.rows(0, 200)["text"][:50]) >= set(script.base()["text"][:50])


def test_the_campaign_lifts_its_slice_and_no_other(script: Script, functions: FunctionSet) -> None:
    """The campaign's slice goes from 2 to 8 %, the links take it in, and nothing else changes by a tenth."""
    calm, campaign = (_coverages(script, functions, k) for k in (0, 1))
    assert (calm[CAMPAIGN], campaign[CAMPAIGN]) == (
        pytest.approx(0.02, abs=0.003),
        pytest.approx(0.08, abs=0.006),
    )
    others = [name for name in functions.names if name not in (CAMPAIGN, "any_link")]
    assert all(campaign[name] == pytest.approx(calm[name], rel=0.1) for name in others)
    assert campaign["any_link"] > 1.4 * calm["any_link"]


def test_another_slice_vanishes(script: Script, functions: FunctionSet) -> None:
    """In the last phase no comment holds markup."""
    assert _coverages(script, functions, 1)[VANISHING] > 0.05
    assert _coverages(script, functions, 2)[VANISHING] < 0.001


def test_what_is_served_is_of_its_phase(script: Script, functions: FunctionSet) -> None:
    """The rows that are served in a phase have its coverages."""
    served = script.rows(PHASES[2].start, 6_000)
    counted = coverages(functions, served, "label")
    expected = _coverages(script, functions, 2)
    assert counted[CAMPAIGN].value == pytest.approx(expected[CAMPAIGN], abs=0.015)
    assert counted[VANISHING].value == pytest.approx(expected[VANISHING], abs=0.001)


def _coverages(script: Script, functions: FunctionSet, phase: int) -> dict[str, float]:
    rates = coverages(functions, script.sample(script.phases[phase]), "label")
    return {name: rate.value or 0.0 for name, rate in rates.items()}
