"""Several tasks on one network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from models.dataset import DictDataLoader, DictDataset
from models.errors import ConfigError, DataError, ModelError
from models.multitask import MultitaskClassifier, Operation, Task, eval_mode, move_to_device
from models.objectives import cross_entropy_with_probs
from models.scoring import Scorer
from models.slice_aware import SliceAwareClassifier
from models.slice_tasks import convert_to_slice_tasks
from models.trainer import Trainer, seeded

N = 30
TRUNK = Operation("trunk", [("_input_", "input_data")], "code")


def task(name: str, C: int = 2, trunk: nn.Module | None = None, **options) -> Task:
    with seeded(len(name)):
        modules = {"trunk": trunk or nn.Sequential(nn.Linear(4, 8), nn.ReLU()), f"{name}_head": nn.Linear(8, C)}
    return Task(name, nn.ModuleDict(modules), [TRUNK, Operation(f"{name}_head", ["code"])], **options)


def classifier(*tasks: Task, **options) -> MultitaskClassifier:
    return MultitaskClassifier(tasks or (task("size"), task("colour", 3)), **options)


def rows(split: str = "train", **labels: Tensor) -> DictDataLoader:
    with seeded(3):
        X = torch.randn(N, 4)
    made = {"size": (X[:, 0] > 0).long(), "colour": (X[:, 1] > 0).long() + (X[:, 2] > 0).long()}
    return DictDataLoader(DictDataset("d", split, {"input_data": X}, made | labels), batch_size=10)


def test_tasks_share_the_modules_of_one_name() -> None:
    """The first module of a name is used, once, and its weights are in the state once."""
    model = classifier()
    assert model.task_names == {"size", "colour"}
    assert list(model.module_pool) == ["trunk", "size_head", "colour_head"]
    assert (model.name, classifier(name="mine").name) == ("MultitaskClassifier", "mine")
    calls = []
    model.module_pool["trunk"].register_forward_hook(lambda *_: calls.append(1))
    outputs = model({"input_data": torch.ones(2, 4)}, ["size", "colour"])
    assert [*outputs] == ["_input_", "code", "size_head", "colour_head"]
    assert (outputs["colour_head"].shape, calls) == ((2, 3), [1])
    assert [*model({"input_data": torch.ones(2, 4)}, ["size"])] == ["_input_", "code", "size_head"]


def test_inputs_are_outputs_their_items_or_all_of_them() -> None:
    """A module gets one argument per input; without inputs, the dictionary of outputs."""

    class Halves(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"left": x[:, :2], "right": x[:, 2:]}

    class Joined(nn.Module):
        def forward(self, outputs: dict) -> Tensor:
            return outputs["sum"] * len(outputs)

    class Sum(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    operations = [
        Operation("halves", [("_input_", "input_data")]),
        Operation("sum", [("halves", "left"), ("halves", "right")]),
        Operation("joined", []),
    ]
    model = classifier(Task("t", {"halves": Halves(), "sum": Sum(), "joined": Joined()}, operations))
    assert model({"input_data": torch.ones(1, 4)}, ["t"])["joined"].tolist() == [[6, 6]]
    assert str(operations[1]).startswith("Operation(module_name='sum', inputs=[('halves', 'left')")


def test_losses_are_means_over_labelled_rows() -> None:
    """Each is torch's on the rows that have a label; a task without any is absent, as are labels of no task."""
    model = classifier()
    X = {"input_data": torch.randn(4, 4)}
    Y = {"size": torch.tensor([0, -1, 1, -1]), "colour": torch.full((4,), -1), "other": torch.zeros(4)}
    losses, counts = model.calculate_loss(X, Y)
    expected = functional.cross_entropy(model(X, ["size"])["size_head"][[0, 2]], torch.tensor([0, 1]))
    assert (counts, [*losses]) == ({"size": 2}, ["size"])
    assert losses["size"].item() == pytest.approx(expected.item(), rel=1e-6)


def test_loss_and_output_functions_and_scorers_are_the_tasks_own() -> None:
    """Soft labels, a sigmoid and a metric of one's own are used for their task only."""
    own = task(
        "size",
        loss_func=cross_entropy_with_probs,
        output_func=torch.sigmoid,
        scorer=Scorer(custom_metric_funcs={"largest": lambda golds, preds, probs: float(probs.max())}),
    )
    model = classifier(own, task("colour", 3))
    soft = functional.one_hot(rows().dataset.Y_dict["size"], 2).float()
    losses, counts = model.calculate_loss(rows().dataset.X_dict, {"size": soft})
    hard, _ = classifier().calculate_loss(rows().dataset.X_dict, {"size": soft.argmax(dim=1)})
    assert (counts["size"], losses["size"].item()) == (N, pytest.approx(hard["size"].item(), rel=1e-5))
    answers = model.predict(rows())
    assert not torch.allclose(answers["probs"]["size"].sum(dim=1), torch.ones(N))
    assert torch.allclose(answers["probs"]["colour"].sum(dim=1), torch.ones(N))
    scores = model.score([rows()])
    assert [*scores] == ["size/d/train/largest", "colour/d/train/accuracy"]
    assert scores["size/d/train/largest"] == pytest.approx(answers["probs"]["size"].max().item())


