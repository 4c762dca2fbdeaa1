"""Label models against Snorkel's on the same votes and class balance, and an end model on their labels.

    python tests/benchmarks/bench_label_models.py --peer-python PATH --out FILE.json [--data FOLDER]

Votes are generated, and those of written functions on the two public collections, if DATA has them. Each generated
figure is a mean over seeds. Functions and the settings of the label models were chosen on seven tenths of the contents
of a collection; all figures against true classes are of the others.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench_panel import mean_interval
from label_functions import SMS, SPAM, YOUTUBE, Rule, votes
from numpy.typing import NDArray
from peer import Peer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from models.comments import load_sms, load_youtube
from models.config import LearnerConfig, TrainConfig
from models.dawid_skene import DawidSkeneLabelModel
from models.features import FeatureSpec
from models.label_model import LabelModel, TripletLabelModel
from models.labelers import MajorityLabelVoter
from models.splits import content_hashes
from models.training import train
from sfs.function import LabelingFunction

SEEDS, ROWS, N_FUNCTIONS = 5, 10_000, 10
FITS = 5
"""Fits of a hundredth of a second each, of which the median counts; Snorkel's takes a second, and counts as it is."""
END_SEEDS, TRAIN_SEEDS = 10, 5
LABELLED, LABELLED_SHARE = 100, 0.1
FEATURES = (FeatureSpec("text", "text"),)
RULES = {"YouTube": YOUTUBE, "SMS": SMS}
TRUE_ALL, TRUE, FEW = "true labels, all rows", "true labels, rows with a vote", "100 true labels alone"
TAUGHT, TENTH = "abstentions, and 100 true labels", "a tenth of the true labels"
FUNCTIONS = "a tenth of the true labels, others from functions"
REACH_AGREEMENT, REACH_DIFFERENCE, REACH_FASTER = 0.97, 0.03, 50
STEPS = "Snorkel's steps"
MODELS: dict[str, tuple[type[LabelModel | TripletLabelModel], dict[str, Any]]] = {
    STEPS: (LabelModel, {"lr": 0.01, "n_epochs": 500, "seed": 1}),
    "matrix": (LabelModel, {}),
    "triplets": (TripletLabelModel, {}),
}

Votes = NDArray[np.int64]


def generated(classes: int, seed: int, *, one_class: bool) -> tuple[Votes, Votes, list[float]]:
    """Return votes of independent functions, true classes, and their frequencies; each votes for all, or for one."""
    rng = np.random.default_rng([seed, classes, one_class])
    p = rng.dirichlet(np.full(classes, 5.0))
    y = rng.choice(classes, ROWS, p=p)
    L = np.full((ROWS, N_FUNCTIONS), -1)
    for i, (accuracy, coverage) in enumerate(rng.uniform([0.55, 0.1], [0.9, 0.6], (N_FUNCTIONS, 2))):
        if one_class:
            own = i % classes
            right, wrong = coverage * accuracy / p[own] / 2, coverage * (1 - accuracy) / (1 - p[own]) / 2
            L[:, i] = np.where(rng.random(ROWS) < np.where(y == own, min(1, right), wrong), own, -1)
        else:
            other = (y + rng.integers(1, classes, ROWS)) % classes
            vote = np.where(rng.random(ROWS) < accuracy, y, other)
            L[:, i] = np.where(rng.random(ROWS) < coverage, vote, -1)
    return L, y, p.tolist()


