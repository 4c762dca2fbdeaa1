"""The network of the benchmark for a server that has PyTorch alone: features of records, and probabilities.

The folder has ``network.pt``, a TorchScript module from features to probabilities, and ``features.json``, the
classes and the fitted state of the features. The features are those of Slicewatch, written with lists.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

WORD = re.compile(r"(?u)\b\w\w+\b")
BATCHES = (1, 2, 8, 16, 32)


class PeerNetwork:
    """The exported network.

    Parameters
    ----------
    folder
        Where the benchmark has exported it.
    """

    def __init__(self, folder: str | Path) -> None:
        torch.set_num_threads(1)
        exported = json.loads((Path(folder) / "features.json").read_text())
        self.classes, self.features = exported["classes"], exported["features"]
        self.n_features, n_sparse, n_dense = exported["n_features"], 0, exported["n_sparse"]
        self.places = []  # first sparse and first dense column of each feature
        for feature in self.features:
            self.places.append((n_sparse, n_dense))
            kind, state = feature["kind"], feature["state"]
            n_sparse += {"text": 2048, "category": len(state.get("names", ())) + 2, "number": 0}[kind]
            n_dense += {"text": 1, "category": 0, "number": 2}[kind]
        self.network = torch.jit.load(str(Path(folder) / "network.pt"))
        for rows in BATCHES * 3:
            self.predict([exported["record"]] * rows)

    @torch.inference_mode()
    def predict(self, records: list[dict[str, Any]]) -> list[list[float]]:
        """Return the probabilities of N records, in the order of the classes."""
        X = torch.zeros(len(records), self.n_features)
        entries = [(n * self.n_features + j, value) for n, row in enumerate(records) for j, value in self.entries(row)]
        places, values = zip(*entries, strict=True)
        X.view(-1)[torch.tensor(places)] = torch.tensor(values)
        return self.network(X).tolist()  # type: ignore[no-any-return]

    def entries(self, record: dict[str, Any]) -> Iterator[tuple[int, float]]:
        """Yield the columns of a record that are not 0, with their values."""
        for feature, (sparse, dense) in zip(self.features, self.places, strict=True):
            value, state = record[feature["column"]], feature["state"]
            if feature["kind"] == "text":
                counts: Counter[int] = Counter()
                for word in WORD.findall(value.lower()):
                    column, sign = hashed(word)
                    counts[column] += sign
                length = math.sqrt(sum(count * count for count in counts.values())) or 1.0
                yield from ((sparse + column, count / length) for column, count in counts.items() if count)
            elif feature["kind"] == "category":
                names = state["names"]
                if value in names:
                    yield sparse + names.index(value), 1.0
                elif state["other_seen"]:
                    yield sparse + len(names), 1.0
            else:
                scaled = (value - state["center"]) / state["scale"]
                beyond = math.log1p(max(abs(scaled) - 3.0, 0.0))
                yield dense, math.copysign(min(min(abs(scaled), 3.0) + beyond, 20.0), scaled)


@lru_cache(200_000)
def hashed(word: str) -> tuple[int, int]:
    """Return column and sign of a word: MurmurHash3, 32 bits, as scikit-learn's ``HashingVectorizer`` takes it."""
    data, code = word.encode("utf-8", "surrogatepass"), 0
    for start in range(0, len(data), 4):
        block = data[start : start + 4]
        k = int.from_bytes(block, "little") * 0xCC9E2D51 & 0xFFFFFFFF
        k = (k << 15 | k >> 17) * 0x1B873593 & 0xFFFFFFFF
        code ^= k
        if len(block) == 4:
            code = ((code << 13 | code >> 19) & 0xFFFFFFFF) * 5 + 0xE6546B64 & 0xFFFFFFFF
    code ^= len(data)
    code = (code ^ code >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    code = (code ^ code >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    code ^= code >> 16
    return (code % 2048, 1) if code < 1 << 31 else (((1 << 32) - code) % 2048, -1)
