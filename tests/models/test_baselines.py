"""The plain peers, and predicting in chunks."""

import json

import numpy as np
import pytest
import torch
from scipy import sparse

from models.baselines import MLP, PlainClassifier
from models.batches import Batch, FeatureRows, Memberships, predict_in_chunks
from models.errors import ConfigError, DataError
from sfs.matrix import SliceMatrix


def plain() -> PlainClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PlainClassifier(MLP(4, (6, 5)), 3)


def test_memberships_are_ignored() -> None:
    """A plain model predicts the same with and without memberships, and rows sum to 1."""
    model, X = plain(), np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    S = SliceMatrix(("a",), np.ones((7, 1), dtype=bool))
    np.testing.assert_array_equal(model.predict_proba(X, S), model.predict_proba(X))
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)


def test_loss_is_the_weighted_mean() -> None:
    """Each row's cross entropy counts by its weight, over the number of rows."""
    model, X = plain(), torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    y, weight = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 1.0])
    nothing = Memberships(torch.zeros(6, 0), torch.zeros(6, 0, dtype=torch.bool))
    batch = Batch(X, y, nothing, weight, torch.zeros(6, dtype=torch.bool))
    logits = model(X).detach()
    each = [-float(torch.log_softmax(logits[n], dim=0)[y[n]]) for n in range(6)]
    assert model.loss(batch).item() == pytest.approx(sum(w * e for w, e in zip(weight.tolist(), each, strict=True)) / 6)


def test_rebuilt_from_configuration_and_state() -> None:
    """JSON and state are all that a plain model is."""
    model, X = plain(), np.ones((3, 4), dtype=np.float32)
    again = PlainClassifier.from_config(json.loads(json.dumps(model.config())))
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_sparse_and_dense_rows_are_answered_alike() -> None:
    """Feature rows, tensors and arrays of the same numbers have the same predictions."""
    model, X = plain(), np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    hybrid = FeatureRows(X[:, 3:], sparse.csr_matrix(X[:, :3]))
    for same in (FeatureRows(X), torch.from_numpy(X), hybrid):
        np.testing.assert_array_equal(model.predict_proba(same), model.predict_proba(X))


def test_many_rows_are_answered_a_chunk_at_a_time() -> None:
    """No more than 4 million feature values are dense at once, and chunks come in order, without gaps."""
    wide = FeatureRows(np.zeros((25, 0), dtype=np.float32), sparse.csr_matrix((25, 1_000_000), dtype=np.float32))
    parts = []

    def logits(X: torch.Tensor, part: slice) -> torch.Tensor:
        assert X.shape[0] * X.shape[1] <= 4_000_000
        parts.append((part.start, part.stop))
        return torch.arange(part.start, part.stop, dtype=torch.float32)[:, None] * torch.tensor([0.0, 1.0])

    found = predict_in_chunks(wide, 1_000_000, 2, logits)
    assert parts == [(n, min(n + 4, 25)) for n in range(0, 25, 4)]
    np.testing.assert_allclose(found[:, 1], 1 / (1 + np.exp(-np.arange(25.0))))


def test_no_rows_get_no_answers() -> None:
    """No rows have no probabilities, of the right width."""
    assert plain().predict_proba(np.zeros((0, 4), dtype=np.float32)).shape == (0, 3)


def test_other_features_are_refused() -> None:
    """Rows of another width are refused with both numbers."""
    with pytest.raises(DataError, match="reads 4 features, these rows have 5"):
        plain().predict_proba(np.zeros((2, 5), dtype=np.float32))


@pytest.mark.parametrize("widths", [(), (0,), (4, -1)])
def test_a_network_without_units_is_refused(widths: tuple[int, ...]) -> None:
    """No layer, or a layer of no units, is refused."""
    with pytest.raises(ConfigError, match="at least one layer of at least one unit"):
        MLP(3, widths)
