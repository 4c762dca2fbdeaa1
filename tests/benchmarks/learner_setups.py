"""The data of the learner benchmark: geometry, keyword text, a spurious feature, SMS and YouTube, with slices."""

import csv
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.model_selection import train_test_split

from models.batches import FeatureRows, Split
from models.config import LearnerConfig
from models.features import FeatureSpec, Featurizer
from sfs.matrix import SliceMatrix

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class SetUp:
    """Training, validation and test rows, the slices that are judged (bool[N, J]), and the recipe."""

    train: Split
    valid: Split
    test: Split
    judged: Bools
    recipe: LearnerConfig


# geometry: two flipped discs, functions misplaced on purpose

TRUE_DISCS = (((0.25, 0.0), 0.2), ((-0.3, -0.5), 0.15))
SEEN_DISCS = (((0.35, -0.1), 0.2), ((-0.35, -0.4), 0.15))


def discs(X: NDArray[np.float64], described: Sequence[tuple[tuple[float, float], float]]) -> Bools:
    return np.stack([((X - np.array(c)) ** 2).sum(axis=1) < r * r for c, r in described], axis=1)


def geometry(seed: int, n_slices: int = 2, sizes: Sequence[int] = (2500, 1250, 20_000)) -> SetUp:
    rng = np.random.default_rng(seed)
    extra = [((rng.uniform(-1, 1), rng.uniform(-1, 1)), rng.uniform(0.1, 0.3)) for _ in range(n_slices - 2)]
    described = [*SEEN_DISCS, *extra]
    names = [f"disc_{k}" for k in range(n_slices)]
    splits, judged = [], np.zeros((0, 4), dtype=bool)
    for n in sizes:
        X = rng.uniform(-1, 1, (n, 2))
        y = (X[:, 0] > X[:, 1] + 0.25).astype(np.int64)
        true = discs(X, TRUE_DISCS)
        y[true[:, 0]], y[true[:, 1]] = 0, 1
        seen = discs(X, described)
        splits.append(Split(FeatureRows(X.astype(np.float32)), y, SliceMatrix(names, seen)))
        judged = np.concatenate([true, seen[:, :2]], axis=1)
    recipe = LearnerConfig(widths=(10, 24), n_epochs=120, lr=0.01, evaluate_every=4, seed=seed)
    return SetUp(*splits, judged, recipe)


# keyword text: a linear rule over words, flipped where one of four keywords occurs

N_WORDS, N_KEYWORDS = 400, 4
FLIP = 0.8


def keyword_text(
    seed: int, n_slices: int = 100, sizes: Sequence[int] = (12_000, 3_000, 12_000), words: int = 30
) -> SetUp:
    rng = np.random.default_rng(seed)
    effect = rng.normal(size=N_WORDS)
    share = rng.uniform(0.01, 0.03, n_slices)
    share[:N_KEYWORDS] = (0.015, 0.02, 0.025, 0.03)
    n_rare = n_slices - N_KEYWORDS
    names = [f"word_{k}" for k in range(n_slices)]
    splits, judged = [], np.zeros((0, N_KEYWORDS), dtype=bool)
    for n in sizes:
        common = rng.multinomial(words, np.full(N_WORDS - n_rare, 1 / (N_WORDS - n_rare)), size=n)
        present = rng.random((n, n_slices)) < share
        X = np.concatenate([present[:, :N_KEYWORDS], present[:, N_KEYWORDS:], common], axis=1).astype(np.float32)
        judged = present[:, :N_KEYWORDS]
        logit = X[:, N_KEYWORDS:] @ effect
        flipped = judged.any(axis=1) & (rng.random(n) < FLIP)
        y = ((logit > 0) ^ flipped).astype(np.int64)
        splits.append(Split(FeatureRows(X), y, SliceMatrix(names, present)))
    recipe = LearnerConfig(widths=(32, 32), n_epochs=12, lr=0.003, batch_size=128, seed=seed)
    return SetUp(*splits, judged, recipe)


# spurious feature: large, and equal to the class in 95 of 100 rows; 1,200 further features are noise

ATTRIBUTE_AGREES, N_NOISE = 0.95, 1_200


def spurious(seed: int, sizes: Sequence[int] = (1_000, 1_000, 4_000)) -> SetUp:
    """The slice is where the attribute is 1; cells of attribute and class are judged."""
    rng = np.random.default_rng(seed)
    splits, judged = [], np.zeros((0, 4), dtype=bool)
    for n in sizes:
        y = rng.integers(0, 2, n)
        attribute = np.where(rng.random(n) < ATTRIBUTE_AGREES, y, 1 - y)
        informative = np.stack([2.0 * y - 1, 4 * (2.0 * attribute - 1)], axis=1) + rng.normal(size=(n, 2)) * (0.3, 1)
        X = np.concatenate([informative, rng.normal(size=(n, N_NOISE)) / np.sqrt(N_NOISE)], axis=1)
        judged = np.stack([(attribute == a) & (y == c) for a in (0, 1) for c in (0, 1)], axis=1)
        slices = SliceMatrix(["attribute 0", "attribute 1"], np.stack([attribute == 0, attribute == 1], axis=1))
        splits.append(Split(FeatureRows(X.astype(np.float32)), y, slices))
    recipe = LearnerConfig(widths=(32,), n_epochs=25, lr=0.002, batch_size=50, seed=seed)
    return SetUp(*splits, judged, recipe)


# public text

Function = Callable[[str], bool]


def search(pattern: str, flags: int = 0) -> Function:
    compiled = re.compile(pattern, flags)
    return lambda text: compiled.search(text) is not None


