"""Pilot of networks: rounds, the score of a refitted last layer, and the reason why a search cannot pay."""

from dataclasses import replace

import numpy as np
import pytest

from models.batches import FeatureRows, Split
from models.model_selection import TrainingTask
from models.network_pilot import PILOT_MODES, NetworkPilot, PilotRound
from models.slice_residual import MAX_UNGATED, MODES
from models.trainer_config import TrainerConfig
from sfs.matrix import SliceMatrix


def split(n: int, n_slices: int = 1) -> Split:
    """Rows with a linear rule, turned round in the first slice."""
    rng = np.random.default_rng(n)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    member = rng.random((n, n_slices)) < 0.3
    turned = member[:, 0] if n_slices else np.zeros(n, bool)
    return Split(
        FeatureRows(X), ((X[:, 0] > 0) ^ turned).astype(np.int64), SliceMatrix(map(str, range(n_slices)), member)
    )


def drawn(rival: float, *, plain: float = 0.3, is_whole: bool = False, n: int = 300, n_slices: int = 1) -> PilotRound:
    task = TrainingTask(split(n, n_slices), split(n + 1, n_slices), 2, (8,), TrainerConfig(n_epochs=3, lr=0.02))
    return PilotRound(task, "trees", plain, rival, 0.02, is_whole)


def pilot(*rounds: PilotRound) -> tuple[bool, NetworkPilot]:
    found = NetworkPilot(0, lambda stage, share: None)
    return found.passes([lambda this=this: this for this in rounds]), found


def test_the_first_round_tries_two_modes_and_the_next_the_best() -> None:
    """Two rounds passed: the networks of the last one, on the rows of the search, are known to it."""
    passed, found = pilot(drawn(0.3), drawn(0.3, n=400, is_whole=True))
    assert passed
    assert len(found.modes) == 1
    assert [candidate.spec.form for candidate in found.known] == list(found.modes)
    assert [result.name for result in found.tried] == [f"{found.modes[0]}, last layer refitted, pilot of 400 rows"]
    assert found.last is not None
    assert found.last.is_whole


def test_rows_of_the_search_end_the_pilot() -> None:
    """No round follows that has all rows."""
    passed, found = pilot(drawn(0.3, is_whole=True), drawn(1.0))
    assert passed
    assert [candidate.spec.form for candidate in found.known] == ["erm", *PILOT_MODES]


def test_a_round_that_is_lost_is_the_reason() -> None:
    """The reason has the rows, the scores and the margin of that round."""
    passed, found = pilot(drawn(0.3), drawn(0.999, n=400, is_whole=True))
    assert not passed
    assert found.reason.startswith("Networks were not searched: in a pilot of 400 training rows the validation score")
    assert found.reason.endswith("against 0.999 for trees, and had to be at least 1.019.")


def test_a_plain_network_far_behind_the_base_without_slices_ends_the_pilot() -> None:
    """No mode is trained; the score is compared with that of the base without slices."""
    passed, found = pilot(drawn(0.3, plain=0.99))
    assert not passed
    assert [result.name for result in found.tried] == ["ERM, pilot of 300 rows"]
    assert "against 0.990 for trees" in found.reason


@pytest.mark.parametrize("rival", [0.3, 0.99])
def test_without_slices_a_plain_network_decides(rival: float) -> None:
    """There are no modes to try."""
    passed, found = pilot(drawn(rival, plain=rival, n_slices=0, is_whole=True))
    assert passed == (rival == 0.3)
    assert [result.name for result in found.tried] == ["ERM, pilot of 300 rows"]


def test_many_slices_are_left_to_gates() -> None:
    """Only a plain network is trained, once; all modes go into the search."""
    passed, found = pilot(drawn(0.99, n_slices=MAX_UNGATED + 1), drawn(1.0, plain=1.0))
    assert passed
    assert found.modes == MODES
    assert [result.name for result in found.tried] == ["ERM, pilot of 300 rows"]


def test_the_score_is_that_of_a_refitted_last_layer() -> None:
    """It is cross-fitted, unlike that of the best epoch."""
    _, found = pilot(drawn(0.3, is_whole=True))
    names = [result.name for result in found.tried]
    forms = ["ERM", *(f"{mode}, last layer refitted" for mode in PILOT_MODES)]
    assert names == [f"{form}, pilot of 300 rows" for form in forms]
    own = {candidate.spec.form: candidate.score.value for candidate in found.known}
    assert any(result.score != own[mode] for mode, result in zip(PILOT_MODES, found.tried[1:], strict=True))


def test_a_round_with_one_class_decides_nothing() -> None:
    """A network that has seen one class is no evidence."""
    of_one = drawn(1.0, plain=1.0)
    train = replace(of_one.task.train, y=np.zeros(300, np.int64))
    passed, found = pilot(replace(of_one, task=replace(of_one.task, train=train)), drawn(0.3, is_whole=True))
    assert passed
    assert found.last is not None
    assert np.ptp(found.last.task.train.y) == 1
