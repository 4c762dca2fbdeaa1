"""Label models against Snorkel's on the same votes and class balance, and an end model on their labels.

    python tests/benchmarks/bench_label_models.py --peer-python PATH --out FILE.json [--data FOLDER]

Votes are generated, and those of written functions on the two public collections, if DATA has them. Each generated
figure is a mean over seeds.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from label_functions import SMS, SPAM, YOUTUBE, votes
from numpy.typing import NDArray
from peer import Peer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score

from models.comments import load_sms, load_youtube
from models.features import FeatureSpec
from models.label_model import LabelModel, TripletLabelModel
from models.labelers import MajorityLabelVoter
from models.splits import content_hashes

SEEDS, ROWS, FUNCTIONS = 5, 10_000, 10
REACH_AGREEMENT, REACH_DIFFERENCE, REACH_FASTER = 0.97, 0.03, 50
MODELS = {"matrix": LabelModel, "triplets": TripletLabelModel}

Votes = NDArray[np.int64]


def generated(classes: int, seed: int, *, one_class: bool) -> tuple[Votes, Votes, list[float]]:
    """Return votes of independent functions, true classes, and their frequencies; each votes for all, or for one."""
    rng = np.random.default_rng([seed, classes, one_class])
    p = rng.dirichlet(np.full(classes, 5.0))
    y = rng.choice(classes, ROWS, p=p)
    L = np.full((ROWS, FUNCTIONS), -1)
    for i, (accuracy, coverage) in enumerate(rng.uniform([0.55, 0.1], [0.9, 0.6], (FUNCTIONS, 2))):
        if one_class:
            own = i % classes
            right, wrong = coverage * accuracy / p[own] / 2, coverage * (1 - accuracy) / (1 - p[own]) / 2
            L[:, i] = np.where(rng.random(ROWS) < np.where(y == own, min(1, right), wrong), own, -1)
        else:
            other = (y + rng.integers(1, classes, ROWS)) % classes
            vote = np.where(rng.random(ROWS) < accuracy, y, other)
            L[:, i] = np.where(rng.random(ROWS) < coverage, vote, -1)
    return L, y, p.tolist()


def compared(peer: Peer, L: Votes, y: Votes, p: list[float], folder: Path) -> dict[str, float]:
    """Return the figures of all label models on the same votes; those of labels on rows that have a vote."""
    some, known = (L >= 0).any(axis=1), [L[:, i] >= 0 for i in range(L.shape[1])]
    true = np.array([(L[own, i] == y[own]).mean() for i, own in enumerate(known)])
    np.save(folder / "votes.npy", L)
    files = {"votes": str(folder / "votes.npy"), "probs": str(folder / "probs.npy")}
    answer = peer.ask(balance=p, **files)
    theirs, weights = np.load(files["probs"]).argmax(axis=1), np.array(answer["weights"])
    majority = MajorityLabelVoter(len(p)).predict(L, tie_break_policy="random")
    found = {
        "snorkel seconds": answer["seconds"],
        "snorkel error": float(np.abs(weights - true).mean()),
        "snorkel accuracy": float((theirs == y)[some].mean()),
        "majority accuracy": float((majority == y)[some].mean()),
    }
    for name, kind in MODELS.items():
        model = kind(len(p))
        start = time.perf_counter()
        model.fit(L, class_balance=p)
        found[f"{name} seconds"] = time.perf_counter() - start
        labels = model.predict_proba(L).argmax(axis=1)
        found |= {
            f"{name} agreement": float((labels == theirs)[some].mean()),
            f"{name} difference": float(np.abs(model.get_weights() - weights).mean()),
            f"{name} error": float(np.abs(model.get_weights() - true).mean()),
            f"{name} accuracy": float((labels == y)[some].mean()),
            f"{name} dependent": len(model.dependencies),
        }
    return found


def end_models(texts: pd.Series[str], y: Votes, L: Votes, p: list[float]) -> dict[str, float]:
    """Return the F1 on three tenths of the contents of one linear model, by the labels that it was trained on."""
    test = content_hashes(texts.to_frame("text"), [FeatureSpec("text", "text")]) % 10 < 3
    some = ~test & (L >= 0).any(axis=1)
    X = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(texts[~test]).transform(texts)
    found = {"rows": int(some.sum()), "test rows": int(test.sum())}
    of_labels = {"true labels, all rows": (~test, np.eye(2)[y]), "true labels": (some, np.eye(2)[y])}
    for name, model in (("majority", MajorityLabelVoter()), *((name, kind()) for name, kind in MODELS.items())):
        if not isinstance(model, MajorityLabelVoter):
            model.fit(L[~test], class_balance=p)
        of_labels[name] = some, model.predict_proba(L)
    for name, (rows, probs) in of_labels.items():
        twice, rows_of = np.repeat([0, 1], rows.sum()), np.flatnonzero(rows)
        weights = probs[rows_of].T.reshape(-1)  # every row as both classes, by their probabilities
        end = LogisticRegression(C=10, max_iter=1_000).fit(X[np.tile(rows_of, 2)], twice, weights)
        found[name] = float(f1_score(y[test], end.predict(X[test])))
    return found


def collections(data: Path | None) -> dict[str, tuple[pd.Series[str], Votes, Votes]]:
    """Return texts, true classes and votes of the public collections that there are."""
    found = {}
    for name, load, place, rules in (
        ("YouTube", load_youtube, "youtube-spam", YOUTUBE),
        ("SMS", load_sms, "sms-spam", SMS),
    ):
        if data and (data / place).exists():
            rows = load(data / place)
            texts = rows["text"].reset_index(drop=True)
            found[name] = texts, (rows["label"] == "spam").to_numpy(np.int64) * SPAM, votes(rules, texts)
    return found


def main() -> int:
    """Measure, print and write; 1 when a figure is missed on generated votes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", required=True, help="an interpreter that has Snorkel 0.10.0")
    parser.add_argument("--out", type=Path, required=True, help="where the results go, as JSON")
    parser.add_argument("--data", type=Path, help="public data")
    options = parser.parse_args()
    logging.getLogger("models.label_model").setLevel(logging.ERROR)
    peer = Peer(options.peer_python, "peer_snorkel_labels.py")
    results: list[dict[str, Any]] = []
    ends = []
    with tempfile.TemporaryDirectory() as place:
        for classes in (2, 4):
            for one_class in (False, True):
                runs = []
                for seed in range(SEEDS):
                    L, y, p = generated(classes, seed, one_class=one_class)
                    runs.append(compared(peer, L, y, p, Path(place)))
                figures = pd.DataFrame(runs).mean().to_dict()
                what = f"{classes} classes, {'one' if one_class else 'all'} a function"
                results.append({"votes": what, "generated": True, **figures})
        for name, (texts, y, L) in collections(options.data).items():
            p = (np.bincount(y) / len(y)).tolist()
            results.append({"votes": name, "generated": False, **compared(peer, L, y, p, Path(place))})
            ends.append({"collection": name, **end_models(texts, y, L, p)})
    peer.close()
    for row in results:
        row["faster"] = row["snorkel seconds"] / row["triplets seconds"]
        row["reached"] = row["faster"] >= REACH_FASTER and all(
            row[f"{name} agreement"] >= REACH_AGREEMENT and row[f"{name} difference"] <= REACH_DIFFERENCE
            for name in MODELS
        )
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
    print(*ends, sep="\n")
    options.out.write_text(json.dumps({"results": results, "end_models": ends}, indent=1) + "\n", encoding="utf-8")
    return int(not all(row["reached"] for row in results if row["generated"]))


if __name__ == "__main__":
    sys.exit(main())
