"""Work of the training process, done in this process."""

import json
from pathlib import Path

import pandas as pd
import pytest

from models.comments.generate import generate
from models.errors import BundleError, DataError
from models.features import FeatureSpec
from models.splits import content_hashes, held_out
from service.jobs.training.spec import TRAFFIC, TrainingSpec, write_traffic
from service.jobs.training.worker import Heartbeat, train_candidate
from service.monitor.promotion_gate import decide
from sfs.apply import apply
from sfs.intervals import PairedDifference
from sfs.registry import FunctionSet

SLICE = "regex_check_out"
FUNCTIONS = "sfs.library.spam"
LEARNER = {"kind": "erm", "n_epochs": 4, "widths": [16]}


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return generate(2500, seed=3)


@pytest.fixture(scope="module")
def champion(rows: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a candidate trained without a champion, beside its rows."""
    folder = tmp_path_factory.mktemp("project")
    rows.to_csv(folder / "rows.csv", index=False)
    result = train_candidate(spec_of(folder / "rows.csv"), folder, lambda stage, share: None)
    assert result.pairs == ()
    return folder / "candidate"


def spec_of(data: Path, **changes: object) -> TrainingSpec:
    values = {"name": "comments", "label": "label", "features": {"text": "text"}, "data": str(data)}
    return TrainingSpec(**{**values, "functions": (FUNCTIONS,), "learner": LEARNER, **changes})  # type: ignore[arg-type]


def mislabelled(rows: pd.DataFrame) -> list[tuple[str, str]]:
    """Return comments of the slice that are not held out, three times, with the other label."""
    member = apply(FunctionSet.from_files([FUNCTIONS]), rows[["text"]]).column(SLICE)
    seen = rows[member & ~held_out(content_hashes(rows, [FeatureSpec("text", "text")]))]
    flipped = {"spam": "ham", "ham": "spam"}
    return [
        (json.dumps({"text": text}), flipped[label]) for text, label in zip(seen["text"], seen["label"], strict=True)
    ] * 3


def test_wrong_labels_of_one_slice_lower_its_accuracy(rows: pd.DataFrame, champion: Path, tmp_path: Path) -> None:
    """The gate rejects the candidate that learned them, and names the slice."""
    honest = generate(500, seed=4)
    right = [(json.dumps({"text": text}), label) for text, label in zip(honest["text"], honest["label"], strict=True)]
    out = held_out(content_hashes(honest, [FeatureSpec("text", "text")]))
    again = [each for each, held in zip(right, out, strict=True) if held]
    wrong = mislabelled(rows)
    write_traffic(tmp_path / TRAFFIC, [*right, *again, *wrong])
    spec = spec_of(champion.parent / "rows.csv", traffic=str(tmp_path / TRAFFIC), champion=str(champion))
    progress: list[tuple[str, float]] = []
    result = train_candidate(spec, tmp_path, lambda stage, share: progress.append((stage, share)))
    pairs = {each.slice: each for each in result.pairs}
    assert list(pairs) == ["__all__", *FunctionSet.from_files([FUNCTIONS]).names]
    gains = {name: PairedDifference(each.only_candidate, each.only_champion, each.n) for name, each in pairs.items()}
    assert gains[SLICE].upper < -0.3
    assert gains["short_comment"].lower > -0.1
    decision = decide(list(result.pairs), {SLICE}, margin=0.02, minimum_rows=30)
    assert decision.outcome == "reject"
    assert any(SLICE in reason for reason in decision.reasons)
    data = result.data
    assert data["traffic_rows"] == 500 + len(again) + len(wrong)
    assert pairs["__all__"].n == data["held_out_contents"] < data["held_out_rows"]
    assert data["held_out_rows_of_slices"]["__all__"] == data["held_out_rows"]
    assert [share for _, share in progress] == sorted(share for _, share in progress)
    assert (progress[0], progress[-1]) == (("reading", 0.0), ("done", 1.0))


def test_a_damaged_champion_is_an_error(champion: Path, tmp_path: Path) -> None:
    """No candidate is trained that cannot be compared."""
    (tmp_path / "bundle").mkdir()
    spec = spec_of(champion.parent / "rows.csv", champion=str(tmp_path / "bundle"))
    with pytest.raises(BundleError, match=r"manifest\.json is missing"):
        train_candidate(spec, tmp_path, lambda stage, share: None)
    assert not (tmp_path / "candidate").exists()


def test_versions_with_other_features_are_compared_on_rows_held_out_for_both(
    rows: pd.DataFrame, champion: Path, tmp_path: Path
) -> None:
    """Other features mean other held-out rows; rows that one version was trained on are left out."""
    features = {"author": "category", "likes": "number"}
    learner = {"kind": "erm", "n_epochs": 1, "widths": [4]}
    spec = spec_of(
        champion.parent / "rows.csv", features=features, learner=learner, champion=str(champion), functions=()
    )
    result = train_candidate(spec, tmp_path, lambda stage, share: None)
    read = pd.read_csv(champion.parent / "rows.csv")
    mine = held_out(content_hashes(read, [FeatureSpec("author", "category"), FeatureSpec("likes", "number")]))
    both = mine & held_out(content_hashes(read, [FeatureSpec("text", "text")]))
    (pairs,) = result.pairs
    assert pairs.slice == "__all__"
    assert 0 < pairs.n == result.data["held_out_rows"] == both.sum() < mine.sum()
    assert result.data["held_out_rows_of_slices"] == {}


LABELING = """
from sfs import labeling_function


@labeling_function()
def subscribe(x):
    return 1 if "subscribe" in x.text.lower() or "check" in x.text.lower() else -1


@labeling_function()
def link(x):
    return 1 if "http" in x.text or ".com" in x.text else -1


@labeling_function()
def likes(x):
    return 0 if "love" in x.text.lower() or "song" in x.text.lower() else -1
"""


def test_retraining_takes_labels_from_functions(rows: pd.DataFrame, tmp_path: Path) -> None:
    """Rows of the table without a label have one from functions; traffic has its own, and no held-out row is theirs."""
    partly = rows.assign(label=rows["label"].where(rows.index < 500))
    partly.to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "labeling.py").write_text(LABELING)
    honest = generate(200, seed=5)
    write_traffic(
        tmp_path / TRAFFIC,
        [(json.dumps({"text": text}), label) for text, label in zip(honest["text"], honest["label"], strict=True)],
    )
    functions = (FUNCTIONS, str(tmp_path / "labeling.py"))
    (tmp_path / "first").mkdir()
    given = {"functions": functions, "labels_from_functions": True}
    first = train_candidate(spec_of(tmp_path / "rows.csv", **given), tmp_path / "first", lambda stage, share: None)
    spec = spec_of(tmp_path / "rows.csv", traffic=str(tmp_path / TRAFFIC), champion=str(first.candidate), **given)
    result = train_candidate(spec, tmp_path, lambda stage, share: None)
    of_text = [FeatureSpec("text", "text")]
    true = pd.concat([rows.head(500), honest])
    assert result.data["held_out_rows"] == held_out(content_hashes(true, of_text)).sum()
    assert result.data["traffic_rows"] == 200
    assert 300 < result.data["function_labels"] < 2000
    assert result.pairs[0].n == result.data["held_out_contents"]
    with pytest.raises(DataError, match="label column 'label' is blank in 2,000 of 2,500 rows"):
        train_candidate(spec_of(tmp_path / "rows.csv", functions=functions), tmp_path, lambda stage, share: None)


def test_a_heartbeat_writes_the_reported_progress(tmp_path: Path) -> None:
    """Stopping writes a last beat."""
    heartbeat = Heartbeat(tmp_path / "heartbeat.json")
    heartbeat.start()
    heartbeat.report("reading", 0.5)
    heartbeat.stop()
    (file,) = tmp_path.iterdir()
    last = json.loads(file.read_text())
    assert (last["stage"], last["share"]) == ("reading", 0.5)
    assert last["beat"] >= 1
