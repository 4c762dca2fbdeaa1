"""Snorkel's two slicing tutorials, step by step: their imports, data loading and widths are the only differences.

The older one is of Snorkel 0.9 (`Operation`, `Task`, `MultitaskClassifier`, `convert_to_slice_tasks`), the newer one of
0.9.9 and 0.10 (`SliceAwareClassifier`). Both are run on the split of `models.comments.public`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from torch import nn

from models import (
    DictDataLoader,
    DictDataset,
    MultitaskClassifier,
    Operation,
    Scorer,
    SliceAwareClassifier,
    SliceScorer,
    Task,
    Trainer,
    add_slice_labels,
    convert_to_slice_tasks,
    get_label_buckets,
    preds_to_probs,
    set_seed,
)
from models.comments.public import TutorialSplit
from sfs import PandasSFApplier, SlicingFunction, preprocessor, slice_dataframe, slicing_function


@slicing_function()
def short_link(x: Any) -> bool:
    """Links shortened by a .ly address."""
    return bool(re.search(r"\w+\.ly", x.text))


def keyword_lookup(x: Any, keywords: list[str]) -> bool:
    return any(word in x.text.lower() for word in keywords)


def make_keyword_sf(keywords: list[str]) -> SlicingFunction:
    """Return a function of texts with one of these words."""
    return SlicingFunction(name=f"keyword_{keywords[0]}", f=keyword_lookup, resources={"keywords": keywords})


keyword_subscribe = make_keyword_sf(["subscribe"])
keyword_please = make_keyword_sf(["please", "plz"])


@slicing_function()
def regex_check_out(x: Any) -> bool:
    return bool(re.search(r"check.*out", x.text, flags=re.IGNORECASE))


@slicing_function()
def short_comment(x: Any) -> bool:
    """Fewer than five words."""
    return len(x.text.split()) < 5


@preprocessor(memoize=True)
def textblob_sentiment(x: Any) -> Any:
    from textblob import TextBlob

    x.polarity = TextBlob(x.text).sentiment.polarity
    return x


@slicing_function(pre=[textblob_sentiment])
def textblob_polarity(x: Any) -> bool:
    return x.polarity > 0.9


class Older(NamedTuple):
    """Tables of the older tutorial.

    ``plain`` are scores of the model without slices, ``monitored`` those with the labels of one slice; ``one`` and
    ``all`` scores of a logistic regression by slice, and ``sliced`` those of the model with slices.
    """

    linked: pd.DataFrame
    plain: pd.DataFrame
    missed: pd.DataFrame
    dataset: str
    monitored: pd.DataFrame
    one: pd.DataFrame
    all: pd.DataFrame
    tasks: list[str]
    metrics: Mapping[str, float]
    sliced: pd.DataFrame


class Newer(NamedTuple):
    """Tables of the newer tutorial: the logistic regression with one slice and with all, and the slice-aware model."""

    short: pd.DataFrame
    one: pd.DataFrame
    all: pd.DataFrame
    sliced: pd.DataFrame


def layers(width: int) -> nn.Sequential:
    """Return the backbone of both tutorials."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())


