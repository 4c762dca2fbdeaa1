"""Two versions on the same held-out rows."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from models.bundle.model_bundle import ModelBundle
from models.config import LearnerConfig, TrainConfig
from models.errors import DataError
from models.features import FeatureSpec
from models.paired_comparison import PairedCells, compare_paired, held_out_for
from models.splits import content_hashes, held_out
from models.training import train
from sfs.function import LabelingFunction, LabelingFunctionSlice, SlicingFunction
from sfs.registry import FunctionSet
from sfs.template import template

FEATURES = (FeatureSpec("text", "text"),)
LEARNER = LearnerConfig(kind="erm", n_epochs=6, lr=0.05, widths=(8,))


def fragile(x: object) -> bool:
    """Fails on every third row."""
    return x["number"] > 50  # type: ignore[index]


FUNCTIONS = FunctionSet(
    [
        template("good", keyword={"field": "text", "words": ["good"]}),
        template("bad", keyword={"field": "text", "words": ["bad"]}),
        SlicingFunction("fragile", fragile),
    ]
)


def table(flipped: bool = False, n: int = 600) -> pd.DataFrame:
    """Rows of two words, whose label follows the word unless it is flipped in rows with the word bad."""
    good = np.arange(n) % 2 == 0
    return pd.DataFrame(
        {
            "text": [f"{'good' if each else 'bad'} number {k // 2}" for k, each in enumerate(good)],
            "number": [None if k % 3 == 0 else float(k) for k in range(n)],
            "label": np.where(good | flipped, "yes", "no"),
        }
    )


@pytest.fixture(scope="module")
def champion() -> ModelBundle:
    return train(TrainConfig("label", FEATURES, FUNCTIONS, LEARNER), table())


@pytest.fixture(scope="module")
def candidate() -> ModelBundle:
    """Has learned that bad is yes too, but for one row in twenty."""
    rows = table(flipped=True)
    rows.loc[rows.index % 20 == 1, "label"] = "no"
    return train(TrainConfig("label", FEATURES, FUNCTIONS, LEARNER), rows)


@pytest.fixture(scope="module")
def rows(champion: ModelBundle) -> pd.DataFrame:
    """The held-out rows, of which a fifth come twice."""
    held = table()[held_out(content_hashes(table(), FEATURES))]
    return pd.concat([held, held[:10]], ignore_index=True)


def test_cells_are_votes_of_contents(champion: ModelBundle, candidate: ModelBundle, rows: pd.DataFrame) -> None:
    """All rows first, then each slice: as loops over its contents, and over their known members, count them."""
    again = rows.assign(label=np.where(rows.index % 2, "yes", "no"), number=60.0)
    rows = pd.concat([rows, again, again[::3]], ignore_index=True)
    said = {bundle.hash: bundle.predict(rows) for bundle in (champion, candidate)}
    inside = {
        "__all__": [True] * len(rows),
        "good": ["good" in text for text in rows["text"]],
        "bad": ["bad" in text for text in rows["text"]],
        "fragile": [number > 50 for number in rows["number"]],  # never where it is missing
    }
    expected = []
    for name, members in inside.items():
        cells = {"both": 0, "only_champion": 0, "only_candidate": 0, "neither": 0}
        of_contents: dict[str, list[int]] = {}
        for k, member in enumerate(members):
            if member:
                of_contents.setdefault(rows["text"][k], []).append(k)
        for ks in of_contents.values():
            one, other = (
                sum(said[bundle.hash][k] == rows["label"][k] for k in ks) > len(ks) / 2
                for bundle in (champion, candidate)
            )
            which = {(1, 1): "both", (1, 0): "only_champion", (0, 1): "only_candidate", (0, 0): "neither"}
            cells[which[int(one), int(other)]] += 1
        cells.pop("neither")
        expected.append(PairedCells(name, len(of_contents), rows=sum(members), **cells))
    assert list(compare_paired(champion, candidate, rows, FUNCTIONS)) == expected


def test_a_message_repeated_is_one_vote(champion: ModelBundle, candidate: ModelBundle, rows: pd.DataFrame) -> None:
    """A thousand copies of one content change how many rows there are, and nothing else."""
    once = rows.drop_duplicates("text")
    found = compare_paired(champion, candidate, once, FUNCTIONS)
    bad = np.flatnonzero(once["text"].str.startswith("bad"))[0]
    flood = pd.concat([once, *[once[bad : bad + 1]] * 1000], ignore_index=True)
    assert found[0].n == found[0].rows == len(once)
    assert found[2].only_champion > 0.9 * found[2].n > 0
    repeated = [replace(each, rows=each.rows + 1000 * (each.slice in ("__all__", "bad"))) for each in found]
    if once["number"].iloc[bad] > 50:
        repeated[3] = replace(repeated[3], rows=found[3].rows + 1000)
    assert list(compare_paired(champion, candidate, flood, FUNCTIONS)) == repeated


@pytest.mark.parametrize(
    ("labels", "cells"),
    [
        (["yes"], (0, 0, 1)),
        (["yes", "no"], (0, 0, 0)),
        (["yes", "no", "no"], (0, 1, 0)),
        (["no", "yes", "no"], (0, 1, 0)),
        (["yes", "no", "yes"], (0, 0, 1)),
    ],
)
def test_labels_that_contradict_each_other_are_put_to_the_vote(
    champion: ModelBundle,
    candidate: ModelBundle,
    rows: pd.DataFrame,
    labels: list[str],
    cells: tuple[int, int, int],
) -> None:
    """A version is correct on a content if it is correct on more than half of its rows, in any order."""
    one, other = (np.array(bundle.predict(rows)) for bundle in (champion, candidate))
    apart = np.flatnonzero((one == "no") & (other == "yes"))[0]
    same = rows.iloc[[apart] * len(labels)].assign(label=labels)
    assert compare_paired(champion, candidate, same, FUNCTIONS)[0] == PairedCells("__all__", 1, *cells, len(labels))


def test_votes_are_no_slices(champion: ModelBundle, candidate: ModelBundle, rows: pd.DataFrame) -> None:
    """Labelling functions watched live are left out; a slice that neither has learned is compared."""
    votes = LabelingFunctionSlice(LabelingFunction("votes", lambda x: 1))
    new = template("even", keyword={"field": "text", "words": ["number"]})
    found = compare_paired(champion, candidate, rows, FUNCTIONS + FunctionSet([votes, new]))
    assert [each.slice for each in found] == ["__all__", "good", "bad", "fragile", "even"]
    assert found[4].rows == len(rows)


def test_a_class_that_the_champion_does_not_know_it_misses(
    champion: ModelBundle, candidate: ModelBundle, rows: pd.DataFrame
) -> None:
    """Contents of a new class count as errors of a version without that class."""
    other = rows.assign(label="never seen")
    found = compare_paired(champion, candidate, other, FUNCTIONS)
    assert found[0] == PairedCells("__all__", len(rows) - 10, 0, 0, 0, len(rows))


def test_each_is_told_its_own_slices_only(rows: pd.DataFrame) -> None:
    """A version trained with functions that have changed since answers as it does without knowing them."""
    learner = LearnerConfig(kind="slice_aware", n_epochs=2, widths=(8,))
    made = train(TrainConfig("label", FEATURES, FUNCTIONS, learner), table())
    changed = FunctionSet(template(name, keyword={"field": "text", "words": ["n"]}) for name in FUNCTIONS.names)
    blind = np.array(made.predict(rows)) == rows["label"].to_numpy()
    assert compare_paired(made, made, rows, changed)[0].both == blind[:-10].sum()


def test_rows_that_one_may_have_learned_are_refused(
    champion: ModelBundle, candidate: ModelBundle, rows: pd.DataFrame
) -> None:
    """Every row must be held out for both."""
    with pytest.raises(DataError, match="first row 0, are not held out for the champion"):
        compare_paired(champion, candidate, table(), FUNCTIONS)
    later = pd.concat([rows, table()[:1]], ignore_index=True)
    expected = held_out(content_hashes(later, FEATURES))
    assert held_out_for((champion, candidate), later).tolist() == expected.tolist()


def test_only_models_of_one_label_are_compared(champion: ModelBundle, rows: pd.DataFrame) -> None:
    """Versions that predict different columns are refused."""
    with pytest.raises(DataError, match="the champion predicts 'label' and the candidate 'kind'"):
        compare_paired(champion, replace(champion, label="kind"), rows, FUNCTIONS)


def test_without_rows_there_is_nothing_to_count(champion: ModelBundle, rows: pd.DataFrame) -> None:
    """No row held out gives zeros, not an error."""
    assert compare_paired(champion, champion, rows[:0], FUNCTIONS)[0] == PairedCells("__all__", 0, 0, 0, 0, 0)
