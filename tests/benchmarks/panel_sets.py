"""Ten data sets of text and tables, each with slices: five that are public, five generated with planted slices."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from learner_setups import SMS_FUNCTIONS, YOUTUBE_FUNCTIONS
from numpy.typing import NDArray
from sklearn import datasets

from models.comments.generate import generate
from models.features import FeatureSpec
from sfs.matrix import SliceMatrix


@dataclass(frozen=True)
class DataSet:
    """A table, its features and label, the slices of its rows, and the slices that are judged: those that are true."""

    frame: pd.DataFrame
    features: tuple[FeatureSpec, ...]
    label: NDArray[np.int64]
    slices: SliceMatrix
    judged: tuple[str, ...]


def data_set(
    frame: pd.DataFrame,
    kinds: Mapping[str, str],
    label: NDArray[np.int64],
    slices: Mapping[str, NDArray[np.bool_]],
    judged: tuple[str, ...] = (),
) -> DataSet:
    """Return a data set with members of each slice, bool[N], known in every row."""
    features = tuple(FeatureSpec(column, kind) for column, kind in kinds.items())
    matrix = SliceMatrix(slices, np.stack([*slices.values()], axis=1))
    return DataSet(frame.reset_index(drop=True), features, label, matrix, judged or tuple(slices))


def of_texts(texts: pd.Series, functions: Mapping[str, Callable[[str], bool]]) -> dict[str, NDArray[np.bool_]]:
    """Return the members of functions of a text."""
    return {name: np.array([function(text) for text in texts], bool) for name, function in functions.items()}


def youtube(data: Path) -> DataSet:
    """All comments of the five videos; two classes, 1,956 rows."""
    frames = [pd.read_csv(path, keep_default_na=False) for path in sorted((data / "youtube-spam").glob("Youtube*.csv"))]
    frame = pd.concat(frames, ignore_index=True).rename(columns={"CONTENT": "text"})
    return data_set(frame, {"text": "text"}, frame.CLASS.to_numpy(np.int64), of_texts(frame.text, YOUTUBE_FUNCTIONS))


def sms(data: Path) -> DataSet:
    """Text messages without repetitions; two classes, 5,171 rows."""
    path = data / "sms-spam" / "SMSSpamCollection"
    frame = pd.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE, names=["label", "text"], keep_default_na=False)
    frame = frame.drop_duplicates("text")
    y = (frame.label == "spam").to_numpy(np.int64)
    return data_set(frame, {"text": "text"}, y, of_texts(frame.text, SMS_FUNCTIONS))


def elec(data: Path) -> DataSet:
    """Half hours of the electricity market: does the price rise? Two classes, 45,312 rows, in random order."""
    frame = pd.read_csv(data / "elec" / "elec.csv")
    y = frame.pop("class").to_numpy(np.int64)
    slices = {
        "night": frame.period < 0.25,
        "evening peak": frame.period.between(0.7, 0.85),
        "high demand": frame.nswdemand > 0.7,
        "low demand": frame.nswdemand < 0.2,
        "no transfer known": frame.transfer == frame.transfer.iloc[0],
        "high price": frame.nswprice > frame.nswprice.quantile(0.95),
    }
    members = {name: member.to_numpy(bool) for name, member in slices.items()}
    return data_set(frame, dict.fromkeys(frame.columns, "number"), y, members)


def digits(_: Path) -> DataSet:
    """Handwritten digits of scikit-learn; ten classes, 1,797 rows of 64 numbers."""
    read = datasets.load_digits(as_frame=True)
    ink = read.data.sum(axis=1)
    slices = {
        "thin": ink < ink.quantile(0.1),
        "thick": ink > ink.quantile(0.9),
        "empty middle": read.data.pixel_3_4 < 2,
    }
    members = {name: member.to_numpy(bool) for name, member in slices.items()}
    return data_set(read.data, dict.fromkeys(read.data.columns, "number"), read.target.to_numpy(np.int64), members)


def tumours(_: Path) -> DataSet:
    """Breast tumours of scikit-learn; two classes, 569 rows of 30 numbers."""
    read = datasets.load_breast_cancer(as_frame=True)
    size, texture = read.data["mean radius"], read.data["mean texture"]
    slices = {"middle size": size.between(13, 16), "coarse": texture > texture.quantile(0.8), "small": size < 12}
    members = {name: member.to_numpy(bool) for name, member in slices.items()}
    return data_set(read.data, dict.fromkeys(read.data.columns, "number"), read.target.to_numpy(np.int64), members)


def comments(_: Path) -> DataSet:
    """Generated comments; two classes, 8,000 rows of a text, a category and a number."""
    frame = generate(8_000, seed=41)
    text = frame.text.fillna("")
    slices = of_texts(text, YOUTUBE_FUNCTIONS) | {"no likes": frame.likes.isna().to_numpy(bool)}
    kinds = {"text": "text", "video": "category", "likes": "number"}
    return data_set(frame, kinds, (frame.label == "spam").to_numpy(np.int64), slices)


def topics(_: Path) -> DataSet:
    """Generated text of five topics that share most words; the topic is the next one where a marked word occurs."""
    rng, n, classes, words = np.random.default_rng(42), 6_000, 5, 800
    syllables = ["ka", "lo", "mi", "ne", "ru", "sa", "to", "vi", "pe", "du"]
    vocabulary = np.array(sorted({"".join(rng.choice(syllables, 3)) for _ in range(3_000)}))[:words]
    shares = np.full((classes, words), 1.0)
    for topic in range(classes):
        shares[topic, rng.choice(words, 60, replace=False)] = 6.0
    shares /= shares.sum(axis=1, keepdims=True)
    y = rng.integers(0, classes, n)
    texts, members = [], rng.random((n, 4)) < [0.04, 0.04, 0.1, 0.1]
    for topic, marks in zip(y, members, strict=True):
        drawn = [*rng.choice(vocabulary, 25, p=shares[topic])]
        drawn += [f"mark{k}" for k in np.flatnonzero(marks)]
        texts.append(" ".join(rng.permutation(drawn)))
    label = np.where(members[:, :2].any(axis=1), (y + 1) % classes, y)
    slices = {f"mark {k}": members[:, k] for k in range(4)}
    return data_set(pd.DataFrame({"text": texts}), {"text": "text"}, label, slices)


def rings(_: Path) -> DataSet:
    """Generated numbers whose class is the ring about the origin, turned round in two small discs; 6,000 rows."""
    rng, n = np.random.default_rng(43), 6_000
    X = rng.uniform(-1, 1, (n, 6))
    label = (np.hypot(X[:, 0], X[:, 1]) * 4).astype(np.int64) % 3
    inside = [np.hypot(X[:, 0] - a, X[:, 1] - b) < r for a, b, r in ((0.5, 0.2, 0.18), (-0.4, -0.5, 0.15))]
    label = np.where(inside[0] | inside[1], (label + 1) % 3, label)
    frame = pd.DataFrame(X, columns=[f"x{k}" for k in range(6)])
    slices = {"disc 1": inside[0], "disc 2": inside[1], "border": np.abs(X).max(axis=1) > 0.95}
    return data_set(frame, dict.fromkeys(frame.columns, "number"), label, slices)


def shops(_: Path) -> DataSet:
    """Generated orders with categories, numbers and missing values; four classes, 30,000 rows."""
    rng, n = np.random.default_rng(44), 30_000
    country = rng.choice([f"land {k}" for k in range(40)], n, p=np.arange(40, 0, -1) / 820)
    channel = rng.choice(["web", "shop", "phone", "partner"], n, p=[0.6, 0.25, 0.1, 0.05])
    price, age = rng.lognormal(3, 1, n), rng.integers(0, 90, n).astype(float)
    effect = {name: rng.normal(size=4) for name in [*np.unique(country), *np.unique(channel)]}
    score = np.stack([effect[a] + effect[b] for a, b in zip(country, channel, strict=True)])
    score[:, 1] += np.log(price) - 3
    score[:, 2] += 2 * np.sin(age / 10)
    label = (score + rng.gumbel(size=score.shape) * 0.5).argmax(axis=1)
    partner, dear = channel == "partner", price > np.quantile(price, 0.97)
    label = np.where(partner & (price > 20), 3, label)
    label = np.where(dear, (label + 2) % 4, label)
    frame = pd.DataFrame({"country": country, "channel": channel, "price": price, "age": age})
    frame.loc[rng.random(n) < 0.1, "age"] = np.nan
    slices = {"partner": partner, "dear": dear, "no age": frame.age.isna().to_numpy(bool)}
    kinds = {"country": "category", "channel": "category", "price": "number", "age": "number"}
    return data_set(frame, kinds, label, slices)


def sensors(_: Path) -> DataSet:
    """Generated readings of ten machines' states; ten classes, 200,000 rows of twelve numbers and a category."""
    rng, n, classes = np.random.default_rng(45), 200_000, 10
    label = rng.integers(0, classes, n)
    centres = rng.normal(size=(classes, 12)) * 0.9
    X = centres[label] + rng.normal(size=(n, 12))
    site = rng.choice([f"site {k}" for k in range(12)], n)
    swapped, worn = site == "site 3", X[:, 11] > 3.2
    label = np.where(swapped, (label + 1) % classes, label)
    label = np.where(worn & ~swapped, 0, label)
    frame = pd.DataFrame(X.round(3), columns=[f"reading_{k}" for k in range(12)]).assign(site=site)
    kinds = {**{f"reading_{k}": "number" for k in range(12)}, "site": "category"}
    return data_set(frame, kinds, label, {"site 3": swapped, "worn": worn, "site 7": site == "site 7"})


SETS: Mapping[str, Callable[[Path], DataSet]] = {
    "YouTube comments": youtube,
    "SMS": sms,
    "electricity": elec,
    "digits": digits,
    "tumours": tumours,
    "comments": comments,
    "topics": topics,
    "rings": rings,
    "orders": shops,
    "sensors": sensors,
}
