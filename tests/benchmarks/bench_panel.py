"""The default learner against what a user would try first, on ten data sets.

    python tests/benchmarks/bench_panel.py --data FOLDER --out FILE.json [--seeds 10] [--sets NAME,NAME]

FOLDER holds the public data sets (docs/data.md). A third of the rows, drawn by the seed, is the test; the learner
chooses on a fifth of the others, and scikit-learn's models are fitted on all others with their defaults. Times are
of the processor, one thread each.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from panel_sets import SETS, DataSet
from scipy import stats
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from models.batches import Split
from models.config import LearnerConfig
from models.features import Featurizer
from models.model_search import search_models

FEW = 25
"""Test rows below which a slice is not judged."""
OVERALL_REACH, CLEAR_GAIN, CLEAR_SETS, TIMES_REACH = -0.003, 0.03, 3, 3.0

Labels = NDArray[np.int64]


class Result(NamedTuple):
    """Accuracy on the test rows, that of the worst slice, processor seconds, and the model."""

    overall: float
    worst: float
    seconds: float
    form: str = ""


def pipelines(chosen: DataSet) -> Iterator[tuple[str, Any]]:
    """Yield scikit-learn's models for the columns that there are."""
    kinds = ("text", "number", "category")
    text, number, category = ([spec.column for spec in chosen.features if spec.kind == kind] for kind in kinds)
    regression = LogisticRegression(max_iter=1000)
    words = [(TfidfVectorizer(), column) for column in text]
    letters = [(TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5)), column) for column in text]
    if text:
        yield "logistic regression, TF-IDF words", make_pipeline(make_column_transformer(*words), regression)
        yield "logistic regression, TF-IDF characters", make_pipeline(make_column_transformer(*letters), regression)
    if number or category:
        scaled = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
        columns = [(scaled, number), (OneHotEncoder(handle_unknown="ignore"), category)]
        yield "logistic regression, one-hot", make_pipeline(make_column_transformer(*columns), regression)
        codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
        ordinal = make_column_transformer(("passthrough", number), (codes, category))
        yield "histogram gradient boosting", make_pipeline(ordinal, HistGradientBoostingClassifier(random_state=0))


def judged(said: Labels, truth: Labels, chosen: DataSet, test: Labels, seconds: float, form: str = "") -> Result:
    """Return the result of predictions of the test rows."""
    right = said == truth
    S = chosen.slices.take(test)
    members = [S.member[:, S.names.index(name)] for name in chosen.judged]
    worst = min(right[member].mean() for member in members if member.sum() >= FEW)
    return Result(float(right.mean()), float(worst), seconds, form)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return a call's value and its processor seconds."""
    began = time.process_time()
    return call(), time.process_time() - began


def ours(chosen: DataSet, train: Labels, valid: Labels, test: Labels, seed: int) -> Result:
    """Return the result of the default learner."""
    frame, y = chosen.frame, chosen.label

    def fitted() -> Any:
        narrow = wide = Featurizer(chosen.features).fit(frame.iloc[train])
        if any(spec.kind == "text" for spec in chosen.features):
            wide = Featurizer(chosen.features, wide=True).fit(frame.iloc[train])
        parts = []
        for part in (train, valid):
            of_linear = None if wide is narrow else wide.transform(frame.iloc[part])
            X = narrow.transform(frame.iloc[part])
            parts.append(Split(X, y[part], chosen.slices.take(part), None, of_linear))
        found = search_models(LearnerConfig(seed=seed), *parts, int(y.max()) + 1)
        return found, wide if found.is_wide else narrow

    (found, featurizer), seconds = timed(fitted)
    P = found.model.predict_proba(featurizer.transform(frame.iloc[test]), chosen.slices.take(test))
    return judged(P.argmax(axis=1), y[test], chosen, test, seconds, found.form)


