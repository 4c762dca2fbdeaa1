"""Compare the slice residual learner with its plain peers and with attention over slices, over seeds.

    python tests/benchmarks/bench_learner.py --seeds 10 --data DIR --out results/learner

Every cell is accuracy in percent, a mean with its 95 % t interval over seeds. ``--flips`` flips that
share of all memberships in training, validation and serving; slices are then judged by the true ones.
``--unknown`` makes every membership of that share of test rows unknown. The public data sets are read
from the folder that ``--data`` or SLICEWATCH_TEST_DATA names; without it only generated set-ups run.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy import stats

sys.path.insert(0, str(Path(__file__).parent))

from learner_setups import N_KEYWORDS, SetUp, geometry, keyword_text, sms, youtube

from models.batches import Split, memberships
from models.learners import fit_learner
from models.model_selection import CandidateSpec, TrainingTask, train_candidate
from models.slice_residual import SliceResidualClassifier
from sfs.matrix import SliceMatrix

METHODS = ("ERM", "weighted ERM", "attention", "slice residual")
Cell = dict[str, float]


def set_ups(data: Path | None) -> dict[str, Callable[[int], SetUp]]:
    generated = {
        "geometry K=2": partial(geometry, n_slices=2),
        "geometry K=100": partial(geometry, n_slices=100),
        "keyword text K=100": partial(keyword_text, n_slices=100),
    }
    return generated | ({"SMS": partial(sms, data=data), "YouTube": partial(youtube, data=data)} if data else {})


def flipped(split: Split, share: float, rng: np.random.Generator) -> Split:
    flips = rng.random(split.S.member.shape) < share
    return replace(split, S=SliceMatrix(split.S.names, split.S.member ^ flips))


def measured(predict: Callable[..., np.ndarray], setup: SetUp, S: SliceMatrix) -> Cell:
    correct = predict(setup.test.X, S).argmax(axis=1) == setup.test.y
    per_slice = correct.astype(float) @ setup.judged / setup.judged.sum(axis=0)
    return {"overall": correct.mean(), "worst": per_slice.min(), "mean slice": per_slice.mean()}


def true_share(model: torch.nn.Module, setup: SetUp) -> float | None:
    """Share of the absolute residual that the true keyword's slice holds, over its members."""
    if not isinstance(model, SliceResidualClassifier) or model.mode == "emb" or not model.kept:
        return None
    slices = memberships(setup.test.S, model.kept, len(setup.test))
    with torch.inference_mode():
        sizes = model.slice_residuals(setup.test.X.take(slice(None)), slices).abs().sum(dim=2).numpy()  # [N, K]
    shares = sizes / np.maximum(sizes.sum(axis=1, keepdims=True), 1e-12)
    columns = {name: k for k, name in enumerate(model.kept)}
    found = [
        shares[setup.judged[:, k], columns[f"word_{k}"]].mean() if f"word_{k}" in columns else 0.0
        for k in range(N_KEYWORDS)
    ]
    return float(np.mean(found))


def one_seed(name: str, make: Callable[[int], SetUp], seed: int, flips: float, unknown: float) -> dict[str, object]:
    setup = make(seed)
    rng = np.random.default_rng(10_000 + seed)
    if flips:
        train, valid, test = (flipped(split, flips, rng) for split in (setup.train, setup.valid, setup.test))
        setup = SetUp(train, valid, test, setup.judged, setup.recipe)
    started = time.perf_counter()
    fitted = fit_learner(setup.recipe, setup.train, setup.valid, 2)
    seconds = time.perf_counter() - started
    task = TrainingTask(setup.train, setup.valid, 2, setup.recipe.widths, setup.recipe.trainer_config)
    attention = train_candidate(task, CandidateSpec("slice_aware", setup.train.S.names)).model
    models = (fitted.peers["erm"], fitted.peers["weighted_erm"], attention, fitted.model)
    rows = rng.random(len(setup.test)) < unknown
    S = setup.test.S
    S = SliceMatrix(S.names, S.member & ~rows[:, None], np.repeat(rows[:, None], len(S.names), axis=1))
    cells = {method: measured(model.predict_proba, setup, S) for method, model in zip(METHODS, models, strict=True)}
    share = true_share(fitted.model, setup) if name.startswith("keyword") else None
    return {"seed": seed, "seconds": seconds, "form": fitted.form, "share": share, "cells": cells}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95 % t interval."""
    n = len(values)
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n) if n > 1 else float("nan")
    return float(np.mean(values)), float(half)


def in_percent(values: Sequence[float]) -> str:
    mean, half = interval([100 * value for value in values])
    return f"{mean:.1f} ±{half:.1f}"


def table(results: dict[str, list[dict]]) -> str:
    lines = [
        "| set-up | method | overall | worst slice | mean slice | slice residual minus it: overall | worst |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, seeds in results.items():
        for method in METHODS:
            cells = [seed["cells"][method] for seed in seeds]
            ours = [seed["cells"]["slice residual"] for seed in seeds]
            columns = [in_percent([cell[what] for cell in cells]) for what in ("overall", "worst", "mean slice")]
            for what in ("overall", "worst"):
                gains = [a[what] - b[what] for a, b in zip(ours, cells, strict=True)]
                columns.append("" if method == "slice residual" else in_percent(gains))
            lines.append(f"| {name} (n={len(seeds)}) | {method} | {' | '.join(columns)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--set-ups", default="", help="comma separated; all by default")
    parser.add_argument("--flips", type=float, default=0.0)
    parser.add_argument("--unknown", type=float, default=0.0)
    parser.add_argument("--data", type=Path, default=os.environ.get("SLICEWATCH_TEST_DATA"))
    parser.add_argument("--out", type=Path, help="write OUT.json and OUT.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    known = set_ups(Path(args.data) if args.data else None)
    chosen = args.set_ups.split(",") if args.set_ups else list(known)
    if strangers := [name for name in chosen if name not in known]:
        parser.error(f"no set-up {strangers[0]!r}; there are: {', '.join(known)}")
    results: dict[str, list[dict]] = {}
    for name in chosen:
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            row = one_seed(name, known[name], seed, args.flips, args.unknown)
            results.setdefault(name, []).append(row)
            cells = {m: f"{100 * c['overall']:.1f}/{100 * c['worst']:.1f}" for m, c in row["cells"].items()}
            print(
                f"{name} {seed} {row['seconds']:.0f} s: {cells}; {row['form']}; share {row['share']}",
                flush=True,
            )
    print(table(results))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.with_suffix(".json").write_text(json.dumps(results, indent=1))
        args.out.with_suffix(".md").write_text(table(results) + "\n")


if __name__ == "__main__":
    main()
