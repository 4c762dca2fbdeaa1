"""Snorkel's label model, under an interpreter that has it, told what to do by lines on stdin.

``{"votes": NPY, "balance": [...], "probs": NPY}`` fits it, writes the probabilities of the votes' rows, and is answered
by the seconds of the fit and the accuracies of the functions as one line of JSON.
"""

import json
import sys
import time

import numpy as np
import torch
from snorkel.labeling.model import LabelModel

EPOCHS, SEED = 500, 1


def main() -> None:
    """Answer until stdin ends."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        votes = np.load(request["votes"])
        model = LabelModel(cardinality=len(request["balance"]), verbose=False)
        start = time.perf_counter()
        model.fit(votes, class_balance=request["balance"], n_epochs=EPOCHS, seed=SEED, progress_bar=False)
        seconds = time.perf_counter() - start
        np.save(request["probs"], model.predict_proba(votes))
        print(json.dumps({"seconds": seconds, "weights": model.get_weights().tolist()}), flush=True)


if __name__ == "__main__":
    main()
