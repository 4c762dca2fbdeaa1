"""The slice residual network: formula, initial state, gradients, and predictions at serving."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from models.baselines import MLP, PlainClassifier
from models.batches import Batch, FeatureRows, Memberships, Split
from models.errors import ConfigError, DataError, ModelError
from models.slice_residual import MODES, SliceResidualClassifier, gate_threshold, kept_slices
from sfs.matrix import SliceMatrix

D, H, K = 6, 5, 3
NAMES = ("a", "b", "c")


def network(mode: str = "blend", num_classes: int = 3, *, trained: bool = True, seed: int = 0, **options):
    """A network whose every parameter is away from its start, as training leaves it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SliceResidualClassifier(MLP(D, (8, H)), H, NAMES, num_classes, mode=mode, **options)
        if trained:
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.5)
    return model


def plain(num_classes: int = 3, seed: int = 0) -> PlainClassifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return PlainClassifier(MLP(D, (8, H)), num_classes)


def rows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32)


def slice_matrix(n: int, unknown: float = 0.0, seed: int = 0) -> SliceMatrix:
    rng = np.random.default_rng(seed)
    missing = rng.random((n, K)) < unknown
    return SliceMatrix(NAMES, (rng.random((n, K)) < 0.5) & ~missing, missing)


def as_tensors(S: SliceMatrix) -> Memberships:
    return Memberships(torch.tensor(S.member, dtype=torch.float32), torch.tensor(~S.unknown))


def batch(n: int = 16, num_classes: int = 3, unknown: float = 0.0, hidden: Tensor | None = None) -> Batch:
    y = torch.from_numpy(np.random.default_rng(1).integers(0, num_classes, n))
    nothing = torch.zeros(n, dtype=torch.bool)
    slices = as_tensors(slice_matrix(n, unknown))
    return Batch(torch.from_numpy(rows(n)), y, slices, torch.ones(n), nothing if hidden is None else hidden)


