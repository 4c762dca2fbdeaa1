"""Training of many settings of one plain network at once: their weights are stacked, and share each batch.

G settings, B rows of a batch, N training rows, D features, C classes, M groups.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from models.baselines import MLP, PlainClassifier
from models.batches import Split, shuffled_batches
from models.config import LearnerConfig
from models.model_selection import selection_score
from models.trainer import seeded

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Settings of Adam."""


class WorstSlice:
    """Criterion of all methods that know the slices of validation rows: that of the product."""

    def __init__(self, valid: Split) -> None:
        self.y, self.member = valid.y, valid.S.member

    def score(self, P: NDArray[np.float64]) -> float:
        """Return the score of probabilities float[N, C]; higher is better."""
        return selection_score(P, self.y, self.member).value


class WorstClass:
    """Accuracy of the worst class, which needs no slices (Yang et al., 2023)."""

    def __init__(self, valid: Split) -> None:
        self.y = valid.y

    def score(self, P: NDArray[np.float64]) -> float:
        """Return the lowest recall of a class; higher is better."""
        correct = P.argmax(axis=1) == self.y
        return float(min(correct[self.y == c].mean() for c in np.unique(self.y)))


class RowWeights:
    """Mean loss of weighted rows.

    Parameters
    ----------
    weights
        float[G, N], with mean 1 over the rows.
    """

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self.weights = torch.from_numpy(weights.astype(np.float32))

    def loss(self, losses: Tensor, positions: Tensor) -> Tensor:
        """Return the losses of G settings, from those of B rows float[G, B]."""
        return (losses * self.weights[:, positions]).mean(dim=1)


class GroupWeights:
    """Loss of GroupDRO: group losses, weighted by how high they have been.

    A step multiplies the weight of a group by exp(step size * its mean loss in the batch), and normalises.

    Parameters
    ----------
    groups
        bool[N, M]; a row may be in several.
    used
        bool[G, M], the groups of each setting.
    step_sizes
        float[G].

    References
    ----------
    Sagawa, Koh, Hashimoto and Liang. Distributionally Robust Neural Networks for Group Shifts. ICLR 2020. Algorithm 1.
    """

    def __init__(self, groups: NDArray[np.bool_], used: NDArray[np.bool_], step_sizes: Sequence[float]) -> None:
        self.groups = torch.from_numpy(groups.astype(np.float32))
        start = torch.from_numpy(used.astype(np.float32))
        self.q = start / start.sum(dim=1, keepdim=True)  # [G, M]
        self.step_sizes = torch.tensor(step_sizes, dtype=torch.float32)[:, None]

    def loss(self, losses: Tensor, positions: Tensor) -> Tensor:
        """Return the losses of G settings, from those of B rows float[G, B], and update the weights."""
        inside = self.groups[positions]  # [B, M]
        of_groups = losses @ inside / inside.sum(dim=0).clamp(min=1)  # [G, M]
        q = self.q * torch.exp(self.step_sizes * of_groups.detach())
        self.q = q / q.sum(dim=1, keepdim=True)
        return (self.q * of_groups).sum(dim=1)


@dataclass(frozen=True)
class Chosen:
    """The best checkpoint of a setting, its score, and the network."""

    setting: int
    score: float
    network: PlainClassifier


class NetworkStack:
    """G copies of a plain network with the same start, that of the product's from the same seed."""

    def __init__(self, in_features: int, widths: Sequence[int], num_classes: int, size: int, seed: int) -> None:
        self.in_features, self.widths, self.num_classes = in_features, tuple(widths), num_classes
        with seeded(seed):
            start = PlainClassifier(MLP(in_features, widths), num_classes)
        self.names = [name for name, _ in start.named_parameters()]  # weight and bias of each layer
        parts = [p.detach().T if p.dim() == 2 else p.detach()[None] for p in start.parameters()]
        self.flat = torch.cat([part.flatten() for part in parts]).repeat(size, 1)  # [G, weights of a network]
        blocks = self.flat.split([part.numel() for part in parts], dim=1)
        self.layers = [
            block.detach().unflatten(1, part.shape).requires_grad_() for block, part in zip(blocks, parts, strict=True)
        ]  # [G, in, out] and [G, 1, out], in the memory of ``flat``
        self.mean, self.square = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.steps = 0

    def logits(self, X: Tensor) -> Tensor:
        """Return float[G, B, C] of float[B, D]."""
        first = self.layers[0]
        used = X.any(dim=0).nonzero().squeeze(1)
        if 2 * len(used) < self.in_features:  # few of many hashed words
            X, first = X[:, used], first[:, used]
        out = X @ first + self.layers[1]
        for weight, bias in zip(self.layers[2::2], self.layers[3::2], strict=True):
            out = torch.baddbmm(bias, torch.relu(out), weight)
        return out

    def step(self, loss: Tensor, lr: Tensor, l2: Tensor) -> None:
        """Take a step of Adam; rates and L2 penalties are float[G, 1]."""
        gradients = torch.autograd.grad(loss, self.layers)
        self.steps += 1
        first, second = (1 - beta**self.steps for beta in BETAS)
        with torch.no_grad():
            g = torch.cat([each.flatten(1) for each in gradients], dim=1).addcmul_(self.flat, l2)
            self.mean.lerp_(g, 1 - BETAS[0])
            self.square.mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
            size = self.square.sqrt().mul_(second**-0.5).add_(EPSILON)
            self.flat.addcmul_(torch.div(self.mean, size, out=size), lr, value=-1 / first)

    def network(self, weights: Tensor) -> PlainClassifier:
        """Return the product's network with a row of ``flat``."""
        model = PlainClassifier(MLP(self.in_features, self.widths), self.num_classes)
        parts = weights.split([layer[0].numel() for layer in self.layers])
        shapes = [layer.shape[1:] for layer in self.layers]
        kept = model.state_dict()
        for name, part, shape in zip(self.names, parts, shapes, strict=True):
            kept[name] = part.view(shape).T if kept[name].dim() == 2 else part
        model.load_state_dict(kept)
        return model.eval()