SMS_FUNCTIONS: dict[str, Function] = {
    "short": lambda text: len(text.split()) < 8,
    "long": lambda text: len(text) > 140,
    "number": search(r"\d{5,}"),
    "money": search(r"£|\$|pounds?\b|cash|prize", re.I),
    "url": search(r"https?://|www\.|\.com|\.co\.uk", re.I),
    "call": search(r"\bcall\b", re.I),
    "free": search(r"\bfree\b", re.I),
    "capitals": search(r"\b[A-Z]{4,}\b"),
    "question": search(r"\?"),
    "entity": search(r"&(?:lt|gt|amp);"),
}
YOUTUBE_FUNCTIONS: dict[str, Function] = {
    "short_comment": lambda text: len(text.split()) < 5,
    "keyword_please": lambda text: any(word in text.lower() for word in ("please", "plz")),
    "regex_check_out": search(r"check.*out", re.I),
    "short_link": search(r"\w+\.ly"),
    "url": search(r"https?://|www\.|\.com"),
    "long": lambda text: len(text) > 200,
}


def text_split(
    texts: Sequence[str], y: NDArray[np.int64], functions: dict[str, Function], wide: Featurizer | None = None
) -> Split:
    """Hash unigrams into 2,048 features of length 1, and apply the functions to the text as it is."""
    hashed: sparse.csr_matrix = HashingVectorizer(n_features=2048, norm="l2").transform(texts)
    member = np.array([[f(text) for f in functions.values()] for text in texts], dtype=bool)
    rows = FeatureRows(np.zeros((len(texts), 0), dtype=np.float32), hashed.astype(np.float32))
    ngrams = None if wide is None else wide.transform(pd.DataFrame({"text": texts}))
    return Split(rows, y, SliceMatrix(functions, member), None, ngrams)


def ngram_features(texts: Sequence[str]) -> Featurizer:
    """Return the features for linear models."""
    return Featurizer([FeatureSpec("text", "text")], wide=True).fit(pd.DataFrame({"text": texts}))


def sms(seed: int, data: Path, wide: bool = False) -> SetUp:
    """Text messages, half to train on and a fifth to choose on; ``wide`` adds the features for linear models."""
    columns = ["label", "text"]
    path = data / "sms-spam" / "SMSSpamCollection"
    frame = pd.read_csv(path, sep="\t", quoting=csv.QUOTE_NONE, names=columns, keep_default_na=False)
    frame = frame.drop_duplicates("text").sample(frac=1, random_state=seed).reset_index(drop=True)
    first, second = int(0.5 * len(frame)), int(0.7 * len(frame))
    y = (frame.label == "spam").to_numpy(np.int64)
    parts = [slice(0, first), slice(first, second), slice(second, None)]
    ngrams = ngram_features(frame.text[parts[0]].tolist()) if wide else None
    splits = [text_split(frame.text[part].tolist(), y[part], SMS_FUNCTIONS, ngrams) for part in parts]
    recipe = LearnerConfig(widths=(32,), n_epochs=12, lr=0.003, seed=seed)
    return SetUp(*splits, splits[2].S.member, recipe)


def youtube(seed: int, data: Path, wide: bool = False) -> SetUp:
    """The tutorial's split: videos 1 to 4 to train on, the fifth in 120 rows to choose on and 250 to test."""
    frames = []
    for path in sorted((data / "youtube-spam").glob("Youtube*.csv")):
        frame = pd.read_csv(path, keep_default_na=False).sample(frac=1, random_state=123).reset_index(drop=True)
        frame["text"] = [text.rstrip("\ufeff") for text in frame.CONTENT]
        frames.append(frame)
    train = pd.concat(frames[:-1], ignore_index=True)
    valid, test = train_test_split(frames[-1], test_size=250, random_state=123, stratify=frames[-1].CLASS)
    parts = [(part.text.tolist(), part.CLASS.to_numpy(np.int64)) for part in (train, valid, test)]
    ngrams = ngram_features(parts[0][0]) if wide else None
    splits = [text_split(texts, y, YOUTUBE_FUNCTIONS, ngrams) for texts, y in parts]
    recipe = LearnerConfig(widths=(32,), n_epochs=12, lr=0.003, seed=seed)
    member = splits[2].S.member
    return SetUp(*splits, member[:, member.sum(axis=0) >= 10], recipe)


# all set-ups by name, with flipped memberships

NOISE = (0.0, 0.2, 0.5, 0.8)


@dataclass(frozen=True)
class Problem:
    """A set-up of a name, and the shares of flips to measure."""

    name: str
    data: Path
    flips: tuple[float, ...] = (0.0,)

    def make(self, seed: int) -> SetUp:
        """Return its rows."""
        name, _, slices = self.name.partition(" K=")
        if name in ("SMS", "YouTube"):
            return (sms if name == "SMS" else youtube)(seed, self.data, wide=True)
        if name == "spurious feature":
            return spurious(seed)
        return (geometry if name == "geometry" else keyword_text)(seed, int(slices))


def problems(data: Path) -> list[Problem]:
    """Return the set-ups."""
    noisy = ("geometry K=2", "keyword text K=100", "SMS")
    names = ("geometry K=2", "geometry K=100", "spurious feature", "keyword text K=4", "keyword text K=100", "SMS")
    return [Problem(name, data, NOISE if name in noisy else (0.0,)) for name in (*names, "YouTube")]


def with_flips(setup: SetUp, share: float, seed: int) -> SetUp:
    """Return a set-up of the same rows, with a share of the memberships flipped; slices are judged as before."""
    if not share:
        return setup
    rng = np.random.default_rng([10_000 + seed, round(100 * share)])

    def flipped(split: Split) -> Split:
        flips = rng.random(split.S.member.shape) < share
        return replace(split, S=SliceMatrix(split.S.names, split.S.member ^ flips))

    return replace(setup, train=flipped(setup.train), valid=flipped(setup.valid), test=flipped(setup.test))
