"""The fast form of a network: the probabilities of the network itself, whatever the rows are."""

import numpy as np
import pytest
import torch
from scipy import sparse

from models import batches
from models import inference as module
from models.baselines import MLP, PlainClassifier
from models.batches import FeatureRows
from models.errors import DataError, ModelError
from models.inference import inference
from models.slice_aware import AttentiveClassifier
from models.slice_residual import MODES, SliceResidualClassifier
from models.sparse_rows import SparseRows
from sfs.matrix import SliceMatrix

D, H, K, N = 9, 5, 3, 40
NAMES = ("a", "b", "c")
WIDTH = 6  # of the sparse block


def weights(model: torch.nn.Module, seed: int = 0) -> None:
    """Give every parameter a value away from its start, as a training does."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)


def plain(classes: int = 3) -> PlainClassifier:
    model = PlainClassifier(MLP(D, (8, H)), classes)
    weights(model)
    return model


def residual(mode: str, refit: bool, kept: tuple[str, ...] = NAMES) -> SliceResidualClassifier:
    model = SliceResidualClassifier(MLP(D, (8, H)), H, NAMES, 3, mode=mode, kept=kept)
    weights(model)
    if refit:
        random = np.random.default_rng(1)
        features = H + 2 * (1 if mode == "emb" else 2)
        model.attach_refit(random.normal(size=(3, features)), random.normal(size=3))
    return model


def features(n: int = N, kind: str = "rows of a request") -> FeatureRows:
    random = np.random.default_rng(2)
    block = np.where(random.random((n, WIDTH)) < 0.3, random.normal(size=(n, WIDTH)), 0).astype(np.float32)
    dense = random.normal(size=(n, D - WIDTH)).astype(np.float32)
    if kind == "dense":
        return FeatureRows(np.hstack([block, dense]))
    if kind == "table":
        return FeatureRows(dense, sparse.csr_matrix(block))
    at, columns = np.nonzero(block)
    return FeatureRows(dense, [SparseRows(n, WIDTH, at, columns, block[at, columns])])


def slices(unknown: float, names: tuple[str, ...] = NAMES, n: int = N) -> SliceMatrix:
    random = np.random.default_rng(3)
    missing = random.random((n, len(names))) < unknown
    return SliceMatrix(names, (random.random((n, len(names))) < 0.5) & ~missing, missing)


MEMBERSHIPS = {
    "all known": slices(0.0),
    "some unknown": slices(0.4),
    "in another order": slices(0.4, ("c", "x", "a", "b")),
    "one not there": slices(0.0, ("b", "a")),
    "none": None,
}


@pytest.mark.parametrize("S", MEMBERSHIPS.values(), ids=MEMBERSHIPS)
@pytest.mark.parametrize("kept", [NAMES, ("c", "a"), ()], ids=["all kept", "two kept", "none kept"])
@pytest.mark.parametrize("refit", [False, True], ids=["", "refitted"])
@pytest.mark.parametrize("mode", MODES)
def test_it_predicts_as_the_slice_residual_network(
    mode: str, refit: bool, kept: tuple[str, ...], S: SliceMatrix | None
) -> None:
    """In every mode, with a refitted last layer, and whatever memberships are known."""
    network = residual(mode, refit, kept)
    np.testing.assert_allclose(
        inference(network).predict_proba(features(), S), network.predict_proba(features(), S), atol=1e-6
    )


@pytest.mark.parametrize("unknown_rows", ["companion", "impute"])
@pytest.mark.parametrize("mode", MODES)
def test_indicators_are_those_of_the_network(mode: str, unknown_rows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In chunks and with unknown memberships, beside the same probabilities; ``emb`` has no indicators."""
    network, S, X = residual(mode, True, ("c", "a")), slices(0.4), features()
    network.attach_companion(plain(), unknown_rows)  # type: ignore[arg-type]
    monkeypatch.setattr(module, "CHUNK_NUMBERS", 7 * network.heads.out_features)
    fast = inference(network)
    P, inside = fast.predict_indicated(X, S)
    assert fast.indicated == (() if mode == "emb" else ("c", "a"))
    with torch.no_grad():
        terms = network.terms(X.take(slice(0, N)), batches.memberships(S, network.kept, N))
    assert (inside == (terms.indicators > 0).numpy()).all()
    np.testing.assert_array_equal(P, fast.predict_proba(X, S))


