"""The training loop."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from models.batches import shuffled_batches
from models.dataset import DictDataLoader, DictDataset
from models.errors import ConfigError, DataError, ModelError
from models.slice_aware import SliceAwareClassifier
from models.trainer import EpochRecord, Trainer, fit, learning_rate, make_optimizer, seeded
from models.trainer_config import TrainerConfig

RANDOM = torch.Generator().manual_seed(5)
X = torch.randn(120, 4, generator=RANDOM)
Y = (X[:, 0] > 0).long()


def network() -> nn.Module:
    with seeded(3):
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))


def train(model: nn.Module, config: TrainerConfig, **options: object):
    def loss(rows: np.ndarray) -> Tensor:
        return F.cross_entropy(model(X[rows]), Y[rows])

    return fit(model, lambda g: shuffled_batches(len(X), config.batch_size, g), loss, config, **options)


def test_a_seed_decides_every_weight() -> None:
    """Two trainings with one seed end with equal weights, drop-out included."""
    first, second = network(), network()
    for model in (first, second):
        torch.manual_seed(torch.randint(10**6, ()).item())  # whatever the process drew before
        train(model, TrainerConfig(n_epochs=3, seed=11))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_seeds_differ() -> None:
    """Two trainings with different seeds end with different weights."""
    first, second = network(), network()
    train(first, TrainerConfig(n_epochs=1, seed=1))
    train(second, TrainerConfig(n_epochs=1, seed=2))
    assert not torch.equal(first[0].weight, second[0].weight)


def test_the_process_keeps_its_random_state() -> None:
    """Training draws nothing from the random state outside."""
    state = torch.get_rng_state()
    train(network(), TrainerConfig(n_epochs=2))
    assert torch.equal(torch.get_rng_state(), state)


def test_training_learns() -> None:
    """The loss of the last epoch is well below that of the first."""
    history = train(network(), TrainerConfig(n_epochs=30, lr=0.02))
    assert history.epochs[-1].loss < 0.5 * history.epochs[0].loss
    assert history.best_epoch is None
    assert len(history.epochs) == 30


def test_the_best_weights_come_back() -> None:
    """With a score the weights at the end are those of the best evaluation, not of the last."""
    model, seen = network(), []
    scores = iter([0.1, 0.9, 0.9, 0.3])

    def score() -> float:
        assert not model.training
        assert not torch.is_grad_enabled()
        seen.append(model[0].weight.clone())
        return next(scores)

    history = train(model, TrainerConfig(n_epochs=4), score=score)
    assert history.best_epoch == 1
    assert [record.score for record in history.epochs] == [0.1, 0.9, 0.9, 0.3]
    assert torch.equal(model[0].weight, seen[1])
    assert not model.training


def test_the_last_weights_can_be_kept() -> None:
    """keep_best=False leaves the weights of the last epoch."""
    model, seen = network(), []
    scores = iter([0.9, 0.1])

    def score() -> float:
        seen.append(model[0].weight.clone())
        return next(scores)

    train(model, TrainerConfig(n_epochs=2, keep_best=False), score=score)
    assert torch.equal(model[0].weight, seen[1])


def test_patience_ends_a_training() -> None:
    """It stops after that many evaluations without a better score."""
    scores = iter([0.5, 0.4, 0.3, 0.9])
    history = train(network(), TrainerConfig(n_epochs=4, patience=2), score=lambda: next(scores))
    assert [record.epoch for record in history.epochs] == [0, 1, 2]


def test_evaluations_keep_their_distance() -> None:
    """Only every second epoch is evaluated, and the last."""
    history = train(network(), TrainerConfig(n_epochs=5, evaluate_every=2), score=lambda: 1.0)
    assert [record.score is not None for record in history.epochs] == [False, True, False, True, True]


def test_a_score_of_nan_never_wins() -> None:
    """A score that is no number leaves the last weights and no best epoch."""
    assert train(network(), TrainerConfig(n_epochs=2), score=lambda: math.nan).best_epoch is None


def test_on_epoch_hears_of_every_epoch() -> None:
    """The callback receives every epoch at its end."""
    heard: list[EpochRecord] = []
    history = train(network(), TrainerConfig(n_epochs=3), on_epoch=heard.append)
    assert tuple(heard) == history.epochs


def test_a_loss_that_explodes_says_what_to_do() -> None:
    """A loss that is not finite ends the training with the epoch and advice."""
    model = network()
    loss = lambda rows: model(X[rows]).sum() * math.inf  # noqa: E731
    with pytest.raises(ModelError, match=r"epoch 0 is .*lower the learning rate \(now 0.003\)"):
        fit(model, lambda g: shuffled_batches(120, 64, g), loss, TrainerConfig())


def test_nothing_to_train_on() -> None:
    """An epoch without a batch is an error."""
    with pytest.raises(DataError, match="no rows to train on"):
        fit(network(), lambda g: [], lambda rows: torch.zeros(()), TrainerConfig())


def test_a_batch_without_labels_changes_nothing() -> None:
    """A loss without gradient makes no step."""
    model = network()
    before = model[0].weight.clone()
    fit(model, lambda g: [0], lambda rows: torch.zeros(()), TrainerConfig(n_epochs=1))
    assert torch.equal(model[0].weight, before)


def test_gradients_are_clipped() -> None:
    """A step of plain descent is no longer than lr times the clip."""
    model = nn.Linear(4, 1)
    before = model.weight.clone()
    config = TrainerConfig(n_epochs=1, lr=0.1, grad_clip=0.5, optimizer="sgd")
    fit(model, lambda g: [0], lambda rows: 1e4 * model(X).sum(), config)
    assert (model.weight - before).norm() <= 0.05 + 1e-6


def test_shuffled_batches_are_a_permutation() -> None:
    """Every position occurs once, in batches of the size but for the last."""
    batches = list(shuffled_batches(10, 4, torch.Generator().manual_seed(0)))
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(np.concatenate(batches)) == list(range(10))


def loader(split: str, **options: object) -> DictDataLoader:
    return DictDataLoader(DictDataset.from_tensors(X, Y, split), batch_size=32, **options)


def classifier() -> SliceAwareClassifier:
    with seeded(2):
        return SliceAwareClassifier(nn.Sequential(nn.Linear(4, 8), nn.ReLU()), 8, [])


def test_the_trainers_seed_is_used() -> None:
    """Snorkel's Trainer ignored its seed: here it decides the loader's order, and with it the weights."""
    weights = []
    for seed in (1, 1, 2):
        model = classifier()
        Trainer(n_epochs=2, seed=seed).fit(model, [loader("train", shuffle=True)])
        weights.append(model.head.weight.clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_losses_are_kept_by_part() -> None:
    """Snorkel's Trainer lost the losses of the tasks: here every epoch has them by name."""
    history = Trainer(n_epochs=2).fit(classifier(), [loader("train")])
    parts = history.epochs[0].parts
    assert set(parts) == {"task", "task_indicators", "task_experts"}
    assert history.epochs[0].loss == pytest.approx(sum(parts.values()), rel=1e-5)


