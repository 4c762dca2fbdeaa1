"""Labels from functions: which rows get one, with which probabilities, and what a training does with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from models.base_families import Rows
from models.base_search import best_base, search_bases
from models.batches import FeatureRows, Split
from models.bundle.model_bundle import ModelBundle
from models.config import LearnerConfig, TrainConfig
from models.errors import ConfigError, DataError
from models.features import FeatureSpec
from models.function_labels import LEAST_WEIGHT, FunctionLabels, PartialLabels, label_rows
from models.learners import search_samples
from models.linear_classifier import LinearClassifier
from models.model_selection import CandidateSpec, TrainingTask
from models.splits import HELD_OUT_MODULUS, content_hashes
from models.trainer_config import TrainerConfig
from models.training import train
from models.training_report import TrainingReport
from models.tree_classifier import TreeClassifier, TreeSettings
from sfs.function import LabelingFunction
from sfs.matrix import SliceMatrix
from sfs.registry import FunctionSet
from sfs.template import template

FEATURES = (FeatureSpec("text", "text"),)
TOPICS = np.array(
    ["".join(letters) for letters in np.random.default_rng(0).choice([*"abcdefghijklmnopqrstuvwxyz"], (200, 6))]
).reshape(2, 100)
SPAM_WORDS, HAM_WORDS = ("win", "cash", "click"), ("lunch", "song", "home")


def word(name: str, vote: int) -> LabelingFunction:
    """Return a function that votes for a class where a text has a word."""
    return LabelingFunction(name, lambda x: vote if name in x.text.split() else -1)


FUNCTIONS = tuple(word(name, k) for k, words in enumerate((HAM_WORDS, SPAM_WORDS)) for name in words)


def table(n: int = 600, given: int = 200, seed: int = 0) -> pd.DataFrame:
    """Return texts with words of their class, most of which no function reads, and the class of the first rows."""
    random = np.random.default_rng(seed)
    truth = random.random(n) < 0.4
    texts = []
    for k, spam in enumerate(truth):
        own, other = (SPAM_WORDS, HAM_WORDS) if spam else (HAM_WORDS, SPAM_WORDS)
        words = [w for w in own if random.random() < 0.4] + [w for w in other if random.random() < 0.05]
        topics = [TOPICS[int(spam ^ (random.random() < 0.1)), j] for j in random.integers(0, 100, 2)]
        texts.append(" ".join([*words, *topics, f"n{k}"]))
    labels = np.where(truth, "spam", "ham").astype(object)
    return pd.DataFrame({"text": texts, "label": np.where(np.arange(n) < given, labels, None), "truth": labels})


def labelled(frame: pd.DataFrame, functions: Sequence[LabelingFunction] = FUNCTIONS) -> FunctionLabels:
    """Return the labels of the rows of a table without one."""
    labels = PartialLabels.of(frame["label"].tolist(), "label")
    hashes = content_hashes(frame, FEATURES)
    return label_rows(functions, frame[["text"]], labels, hashes, labels.split(hashes))


def config(**changes: object) -> TrainConfig:
    fields = {
        "label": "label",
        "features": FEATURES,
        "functions": FunctionSet([template("wins", keyword={"field": "text", "words": ["win"]})]),
        "learner": LearnerConfig("erm", n_epochs=2, widths=(8,)),
        "labeling_functions": FUNCTIONS,
    }
    return TrainConfig(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """600 rows, 200 of them with a label."""
    return table()


@pytest.fixture(scope="module")
def bundle(frame: pd.DataFrame) -> ModelBundle:
    """One training for many tests."""
    return train(config(), frame)


def test_no_label_of_functions_is_in_validation_or_held_out_rows(frame: pd.DataFrame) -> None:
    """Neither a row without a label, nor one with its content: not even where most rows repeat those contents."""
    copies = frame.iloc[:200].assign(label=None)
    frame = pd.concat([copies, frame, copies], ignore_index=True)
    labels, hashes = PartialLabels.of(frame["label"].tolist(), "label"), content_hashes(frame, FEATURES)
    splits = labels.split(hashes)
    found = label_rows(FUNCTIONS, frame[["text"]], labels, hashes, splits)
    assert len(splits.valid) > 20
    assert len(splits.held_out) > 10
    assert labels.known[splits.valid].all()
    assert labels.known[splits.held_out].all()
    of_functions = hashes[found.positions]
    assert not labels.known[found.positions].any()
    assert not np.isin(of_functions, hashes[np.concatenate([splits.valid, splits.held_out])]).any()
    assert not (of_functions % HELD_OUT_MODULUS == 0).any()
    assert np.isin(of_functions, hashes[splits.train]).any()  # copies of training rows may stay


def test_a_training_is_evaluated_on_true_labels_only(frame: pd.DataFrame, bundle: ModelBundle) -> None:
    """Held-out counts, sample and report are of rows with a label, and coverage is of all rows."""
    at = content_hashes(frame, FEATURES) % HELD_OUT_MODULUS == 0
    true_held_out = int((at & frame["label"].notna()).sum())
    assert 0 < true_held_out < at.sum()
    assert bundle.report.rows.held_out == true_held_out
    assert bundle.report.shipped[0].n == true_held_out
    assert bundle.reference["__all__"].held_out == true_held_out
    assert bundle.reference["__all__"].n == len(frame)
    assert len(bundle.sample) == true_held_out
    assert sum(bundle.report.classes.values()) == 200


def test_wrong_labels_of_functions_do_not_change_the_held_out_rows(frame: pd.DataFrame, bundle: ModelBundle) -> None:
    """Functions that vote at random change the model, and not the rows on which it is evaluated."""
    flipped = tuple(word(each.name, int(each.name in HAM_WORDS)) for each in FUNCTIONS)
    other = train(config(labeling_functions=flipped), frame)
    assert other.report.rows.held_out == bundle.report.rows.held_out
    assert other.report.rows.valid == bundle.report.rows.valid
    assert other.hash != bundle.hash


def test_every_row_without_a_label_is_accounted_for(frame: pd.DataFrame) -> None:
    """Labelled by functions, without a vote, or with the content of a validation or held-out row."""
    report = labelled(frame).report
    assert report.given == 200
    assert report.labelled + report.abstained + report.set_aside == 400
    assert min(report.labelled, report.abstained, report.set_aside) > 0


def test_labels_are_probabilities_of_which_none_is_certain(frame: pd.DataFrame) -> None:
    """A row has its weight in every class above the least one, less than 1 in all."""
    found = labelled(frame)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1)
    rows = found.weighted_rows()
    assert rows.weight.max() < 1
    assert rows.weight.min() > LEAST_WEIGHT
    total = pd.Series(rows.weight).groupby(rows.positions).sum()
    assert len(total) == found.report.labelled
    assert total.between(1 - 2 * LEAST_WEIGHT, 1).all()


def test_labels_of_functions_are_mostly_right(frame: pd.DataFrame) -> None:
    """The likeliest class of a row is the true one, of which the label model saw no label, far beyond the balance."""
    found = labelled(frame)
    predicted = np.array(["ham", "spam"])[found.probabilities.argmax(axis=1)]
    assert (predicted == frame["truth"].to_numpy()[found.positions]).mean() > 0.9
    report = found.report
    assert report.checked_lower <= report.correct / report.checked <= report.checked_upper


def test_the_accuracy_of_a_function_is_counted_and_estimated(frame: pd.DataFrame) -> None:
    """Counts are those of a recount, and the estimate is near them."""
    report = labelled(frame).report
    for function, metrics in zip(FUNCTIONS, report.functions, strict=True):
        votes = np.array([function({"text": text}) for text in frame["text"]])
        known = (votes >= 0) & frame["label"].notna().to_numpy()
        right = np.array(["ham", "spam"])[votes[known]] == frame["label"].to_numpy()[known]
        assert (metrics.votes, metrics.known) == (int((votes >= 0).sum()), len(frame))
        assert (metrics.labelled, metrics.correct) == (int(known.sum()), int(right.sum()))
        assert metrics.accuracy_lower <= right.mean() <= metrics.accuracy_upper
        assert metrics.estimated_accuracy == pytest.approx(right.mean(), abs=0.1)


def test_a_failed_function_has_no_vote(frame: pd.DataFrame) -> None:
    """Failures are no abstentions: they are counted, and the report warns of them."""
    fails = LabelingFunction("fails", lambda x: 1 / ("n3" not in x.text))  # type: ignore[arg-type, return-value]
    report = labelled(frame, (*FUNCTIONS, LabelingFunction("fails", lambda x: fails.f(x) and -1))).report
    metrics = report.functions[-1]
    assert metrics.votes == 0
    assert metrics.known == int((~frame["text"].str.contains("n3")).sum())
    warnings = " ".join(report.warnings())
    assert "Labeling function 'fails' failed on 111 rows" in warnings
    assert "vote on no row: fails" in warnings


def test_duplicates_are_reported(frame: pd.DataFrame) -> None:
    """A copy of a function has no vote of its own."""
    report = labelled(frame, (*FUNCTIONS, LabelingFunction("again", FUNCTIONS[3].f))).report
    assert ("win", "again", True) in [(d.first, d.second, d.is_duplicate) for d in report.dependencies]
    assert any("'win' and 'again' are duplicates" in warning for warning in report.warnings())


def test_a_vote_for_no_class_is_refused(frame: pd.DataFrame) -> None:
    """With the function, its vote, and the classes that there are."""
    with pytest.raises(DataError, match="'wrong' returned 2, and the classes are 0 ham, 1 spam"):
        labelled(frame, (*FUNCTIONS, LabelingFunction("wrong", lambda x: 2)))


def test_functions_that_never_vote_are_refused(frame: pd.DataFrame) -> None:
    """On rows without a label there has to be a vote."""
    with pytest.raises(DataError, match="vote on none of 366 training rows without a label"):
        labelled(frame, (LabelingFunction("silent", lambda x: -1),))


def test_few_labels_are_refused_with_their_counts() -> None:
    """Fewer than 20, or fewer than two held-out contents."""
    with pytest.raises(DataError, match=r"19 of 300 rows have a label in 'label' \(ham: \d+, spam: \d+\)\. Validation"):
        train(config(), table(300, given=19))
    frame = table(300, given=40)
    hashes = content_hashes(frame, FEATURES)
    inside = frame.assign(label=frame["label"].where(hashes % HELD_OUT_MODULUS != 0))
    with pytest.raises(DataError, match=r"rows have a label, and 0 distinct of these are held out, where 2 are needed"):
        train(config(), inside)


def test_a_table_with_all_labels_keeps_them() -> None:
    """Functions then label no row, and the model is the one without functions."""
    frame = table(200, given=200)
    with_functions, without = train(config(), frame), train(config(labeling_functions=()), frame)
    assert with_functions.report.labels is not None
    assert with_functions.report.labels.labelled == 0
    assert without.report.labels is None
    assert with_functions.predict(frame) == without.predict(frame)


def test_blank_labels_are_refused_without_functions(frame: pd.DataFrame) -> None:
    """As before: no row is dropped in silence."""
    with pytest.raises(DataError, match="label column 'label' is blank in 400 of 600 rows, first in row 200"):
        train(config(labeling_functions=()), frame)


def test_the_same_training_is_the_same_bundle(frame: pd.DataFrame, bundle: ModelBundle) -> None:
    """Bit for bit; and the report survives as JSON."""
    assert train(config(), frame).hash == bundle.hash
    assert TrainingReport.from_json(json.dumps(bundle.report.to_json()).encode()) == bundle.report


def test_the_report_and_the_lineage_name_the_functions(bundle: ModelBundle) -> None:
    """Rows, functions, accuracies with their n; and their fingerprints."""
    text, labels = bundle.report.to_text(), bundle.report.labels
    assert labels is not None
    assert f"Labels from functions: {labels.labelled:,} training rows without a label" in text
    assert "labelled rows that the label model has not seen, its likeliest class is right in" in text
    assert all(f"\n{function.name} " in text for function in FUNCTIONS)
    assert bundle.lineage["rows"]["by_functions"] == labels.labelled
    assert bundle.lineage["config"]["labeling_functions"] == {each.name: each.fingerprint for each in FUNCTIONS}


@pytest.mark.parametrize("kind", ["auto", "slice_residual", "slice_aware", "weighted_erm"])
def test_every_learner_learns_from_weighted_rows(frame: pd.DataFrame, kind: str) -> None:
    """With few labels a learner of any kind is better by the labels of functions than without."""
    few = frame.assign(label=frame["label"].where(np.arange(len(frame)) < 60))
    learner = LearnerConfig(kind, n_epochs=4, widths=(8,))
    with_functions = train(config(learner=learner), few)
    without = train(config(learner=learner, labeling_functions=()), few.iloc[:60])
    other = table(1000, given=0, seed=1)
    right, right_without = (
        float((np.array(model.predict(other)) == other["truth"].to_numpy()).mean())
        for model in (with_functions, without)
    )
    assert right > right_without + 0.03


def test_two_functions_of_one_name_are_refused() -> None:
    """As two slicing functions are."""
    with pytest.raises(ConfigError, match="labeling_functions: Operator names not unique"):
        config(labeling_functions=(FUNCTIONS[0], FUNCTIONS[0]))


def test_votes_keep_their_classes_beside_a_new_one(frame: pd.DataFrame) -> None:
    """A class between the others, such as one that only traffic has, moves no vote to another class."""
    odd = pd.DataFrame({"text": [f"odd {k} thing" for k in range(60)], "label": "odd", "truth": "odd"})
    both = pd.concat([frame, odd], ignore_index=True)
    labels, hashes = PartialLabels.of(both["label"].tolist(), "label"), content_hashes(both, FEATURES)
    assert labels.classes == ("ham", "odd", "spam")
    splits = labels.split(hashes)
    found = label_rows(FUNCTIONS, both[["text"]], labels, hashes, splits, vote_classes=("ham", "spam"))
    assert [metrics.classes for metrics in found.report.functions] == [("ham",)] * 3 + [("spam",)] * 3
    predicted = np.array(labels.classes)[found.probabilities.argmax(axis=1)]
    assert (predicted == both["truth"].to_numpy()[found.positions]).mean() > 0.9
    with pytest.raises(DataError, match="can vote for 'eggs', and no row has this label"):
        label_rows(FUNCTIONS, both[["text"]], labels, hashes, splits, vote_classes=("ham", "eggs"))


def test_a_sample_for_the_search_prefers_true_labels() -> None:
    """They are few, and settings are not to be chosen without them."""
    random = np.random.default_rng(0)
    weight = np.where(random.random(500) < 0.05, 1.0, 0.7)
    rows = Split(
        FeatureRows(random.random((500, 2), np.float32)),
        random.integers(0, 2, 500),
        SliceMatrix.empty(500),
        weight=weight,
    )
    sample, _ = search_samples(LearnerConfig(max_search_rows=100), rows, rows)
    assert sample.weight is not None
    assert (len(sample), (sample.weight == 1).sum()) == (100, (weight == 1).sum())


def weighted(n: int, weights: np.ndarray, y: np.ndarray, S: SliceMatrix | None = None) -> Split:
    """Return rows of two numbers, the first of which tells the class."""
    random = np.random.default_rng(1)
    X = np.stack([np.where(random.random(n) < 0.9, y, 1 - y), random.random(n)], axis=1).astype(np.float32)
    return Split(FeatureRows(X), y, SliceMatrix.empty(n) if S is None else S, weight=weights)


def test_a_weight_of_two_is_a_row_that_is_there_twice() -> None:
    """In linear models and trees; and in the weights of networks, beside those of slices."""
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 300)
    rows = weighted(300, random.integers(1, 3, 300).astype(np.float64), y)
    twice = rows.subset(np.repeat(np.arange(300), rows.weight.astype(int)))  # type: ignore[union-attr]
    linear = [LinearClassifier.fit(each.X, each.y, 2, 1.0, each.weight) for each in (rows, replace(twice, weight=None))]
    trees = [
        TreeClassifier.fit(each.X, each.y, 2, TreeSettings(3, 3, 0.1), 0, each.weight)
        for each in (rows, replace(twice, weight=None))
    ]
    for own, expected in (linear, trees):
        np.testing.assert_allclose(own.predict_proba(rows.X), expected.predict_proba(rows.X), atol=0.01)
    task = TrainingTask(rows, rows, 2, (4,), TrainerConfig())
    np.testing.assert_allclose(task.weights(CandidateSpec("erm", ())), rows.weight / rows.weight.mean())  # type: ignore[union-attr, operator]


def test_slices_are_fitted_to_true_labels_alone() -> None:
    """A slice whose labels are turned round, which the functions do not know, is found by its few true labels."""
    random, n = np.random.default_rng(0), 2_400
    rule, member, weak = random.integers(0, 2, n), random.random(n) < 0.3, np.arange(n) >= 800
    rows = weighted(n, np.where(weak, 0.9, 1.0), rule, SliceMatrix(["turned"], member[:, None]))
    rows = replace(rows, y=np.where(member & ~weak, 1 - rule, rule))
    is_valid = ~weak & (np.arange(n) % 2 == 0)
    train, valid = rows.subset(np.flatnonzero(~is_valid)), rows.subset(np.flatnonzero(is_valid))
    joined = Rows.of(train, replace(valid, weight=None))
    found = best_base(search_bases(joined, train, 2, 0, lambda stage, share: None)[0])
    assert found is not None
    assert len(found.base.P) == joined.labelled.sum() == 800
    assert found.kept == ("turned",)
    inside = rows.subset(np.flatnonzero(member & ~weak))
    predicted = found.adapted(found.base.fit(joined)).predict_proba(inside.X, inside.S).argmax(axis=1)
    assert (predicted == inside.y).mean() > 0.8