def test_predictions_are_those_of_every_labelled_task() -> None:
    """Golds, probabilities and classes are by label; without labels every task is predicted."""
    model = classifier()
    answers = model.predict(rows(), return_preds=True)
    assert {part: [*values] for part, values in answers.items()} == {
        part: ["size", "colour"] for part in ("golds", "probs", "preds")
    }
    with eval_mode(model):
        logits = model(rows().dataset.X_dict, ["colour"])["colour_head"]
    np.testing.assert_allclose(answers["probs"]["colour"], logits.softmax(dim=1), atol=1e-6)
    assert torch.equal(answers["preds"]["colour"], logits.argmax(dim=1).float())
    assert torch.equal(answers["golds"]["size"], rows().dataset.Y_dict["size"].float())
    bare = DictDataLoader(DictDataset("d", "test", rows().dataset.X_dict, {}))
    unlabelled = model.predict(bare)
    assert (unlabelled["golds"], [*unlabelled["probs"]]) == ({}, ["size", "colour"])
    assert torch.allclose(unlabelled["probs"]["size"], answers["probs"]["size"], atol=1e-6)


def test_labels_are_scored_by_the_task_that_they_are_mapped_to() -> None:
    """A label of another name takes a task's head, None leaves one out, and a frame has a row per score."""
    model, loader = classifier(), rows(gold=rows().dataset.Y_dict["size"])
    scores = model.score([loader], {"gold": "size", "colour": None})
    assert [*scores] == ["size/d/train/accuracy", "gold/d/train/accuracy"]
    assert scores["gold/d/train/accuracy"] == scores["size/d/train/accuracy"]
    frame = model.score([loader, rows("valid")], as_dataframe=True)
    assert list(frame.columns) == ["label", "dataset", "split", "metric", "score"]
    assert frame[["label", "split"]].to_numpy().tolist() == [
        ["size", "train"], ["colour", "train"], ["size", "valid"], ["colour", "valid"],
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"unknown task 'shape'; known are \['size', 'colour'\]"):
        model.predict(loader, remap_labels={"gold": "shape"})


def test_a_loader_without_a_list_will_do() -> None:
    """One loader is scored like a list of it."""
    model = classifier()
    assert model.score(rows()) == model.score([rows()])


def test_tasks_are_trained_together() -> None:
    """Snorkel's trainer takes the classifier; loaders with the labels of one task each teach both."""
    model = classifier()
    before = model.score([rows()])
    separate = [
        DictDataLoader(DictDataset("d", "train", rows().dataset.X_dict, {name: labels}), batch_size=10)
        for name, labels in rows().dataset.Y_dict.items()
    ]
    history = Trainer(n_epochs=40, lr=0.03).fit(model, separate)
    assert set(history.epochs[0].parts) == {"size", "colour"}
    after = model.score([rows()])
    assert all(after[key] > max(0.9, before[key]) for key in before)


def test_a_task_can_be_added() -> None:
    """It may use the modules that are there, and its own are trained and stored."""
    model = classifier()
    head = nn.ModuleDict({"shape_head": nn.Linear(8, 4)})
    model.add_task(Task("shape", head, [TRUNK, Operation("shape_head", ["code"])]))
    assert model.predict(rows(shape=torch.zeros(N, dtype=torch.long)))["probs"]["shape"].shape == (N, 4)
    assert "module_pool.shape_head.weight" in model.state_dict()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classifier(3), "Unrecognized task type int"),
        (lambda: classifier(task("a"), task("a")), "Found duplicate task a: "),
        (lambda: classifier(task("a")).add_task(task("a")), "Found duplicate task a: "),
        (lambda: classifier(Task("a", {}, [TRUNK])), "Operation.*of task 'a' has no module"),
        (lambda: Task("a", nn.ModuleDict(), []), "task 'a' has no operation"),
        (lambda: classifier(dataparallel=True), "dataparallel=True is not supported"),
    ],
)
def test_tasks_that_cannot_be_are_refused(make, message: str) -> None:
    """The message names the task, and a classifier that refuses one stays as it was."""
    with pytest.raises(ConfigError, match=message):
        make()
    model = classifier()
    with pytest.raises(ConfigError):
        model.add_task(Task("late", nn.ModuleDict({"a": nn.Identity()}), [Operation("b", [])]))
    assert ("late" in model.task_names, "a" in model.module_pool) == (False, False)