def compared(
    peer: Peer, L: Votes, y: Votes, p: list[float], folder: Path, judged: NDArray[np.bool_]
) -> dict[str, float]:
    """Return the figures of all label models on the same votes; those of labels on rows that have a vote.

    Only the ``judged`` rows count against the true classes.
    """
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
        "snorkel accuracy": float((theirs == y)[some & judged].mean()),
        "majority accuracy": float((majority == y)[some & judged].mean()),
        "judged": int((some & judged).sum()),
    }
    abstentions = DawidSkeneLabelModel(len(p))
    abstentions.fit(L, class_balance=p)
    own = abstentions.predict_proba(L).argmax(axis=1)
    found |= {
        "abstentions error": float(np.abs(abstentions.get_weights() - true).mean()),
        "abstentions accuracy": float((own == y)[some & judged].mean()),
    }
    for name, (kind, fit_options) in MODELS.items():
        seconds = []
        for _ in range(FITS):
            model, start = kind(len(p)), time.perf_counter()
            model.fit(L, class_balance=p, **fit_options)
            seconds.append(time.perf_counter() - start)
        found[f"{name} seconds"] = float(np.median(seconds))
        labels = model.predict_proba(L).argmax(axis=1)
        found |= {
            f"{name} agreement": float((labels == theirs)[some].mean()),
            f"{name} difference": float(np.abs(model.get_weights() - weights).mean()),
            f"{name} error": float(np.abs(model.get_weights() - true).mean()),
            f"{name} accuracy": float((labels == y)[some & judged].mean()),
            f"{name} dependent": len(model.dependencies),
        }
    return found


def on_test(texts: pd.Series[str]) -> NDArray[np.bool_]:
    """Return the rows of three tenths of the contents, on which neither functions nor models were developed."""
    return content_hashes(texts.to_frame("text"), FEATURES) % 10 < 3


