"""The slice-aware classifier."""

import json
import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.baselines import MLP
from models.batches import Batch, FeatureRows, Memberships, shuffled_batches
from models.dataset import DictDataLoader, DictDataset, SliceTargets
from models.errors import ConfigError, DataError, ModelError
from models.scoring import Scorer
from models.slice_aware import AttentiveClassifier, SliceAwareClassifier
from models.trainer import Trainer, fit, seeded
from models.trainer_config import TrainerConfig
from sfs.matrix import SliceMatrix

NAMES = ("flipped", "half", "tail")
MODES = [
    {"expert_rank": 3},
    {"expert_rank": None},
    {"attention": "snorkel"},
    {"attention": "snorkel", "expert_rank": 3},
]


def make(names=NAMES, seed: int = 1, **options) -> SliceAwareClassifier:
    with seeded(seed):
        return SliceAwareClassifier(nn.Sequential(nn.Linear(6, 8), nn.ReLU()), 8, list(names), **options)


def shake(model: nn.Module) -> None:
    """Move every weight far from its start."""
    with seeded(7), torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))


def dot(weights: list[float], values: list[float]) -> float:
    return sum(w * v for w, v in zip(weights, values, strict=True))


def linear(layer: nn.Linear, values: list[float]) -> list[float]:
    return [dot(w, values) + b for w, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)]


def literal(model: SliceAwareClassifier, x: Tensor) -> tuple[list[float], list[float]]:
    """Attention and probabilities of one row, with scalars and loops only."""
    z = model.base_architecture(x.unsqueeze(0))[0].tolist()
    represent = model.experts.represent(torch.tensor([z]))[0].tolist()  # checked on its own in test_experts
    relevance = []
    for s, r in enumerate(represent):
        answers = linear(model.expert_head, r)
        top = sum(math.exp(a) for a in answers)
        probabilities = [math.exp(a) / top for a in answers]
        I, i = model.indicators.weight.tolist(), model.indicators.bias.tolist()  # noqa: E741
        C = len(answers)
        if model.attention_kind == "snorkel":
            outside, inside = dot(I[2 * s], z) + i[2 * s], dot(I[2 * s + 1], z) + i[2 * s + 1]
            member = math.exp(inside) / (math.exp(outside) + math.exp(inside))
            relevance.append(member * probabilities[1] / model.temperature)
        else:
            confidence = (C * max(probabilities) - 1) / (C - 1)
            relevance.append((dot(I[s], z) + i[s]) * confidence / model.temperature)
    total = sum(math.exp(value) for value in relevance)
    attention = [math.exp(value) / total for value in relevance]
    mixed = [dot(attention, column) for column in zip(*represent, strict=True)]
    logits = linear(model.head, mixed)
    top = sum(math.exp(value) for value in logits)
    return attention, [math.exp(value) / top for value in logits]


@pytest.mark.parametrize("options", [*MODES, {"num_classes": 4}], ids=str)
def test_fused_equals_the_literal_twin(sliced, options) -> None:
    """Attention and probabilities are those of the formulas, row by row and slice by slice."""
    model = make(**options)
    with seeded(7), torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    X = sliced.X[:10]
    attention, probabilities = model.slice_attention(X), model.predict_proba(X)
    for row, x in enumerate(X):
        slow_attention, slow_probabilities = literal(model, x)
        assert attention[row] == pytest.approx(slow_attention, rel=1e-3, abs=1e-5)
        assert probabilities[row] == pytest.approx(slow_probabilities, rel=1e-3, abs=1e-5)


def parts(model: SliceAwareClassifier) -> dict[str, Tensor]:
    """Every slice's own weights by name, as views."""
    S = len(model.slice_names) + 1
    named = {f"experts.{k}": v for k, v in model.experts.named_parameters()}
    named |= {f"indicators.{k}": v for k, v in model.indicators.named_parameters()}
    return {f"{k}[{s}]": v.view(S, -1)[s] for k, v in named.items() for s in range(S)}


@pytest.mark.parametrize("options", MODES, ids=str)
def test_every_expert_head_and_indicator_learns(sliced, options) -> None:
    """Each has a gradient on the first step, and none is where it began after training."""
    model = make(**options)
    model.loss(sliced.X, sliced.y, sliced.S).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        rows = parameter.grad.view(len(NAMES) + 1, -1) if "experts" in name or "indic" in name else parameter.grad[None]
        assert (rows.abs().amax(dim=1) > 0).all(), name
    before = {name: value.clone() for name, value in parts(model).items()}
    heads = {name: p.clone() for name, p in model.named_parameters()}
    train(model, sliced, n_epochs=2)
    assert [name for name, value in parts(model).items() if torch.equal(value, before[name])] == []
    assert [name for name, p in model.named_parameters() if torch.equal(p, heads[name])] == []


