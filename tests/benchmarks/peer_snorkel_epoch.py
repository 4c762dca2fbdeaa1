"""Time epochs of Snorkel's slice-aware classifier; run under its own interpreter, told what to do by lines on stdin.

Each line is a JSON object: {"file": NPZ with X, y, S; "width": H; "epochs": E}. The answer is one line of JSON: the
seconds of each epoch.
"""

import json
import sys
import time

import numpy as np
import torch
from snorkel.classification import DictDataset, Trainer
from snorkel.slicing import SliceAwareClassifier
from torch import nn


def build(path: str, width: int):
    """Return the classifier and its loader over the given rows."""
    with np.load(path) as data:
        X, y, member = torch.from_numpy(data["X"]), torch.from_numpy(data["y"]), data["S"]
    names = [f"slice{k:03d}" for k in range(member.shape[1])]
    S = np.recarray((len(member),), dtype=[(name, np.int64) for name in names])
    for k, name in enumerate(names):
        S[name] = member[:, k]
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(X.shape[1], width), nn.ReLU())
    model = SliceAwareClassifier(backbone, width, names, device=-1, dataparallel=False)
    dataset = DictDataset.from_tensors(X, y, "train")
    return model, model.make_slice_dataloader(dataset, S, shuffle=True, batch_size=64)


def main() -> None:
    """Answer every request."""
    torch.set_num_threads(1)
    built = {}
    for line in sys.stdin:
        request = json.loads(line)
        key = request["file"]
        if key not in built:
            built[key] = build(key, request["width"])
        model, loader = built[key]
        seconds = []
        for _ in range(request["epochs"]):
            trainer = Trainer(n_epochs=1, lr=1e-3, progress_bar=False)
            start = time.perf_counter()
            trainer.fit(model, [loader])
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


if __name__ == "__main__":
    main()