def test_indicators_of_the_slice_aware_network() -> None:
    """Of all slices, without the base slice."""
    network = AttentiveClassifier(MLP(D, (8, H)), NAMES, 3)
    weights(network)
    P, inside = inference(network).predict_indicated(features(), slices(0.4))
    with torch.no_grad():
        heads = network.network.heads(features().take(slice(0, N)))
    assert (inside == (heads.membership[:, :K] > 0).numpy()).all()
    np.testing.assert_array_equal(P, network.predict_proba(features()))


def test_a_plain_network_has_no_indicators() -> None:
    """An empty column for none."""
    fast = inference(plain())
    assert fast.indicated == ()
    assert fast.predict_indicated(features(), slices(0.0))[1].shape == (N, 0)


@pytest.mark.parametrize("S", MEMBERSHIPS.values(), ids=MEMBERSHIPS)
@pytest.mark.parametrize("unknown_rows", ["companion", "impute"])
def test_rows_with_an_unknown_membership_go_to_the_companion(S: SliceMatrix | None, unknown_rows: str) -> None:
    """As in the network: these rows alone, and none where they are imputed."""
    network = residual("blend", False, ("a", "c"))
    companion = plain()
    weights(companion, seed=9)
    network.attach_companion(companion, unknown_rows)  # type: ignore[arg-type]
    expected = network.predict_proba(features(), S)
    np.testing.assert_allclose(inference(network).predict_proba(features(), S), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["rows of a request", "table", "dense"])
@pytest.mark.parametrize("n", [0, 1, N])
def test_every_form_of_rows_is_read(kind: str, n: int) -> None:
    """Also no row at all."""
    network = plain()
    P = inference(network).predict_proba(features(n, kind))
    assert P.shape == (n, 3)
    np.testing.assert_allclose(P, network.predict_proba(features(n, kind)), atol=1e-6)


@pytest.mark.parametrize("kind", ["rows of a request", "table", "dense"])
def test_many_rows_are_predicted_in_chunks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks have the memberships of their rows."""
    network, S = residual("blend", False), slices(0.4)
    whole = inference(network).predict_proba(features(kind=kind), S)
    monkeypatch.setattr(module, "CHUNK_NUMBERS", 7 * network.heads.out_features)
    np.testing.assert_allclose(inference(network).predict_proba(features(kind=kind), S), whole, atol=1e-6)


def test_many_entries_are_multiplied_as_a_sparse_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same result."""
    few = inference(plain()).predict_proba(features())
    monkeypatch.setattr("models.sparse_rows._FEW", 0)
    np.testing.assert_allclose(inference(plain()).predict_proba(features()), few, atol=1e-6)


def test_one_row_has_one_answer() -> None:
    """Alone and beside others."""
    fast, S, X = inference(residual("blend", True)), slices(0.4), features(kind="table")
    together = fast.predict_proba(X, S)
    alone = [fast.predict_proba(X.subset(np.array([k])), S.take([k]))[0] for k in range(N)]
    np.testing.assert_allclose(alone, together, atol=1e-6)


@pytest.mark.parametrize("widths", [(8, H), (1,)], ids=["", "one unit"])
def test_the_weights_are_read_once(widths: tuple[int, ...]) -> None:
    """A later change of the network has no effect."""
    network = PlainClassifier(MLP(D, widths), 3)
    weights(network)
    fast = inference(network)
    before = fast.predict_proba(features())
    weights(network, seed=7)
    np.testing.assert_array_equal(fast.predict_proba(features()), before)


def test_a_network_without_a_fast_form_is_used_itself() -> None:
    """Such as the attentive one."""
    network = AttentiveClassifier(MLP(D, (8, H)), NAMES, 3)
    assert inference(network) is network


def test_rows_that_do_not_fit_are_refused() -> None:
    """Other features, and memberships of other rows."""
    fast = inference(residual("blend", False))
    with pytest.raises(DataError, match="the model reads 9 features, these rows have 4"):
        fast.predict_proba(FeatureRows(np.zeros((1, 4), dtype=np.float32)))
    with pytest.raises(DataError, match="the slice matrix has 2 rows, the features 40"):
        fast.predict_proba(features(), slices(0.0, n=2))


def test_an_output_that_is_not_finite_is_an_error() -> None:
    """It names the row."""
    dense = np.zeros((5, D), dtype=np.float32)
    dense[3, 0] = np.nan
    with pytest.raises(ModelError, match="for row 3 is not finite"):
        inference(residual("blend", False)).predict_proba(FeatureRows(dense))