def train(model: SliceAwareClassifier, rows, **options) -> None:
    fit(
        model,
        lambda g: shuffled_batches(len(rows.y), 50, g),
        lambda p: model.loss(rows.X[p], rows.y[p], rows.S.take(p)),
        TrainerConfig(**options),
    )


@pytest.mark.parametrize("options", MODES, ids=str)
def test_permuting_slices_permutes_the_attention_and_nothing_else(sliced, options) -> None:
    """The same weights in another order of slices give the same predictions and losses."""
    model, other = make(**options), make([NAMES[k] for k in (2, 0, 1)], **options)
    shake(model)
    order = [2, 0, 1, 3]  # the base slice stays last
    state = {}
    for name, value in model.state_dict().items():
        stacked = name.startswith(("experts.", "indicators."))
        state[name] = value.view(4, -1)[order].view(value.shape) if stacked else value
    other.load_state_dict(state)
    assert other.slice_attention(sliced.X) == pytest.approx(model.slice_attention(sliced.X)[:, order], abs=1e-6)
    assert other.predict_proba(sliced.X) == pytest.approx(model.predict_proba(sliced.X), abs=1e-5)
    losses = [m.loss(sliced.X, sliced.y, sliced.S).item() for m in (model, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_names_that_extend_one_another_change_nothing(sliced) -> None:
    """In Snorkel renaming a slice to short_link crossed the experts; here names never reach a computation."""
    plain, awkward = ["a", "b", "c"], ["short", "short_link", "short_ind"]
    answers = []
    for names in (plain, awkward):
        model = make(names)
        renamed = sliced._replace(S=SliceMatrix(names, sliced.S.member))
        train(model, renamed, n_epochs=2)
        answers.append(model.predict_proba(sliced.X))
    assert np.array_equal(*answers)


@pytest.mark.parametrize("name", ["a.b", "a/b", "base", "task", "x_pred", "ü 🎉"])
def test_any_name_will_do(sliced, name: str) -> None:
    """Dots, slashes, and words that the network uses itself are names like any other."""
    model = make([name])
    S = SliceMatrix([name], sliced.S.member[:, :1])
    loader = model.make_slice_dataloader(DictDataset.from_tensors(sliced.X, sliced.y, "train"), S, batch_size=50)
    Trainer(n_epochs=1).fit(model, [loader])
    frame = model.score_slices([loader], as_dataframe=True)
    assert f"task_slice:{name}_pred" in set(frame["label"])


@pytest.mark.parametrize("options", MODES, ids=str)
def test_no_slices_is_a_plain_network_with_one_expert(sliced, options) -> None:
    """K = 0 trains and predicts; all attention is the base slice's."""
    model = make([], **options)
    train(model, sliced._replace(S=SliceMatrix.empty(200)), n_epochs=1)
    assert np.array_equal(model.slice_attention(sliced.X), np.ones((200, 1), dtype=np.float32))
    assert model.predict_proba(sliced.X).shape == (200, 2)


def test_features_that_are_not_finite_are_refused(sliced) -> None:
    """NaN names its row instead of giving NaN probabilities, and probabilities are float64 that sum to 1."""
    model = make()
    probabilities = model.predict_proba(sliced.X)
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-12)
    X = sliced.X.clone()
    X[7, 0] = math.nan
    with pytest.raises(ModelError, match="output of the network for row 7 is not finite"):
        model.predict_proba(X)


def test_slices_help_where_the_label_flips(sliced) -> None:
    """After training, the members of the flipped slice are predicted well, and attend to its expert."""
    model = make()
    train(model, sliced, n_epochs=60, lr=0.02)
    members = sliced.S.column("flipped")
    right = model.predict_proba(sliced.X).argmax(axis=1) == sliced.y.numpy()
    attention = model.slice_attention(sliced.X)[:, 0]
    assert right[members].mean() >= 0.9
    assert attention[members].mean() > 2 * attention[~members].mean()


def test_unknown_memberships_teach_nothing(sliced) -> None:
    """A slice that is unknown in every row leaves its indicator and expert without slice losses."""
    model = make()
    S = SliceMatrix(NAMES[:2], sliced.S.member[:, :2])  # no 'tail'
    nothing = np.zeros((200, 1), dtype=bool)
    spelled = SliceMatrix(NAMES, np.hstack([S.member, nothing]), np.hstack([np.zeros((200, 2), bool), ~nothing]))
    assert model.loss(sliced.X, sliced.y, S).item() == model.loss(sliced.X, sliced.y, spelled).item()
    negative = SliceMatrix(NAMES, np.hstack([S.member, nothing]))
    assert model.loss(sliced.X, sliced.y, negative).item() != model.loss(sliced.X, sliced.y, S).item()


def test_row_weights_act_on_the_base_loss(sliced) -> None:
    """Equal weights of 1 change nothing; twice the weight adds the base loss once more."""
    model = make()
    plain, once, twice = (
        model.loss(sliced.X, sliced.y, sliced.S, weights).item()
        for weights in (None, torch.ones(200), torch.full((200,), 2.0))
    )
    base = torch.nn.functional.cross_entropy(model(sliced.X), sliced.y).item()
    assert once == pytest.approx(plain, rel=1e-6)
    assert twice - once == pytest.approx(base, rel=1e-4)


def test_memberships_are_taken_by_name(sliced) -> None:
    """The matrix's order does not matter."""
    model = make()
    turned = sliced.S.align(["tail", "flipped", "half"])
    first, second = (model.loss(sliced.X, sliced.y, S).item() for S in (sliced.S, turned))
    assert first == second


def test_snorkels_indicator_of_everyone_is_taught_too(sliced) -> None:
    """Snorkel trains the base slice's indicator on a constant; the symmetric form does not."""
    for attention, taught in (("snorkel", True), ("symmetric", False)):
        model = make([], attention=attention)
        dataset = DictDataset.from_tensors(sliced.X, sliced.y, "train")
        loader = model.make_slice_dataloader(dataset, SliceMatrix.empty(200), batch_size=200)
        losses, _ = model.calculate_loss(*next(iter(loader)))
        assert (losses["task_indicators"].item() > 0) is taught


def test_unknown_labels_are_left_out(sliced) -> None:
    """Rows labelled -1 at Snorkel's door change neither the base nor the experts' loss."""
    model = make()
    y = sliced.y.clone()
    y[100:] = -1
    parts_of = {}
    for size, labels in ((200, y), (100, sliced.y[:100])):
        dataset = DictDataset.from_tensors(sliced.X[:size], labels, "train")
        loader = model.make_slice_dataloader(dataset, sliced.S.take(slice(0, size)), batch_size=size)
        parts_of[size], counts = model.calculate_loss(*next(iter(loader)))
        assert counts["task"] == 100
    for part in ("task", "task_experts"):
        assert parts_of[200][part].item() == pytest.approx(parts_of[100][part].item(), rel=1e-5)


def test_probabilities_and_class_weights_reach_all_losses(sliced) -> None:
    """Snorkel dropped loss functions on slicing: soft labels and class weights act on base and experts."""
    hard, weighted = make(num_classes=2), make(num_classes=2, class_weights=[1.0, 3.0])
    soft = torch.nn.functional.one_hot(sliced.y, 2).float()
    dataset = DictDataset.from_tensors(sliced.X, sliced.y, "train")
    softened = DictDataset.from_tensors(sliced.X, soft, "train")
    losses = [
        m.calculate_loss(*next(iter(m.make_slice_dataloader(d, sliced.S, batch_size=200))))[0]
        for m, d in ((hard, dataset), (hard, softened), (weighted, dataset))
    ]
    for part in ("task", "task_experts"):
        assert losses[1][part].item() == pytest.approx(losses[0][part].item(), rel=1e-5)
        assert losses[2][part].item() > 1.2 * losses[0][part].item()


@pytest.mark.parametrize("kind", ["tensor", "array", "rows"])
def test_predictions_need_no_labels(sliced, kind: str) -> None:
    """Features alone are enough, however they are held, and rows sum to 1."""
    held = {"tensor": sliced.X, "array": sliced.X.numpy(), "rows": FeatureRows(sliced.X.numpy())}[kind]
    probabilities = make(num_classes=3).predict_proba(held)
    assert probabilities.shape == (200, 3)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(200), abs=1e-5)


