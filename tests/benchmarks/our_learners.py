"""Cells of our learners: the default search, the slice-residual network, and the slice adapter on frozen models."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from learner_setups import N_KEYWORDS, Problem, SetUp
from network_stack import RowWeights, StackTraining
from numpy.typing import NDArray

from models.base_families import BaseFamily, LinearFamily, Rows, TreeFamily
from models.base_search import CrossFittedBase, centred_logits, with_slices
from models.baselines import MLP, PlainClassifier
from models.batches import FeatureRows, Split, memberships
from models.config import LearnerConfig
from models.inference import inference
from models.learners import Network, fit_learner
from models.model_search import search_models
from models.slice_adapter import SliceAdapter
from models.slice_residual import SliceResidualClassifier
from sfs.matrix import SliceMatrix

UNKNOWN = (0.1, 0.3, 0.5)
BATCH, COST_SLICES = 32, 100
COST_SHAPES = ((2048, (64,), 2), (2048, (256, 128), 2), (768, (768, 768), 2))
PENALTIES = (0.0, 1e-4, 1e-3, 1e-2)
"""L2 penalties of a network that is a frozen base."""


class FrozenNetwork(PlainClassifier):
    """A plain network with the attributes that a slice adapter reads of its base."""

    @property
    def in_features(self) -> int:
        """D."""
        return self.backbone.in_features


class NetworkFamily(BaseFamily[float]):
    """Plain networks of a recipe as bases, trained to the last epoch.

    Parameters
    ----------
    recipe
        The recipe of a set-up.
    """

    name, plural, n_folds = "network", "networks", 3

    def __init__(self, num_classes: int, recipe: LearnerConfig) -> None:
        super().__init__(num_classes, recipe.seed)
        self.recipe = recipe

    def limit(self, X: FeatureRows) -> str:
        """Return why networks are not searched: they always are."""
        return ""

    def candidates(
        self, X: FeatureRows, y: NDArray[np.int64], weight: NDArray[np.float64] | None = None
    ) -> Iterator[tuple[float, FrozenNetwork]]:
        """Yield a network of each L2 penalty; rows have no weights."""
        yield from zip(PENALTIES, self.trained(X, y, PENALTIES), strict=True)

    def fit(
        self, X: FeatureRows, y: NDArray[np.int64], settings: float, weight: NDArray[np.float64] | None = None
    ) -> FrozenNetwork:
        """Return the network of an L2 penalty."""
        (network,) = self.trained(X, y, (settings,))
        return network

    def trained(self, X: FeatureRows, y: NDArray[np.int64], penalties: tuple[float, ...]) -> Iterator[FrozenNetwork]:
        """Yield the networks of L2 penalties after the last epoch."""
        rows = Split(X, y, SliceMatrix((), np.zeros((len(y), 0), dtype=bool)))
        training = StackTraining(self.recipe, self.num_classes, [1.0] * len(penalties), penalties, self.seed)
        few = rows.subset(np.arange(1))
        checkpoints = training.run(rows, few, RowWeights(np.ones((len(penalties), len(rows)))))
        for setting in range(len(penalties)):
            plain = checkpoints.network(self.recipe.n_epochs, setting)
            network = FrozenNetwork(plain.backbone, self.num_classes)
            network.load_state_dict(plain.state_dict())
            yield network.eval()


def measured(model: Network, setup: SetUp, X: FeatureRows, S: SliceMatrix) -> dict[str, Any]:
    """Return accuracy on the test rows, in all and in each judged slice."""
    correct = model.predict_proba(X, S).argmax(axis=1) == setup.test.y
    per_slice = correct.astype(float) @ setup.judged / setup.judged.sum(axis=0)
    return {"overall": float(correct.mean()), "slices": per_slice.tolist()}


def true_share(model: Any, X: FeatureRows, setup: SetUp) -> float | None:
    """Return the share of the change of the logits that the true keyword's slice holds, over its members."""
    kept = getattr(model, "kept", ())
    member = memberships(setup.test.S, kept, len(setup.test))
    if isinstance(model, SliceResidualClassifier) and model.mode != "emb" and kept:
        with torch.inference_mode():
            sizes = model.slice_residuals(X.take(slice(None)), member).abs().sum(dim=2).numpy()  # [N, K]
    elif isinstance(model, SliceAdapter) and kept:
        base = centred_logits(model.base.predict_proba(X))[:, None]  # [N, 1, C]
        change = base * model.slope.numpy()[:, None] + model.offset.numpy()  # [N, K, C]
        sizes = np.abs(change).sum(axis=2) * member.member.numpy()
    else:
        return None
    shares = sizes / np.maximum(sizes.sum(axis=1, keepdims=True), 1e-12)
    columns = {name: k for k, name in enumerate(kept)}
    found = [
        shares[setup.judged[:, k], columns[f"word_{k}"]].mean() if f"word_{k}" in columns else 0.0
        for k in range(N_KEYWORDS)
    ]
    return float(np.mean(found))


