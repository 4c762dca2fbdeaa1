"""Snorkel's form of a sliced network, and its names for the parts of the slice-aware classifier."""

import copy
import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.dataset import DictDataLoader, DictDataset, add_slice_labels
from models.errors import ConfigError, DataError, ModelError
from models.multitask import MultitaskClassifier, Operation, Task, eval_mode
from models.objectives import cross_entropy_with_probs
from models.scoring import Scorer
from models.slice_aware import SliceAwareClassifier
from models.slice_tasks import SliceCombinerModule, collect_flow_outputs_by_suffix, convert_to_slice_tasks
from models.trainer import Trainer, seeded
from sfs.matrix import SliceMatrix

NAMES = ("short", "short_link", "a.b%")
BODY = [Operation("trunk", [("_input_", "input_data")]), Operation("norm", ["trunk"])]


def base_task(name: str = "task", C: int = 2, **options) -> Task:
    with seeded(1):
        modules = {"trunk": nn.Sequential(nn.Linear(6, 8), nn.ReLU()), "norm": nn.LayerNorm(8), "head": nn.Linear(8, C)}
        return Task(name, nn.ModuleDict(modules), [*BODY, Operation("head", ["norm"])], **options)


def converted(task: Task, names=NAMES, **options) -> list[Task]:
    with seeded(2):
        return convert_to_slice_tasks(task, names, **options)


def loader(sliced, name: str = "task", y: Tensor | None = None, names=NAMES, **labels: Tensor) -> DictDataLoader:
    made = {name: sliced.y if y is None else y} | labels
    out = DictDataLoader(DictDataset("d", "train", {"input_data": sliced.X}, made), batch_size=50)
    add_slice_labels(out, name, SliceMatrix(names, sliced.S.member[:, : len(names)]))
    return out


def test_the_tasks_are_snorkels() -> None:
    """All indicators, all experts, the task last, by Snorkel's names; slices in their order and the base last."""
    tasks = converted(base_task(), ("b", "a"))
    names = [f"task_slice:{name}_{kind}" for kind in ("ind", "pred") for name in ("b", "a", "base")]
    assert [task.name for task in tasks] == [*names, "task"]
    heads = [f"task_slice:{name}_ind_head" for name in ("b", "a", "base")] + [
        f"task_slice:{name}_pred_{part}" for name in ("b", "a", "base") for part in ("transform", "head")
    ]
    operations = ["trunk", "norm", *heads, "task_master_combiner", "task_master_head"]
    assert [operation.name for operation in tasks[-1].op_sequence] == operations
    assert [operation.name for operation in tasks[0].op_sequence] == ["trunk", "norm", "task_slice:b_ind_head"]
    model = MultitaskClassifier(tasks)
    assert set(model.module_pool) == set(operations)
    assert len({model.module_pool[f"task_slice:{name}_pred_head"] for name in ("b", "a", "base")}) == 1


def test_the_base_task_is_left_as_it_is() -> None:
    """It can be converted again; its head is the last one of the combination, and its functions are kept."""
    task = base_task(loss_func=cross_entropy_with_probs, output_func=torch.sigmoid, scorer=Scorer(["f1"]))
    for _ in range(2):
        *slices, last = converted(task)
        assert list(task.module_pool) == ["trunk", "norm", "head"]
        assert last.module_pool["task_master_head"] is task.module_pool["head"]
        for each in (last, slices[-1]):
            assert (each.loss_func, each.output_func, each.scorer) == (task.loss_func, torch.sigmoid, task.scorer)
        assert slices[0].scorer.metrics.keys() == {"f1"}
        assert slices[0].loss_func is not task.loss_func


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: converted(base_task(), ["a", "a"]), "distinct names"),
        (lambda: converted(base_task(), "ab"), "distinct names"),
        (lambda: converted(Task("t", {"a": nn.ReLU()}, [Operation("a", [])])), r"must be an nn\.Linear, got ReLU"),
        (lambda: converted(Task("t", {}, [Operation("elsewhere", [])])), r"must be an nn\.Linear, got None"),
    ],
)
def test_what_cannot_be_sliced_is_refused(make, message: str) -> None:
    """The message names the task and the head, or the names."""
    with pytest.raises(ConfigError, match=message):
        make()