def test_splits_are_compared_whole() -> None:
    """Split 'val' is not 'valid', nor 'train' part of 'pretrain'; a split of another name is refused, as in Snorkel."""
    model = classifier()
    for split in ("val", "pretrain"):
        with pytest.raises(
            DataError, match=rf"Dataloader splits must be one of \['train', 'valid', 'test'\], got '{split}'"
        ):
            Trainer().fit(model, [loader("train"), loader(split)])
    with pytest.raises(DataError, match="Cannot find any dataloaders with split matching train split"):
        Trainer().fit(model, [loader("valid"), loader("test")])


def test_a_valid_loader_is_scored_by_its_loss() -> None:
    """The score of a validation loader is minus its mean loss, and the best epoch is known."""
    history = Trainer(n_epochs=3, lr=0.01).fit(classifier(), [loader("train"), loader("valid")])
    scores = [record.score for record in history.epochs]
    assert history.best_epoch == scores.index(max(scores))
    assert all(score < 0 for score in scores)


def test_several_loaders_are_all_trained_on() -> None:
    """An epoch takes every batch of every training loader."""
    model = classifier()
    seen: list[int] = []
    original = model.calculate_loss

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def calculate_loss(self, X_dict, Y_dict):
            seen.append(len(Y_dict["task"]))
            return original(X_dict, Y_dict)

    Trainer(n_epochs=1).fit(Counting(), [loader("train"), loader("train")])
    assert sum(seen) == 240


def test_an_unknown_option_is_refused() -> None:
    """A misspelt option names the ones there are."""
    with pytest.raises(ConfigError, match="unknown training option 'epochs'; known are n_epochs"):
        Trainer(epochs=3)


def test_snorkels_defaults_without_a_config() -> None:
    """One epoch at .01, and options may change a given config."""
    assert Trainer().config == TrainerConfig(n_epochs=1, lr=0.01, keep_best=False)
    assert Trainer(TrainerConfig(n_epochs=7), lr=0.5).config == TrainerConfig(n_epochs=7, lr=0.5)


def test_warm_up_rises_by_steps_and_never_overshoots() -> None:
    """In Snorkel's the first step was at the full rate or at none; ours rises from lr / n."""
    config = TrainerConfig(lr=1.0, n_epochs=2, warmup_steps=4, lr_scheduler="linear")
    assert [learning_rate(config, step, 0) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert learning_rate(config, 9, 1) == 0.5


def test_every_step_is_taken_at_the_rate_of_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """In Snorkel a second scheduler undid the first step of the warm-up: here warm-up and decay are one."""
    rates = []

    def watched(*arguments):
        optimizer = make_optimizer(*arguments)
        optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))
        return optimizer

    monkeypatch.setattr("models.trainer.make_optimizer", watched)
    options = {"lr_scheduler": "linear", "lr_scheduler_config": {"warmup_steps": 3}}
    Trainer(n_epochs=2, lr=1.0, **options).fit(classifier(), [loader("train")])
    assert rates == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5])


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [1.0] * 6),
        ("linear", [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ("exponential", [0.9**epoch for epoch in range(6)]),
        ("step", [1, 1, 1, 1, 1, 0.9]),
    ],
)
def test_schedules(schedule: str, rates: list[float]) -> None:
    """Each schedule is a function of the epoch."""
    config = TrainerConfig(lr=1.0, n_epochs=6, lr_scheduler=schedule)
    assert [learning_rate(config, 100, epoch) for epoch in range(6)] == pytest.approx(rates)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("n_epochs", 0),
        ("batch_size", 0),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("l2", -1.0),
        ("grad_clip", 0.0),
        ("patience", 0),
        ("evaluate_every", 0),
        ("warmup_steps", -1),
        ("optimizer", "adamm"),
        ("lr_scheduler", "cosine"),
    ],
)
def test_what_cannot_be_is_refused(option: str, value: object) -> None:
    """The message names the option and the value."""
    with pytest.raises(ConfigError, match=f"{option} must be .*{value!r}"):
        TrainerConfig(**{option: value})


@pytest.mark.parametrize("name", ["adam", "adamw", "adamax", "sgd"])
def test_every_optimizer_descends(name: str) -> None:
    """A few steps of each lower a parabola."""
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = make_optimizer([weight], TrainerConfig(optimizer=name, lr=0.05))
    for _ in range(5):
        optimizer.zero_grad()
        (weight**2).sum().backward()
        optimizer.step()
    assert weight.item() < 0.9