class Checkpoints:
    """Weights of a stack after some epochs, and what they predict of the validation rows.

    Parameters
    ----------
    stack
        The networks.
    weights
        Their weights by epoch, counted from 1.
    probabilities
        float32[G, N, C] after each evaluated epoch.
    """

    def __init__(
        self, stack: NetworkStack, weights: dict[int, Tensor], probabilities: dict[int, NDArray[np.float32]]
    ) -> None:
        self.stack, self.weights, self.probabilities = stack, weights, probabilities

    def network(self, epoch: int, setting: int = 0) -> PlainClassifier:
        """Return a network after an epoch."""
        return self.stack.network(self.weights[epoch][setting])

    def best(self, criterion: WorstSlice | WorstClass) -> Chosen:
        """Return the checkpoint with the highest score; ties go to the first epoch, then to the first setting."""
        score, epoch, setting = max(
            (
                (criterion.score(P[g].astype(np.float64)), epoch, g)
                for epoch, P in self.probabilities.items()
                for g in range(len(P))
            ),
            key=lambda found: found[0],
        )
        return Chosen(setting, score, self.network(epoch, setting))


class StackTraining:
    """One training of G settings with the recipe of a set-up.

    Parameters
    ----------
    recipe
        Widths, epochs, batches and rate.
    num_classes
        C.
    lr, l2
        Factors of the recipe's rate, and L2 penalties, G each.
    widths
        Hidden units, those of the recipe by default.
    """

    def __init__(
        self,
        recipe: LearnerConfig,
        num_classes: int,
        lr: Sequence[float],
        l2: Sequence[float],
        seed: int,
        widths: Sequence[int] | None = None,
    ) -> None:
        self.recipe, self.num_classes, self.seed = recipe, num_classes, seed
        self.lr = recipe.lr * torch.tensor(lr, dtype=torch.float32)[:, None]
        self.l2 = torch.tensor(l2, dtype=torch.float32)[:, None]
        self.widths = tuple(widths or recipe.widths)

    def run(
        self, train: Split, valid: Split, loss: RowWeights | GroupWeights, early: Collection[int] = ()
    ) -> Checkpoints:
        """Train, and return the checkpoints of the recipe's evaluations and of the epochs ``early``."""
        generator = torch.Generator().manual_seed(self.seed)
        y, X = torch.from_numpy(train.y), valid.X.take(slice(None))
        size = len(self.lr)
        stack = NetworkStack(train.X.shape[1], self.widths, self.num_classes, size, self.seed)
        weights: dict[int, Tensor] = {}
        probabilities: dict[int, NDArray[np.float32]] = {}
        for epoch in range(1, self.recipe.n_epochs + 1):
            for positions in shuffled_batches(len(train), self.recipe.batch_size, generator):
                at = torch.from_numpy(positions)
                logits = stack.logits(train.X.take(positions))  # [G, B, C]
                losses = functional.cross_entropy(logits.flatten(0, 1), y[at].repeat(size), reduction="none")
                stack.step(loss.loss(losses.view(size, -1), at).sum(), self.lr, self.l2)
            evaluated = not epoch % self.recipe.evaluate_every or epoch == self.recipe.n_epochs
            if evaluated or epoch in early:
                weights[epoch] = stack.flat.clone()
            if evaluated:
                with torch.inference_mode():
                    probabilities[epoch] = stack.logits(X).softmax(dim=2).numpy()
        return Checkpoints(stack, weights, probabilities)
