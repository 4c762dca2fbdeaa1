"""Settings of a training."""

import pytest
import torch
from torch import nn

from models.errors import ConfigError
from models.recipe import TrainerConfig, learning_rate, make_optimizer


def test_warm_up_rises_by_steps_and_never_overshoots() -> None:
    """In Snorkel's the first step was at the full rate or at none; ours rises from lr / n."""
    config = TrainerConfig(lr=1.0, n_epochs=2, warmup_steps=4, lr_scheduler="linear")
    assert [learning_rate(config, step, 0) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert learning_rate(config, 9, 1) == 0.5


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