def literal(outputs: dict, prefixes: list[str], C: int, temperature: float = 1.0) -> Tensor:
    """The combination by its formula, slice by slice."""
    weights = []
    for prefix in prefixes:
        member = outputs[f"{prefix}_ind_head"].softmax(dim=1)[:, 1]
        classes = outputs[f"{prefix}_pred_head"].softmax(dim=1)
        confidence = classes[:, 1] if C == 2 else (C * classes.amax(dim=1) - 1) / (C - 1)
        weights.append((member * confidence / temperature).exp())
    total = sum(weights)
    parts = zip(weights, prefixes, strict=True)
    return sum((w / total)[:, None] * outputs[f"{prefix}_pred_transform"] for w, prefix in parts)


@pytest.mark.parametrize("C", [2, 4])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_experts_are_combined_by_the_formula(sliced, C: int, temperature: float) -> None:
    """P(member) times P(class 1), or for more classes the margin of the likeliest; Snorkel combines two only."""
    model = MultitaskClassifier(converted(base_task(C=C), temperature=temperature))
    outputs = model({"input_data": sliced.X}, ["task"])
    prefixes = [f"task_slice:{name}" for name in (*NAMES, "base")]
    expected = literal(outputs, prefixes, C, temperature)
    torch.testing.assert_close(outputs["task_master_combiner"], expected, rtol=1e-4, atol=1e-5)
    found = SliceCombinerModule(temperature=temperature)(outputs)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_names_that_extend_one_another_change_nothing(sliced) -> None:
    """Snorkel sorted the names of each kind by itself, which crossed the experts of short and short_link."""
    answers = []
    for names in (("x", "y", "z"), ("short", "short_link", "short_ind")):
        model = MultitaskClassifier(converted(base_task(), names))
        answers.append(model.predict(loader(sliced, names=names))["probs"]["task"])
    assert torch.equal(*answers)


def test_two_sliced_tasks_do_not_touch_each_other(sliced) -> None:
    """In Snorkel each combined the slices of both; a combiner that cannot know its task says so."""
    one, two = converted(base_task("one")), converted(base_task("two"))
    with seeded(3), torch.no_grad():  # other heads than those of two, whose mean would be the same
        for name, module in one[-1].module_pool.items():
            for parameter in module.parameters() if name.startswith("one") else ():
                nn.init.normal_(parameter)
    X = {"input_data": sliced.X}
    alone = MultitaskClassifier(two)(X, ["two"])["two_master_head"]
    outputs = MultitaskClassifier([*one, *two])(X, ["one", "two"])
    torch.testing.assert_close(outputs["two_master_head"], alone)
    with pytest.raises(DataError, match=r"slices of several tasks, \['one', 'two'\]"):
        SliceCombinerModule()(outputs)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({}, "lack every slice"),
        ({"a_ind_head": torch.zeros(1, 2)}, r"lack \['a_pred_head', 'a_pred_transform'\]"),
        (
            {"a_ind_head": torch.zeros(1, 1), "a_pred_head": torch.zeros(1, 2), "a_pred_transform": torch.zeros(1, 3)},
            r"must have output shape \[B, 2\], got \[1, 1\]",
        ),
    ],
)
def test_outputs_that_cannot_be_combined_are_named(outputs: dict, message: str) -> None:
    """The message has the names that are missing, or the shape."""
    with pytest.raises(DataError, match=message):
        SliceCombinerModule()(outputs)


def test_experts_have_two_classes_or_more() -> None:
    """Those of one class would all be certain."""
    outputs = {"a_ind_head": torch.zeros(1, 2), "a_pred_head": torch.zeros(1, 1), "a_pred_transform": torch.zeros(1, 3)}
    with pytest.raises(NotImplementedError, match=r"requires output shape \[\.\.\., 2\] for predictor heads"):
        SliceCombinerModule()(outputs)


def test_a_sliced_task_is_trained_beside_another(sliced) -> None:
    """Losses are those of every label, and both tasks learn; unknown memberships are no target."""
    other = Task("sign", {"sign_head": nn.Linear(8, 2)}, [*BODY, Operation("sign_head", ["norm"])])
    model = MultitaskClassifier([*converted(base_task()), other])
    data = loader(sliced, sign=(sliced.X[:, 5] > 0).long())
    labels = data.dataset.Y_dict
    labels["task_slice:short_ind"][:10] = -1
    losses, counts = model.calculate_loss(data.dataset.X_dict, labels)
    assert losses.keys() == labels.keys() == model.task_names
    assert counts["task_slice:short_ind"] == 190
    assert counts["task_slice:short_pred"] == int(sliced.S.member[:, 0].sum())
    Trainer(n_epochs=60, lr=0.02).fit(model, [data])
    scores = model.score([data])
    assert scores["task/d/train/accuracy"] > 0.8
    assert scores["sign/d/train/accuracy"] > 0.9
    assert scores["task_slice:short_ind/d/train/f1"] > 0.5