def test_predictions_do_not_depend_on_the_batch(sliced) -> None:
    """A row's class is the same alone and among others, and predicting leaves the mode as it was."""
    model = make()
    model.train()
    together = model.predict_proba(sliced.X)
    alone = np.concatenate([model.predict_proba(x.unsqueeze(0)) for x in sliced.X])
    assert alone == pytest.approx(together, abs=1e-6)
    assert model.training
    assert model.predict_proba(sliced.X[:0]).shape == (0, 2)


def test_the_configuration_and_weights_make_it_again(sliced, tmp_path: Path) -> None:
    """config() is JSON, and with the saved weights gives the same network; folders are made."""
    model = make(attention="snorkel", class_weights=[1, 2], task_name="spam")
    config = json.loads(json.dumps(model.config()))
    again = SliceAwareClassifier.from_config(config, nn.Sequential(nn.Linear(6, 8), nn.ReLU()))
    path = tmp_path / "deep" / "er" / "model.safetensors"
    model.save(path)
    again.load(path)
    assert again.config() == model.config()
    assert np.array_equal(again.predict_proba(sliced.X), model.predict_proba(sliced.X))


def test_a_bare_file_name_can_be_saved_to(sliced, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Snorkel's save failed for a name without a folder."""
    monkeypatch.chdir(tmp_path)
    make().save("model.safetensors")
    assert (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["a", "a"]}, "distinct names"),
        ({"names": "ab"}, "distinct names"),
        ({"num_classes": 1}, "at least 2, got 1"),
        ({"expert_rank": 0}, "expert_rank must be at least 1"),
        ({"expert_rank": "full"}, "expert_rank must be at least 1, or None for full rank, got 'full'"),
        ({"attention": "paper"}, "must be 'symmetric' or 'snorkel', got 'paper'"),
        ({"attention": "snorkel", "num_classes": 3}, "requires two classes, got 3: use 'symmetric'"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"class_weights": [1.0]}, "2 entries, got 1"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(options, message: str) -> None:
    """The message names the value and the remedy."""
    names = options.pop("names", NAMES)
    with pytest.raises(ConfigError, match=message), seeded(0):
        SliceAwareClassifier(nn.Linear(6, 8), 8, names, **options)