def ours(method: str, problem: Problem, setup: SetUp, seed: int) -> dict[str, Any]:
    """Return the cell of one of our learners, also with unknown memberships in a share of the test rows."""
    if method.startswith("adapter on "):
        families: dict[str, BaseFamily[Any]] = {
            "linear": LinearFamily(2, seed, is_wide=setup.train.wide is not None),
            "trees": TreeFamily(2, seed),
            "network": NetworkFamily(2, setup.recipe),
        }
        return adapted(families[method.removeprefix("adapter on ")], setup)
    started = time.process_time()
    if method == "default":
        found = search_models(replace(setup.recipe, kind="auto"), setup.train, setup.valid, 2)
    else:
        found = fit_learner(replace(setup.recipe, kind="slice_residual"), setup.train, setup.valid, 2)
    seconds, test = time.process_time() - started, setup.test
    X = test.wide if found.is_wide and test.wide is not None else test.X
    cell = measured(found.model, setup, X, test.S) | {"form": found.form, "seconds": seconds, "unknown": {}}
    for share in UNKNOWN:
        rows = np.random.default_rng(20_000 + seed).random(len(test)) < share
        every = np.repeat(rows[:, None], len(test.S.names), axis=1)
        hidden = SliceMatrix(test.S.names, test.S.member & ~every, every)
        cell["unknown"][f"{share:g}"] = measured(found.model, setup, X, hidden)
    if problem.name.startswith("keyword"):
        cell["share"] = true_share(found.model, X, setup)
    return cell


def adapted(family: BaseFamily[Any], setup: SetUp) -> dict[str, Any]:
    """Return the cell of a frozen base with a slice adapter, beside the base; empty where it is not searched."""
    rows, test = Rows.of(setup.train, setup.valid), setup.test
    if family.limit(family.features(rows)) or (found := family.cross_fit(rows)) is None:
        return {}
    base = CrossFittedBase(((family, found[0]),), found[1])
    model, result = base.fit(rows), with_slices(base, rows, family.seed)
    X = test.wide if family.is_wide and test.wide is not None else test.X
    cell = measured(result.adapted(model), setup, X, test.S) | {"form": result.form}
    return cell | {"base": measured(model, setup, X, test.S)}


def cost() -> list[dict[str, Any]]:
    """Return the time of a batch without slices and with 100, in milliseconds, medians of alternating runs."""
    rng, found = np.random.default_rng(0), []
    names = [f"slice {k}" for k in range(COST_SLICES)]
    S = SliceMatrix(names, rng.random((BATCH, COST_SLICES)) < 0.05)
    for width, widths, classes in COST_SHAPES:
        X = FeatureRows(rng.normal(size=(BATCH, width)).astype(np.float32))
        plain = inference(PlainClassifier(MLP(width, widths), classes).eval())
        sliced = inference(SliceResidualClassifier(MLP(width, widths), widths[-1], names, classes).eval())
        times: list[list[float]] = [[], []]
        for _ in range(400):
            for model, of_model in zip((plain, sliced), times, strict=True):
                began = time.perf_counter()
                model.predict_proba(X, S)
                of_model.append(1000 * (time.perf_counter() - began))
        without, with_slices = (float(np.median(each[50:])) for each in times)
        shape = "-".join(map(str, (width, *widths, classes)))
        found.append({"network": shape, "plain_ms": without, "sliced_ms": with_slices})
    return found
