"""Snorkel's slice-aware classifier, under an interpreter that has it, told what to do by lines on stdin.

``{"rows": NPZ with X, y, S; "width": H; "answers": NPZ}`` builds it and writes its weights and probabilities;
``{"epochs": E}`` trains on, and is answered by the seconds of each epoch as one line of JSON.
"""

import json
import sys
import time

import numpy as np
import torch
from snorkel.classification import DictDataset, Trainer
from snorkel.slicing import SliceAwareClassifier
from torch import nn


def build(rows: str, width: int):
    """Return the classifier and its loader over the given rows."""
    with np.load(rows) as data:
        X, y, member = torch.from_numpy(data["X"]), torch.from_numpy(data["y"]), data["S"]
    names = [f"slice{k:03d}" for k in range(member.shape[1])]
    S = np.recarray((len(member),), dtype=[(name, np.int64) for name in names])
    for k, name in enumerate(names):
        S[name] = member[:, k]
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(X.shape[1], width), nn.ReLU())
    model = SliceAwareClassifier(backbone, width, names, device=-1, dataparallel=False)
    loader = model.make_slice_dataloader(DictDataset.from_tensors(X, y, "train"), S, shuffle=True, batch_size=64)
    return model, loader, X


def answers(model, X) -> dict[str, np.ndarray]:
    """Return every weight, stacked by slice with the base last, and the probabilities of the first rows."""
    pool, names = model.module_pool, [*model.slice_names, "base"]
    heads = {
        "backbone": [pool["base_architecture"][0]],
        "indicators": [pool[f"task_slice:{name}_ind_head"] for name in names],
        "experts": [pool[f"task_slice:{name}_pred_transform"] for name in names],
        "expert_head": [pool["task_slice:base_pred_head"]],
        "head": [pool["task_master_head"]],
    }
    out = {}
    for name, layers in heads.items():
        out[f"{name}.weight"] = torch.cat([layer.weight for layer in layers]).detach().numpy()
        out[f"{name}.bias"] = torch.cat([layer.bias for layer in layers]).detach().numpy()
    model.eval()
    with torch.no_grad():
        outputs = model({"input_data": X[:200]}, ["task"])
    logits = outputs[model.op_sequences["task"][-1].name]
    return out | {"probabilities": torch.softmax(logits, dim=1).numpy()}


def epoch_seconds(model, loader) -> float:
    """Return the time of one epoch."""
    trainer = Trainer(n_epochs=1, lr=1e-3, progress_bar=False)
    start = time.perf_counter()
    trainer.fit(model, [loader])
    return time.perf_counter() - start


def main() -> None:
    """Answer every request."""
    torch.set_num_threads(1)
    model = loader = None
    for line in sys.stdin:
        request = json.loads(line)
        if "rows" in request:
            model, loader, X = build(request["rows"], request["width"])
            np.savez(request["answers"], **answers(model, X))
            print("null", flush=True)
        else:
            print(json.dumps([epoch_seconds(model, loader) for _ in range(request["epochs"])]), flush=True)


if __name__ == "__main__":
    main()