def end_models(
    texts: pd.Series[str], y: Votes, L: Votes, p: list[float], peer: Peer, folder: Path
) -> dict[str, list[float]]:
    """Return the accuracy on the test rows of one linear model, by the labels that it was trained on, for every seed.

    A seed draws four fifths of the other contents, and the labelled rows among them. A row is trained on if a function
    votes on it.
    """
    test, hashes = on_test(texts), content_hashes(texts.to_frame("text"), FEATURES)
    X = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(texts[~test]).transform(texts)
    found: dict[str, list[float]] = {}
    for seed in range(END_SEEDS):
        rng = np.random.default_rng(seed)
        contents = np.unique(hashes[~test])
        drawn = np.flatnonzero(np.isin(hashes, rng.choice(contents, len(contents) * 4 // 5, replace=False)))
        some = drawn[(L[drawn] >= 0).any(axis=1)]
        known = np.full(len(y), -1)
        labelled = rng.choice(drawn, LABELLED, replace=False)
        known[labelled] = y[labelled]
        truth = np.eye(2)[y]
        of_labels = {TRUE_ALL: (drawn, truth[drawn]), TRUE: (some, truth[some]), FEW: (labelled, truth[labelled])}
        np.save(folder / "votes.npy", L[drawn])
        peer.ask(balance=p, votes=str(folder / "votes.npy"), probs=str(folder / "probs.npy"))
        of_snorkel = np.zeros((len(y), 2))
        of_snorkel[drawn] = np.load(folder / "probs.npy")
        of_labels |= {
            "Snorkel": (some, of_snorkel[some]),
            "majority": (some, MajorityLabelVoter().predict_proba(L[some])),
        }
        for name, (kind, fit_options) in MODELS.items():
            model = kind()
            model.fit(L[drawn], class_balance=p, **fit_options)
            of_labels[name] = some, model.predict_proba(L[some])
        abstentions, taught = DawidSkeneLabelModel(), DawidSkeneLabelModel()
        abstentions.fit(L[drawn], class_balance=p)
        taught.fit(L[drawn], known[drawn])
        both = np.union1d(some, labelled)
        of_labels["abstentions"] = some, abstentions.predict_proba(L[some])
        of_labels[TAUGHT] = both, np.where(known[both, None] >= 0, truth[both], taught.predict_proba(L[both]))
        for name, (rows, probs) in of_labels.items():
            weights = probs.T.reshape(-1)  # every row as both classes, by their probabilities
            end = LogisticRegression(C=10, max_iter=1_000)
            end.fit(X[np.tile(rows, 2)], np.repeat([0, 1], len(rows)), weights)
            found.setdefault(name, []).append(float((end.predict(X[test]) == y[test]).mean()))
    return found


def trained(texts: pd.Series[str], y: Votes, rules: Sequence[Rule]) -> dict[str, list[float]]:
    """Return the accuracy on the test rows of `models.train` with all labels, a tenth, and that with functions."""
    test, held_out = on_test(texts), content_hashes(texts.to_frame("text"), FEATURES) % 10 == 0
    frame = texts.to_frame("text").assign(label=np.array(["ham", "spam"], dtype=object)[y])
    functions = tuple(
        LabelingFunction(f"rule_{k}", lambda x, label=label, rule=rule: label if rule(x.text) else -1)
        for k, (label, rule) in enumerate(rules)
    )
    rows = frame[~test | held_out]  # of the test rows only those that every training holds out
    found: dict[str, list[float]] = {}
    for seed in range(TRAIN_SEEDS):
        is_labelled = np.random.default_rng(seed).random(len(rows)) < LABELLED_SHARE
        arms = {
            TRUE_ALL: (rows, ()),
            TENTH: (rows[is_labelled], ()),
            FUNCTIONS: (rows.assign(label=rows["label"].where(is_labelled)), functions),
        }
        for name, (part, labeling) in arms.items():
            learner = LearnerConfig(seed=seed)
            bundle = train(TrainConfig("label", FEATURES, learner=learner, labeling_functions=labeling), part)
            right = np.array(bundle.predict(frame[test])) == frame["label"].to_numpy()[test]
            found.setdefault(name, []).append(float(right.mean()))
            print("train", name, seed, found[name][-1], bundle.report.form, flush=True)
    return found


def interval_rows(found: Mapping[str, Sequence[float]], reference: str) -> list[dict[str, str]]:
    """Return accuracies and differences to those of a reference, means with 95 % t intervals over seeds."""
    return [
        {
            "labels": name,
            "accuracy": mean_interval(values),
            "difference": mean_interval([a - b for a, b in zip(values, found[reference], strict=True)]),
        }
        for name, values in found.items()
    ]


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
    """Measure, print and write; 1 when Snorkel's steps or the speed of triplets miss a figure."""
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
                    runs.append(compared(peer, L, y, p, Path(place), np.ones(ROWS, np.bool_)))
                figures = pd.DataFrame(runs).mean().to_dict()
                what = f"{classes} classes, {'one' if one_class else 'all'} a function"
                results.append({"votes": what, **figures})
        for name, (texts, y, L) in collections(options.data).items():
            p = (np.bincount(y) / len(y)).tolist()
            figures = compared(peer, L, y, p, Path(place), on_test(texts))
            results.append({"votes": name, **figures})
            own, of_train = end_models(texts, y, L, p, peer, Path(place)), trained(texts, y, RULES[name])
            size = {"collection": name, "test_rows": int(on_test(texts).sum())}
            ends.append(size | {"models": interval_rows(own, TRUE), "train": interval_rows(of_train, TRUE_ALL)})
    peer.close()
    for row in results:
        row["faster"] = row["snorkel seconds"] / row["triplets seconds"]
        row["reached"] = {
            name: bool(row[f"{name} agreement"] >= REACH_AGREEMENT and row[f"{name} difference"] <= REACH_DIFFERENCE)
            for name in MODELS
        } | {"faster": bool(row["faster"] >= REACH_FASTER)}
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
    print(*ends, sep="\n")
    seeds = {"end": END_SEEDS, "train": TRAIN_SEEDS, "labelled": LABELLED}
    measured = {"results": results, "end_models": ends, "seeds": seeds}
    options.out.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    return int(not all(row["reached"][what] for row in results for what in (STEPS, "faster")))


if __name__ == "__main__":
    sys.exit(main())
