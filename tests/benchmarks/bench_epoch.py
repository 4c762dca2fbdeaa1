"""One training epoch of the slice-aware classifier against Snorkel's, one thread each.

    python tests/benchmarks/bench_epoch.py --peer-python PATH --out FILE.json

Epochs of ours and Snorkel's alternate, on the same rows and backbone; each figure is a median. The full-rank
form is Snorkel's network: with its weights ours is first checked to give its probabilities.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peer import Peer
from torch import nn

from models.dataset import DictDataLoader, DictDataset
from models.slice_aware import DEFAULT_RANK, SliceAwareClassifier
from models.trainer import Trainer, seeded
from sfs.matrix import SliceMatrix

N, D, H, BATCH = 1_586, 2_000, 256, 64
SEED = 0
REACH = {("low rank", 5): 2, ("low rank", 50): 8, ("low rank", 100): 12, ("full rank", 100): 2}


def rows(K: int, folder: Path) -> Path:
    """Write random rows with K slices of 5 % each; return the file."""
    random = np.random.default_rng(SEED)
    X = (random.random((N, D)) < 0.01).astype(np.float32)
    y = (X[:, : D // 2].sum(axis=1) > X[:, D // 2 :].sum(axis=1)).astype(np.int64)
    path = folder / f"rows{K}.npz"
    np.savez(path, X=X, y=y, S=random.random((N, K)) < 0.05)
    return path


def built(path: Path, **options: Any) -> tuple[SliceAwareClassifier, DictDataLoader]:
    """Return our classifier and its loader over the given rows."""
    with np.load(path) as data:
        X, y, member = torch.from_numpy(data["X"]), torch.from_numpy(data["y"]), data["S"]
    names = [f"slice{k:03d}" for k in range(member.shape[1])]
    with seeded(SEED):
        model = SliceAwareClassifier(nn.Sequential(nn.Linear(D, H), nn.ReLU()), H, names, **options)
    dataset = DictDataset.from_tensors(X, y, "train")
    S = SliceMatrix(names, member)
    return model, model.make_slice_dataloader(dataset, S, shuffle=True, batch_size=BATCH)


def epoch_seconds(model: SliceAwareClassifier, loader: DictDataLoader) -> float:
    """Return the time of one epoch through the same door as the peer's."""
    trainer = Trainer(n_epochs=1, lr=1e-3)
    start = time.perf_counter()
    trainer.fit(model, [loader])
    return time.perf_counter() - start


def check_same_function(model: SliceAwareClassifier, path: Path, answers: Path) -> None:
    """Check that with Snorkel's weights our network gives Snorkel's probabilities."""
    again = SliceAwareClassifier.from_config(model.config(), nn.Sequential(nn.Linear(D, H), nn.ReLU()))
    with np.load(answers) as data, np.load(path) as given:
        state = {name.replace("backbone", "base_architecture.0"): torch.from_numpy(data[name]) for name in data}
        expected = state.pop("probabilities").numpy()
        again.load_state_dict(state)
        np.testing.assert_allclose(again.predict_proba(given["X"][:200]), expected, rtol=1e-4, atol=1e-6)


def compare(K: int, peer: Peer, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Return one row of results for each form of expert, measured in turn with the peer."""
    path, answers = rows(K, folder), folder / f"answers{K}.npz"
    forms = {
        "low rank": built(path, expert_rank=DEFAULT_RANK),
        "full rank": built(path, expert_rank=None, attention="snorkel"),
    }
    peer.ask(rows=str(path), width=H, answers=str(answers))
    check_same_function(forms["full rank"][0], path, answers)
    times: dict[str, list[float]] = {"peer": [], "low rank": [], "full rank": []}
    for turn in range(rounds + 1):  # the first turn warms up
        measured = {form: epoch_seconds(*made) for form, made in forms.items()}
        measured["peer"] = peer.ask(epochs=1)[0]
        for who, seconds in measured.items():
            times[who] += [seconds] if turn else []
    median = {who: statistics.median(values) for who, values in times.items()}
    return [
        {
            "slices": K,
            "experts": form,
            "ours_seconds": round(median[form], 4),
            "peer_seconds": round(median["peer"], 4),
            "ratio": round(median["peer"] / median[form], 2),
            "reach": REACH.get((form, K)),
        }
        for form in forms
    ]


def main() -> int:
    """Measure, print and write; 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="an interpreter that has Snorkel 0.10.0")
    parser.add_argument("--out", type=Path, required=True, help="where the results go, as JSON")
    parser.add_argument("--slices", type=int, nargs="+", default=[5, 20, 50, 100])
    parser.add_argument("--rounds", type=int, default=5, help="epochs of each, after one to warm up")
    options = parser.parse_args()
    torch.set_num_threads(1)
    peer = Peer(options.peer_python, "peer_snorkel_epoch.py")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for K in options.slices:
            for row in compare(K, peer, Path(folder), options.rounds):
                results.append(row)
                print(
                    f"K={row['slices']:<4} {row['experts']:<10} {row['ours_seconds']:.3f} s against "
                    f"{row['peer_seconds']:.3f} s: {row['ratio']:.1f} x"
                )
    peer.close()
    about = {"n": N, "d": D, "h": H, "batch": BATCH, "rank": DEFAULT_RANK, "seed": SEED}
    measured = {
        "rounds": options.rounds,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, one thread",
    }
    options.out.write_text(
        json.dumps({"settings": about | measured, "results": results}, indent=2) + "\n", encoding="utf-8"
    )
    return int(any(row["reach"] and row["ratio"] < row["reach"] for row in results))


if __name__ == "__main__":
    sys.exit(main())