def older(data: TutorialSplit, *, seed: int = 111, words: int | None = None, epochs: tuple[int, int] = (5, 1)) -> Older:
    """Run the older tutorial.

    Parameters
    ----------
    data
        Its rows.
    seed
        Of weights and order.
    words
        Number of the most frequent words that are features; all by default.
    epochs
        Of the model without slices, and of the one with slices.
    """
    set_seed(seed)
    sfs = [short_link]
    linked = slice_dataframe(data.valid, short_link)[["text", "label"]]

    vectorizer = CountVectorizer(ngram_range=(1, 1), max_features=words).fit(data.train.text)
    X_train, X_valid, X_test = (
        torch.tensor(vectorizer.transform(rows.text).toarray(), dtype=torch.float32)
        for rows in (data.train, data.valid, data.test)
    )
    Y_train, Y_valid, Y_test = (torch.tensor(rows.label.to_numpy()) for rows in (data.train, data.valid, data.test))

    def loader(X: torch.Tensor, Y: torch.Tensor, split: str, shuffle: bool = False) -> DictDataLoader:
        dataset = DictDataset("spam_dataset", split, {"bow_features": X}, {"spam_task": Y})
        return DictDataLoader(dataset, batch_size=32, shuffle=shuffle)

    dl_train = loader(X_train, Y_train, "train", shuffle=True)
    dl_valid, dl_test = loader(X_valid, Y_valid, "valid"), loader(X_test, Y_test, "test")

    width = X_train.shape[1]
    spam_task = Task(
        name="spam_task",
        module_pool=nn.ModuleDict({"mlp": layers(width), "prediction_head": nn.Linear(width, 2)}),
        op_sequence=[
            Operation(name="input_op", module_name="mlp", inputs=[("_input_", "bow_features")]),
            Operation(name="head_op", module_name="prediction_head", inputs=["input_op"]),
        ],
        scorer=Scorer(metrics=["accuracy", "f1"]),
    )
    model = MultitaskClassifier([spam_task])
    Trainer(n_epochs=epochs[0], lr=1e-4, progress_bar=False).fit(model, [dl_train, dl_valid])
    plain = model.score([dl_train, dl_valid], as_dataframe=True)

    outputs = model.predict(dl_valid, return_preds=True)
    error_buckets = get_label_buckets(outputs["golds"]["spam_task"], outputs["preds"]["spam_task"])
    missed = data.valid[["text", "label"]].iloc[error_buckets.get((1, 0), [])]

    applier = PandasSFApplier(sfs)
    S_train, S_valid, S_test = (applier.apply(rows, progress_bar=False) for rows in data_of(data))
    slice_names = [sf.name for sf in sfs]
    for dl, S in ((dl_train, S_train), (dl_valid, S_valid), (dl_test, S_test)):
        add_slice_labels(dl, spam_task, S, slice_names)
    dataset = repr(dl_valid.dataset)
    monitored = model.score(
        dataloaders=[dl_valid, dl_test],
        remap_labels={"spam_task_slice:short_link_pred": "spam_task"},
        as_dataframe=True,
    )

    sklearn_model = LogisticRegression(C=0.001, solver="liblinear").fit(X=X_train, y=Y_train)
    preds_test = sklearn_model.predict(X_test)
    probs_test = preds_to_probs(preds_test, 2)
    one = SliceScorer(slice_names).score_slices(
        S=S_test, golds=Y_test, preds=preds_test, probs=probs_test, as_dataframe=True
    )

    sfs += [keyword_subscribe, keyword_please, regex_check_out, short_comment, textblob_polarity]
    slice_names = [sf.name for sf in sfs]
    applier = PandasSFApplier(sfs)
    S_test = applier.apply(data.test, progress_bar=False)
    every = SliceScorer(slice_names).score_slices(
        S=S_test, golds=Y_test, preds=preds_test, probs=probs_test, as_dataframe=True
    )

    S_train, S_valid = (applier.apply(rows, progress_bar=False) for rows in (data.train, data.valid))
    for dl, S in ((dl_train, S_train), (dl_valid, S_valid), (dl_test, S_test)):
        add_slice_labels(dl, spam_task, S, slice_names)
    slice_tasks = convert_to_slice_tasks(spam_task, slice_names)
    slice_model = MultitaskClassifier(slice_tasks)
    trainer = Trainer(n_epochs=epochs[1], lr=1e-4, progress_bar=False)
    trainer.fit(slice_model, [dl_train, dl_valid])
    Y_dict = dl_valid.dataset.Y_dict
    eval_mapping: dict[str, str | None] = {label: "spam_task" for label in Y_dict if "pred" in label}
    eval_mapping |= {label: None for label in Y_dict if "ind" in label}
    sliced = slice_model.score([dl_valid, dl_test], remap_labels=eval_mapping, as_dataframe=True)
    tasks = [repr(task) for task in slice_tasks]
    return Older(linked, plain, missed, dataset, monitored, one, every, tasks, trainer.metrics, sliced)


def newer(data: TutorialSplit, *, seed: int = 123, words: int | None = None, epochs: int = 2) -> Newer:
    """Run the newer tutorial; parameters as of `older`."""
    set_seed(seed)
    sfs = [short_comment]
    short = slice_dataframe(data.test, short_comment)[["text", "label"]]

    vectorizer = CountVectorizer(ngram_range=(1, 1), max_features=words).fit(data.train.text)
    X_train, X_test = (vectorizer.transform(rows.text).toarray() for rows in (data.train, data.test))
    Y_train, Y_test = (rows.label.to_numpy() for rows in (data.train, data.test))
    sklearn_model = LogisticRegression(C=0.001, solver="liblinear").fit(X_train, Y_train)
    preds_test = sklearn_model.predict(X_test)
    probs_test = preds_to_probs(preds_test, 2)

    scorer = Scorer(metrics=["f1"])
    S_test = PandasSFApplier(sfs).apply(data.test, progress_bar=False)
    one = scorer.score_slices(S=S_test, golds=Y_test, preds=preds_test, probs=probs_test, as_dataframe=True)
    sfs += [keyword_please, regex_check_out, short_link, textblob_polarity]
    applier = PandasSFApplier(sfs)
    S_test = applier.apply(data.test, progress_bar=False)
    every = scorer.score_slices(S=S_test, golds=Y_test, preds=preds_test, probs=probs_test, as_dataframe=True)

    hidden_dim = X_train.shape[1]
    slice_model = SliceAwareClassifier(
        base_architecture=layers(hidden_dim),
        head_dim=hidden_dim,
        slice_names=[sf.name for sf in sfs],
        scorer=scorer,
    )

    def dataset(X: Any, Y: Any, split: str) -> DictDataset:
        return DictDataset.from_tensors(torch.FloatTensor(X), torch.LongTensor(Y), split)

    S_train = applier.apply(data.train, progress_bar=False)
    train_dl = slice_model.make_slice_dataloader(
        dataset(X_train, Y_train, "train"), S_train, shuffle=True, batch_size=64
    )
    test_dl = slice_model.make_slice_dataloader(dataset(X_test, Y_test, "test"), S_test, shuffle=False, batch_size=64)
    Trainer(n_epochs=epochs, lr=1e-4, progress_bar=False).fit(slice_model, [train_dl])
    return Newer(short, one, every, slice_model.score_slices([test_dl], as_dataframe=True))


def data_of(data: TutorialSplit) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the rows for training, validation and test."""
    return data.train, data.valid, data.test
