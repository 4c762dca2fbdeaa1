"""Snorkel's slicing tutorial with our names, on its own data and split, gives its own table."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from models.comments.public import TutorialSplit, youtube_tutorial_split
from models.scoring import Scorer, SliceScorer, get_label_buckets, preds_to_probs
from sfs.appliers import PandasSFApplier, slice_dataframe
from sfs.library.spam import SENTIMENT_SLICES, keyword_please, regex_check_out, short_comment, short_link

pytestmark = pytest.mark.data

FUNCTIONS = [short_comment, keyword_please, regex_check_out, short_link, *SENTIMENT_SLICES]
# slice -> F1 of the logistic regression, test rows, test spam, train rows, validation rows
TABLE = {
    "overall": (0.925000, 250, 118, 1586, 120),
    "short_comment": (0.666667, 92, 8, 358, 38),
    "keyword_please": (1.000000, 23, 23, 178, 9),
    "regex_check_out": (1.000000, 45, 45, 371, 26),
    "short_link": (0.500000, 3, 3, 1, 5),
    "textblob_polarity": (0.727273, 24, 6, 56, 12),
}


class Fitted(NamedTuple):
    """The tutorial's plain model on the test rows."""

    split: TutorialSplit
    columns: int
    golds: NDArray[np.int64]
    preds: NDArray[np.int64]
    S: np.recarray


@pytest.fixture(scope="module")
def fitted(data_dir: Path) -> Fitted:
    """Bag of words and logistic regression, fitted on the first four videos."""
    split = youtube_tutorial_split(data_dir / "youtube-spam")
    words = CountVectorizer(ngram_range=(1, 1))
    X_train = words.fit_transform(split.train["text"])
    model = LogisticRegression(C=0.001, solver="liblinear").fit(X_train, split.train["label"])
    preds = model.predict(words.transform(split.test["text"]))
    S = PandasSFApplier(FUNCTIONS).apply(split.test, progress_bar=False)
    return Fitted(split, X_train.shape[1], split.test["label"].to_numpy(), preds, S)


def test_the_split_is_the_tutorials(fitted: Fitted) -> None:
    """Rows and spam of every part, and the vocabulary, are the notebook's."""
    parts = {name: (len(rows), int(rows["label"].sum())) for name, rows in vars_of(fitted.split).items()}
    assert parts == {"train": (1586, 831), "dev": (100, 54), "valid": (120, 56), "test": (250, 118)}
    assert fitted.columns == 3916


def vars_of(split: TutorialSplit) -> dict[str, pd.DataFrame]:
    return {"train": split.train, "dev": split.dev, "valid": split.valid, "test": split.test}


@pytest.mark.parametrize("door", ["Scorer", "SliceScorer"])
def test_the_logistic_regressions_f1_per_slice(fitted: Fitted, door: str) -> None:
    """Both scorers reproduce every F1 of the notebook's table to six decimals."""
    scorer = Scorer(metrics=["f1"])
    inputs = (fitted.S, fitted.golds, fitted.preds, preds_to_probs(fitted.preds, 2))
    score = scorer.score_slices if door == "Scorer" else SliceScorer(scorer, list(TABLE)[1:]).score_slices
    frame = score(*inputs, as_dataframe=True)
    assert list(frame.index) == list(TABLE)
    assert {name: round(value, 6) for name, value in frame["f1"].items()} == {k: v[0] for k, v in TABLE.items()}


def test_how_many_rows_each_slice_has(fitted: Fitted) -> None:
    """Test, train and validation members of every slice, and their spam, are the table's."""
    applier = PandasSFApplier(FUNCTIONS)
    train, valid = (applier.apply(rows, progress_bar=False) for rows in (fitted.split.train, fitted.split.valid))
    for name, (_, n, spam, n_train, n_valid) in list(TABLE.items())[1:]:
        members = fitted.S[name] == 1
        assert (int(members.sum()), int(fitted.golds[members].sum())) == (n, spam), name
        assert (int((train[name] == 1).sum()), int((valid[name] == 1).sum())) == (n_train, n_valid), name


def test_slice_dataframe_gives_the_92_short_comments(fitted: Fitted) -> None:
    """They are rows of the test frame, with its index, and each has fewer than five words."""
    short = slice_dataframe(fitted.split.test, short_comment)
    assert len(short) == 92
    assert set(short.index) <= set(fitted.split.test.index)
    assert (short["text"].str.split().str.len() < 5).all()
    assert set(short["label"].value_counts().to_dict().items()) == {(0, 84), (1, 8)}


def test_error_buckets_hold_the_mistakes(fitted: Fitted) -> None:
    """The buckets off the diagonal are the rows that the model gets wrong."""
    buckets = get_label_buckets(fitted.golds, fitted.preds)
    wrong = sum(len(rows) for (gold, pred), rows in buckets.items() if gold != pred)
    assert wrong == int((fitted.golds != fitted.preds).sum())
    assert sum(map(len, buckets.values())) == 250
