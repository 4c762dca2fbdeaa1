"""Snorkel's applier, under an interpreter that has it, told what to do by lines on stdin.

``{"rows": CSV}`` reads the rows; ``{"functions": "five" or declarations, "first": N, "answers": NPY}`` puts
them to the first N rows, writes what they answered, and is answered by the seconds as one line of JSON.
"""

import json
import sys
import time

import numpy as np
import pandas as pd
from seed_functions import FIVE, written
from snorkel.slicing import PandasSFApplier, SlicingFunction


def functions(asked):
    """Return the slicing functions that are asked for."""
    pairs = [(f.__name__, f) for f in FIVE] if asked == "five" else written(asked)
    return [SlicingFunction(name, f) for name, f in pairs]


def main() -> None:
    """Answer until stdin ends."""
    frame = pd.DataFrame()
    for line in sys.stdin:
        request = json.loads(line)
        if "rows" in request:
            frame = pd.read_csv(request["rows"], keep_default_na=False, dtype={"text": str})
            answer = len(frame)
        else:
            applier = PandasSFApplier(functions(request["functions"]))
            rows = frame.head(request["first"])
            start = time.perf_counter()
            S = applier.apply(rows, progress_bar=False)
            answer = time.perf_counter() - start
            np.save(request["answers"], np.stack([S[name] for name in S.dtype.names], axis=1))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