def measured(chosen: DataSet, seed: int) -> dict[str, Result]:
    """Return the results on one split, the learner's first."""
    every, y = np.arange(len(chosen.label)), chosen.label
    dev, test = train_test_split(every, test_size=1 / 3, random_state=seed, stratify=y)
    train, valid = train_test_split(dev, test_size=0.2, random_state=seed, stratify=y[dev])
    results = {"slicewatch": ours(chosen, train, valid, test, seed)}
    frame = chosen.frame.copy()
    for spec in chosen.features:
        if spec.kind != "number":
            frame[spec.column] = frame[spec.column].fillna("").astype(str)
    for name, pipeline in pipelines(chosen):
        _, seconds = timed(lambda pipeline=pipeline: pipeline.fit(frame.iloc[dev], y[dev]))
        results[name] = judged(pipeline.predict(frame.iloc[test]), y[test], chosen, test, seconds)
    return results


def mean_interval(values: Sequence[float]) -> str:
    """Return a mean in percent or points with its 95 % t interval over seeds."""
    n = len(values)
    reach = stats.t.ppf(0.975, n - 1) * float(np.std(values, ddof=1)) / n**0.5 if n > 1 else float("nan")
    return f"{100 * np.mean(values):.1f} ±{100 * reach:.1f}"


def summary(name: str, rows: int, runs: Sequence[dict[str, Result]]) -> dict[str, Any]:
    """Return the figures of a data set: ours, the best of the others (by its mean), and the difference by seed."""
    own = [run["slicewatch"] for run in runs]
    peers = [peer for peer in runs[0] if peer != "slicewatch"]

    def best(measure: str) -> tuple[str, list[float]]:
        of_peer = {peer: [getattr(run[peer], measure) for run in runs] for peer in peers}
        peer = max(peers, key=lambda each: float(np.mean(of_peer[each])))
        return peer, of_peer[peer]

    found: dict[str, Any] = {"set": name, "rows": rows, "forms": [each.form for each in own]}
    for measure in ("overall", "worst"):
        peer, values = best(measure)
        mine = [getattr(each, measure) for each in own]
        found[measure] = {
            "own": mean_interval(mine),
            "best": mean_interval(values),
            "peer": peer,
            "difference": float(np.mean(mine) - np.mean(values)),
            "shown": mean_interval([a - b for a, b in zip(mine, values, strict=True)]),
        }
    theirs = [sum(run[peer].seconds for peer in peers) for run in runs]
    found["seconds"], found["their_seconds"] = float(np.mean([each.seconds for each in own])), float(np.mean(theirs))
    return found


def main() -> int:
    """Measure, print and write; 1 when a figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the public data sets")
    parser.add_argument("--out", type=Path, required=True, help="where the figures go, as JSON")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--sets", default=",".join(SETS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = []
    for name in options.sets.split(","):
        chosen = SETS[name](options.data)
        runs = []
        for seed in range(options.seeds):
            runs.append(measured(chosen, seed))
            for model, result in runs[-1].items():
                print(name, seed, model, *(f"{figure:.4f}" for figure in result[:3]), result.form, flush=True)
        found.append(summary(name, len(chosen.label), runs))
        print(json.dumps(found[-1]), flush=True)
    verdicts = {
        "overall": all(each["overall"]["difference"] >= OVERALL_REACH for each in found),
        "worst": all(each["worst"]["difference"] >= 0 for each in found),
        "clear": sum(each["worst"]["difference"] >= CLEAR_GAIN for each in found) >= CLEAR_SETS,
        "time": sum(each["seconds"] for each in found) <= TIMES_REACH * sum(each["their_seconds"] for each in found),
    }
    options.out.write_text(json.dumps({"sets": found, "verdicts": verdicts, "seeds": options.seeds}, indent=1) + "\n")
    print(pd.Series(verdicts).to_string())
    return int(not all(verdicts.values()))


if __name__ == "__main__":
    sys.exit(main())