def test_labels_of_a_batch_are_tensors() -> None:
    """A list is refused by the name of its label, with slices and without."""
    X = {"input_data": torch.ones(2, 4)}
    sliced = SliceAwareClassifier(nn.Linear(4, 8), 8, [], task_name="size")
    for model in (classifier(), sliced):
        with pytest.raises(DataError, match=r"Label size should be torch.Tensor, not list"):
            model.calculate_loss(X, {"size": [0, 1]})  # type: ignore[dict-item]


def test_a_failed_operation_is_named() -> None:
    """The cause is in the message and chained."""
    with pytest.raises(ModelError, match=r"Unsuccessful operation Operation.*'trunk'.*KeyError\('input_data'\)") as e:
        classifier()({"inputs": torch.ones(1, 4)}, ["size"])
    assert isinstance(e.value.__cause__, KeyError)


def test_two_classifiers_share_no_scorer() -> None:
    """Snorkel's tasks shared one, so that a change of one changed all."""
    assert task("a").scorer is not task("b").scorer


def test_the_device_is_that_of_the_modules() -> None:
    """An index is a GPU, or the CPU where there is none; names and None are taken as they are."""
    assert classifier(device=-1).device == torch.device("cpu")
    assert classifier(device=None).device == torch.device("cpu")
    meta = classifier(device="meta")
    assert {parameter.device.type for parameter in meta.parameters()} == {"meta"}
    moved = meta({"input_data": torch.ones(2, 4)}, ["size"])
    assert moved["size_head"].device.type == "meta"
    nested = move_to_device({"a": [torch.ones(1), "text"], "b": (torch.ones(1),)}, "meta")
    assert (nested["a"][0].device.type, nested["a"][1], nested["b"][0].device.type) == ("meta", "text", "meta")


def test_weights_are_stored_without_pickle(tmp_path: Path) -> None:
    """A module that several tasks use is stored once, and the same tasks read it."""
    with seeded(8):
        shared = nn.Linear(8, 2)
    trunk = task("a").module_pool["trunk"]
    tasks = [
        Task(name, {"trunk": trunk, f"{name}_head": shared}, [TRUNK, Operation(f"{name}_head", ["code"])])
        for name in ("a", "b")
    ]
    model, other = MultitaskClassifier(tasks), MultitaskClassifier(tasks)
    expected = model.predict(rows(a=rows().dataset.Y_dict["size"]))["probs"]["a"]
    model.save(tmp_path / "deep" / "model.safetensors")
    with torch.no_grad():
        shared.weight.zero_()
    other.load(tmp_path / "deep" / "model.safetensors")
    assert torch.equal(other.predict(rows(a=rows().dataset.Y_dict["size"]))["probs"]["a"], expected)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_of_torch_is_refused(tmp_path: Path, legacy: bool) -> None:
    """The message says what the file is and how to convert it; no byte of it is unpickled."""
    path = tmp_path / "model.pth"
    torch.save(classifier().state_dict(), path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ModelError, match=r"is a file of torch\.save.*Convert it: safetensors"):
        classifier().load(path)


def test_a_file_of_torch_can_be_converted(tmp_path: Path) -> None:
    """The advice of the message works, also where tasks share a module."""
    model = MultitaskClassifier(convert_to_slice_tasks(task("size"), ["a"]))
    torch.save(model.state_dict(), tmp_path / "model.pth")
    state = torch.load(tmp_path / "model.pth", weights_only=True)
    save_file({name: value.clone() for name, value in state.items()}, tmp_path / "model.safetensors")
    other = MultitaskClassifier(convert_to_slice_tasks(task("size"), ["a"]))
    other.load(tmp_path / "model.safetensors")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in state.items())


def test_other_files_and_other_networks_are_refused(tmp_path: Path) -> None:
    """The message says which of the two it is."""
    path = tmp_path / "model.safetensors"
    for content in (b"", b"hello", b"\x00" * 20):
        path.write_bytes(content)
        with pytest.raises(ModelError, match="is no safetensors file, as save"):
            classifier().load(path)
    classifier(task("a")).save(path)
    with pytest.raises(ModelError, match=r"has the weights of another network: .*size_head"):
        classifier().load(path)
    classifier(task("size", 3), task("colour", 3)).save(path)
    with pytest.raises(ModelError, match=r"has the weights of another network: .*size mismatch .*size_head"):
        classifier().load(path)
    with pytest.raises(FileNotFoundError):
        classifier().load(tmp_path / "none")