# The slice-aware classifier by the same names


MODES = [{}, {"expert_rank": None}, {"attention": "snorkel"}, {"num_classes": 3}]


def aware(names=NAMES, **options) -> SliceAwareClassifier:
    with seeded(4):
        model = SliceAwareClassifier(nn.Sequential(nn.Linear(6, 8), nn.ReLU()), 8, names, **options)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.5)
        return model


@pytest.mark.parametrize("options", MODES, ids=str)
def test_it_is_a_multitask_classifier(sliced, options) -> None:
    """Tasks, operations and modules have the names of the converted tasks, and the outputs are those of the modules."""
    model = aware(**options)
    tasks = converted(model.base_task)
    assert isinstance(model, MultitaskClassifier)
    assert model.name == "task_sliceaware_classifier"
    assert model.task_names == {task.name for task in tasks}
    assert set(model.module_pool) == set(MultitaskClassifier(tasks).module_pool)
    assert len(model.module_pool) == len(list(model.module_pool.values()))
    with eval_mode(model):
        outputs = model({"input_data": sliced.X}, ["task"])
        operations = model.op_sequences["task"]
        assert [*outputs] == ["_input_", *(operation.name for operation in operations)]
        assert [o.name for o in operations] == [o.name for o in tasks[-1].op_sequence]
        for operation in operations:
            module, inputs = model.module_pool[operation.module_name], operation.inputs
            given = sliced.X if operation.name == "input_op" else outputs[inputs[0]] if inputs else outputs
            torch.testing.assert_close(outputs[operation.name], module(given), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(outputs["task_master_head"], model(sliced.X))
        asked = model({"input_data": sliced.X}, ["task_slice:short_pred"])
    assert [*asked] == ["_input_", "input_op", "task_slice:short_pred_transform", "task_slice:short_pred_head"]


def test_snorkels_weights_are_read_by_their_names(sliced, tmp_path: Path) -> None:
    """Then the classifier gives the answers of the converted tasks to all labels, as it is the same network."""
    model, path = aware(attention="snorkel"), tmp_path / "snorkel.safetensors"
    graph = MultitaskClassifier(convert_to_slice_tasks(copy.deepcopy(model.base_task), NAMES))
    graph.save(path)
    before = model.predict(loader(sliced))["probs"]["task"]
    model.load(path)
    one, other = (each.predict(loader(sliced))["probs"] for each in (model, graph))
    assert one.keys() == other.keys()
    assert not torch.allclose(one["task"], before, atol=1e-3)
    for label, expected in one.items():
        torch.testing.assert_close(other[label], expected, rtol=1e-4, atol=1e-5)
    for options in ({}, {"attention": "snorkel", "expert_rank": 3}):
        with pytest.raises(ModelError, match="make one with attention='snorkel'"):
            aware(**options).load(path)
    with pytest.raises(ModelError, match="has the weights of another network"):
        aware(("other",), attention="snorkel").load(path)


def test_views_are_no_weights_of_their_own() -> None:
    """The state is that of the stacked modules, a view follows them, and a copy has views of its own."""
    model = aware()
    assert not [name for name in model.state_dict() if "module_pool" in name]
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for each in (model.indicators.weight, model.experts.down):
            each.zero_()
    head, expert = "task_slice:short_ind_head", "task_slice:short_pred_transform"
    assert not model.module_pool[head].weight.any()
    assert torch.equal(model.module_pool[expert].weight, torch.eye(8))
    assert twin.module_pool[head].weight.any()
    assert "nope" not in model.module_pool


def test_a_classifier_is_freed_with_its_last_reference() -> None:
    """A cycle through its views would keep replaced models in the memory of a service, whose objects are frozen."""
    model = aware()
    model.module_pool["task_slice:short_ind_head"](torch.ones(1, 8))
    gone = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()


def test_tasks_of_ones_own_stand_beside_the_slices(sliced) -> None:
    """They share the backbone, learn from the same batches or their own, and are scored and stored with it."""
    model = aware(names=("short", "link"))
    head = Operation("sign_head", ["input_op"])
    model.add_task(Task("sign", {"sign_head": nn.Linear(8, 2)}, [*model.op_sequences["task"][:1], head]))
    calls = []
    model.base_architecture.register_forward_hook(lambda *_: calls.append(1))
    sign = (sliced.X[:, 5] > 0).long()
    data = loader(sliced, names=("short", "link"), sign=sign)
    losses, counts = model.calculate_loss(data.dataset.X_dict, data.dataset.Y_dict)
    assert ([*losses], counts["sign"]) == (["task", "task_indicators", "task_experts", "sign"], 200)
    assert len(calls) == 1
    apart = DictDataLoader(DictDataset("apart", "train", data.dataset.X_dict, {"sign": sign}), batch_size=50)
    assert [*model.calculate_loss(apart.dataset.X_dict, apart.dataset.Y_dict)[0]] == ["sign"]
    Trainer(n_epochs=40, lr=0.02).fit(model, [data, apart])
    scores = model.score([data])
    assert scores["sign/d/train/accuracy"] > 0.9
    assert model.score_slices([data])["task/d/train/accuracy"] == scores["task/d/train/accuracy"]
    bare = DictDataLoader(DictDataset("bare", "test", data.dataset.X_dict, {}), batch_size=50)
    assert [*model.predict(bare)["probs"]] == ["task", "sign"]
    assert "module_pool.sign_head.weight" in model.state_dict()
    outputs = model(data.dataset.X_dict, ["sign", "task_slice:link_ind"])
    assert {"sign_head", "task_slice:link_ind_head"} <= outputs.keys()


def test_the_matrix_of_slices_reaches_experts_of_three_classes(sliced) -> None:
    """Multi-class slices train and are scored, in Snorkel's form too."""
    y = sliced.y + (sliced.X[:, 4] > 1).long()
    for model in (aware(num_classes=3, scorer=Scorer(["accuracy"])), MultitaskClassifier(converted(base_task(C=3)))):
        data = loader(sliced, y=y)
        Trainer(n_epochs=40, lr=0.02).fit(model, [data])
        assert model.score([data])["task/d/train/accuracy"] > 0.8
        assert np.isfinite(model.score([data])["task_slice:short_pred/d/train/accuracy"])


def test_it_computes_on_the_device_that_it_is_given(sliced) -> None:
    """Batches are moved to it; the meta device stands in for a GPU."""
    model = aware(device="meta")
    assert {value.device.type for value in model.state_dict().values()} == {"meta"}
    data = loader(sliced)
    assert model(data.dataset.X_dict, ["task"])["task_master_head"].device.type == "meta"
    with pytest.raises(ConfigError, match="dataparallel=True is not supported"):
        aware(dataparallel=True)


def test_outputs_are_collected_in_the_order_of_operations() -> None:
    """Snorkel sorts them by name, for each end by itself, which is how experts are crossed."""
    outputs = {"short_link_ind": 1, "other": 2, "short_ind": 3}
    assert collect_flow_outputs_by_suffix(outputs, "_ind") == [1, 3]


@pytest.mark.parametrize("make", [lambda: MultitaskClassifier(converted(base_task())), lambda: aware()])
def test_labels_of_other_slices_are_refused(make, sliced) -> None:
    """A matrix with a slice that the model lacks would train in silence without it."""
    model = make()
    other = loader(sliced, names=(*NAMES[:2], "zz"))
    with pytest.raises(DataError, match=r"a\.b%|unknown to the model .*task_slice:zz_ind"):
        model.calculate_loss(*next(iter(other)))
    X, labels = next(iter(loader(sliced)))
    with pytest.raises(DataError, match=r"unknown to the model \['task_slice:zz_ind'\]"):
        model.calculate_loss(X, labels | {"task_slice:zz_ind": labels["task"]})
    losses, _ = model.calculate_loss(X, labels)
    assert losses


def test_snorkels_weights_are_not_read_with_a_slice_named_base(tmp_path: Path) -> None:
    """Snorkel's own base slice has the name."""
    MultitaskClassifier(converted(base_task(), ("x",))).save(tmp_path / "snorkel")
    model = SliceAwareClassifier(nn.Linear(6, 8), 8, ["base", "x"], attention="snorkel")
    weights = load_file(tmp_path / "snorkel")
    save_file({name.replace("trunk", "base_architecture"): value for name, value in weights.items()}, tmp_path / "w")

    with pytest.raises(ModelError, match="cannot be read with a slice named 'base', as Snorkel's own: rename it"):
        model.load(tmp_path / "w")