def test_a_matrix_of_other_rows_is_refused(sliced) -> None:
    """Each loss comes with its number of rows."""
    with pytest.raises(DataError, match="slice matrix has 200 rows and the batch 10"):
        make().loss(sliced.X[:10], sliced.y[:10], sliced.S)


def build(sliced, names=("flipped", "half", "tail"), task: str = "task", S: SliceMatrix | None = None):
    """A fresh classifier with its loader of split 'test'."""
    with seeded(1):
        model = SliceAwareClassifier(nn.Linear(6, 8), 8, list(names), task_name=task)
    dataset = DictDataset.from_tensors(sliced.X, sliced.y, "test", task_name=task)
    matrix = S or SliceMatrix(names, sliced.S.member)
    return model, model.make_slice_dataloader(dataset, matrix, batch_size=64)


def test_slices_are_scored_by_the_final_prediction(sliced) -> None:
    """Every slice's accuracy is that of predict_proba on its members."""
    model, loader = build(sliced)
    scores = model.score_slices([loader])
    right = model.predict_proba(sliced.X).argmax(axis=1) == sliced.y.numpy()
    assert scores["task/SnorkelDataset/test/accuracy"] == pytest.approx(right.mean())
    assert scores["task_slice:base_pred/SnorkelDataset/test/accuracy"] == pytest.approx(right.mean())
    for name in sliced.S.names:
        expected = right[sliced.S.column(name)].mean()
        assert scores[f"task_slice:{name}_pred/SnorkelDataset/test/accuracy"] == pytest.approx(expected)
    assert not any(key.split("/")[0].endswith("_ind") for key in scores)


def test_an_empty_slice_is_a_value(sliced) -> None:
    """In Snorkel one slice without members ended the whole call: here its scores are None."""
    member = sliced.S.member.copy()
    member[:, 2] = False
    model, loader = build(sliced, S=SliceMatrix(sliced.S.names, member))
    model.scorer = Scorer(metrics=["accuracy", "f1", "roc_auc"])
    for scores in (model.score_slices([loader]), model.score([loader])):
        for metric in model.scorer.metrics:
            assert scores[f"task_slice:tail_pred/SnorkelDataset/test/{metric}"] is None
            assert scores[f"task/SnorkelDataset/test/{metric}"] is not None


@pytest.mark.parametrize("task", ["kind", "prediction", "ind", "pred"])
def test_labels_are_told_apart_whole(sliced, task: str) -> None:
    """Snorkel looked for 'ind' and 'pred' anywhere in a name: tasks and slices may contain both."""
    names = ("pred_high", "wind", "x_ind")
    model, loader = build(sliced, names, task)
    labels = {key.split("/")[0] for key in model.score_slices([loader])}
    assert labels == {task} | {f"{task}_slice:{name}_pred" for name in (*names, "base")}