def literal_logits(model: SliceResidualClassifier, x: np.ndarray, m: list[bool | None]) -> np.ndarray:
    """The formula of one row, one slice and one class at a time."""
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    C, n_slices = model.num_classes, len(m)
    before = state["backbone.first.weight"] @ x + state["backbone.first.bias"]
    if model.mode == "emb":
        for k in range(n_slices):
            share = state["coverage"][k] if m[k] is None else float(m[k])
            before = before + share * state["embedding"][k]
    z = np.maximum(before, 0)
    z = np.maximum(state["backbone.rest.0.weight"] @ z + state["backbone.rest.0.bias"], 0)
    weight, bias = state["heads.weight"], state["heads.bias"]
    base = weight[:C] @ z + bias[:C]
    if model.mode == "emb":
        return base
    logits = base.copy()
    for k in range(n_slices):
        q = weight[C + n_slices * C + k] @ z + bias[C + n_slices * C + k]
        gate = 1 / (1 + np.exp(-q))
        if model.mode == "blend" and m[k] is not None:
            trust = 1 / (1 + np.exp(-state["mix"][k]))
            gate = (1 - trust) * gate + trust * float(m[k])
        for c in range(C):
            residual = weight[C + k * C + c] @ z + bias[C + k * C + c]
            slope = state["slope"][k] if model.mode == "blend" else 0.0
            logits[c] += gate * (slope * base[c] + residual)
    return logits


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_classes", [2, 4])
def test_fused_network_equals_the_formula(mode: str, num_classes: int) -> None:
    """One fused product equals the formula row by row, unknown memberships included."""
    model, X, S = network(mode, num_classes), rows(20), slice_matrix(20, unknown=0.3)
    found = model(torch.from_numpy(X), as_tensors(S)).detach().numpy()
    for n in range(20):
        m = [None if S.unknown[n, k] else bool(S.member[n, k]) for k in range(K)]
        np.testing.assert_allclose(found[n], literal_logits(model, X[n].astype(float), m), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_classes", [2, 3])
def test_start_is_the_plain_network(mode: str, num_classes: int) -> None:
    """Before training, every mode predicts like a plain network of the same seed, for any slices."""
    model, peer, X = network(mode, num_classes, trained=False), plain(num_classes), torch.from_numpy(rows(50))
    assert torch.equal(model.heads.weight[:num_classes], peer.head.weight)
    for S in (None, as_tensors(slice_matrix(50)), as_tensors(slice_matrix(50, unknown=0.5))):
        torch.testing.assert_close(model(X, S), peer(X), rtol=0, atol=1e-6)


def test_indicators_start_at_coverage() -> None:
    """An untrained indicator predicts about the slice's coverage in training, clipped away from 0 and 1."""
    model = network(trained=False, coverage={"a": 0.2, "b": 0.0, "c": 1.0})
    predicted = torch.sigmoid(model.terms(torch.from_numpy(rows(1)), as_tensors(slice_matrix(1))).indicators)
    np.testing.assert_allclose(predicted.detach().numpy()[0], [0.2, 0.001, 0.999], atol=0.002)


@pytest.mark.parametrize("mode", ["blend", "soft"])
def test_task_loss_does_not_teach_the_indicators(mode: str) -> None:
    """The logits have no gradient in the indicator heads, though the gates read them."""
    model, C = network(mode), 3
    given = batch(unknown=0.3)
    torch.nn.functional.cross_entropy(model(given.X, given.slices), given.y).backward()
    gradient = model.heads.weight.grad
    assert torch.count_nonzero(gradient[C + K * C :]) == 0
    assert torch.count_nonzero(gradient[: C + K * C]) > 0


@pytest.mark.parametrize("mode", ["blend", "soft"])
def test_indicator_loss_teaches_the_backbone(mode: str) -> None:
    """With a task loss that weighs nothing, the backbone still learns from the memberships."""
    model, given = network(mode), batch()
    silent = Batch(given.X, given.y, given.slices, torch.zeros(16), given.masked)
    model.loss(silent).backward()
    assert model.backbone.first.weight.grad.abs().max() > 1e-4
    assert torch.count_nonzero(model.heads.weight.grad[: 3 + K * 3]) == 0


@pytest.mark.parametrize("mode", MODES)
def test_every_part_of_every_slice_moves(mode: str) -> None:
    """A few steps move each slice's residual, slope, trust, indicator and embedding away from its start."""
    model = network(mode, trained=False)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        model.loss(batch()).backward()
        optimizer.step()
    own = [item for item in model.named_parameters() if not item[0].startswith("backbone")]
    for name, value in own:
        moved = (value.detach() - start[name]).abs()
        assert bool((moved.reshape(len(moved), -1).amax(dim=1) > 0).all()), name


def test_unknown_memberships_are_not_indicator_targets() -> None:
    """The indicator loss is the mean over known entries only."""
    model, given = network("soft"), batch(unknown=0.4)
    silent = Batch(given.X, given.y, given.slices, torch.zeros(16), given.masked)
    q = model.terms(given.X, given.slices).indicators
    known = given.slices.known
    expected = torch.nn.functional.binary_cross_entropy_with_logits(q[known], given.slices.member[known])
    torch.testing.assert_close(model.loss(silent), expected)


def test_loss_without_any_known_membership_is_the_task_loss() -> None:
    """A batch in which nothing is known has no indicator loss and no NaN."""
    model, given = network(), batch(unknown=1.0)
    expected = torch.nn.functional.cross_entropy(model(given.X, given.slices), given.y)
    torch.testing.assert_close(model.loss(given), expected)


def test_membership_dropout_hides_rows_from_gates_not_from_indicators() -> None:
    """A masked row is unknown to the gates, and still a target of the indicators."""
    everything = torch.ones(16, dtype=torch.bool)
    model, shown, hidden = network(), batch(), batch(hidden=everything)
    terms = model.terms(shown.X, hidden.visible_slices())
    indicator_loss = torch.nn.functional.binary_cross_entropy_with_logits(terms.indicators, shown.slices.member)
    task = torch.nn.functional.cross_entropy(model(shown.X, None), shown.y)
    torch.testing.assert_close(model.loss(hidden), task + indicator_loss)


@pytest.mark.parametrize("mode", ["blend", "soft"])
def test_slice_residuals_add_up(mode: str) -> None:
    """The residuals of the single slices sum to the network's residual."""
    model, given = network(mode), batch(unknown=0.2)
    parts = model.slice_residuals(given.X, given.slices)
    assert parts.shape == (16, K, 3)
    torch.testing.assert_close(parts.sum(dim=1), model.terms(given.X, given.slices).residual)


@pytest.mark.parametrize("mode", MODES)
def test_no_slices_is_the_plain_network(mode: str) -> None:
    """With no slices, or none kept, every mode is its plain part and reads nothing."""
    model, X = network(mode, kept=()), rows(9)
    expected = torch.softmax(model.heads(model.backbone(torch.from_numpy(X))), dim=1).detach().numpy()
    np.testing.assert_allclose(model.predict_proba(X), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(X, slice_matrix(9)), expected, atol=1e-6)
    assert not model.reads_memberships
    assert SliceResidualClassifier(MLP(D, (H,)), H, (), mode=mode).predict_proba(X).shape == (9, 2)


def test_a_row_alone_gets_the_answer_it_gets_in_a_crowd() -> None:
    """Predictions do not depend on other rows, on training mode, or on the order of the matrix's columns."""
    model, X, S = network(), rows(40), slice_matrix(40, unknown=0.2)
    together = model.train().predict_proba(X, S)
    turned = model.eval().predict_proba(X, S.align(("c", "a", "b")))
    alone = np.concatenate([model.predict_proba(X[n : n + 1], S.take([n])) for n in range(40)])
    np.testing.assert_allclose(alone, together, atol=1e-6)
    np.testing.assert_allclose(turned, together, atol=1e-6)
    np.testing.assert_allclose(together.sum(axis=1), 1)


def test_a_missing_slice_is_unknown() -> None:
    """A slice that the matrix lacks counts as unknown in every row, as all do without a matrix."""
    model, X, S = network(), rows(10), slice_matrix(10)
    partial = SliceMatrix(("a", "b"), S.member[:, :2])
    explicit = S.member & np.array([True, True, False])
    missing = np.tile([False, False, True], (10, 1))
    full = SliceMatrix(NAMES, explicit, missing)
    np.testing.assert_array_equal(model.predict_proba(X, partial), model.predict_proba(X, full))
    assert np.abs(model.predict_proba(X, partial) - model.predict_proba(X, S)).max() > 1e-3


def test_unknown_rows_go_to_the_companion() -> None:
    """The companion predicts rows with an unknown kept membership, the network all others."""
    model, companion, X = network(kept=("a", "b")), plain(seed=5), rows(60)
    S = slice_matrix(60, unknown=0.2)
    own = model.predict_proba(X, S)
    model.attach_companion(companion, "companion")
    needs = S.unknown[:, :2].any(axis=1)
    assert 10 < needs.sum() < 50
    found = model.predict_proba(X, S)
    np.testing.assert_allclose(found[needs], companion.predict_proba(X)[needs], atol=1e-6)
    np.testing.assert_allclose(found[~needs], own[~needs], atol=1e-6)
    np.testing.assert_allclose(model.predict_proba(X), companion.predict_proba(X), atol=1e-6)
    model.attach_companion(companion, "impute")
    np.testing.assert_allclose(model.predict_proba(X, S), own, atol=1e-6)


def test_soft_never_needs_the_companion() -> None:
    """A network that reads no memberships at serving never uses the companion."""
    model, X = network("soft"), rows(10)
    own = model.predict_proba(X)
    model.attach_companion(plain(seed=5), "companion")
    np.testing.assert_array_equal(model.predict_proba(X, slice_matrix(10, unknown=0.5)), own)


@pytest.mark.parametrize("mode", MODES)
def test_configuration_and_state_carry_everything(mode: str) -> None:
    """A network rebuilt from JSON and its state predicts the same, with refit, gate, companion and coverage."""
    model = network(mode, kept=("a", "c"), coverage={"a": 0.1, "c": 0.3})
    n_features = model.refit_features(model.terms(torch.from_numpy(rows(1)), _of_kept(model, slice_matrix(1))))
    weight = np.random.default_rng(3).normal(size=(3, n_features.shape[1]))
    model.attach_refit(weight, np.zeros(3))
    model.attach_companion(plain(seed=5), "companion")
    again = SliceResidualClassifier.from_config(json.loads(json.dumps(model.config())))
    again.load_state_dict(model.state_dict())
    X, S = rows(30), slice_matrix(30, unknown=0.2)
    np.testing.assert_array_equal(again.predict_proba(X, S), model.predict_proba(X, S))
    assert again.config() == model.config()


def test_refit_answers_in_place_of_the_heads() -> None:
    """After a refit, logits are the refitted layer on hidden units, residual and logits against class 0."""
    model, given = network(num_classes=2), batch(num_classes=2)
    terms = model.terms(given.X, given.slices)
    features = model.refit_features(terms)
    residual, logits = terms.residual, terms.base + terms.residual
    by_hand = torch.cat([terms.hidden, (residual[:, 1] - residual[:, 0])[:, None]], dim=1)
    torch.testing.assert_close(features[:, : H + 1], by_hand)
    torch.testing.assert_close(features[:, H + 1], logits[:, 1] - logits[:, 0])
    model.attach_refit(np.array([np.zeros(H + 2), [*np.zeros(H + 1), 2.0]]), np.array([0.0, 1.0]))
    refitted = model(given.X, given.slices)
    torch.testing.assert_close(refitted[:, 1], 2 * (logits[:, 1] - logits[:, 0]) + 1)


def test_many_threads_get_the_same_answers() -> None:
    """Predicting changes nothing in the network, so threads do not disturb each other."""
    model, X, S = network(), rows(300), slice_matrix(300, unknown=0.1)
    model.attach_companion(plain(seed=5), "companion")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = model.predict_proba(X, S)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: model.predict_proba(X, S), range(12)))
    assert all(np.array_equal(answer, expected) for answer in answers)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_bad_numbers_are_named() -> None:
    """A NaN feature is an error that names its row, never a NaN probability."""
    X = rows(5)
    X[3, 2] = np.nan
    for model in (network(), plain()):
        with pytest.raises(ModelError, match="row 3 is not finite"):
            model.predict_proba(X)


def test_bad_shapes_are_named() -> None:
    """Rows of other features, or a slice matrix of other rows, are refused."""
    with pytest.raises(DataError, match="reads 6 features, these rows have 4"):
        network().predict_proba(rows(5)[:, :4])
    with pytest.raises(DataError, match="4 rows, the features 5"):
        network().predict_proba(rows(5), slice_matrix(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "hard"}, "mode must be one of blend, soft, emb, got 'hard'"),
        ({"kept": ("z",)}, "kept slice 'z' is not among"),
    ],
)
def test_impossible_networks_are_refused(options: dict, message: str) -> None:
    """An unknown mode or kept slice is a clear error."""
    with pytest.raises(ConfigError, match=message):
        network(**options)


def test_head_dim_and_names_are_checked() -> None:
    """head_dim must be the backbone's width, and names must differ."""
    with pytest.raises(ConfigError, match="head_dim is 7, but the backbone gives 5"):
        SliceResidualClassifier(MLP(D, (H,)), 7, NAMES)
    with pytest.raises(ConfigError, match="must be distinct"):
        SliceResidualClassifier(MLP(D, (H,)), H, ("a", "a"))


def _of_kept(model: SliceResidualClassifier, S: SliceMatrix) -> Memberships:
    return as_tensors(S.align(model.kept))