def test_a_frame_holds_any_name(sliced) -> None:
    """A slash in a name breaks nothing."""
    model, loader = build(sliced, ("a/b", "c.d", "e"))
    frame = model.score_slices([loader], as_dataframe=True)
    assert list(frame.columns) == ["label", "dataset", "split", "metric", "score"]
    assert "task_slice:a/b_pred" in set(frame["label"])


def test_score_asks_every_head_for_its_own_label(sliced) -> None:
    """Indicators are scored by F1 on memberships, experts on their members."""
    model, loader = build(sliced)
    scores = model.score([loader])
    answers = model.predict(loader, return_preds=True)
    said, member = answers["preds"]["task_slice:half_ind"].numpy() == 1, sliced.S.column("half")
    expected = 2 * (said & member).sum() / (said.sum() + member.sum())
    assert scores["task_slice:half_ind/SnorkelDataset/test/f1"] == pytest.approx(expected)
    members = answers["golds"]["task_slice:half_pred"] != -1
    right = (answers["preds"]["task_slice:half_pred"] == sliced.y)[members].numpy()
    assert scores["task_slice:half_pred/SnorkelDataset/test/accuracy"] == pytest.approx(right.mean())


def test_labels_can_be_left_out_and_answered_by_others(sliced) -> None:
    """A label mapped to None is not scored; one mapped to the task is scored by the task's head."""
    model, loader = build(sliced)
    remap = dict.fromkeys(loader.dataset.Y_dict) | {"task_slice:half_pred": "task"}
    answers = model.predict(loader, remap_labels=remap)
    assert list(answers["probs"]) == ["task_slice:half_pred"]
    assert answers["probs"]["task_slice:half_pred"].numpy() == pytest.approx(model.predict_proba(sliced.X), abs=1e-6)


def test_labels_of_any_name_are_predicted_by_the_head_they_are_mapped_to(sliced) -> None:
    """As in Snorkel; a loader that has other labels too gives those that are mapped, and unmapped ones are ignored."""
    model, loader = build(sliced)
    renamed = DictDataset("d", "test", {"input_data": sliced.X}, {"gold": sliced.y, "other": sliced.y})
    remap = {"gold": "task"}
    scores = model.score([DictDataLoader(renamed, batch_size=64)], remap_labels=remap)
    assert list(scores) == ["gold/d/test/accuracy", "gold/d/test/f1"]
    assert scores["gold/d/test/f1"] == model.score([loader])["task/SnorkelDataset/test/f1"]
    assert set(model.predict(DictDataLoader(renamed), remap_labels=remap)["golds"]) == {"gold"}
    assert model.score([loader], remap_labels=dict.fromkeys(loader.dataset.Y_dict)) == {}


def test_predictions_are_float_tensors(sliced) -> None:
    """As in Snorkel golds, probabilities and classes can be computed with."""
    model, loader = build(sliced)
    answers = model.predict(loader, return_preds=True)
    for part, shape in {"golds": (200,), "probs": (200, 2), "preds": (200,)}.items():
        assert {(values.dtype, values.shape) for values in answers[part].values()} == {(torch.float32, shape)}
    assert (answers["preds"]["task"] == answers["golds"]["task"]).float().mean() == pytest.approx(
        model.score([loader])["task/SnorkelDataset/test/accuracy"]
    )


def test_a_head_that_does_not_exist_is_named(sliced) -> None:
    """Mapping a label to nothing known is an error."""
    model, loader = build(sliced)
    with pytest.raises(DataError, match="unknown task 'spam'"):
        model.score([loader], remap_labels={"task": "spam"})


def test_predictions_without_labels(sliced) -> None:
    """A loader without any label gives the task's probabilities, where Snorkel gave nothing."""
    model, _ = build(sliced)
    bare = DictDataLoader(DictDataset("d", "test", {"input_data": sliced.X}, {}), batch_size=64)
    answers = model.predict(bare, return_preds=True)
    assert answers["golds"] == {}
    assert answers["probs"]["task"].numpy() == pytest.approx(model.predict_proba(sliced.X), abs=1e-6)
    assert answers["preds"]["task"].shape == (200,)


def test_near_ties_do_not_depend_on_the_row(sliced) -> None:
    """In Snorkel the class of a near-tie came from the row's position: equal rows get equal classes."""
    model, _ = build(sliced)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
    same = DictDataset.from_tensors(sliced.X[:1].expand(20, -1), torch.zeros(20, dtype=torch.long), "test")
    loader = DictDataLoader(same, batch_size=7)
    assert len(set(model.predict(loader, return_preds=True)["preds"]["task"].tolist())) == 1


def test_the_models_scorer_is_its_own(sliced) -> None:
    """Other metrics come from the scorer that the model was given; two models share none by default."""
    first, loader = build(sliced)
    second, _ = build(sliced)
    assert first.scorer is not second.scorer
    first.scorer = Scorer(metrics=["matthews_corrcoef"])
    assert "task/SnorkelDataset/test/matthews_corrcoef" in first.score_slices([loader])
    assert np.isfinite(first.score_slices([loader])["task/SnorkelDataset/test/matthews_corrcoef"])


TWO = ("a", "b")


def batch(weight: Tensor) -> Batch:
    """Eight rows with two slices, some memberships unknown."""
    with seeded(1):
        member, known = torch.rand(8, 2) < 0.5, torch.rand(8, 2) < 0.8
        slices = Memberships((member & known).float(), known)
        return Batch(torch.randn(8, 3), torch.arange(8) % 2, slices, weight, torch.zeros(8, dtype=torch.bool))


def network() -> AttentiveClassifier:
    with seeded(2):
        return AttentiveClassifier(MLP(3, (4,)), TWO)


def test_the_loss_is_the_slice_aware_one() -> None:
    """With equal weights it is the loss of the network inside, given the same memberships."""
    model, rows = network(), batch(torch.ones(8))
    S = SliceMatrix(TWO, rows.slices.member.bool().numpy(), ~rows.slices.known.numpy())
    expected = model.network.loss(rows.X, rows.y, S)
    np.testing.assert_allclose(model.loss(rows).item(), expected.item(), rtol=1e-6)


def test_row_weights_count_for_labels_and_not_for_memberships() -> None:
    """Prediction and experts weigh their cross entropies by row, the indicators do not."""
    model, weight = network(), torch.tensor([3.0, 0.5, 0.5, 0, 1, 1, 1, 1])
    rows = batch(weight)
    targets = SliceTargets(rows.slices.member.bool(), rows.slices.known, torch.ones(8, dtype=torch.bool))
    equal, weighted = (model.network.losses(rows.X, rows.y, targets, each) for each in (torch.ones(8), weight))
    (task, indicators, experts) = equal
    each = functional.cross_entropy(model(rows.X), rows.y, reduction="none")
    np.testing.assert_allclose((weighted[task] - equal[task]).item(), ((weight - 1) * each).mean().item(), rtol=1e-4)
    assert weighted[indicators] == equal[indicators]
    means = []
    for k, member in enumerate([*targets.member.T, torch.ones(8, dtype=torch.bool)]):
        own = functional.cross_entropy(model.network.heads(rows.X).experts[:, k], rows.y, reduction="none") * weight
        means.append(own[member].sum() / max(1.0, weight[member].sum().item()))
    np.testing.assert_allclose(weighted[experts].item(), torch.stack(means).mean().item(), rtol=1e-4)


def test_a_copy_in_another_process_scores_the_same(sliced) -> None:
    """Workers of Dask, Spark and joblib get a model as pickle."""
    model = make()
    copy = pickle.loads(pickle.dumps(model))  # noqa: S301  # our own bytes
    dataset = DictDataset.from_tensors(sliced.X, sliced.y, "test")
    loader = model.make_slice_dataloader(dataset, sliced.S, batch_size=50)
    assert copy.score_slices([loader]) == model.score_slices([loader])


def test_coverage_of_a_slice_is_of_its_members(sliced) -> None:
    """Metrics that do not leave out abstained labels see the members only, as a scorer of slices does."""
    scorer = Scorer(["coverage"], {"rows": lambda golds, preds, probs: len(golds)})
    model = make(scorer=scorer)
    dataset = DictDataset.from_tensors(sliced.X, sliced.y, "test")
    S = SliceMatrix(NAMES, sliced.S.member & [True, True, False])
    scores = model.score_slices([model.make_slice_dataloader(dataset, S, batch_size=50)])

    found = [scores[f"task_slice:{name}_pred/SnorkelDataset/test/rows"] for name in (*NAMES, "base")]
    assert found == [*S.member.sum(axis=0)[:2], None, 200]
    assert scores["task/SnorkelDataset/test/coverage"] == 1