N, MANY = 500, 30


def planted() -> tuple[SliceResidualClassifier, Split]:
    """A network whose slice 4 corrects its members' labels, slice 9 spoils them, and the others add noise."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, 2)).astype(np.float32)
    member = rng.random((N, MANY)) < 0.2
    y = (X[:, 0] > 0).astype(np.int64) ^ member[:, 4]
    names = [f"slice {k}" for k in range(MANY)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SliceResidualClassifier(MLP(2, (8,)), 8, names)
        with torch.no_grad():
            for width in (model.backbone.first, model.heads):
                width.weight.normal_(std=0.05), width.bias.zero_()
            model.backbone.first.weight[0], model.backbone.first.weight[1] = torch.eye(2)[0], -torch.eye(2)[0]
            model.backbone.first.weight[2:, 0], model.heads.weight[:, :2] = 0.0, 0.0
            model.heads.weight[0, :2], model.heads.weight[1, :2] = torch.tensor([[-3.0, 3.0], [3.0, -3.0]])
            model.heads.bias[2 + 2 * MANY :] = -4.0
            model.mix.fill_(4.0)
            model.slope[4], model.slope[9] = -2.0, -2.0
    return model, Split(FeatureRows(X), y, SliceMatrix(names, member))


def literal_keep(model: SliceResidualClassifier, valid: Split) -> tuple[str, ...]:
    """The rule one slice at a time: the network without the slice, by leaving out its residual."""
    X, member = valid.X.take(slice(None)), torch.tensor(valid.S.member, dtype=torch.float32)
    slices = Memberships(member, torch.ones_like(member, dtype=torch.bool))
    with torch.no_grad():
        logits, parts = model(X, slices).double(), model.slice_residuals(X, slices).double()
    rows = np.arange(len(valid))
    kept = []
    for k, name in enumerate(model.kept):
        with_slice = -logits.log_softmax(dim=1).numpy()[rows, valid.y]
        without = -(logits - parts[:, k]).log_softmax(dim=1).numpy()[rows, valid.y]
        gain = without - with_slice
        if gain.sum() > gate_threshold(MANY) * np.sqrt((gain**2).sum()):
            kept.append(name)
    return tuple(kept)


def test_threshold_lets_about_three_useless_slices_through() -> None:
    """The threshold is the normal quantile of 1 - 3 / K, and never below zero."""
    assert round(gate_threshold(100), 2) == 1.88
    assert round(gate_threshold(21), 2) == 1.07
    assert gate_threshold(2) == gate_threshold(6) == 0.0


def test_useful_slice_stays_and_harmful_one_goes() -> None:
    """The planted slice passes, the spoiling one does not, and of 28 useless ones only a few do."""
    model, valid = planted()
    kept = kept_slices(model, valid)
    assert "slice 4" in kept
    assert "slice 9" not in kept
    assert len(kept) <= 7


def test_gate_equals_the_literal_rule() -> None:
    """Chunks and fused residuals equal the rule applied one slice at a time."""
    model, valid = planted()
    assert kept_slices(model, valid) == literal_keep(model, valid)
