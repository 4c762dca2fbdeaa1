"""From a table to a bundle, and from a bundle and a table to a report per slice."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import make_pipeline

import models
import sfs
from models.bundle.model_bundle import ModelBundle
from models.classes import without_label
from models.config import LearnerConfig, TrainConfig
from models.errors import ConfigError, DataError, ModelError
from models.features import FeatureSpec
from models.slice_adapter import SliceAdapter
from models.splits import content_hashes, held_out
from models.training import evaluate, train
from sfs.apply import apply
from sfs.errors import SliceError, UnknownName
from sfs.function import SlicingFunction
from sfs.registry import FunctionSet
from sfs.template import template

FEATURES = (
    FeatureSpec("the text [raw]", "text"),
    FeatureSpec("number of likes", "number"),
    FeatureSpec("land", "category"),
)
QUICK = LearnerConfig(n_epochs=2, widths=(8,))
SHORT = LearnerConfig(n_epochs=1, widths=(4,))


def fragile(x: object) -> bool:
    """Fails where likes are missing."""
    return x["number of likes"] > 20  # type: ignore[index]


FUNCTIONS = FunctionSet(
    [
        template("asks", keyword={"field": "the text [raw]", "words": ["please"]}),
        template("nobody", keyword={"field": "the text [raw]", "words": ["never there"]}),
        SlicingFunction("fragile", fragile),
    ]
)


def table(n: int = 400, seed: int = 0) -> pd.DataFrame:
    """Text, numbers and categories with missing values, three classes, awkward headers."""
    random = np.random.default_rng(seed)
    y = random.integers(0, 3, n)
    words = np.array(["buy now", "hello friend", "nice song"])[y]
    asks = random.random(n) < 0.2
    return pd.DataFrame(
        {
            "the text [raw]": [
                f"{w} {k} {'please' * bool(a)}" for k, (w, a) in enumerate(zip(words, asks, strict=True))
            ],
            "number of likes": np.where(random.random(n) < 0.1, np.nan, random.normal(10 * y, 3)),
            "land": np.where(random.random(n) < 0.1, None, random.choice(["no", "se", "dk"], n)),
            "kind of it": np.array(["spam", "ham", "other"])[y],
        },
        index=pd.RangeIndex(n) * 2,
    )


def config(**changes: object) -> TrainConfig:
    fields = {"label": "kind of it", "features": FEATURES, "functions": FUNCTIONS, "learner": QUICK}
    return TrainConfig(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    """400 rows."""
    return table()


@pytest.fixture(scope="module")
def stages() -> list[tuple[str, float]]:
    """The progress of the training of `bundle`."""
    return []


@pytest.fixture(scope="module")
def bundle(data: pd.DataFrame, stages: list[tuple[str, float]]) -> ModelBundle:
    """One training for many tests."""
    return train(config(), data, progress=lambda stage, share: stages.append((stage, share)))


@pytest.fixture(scope="module")
def network_bundle(data: pd.DataFrame) -> ModelBundle:
    """A training of networks alone."""
    return train(config(learner=replace(QUICK, kind="slice_residual")), data)


def test_a_trained_bundle_survives_saving(bundle: ModelBundle, data: pd.DataFrame, tmp_path: Path) -> None:
    """Three classes, awkward headers and missing values go through training, saving and loading."""
    bundle.save(tmp_path / "b")
    loaded = ModelBundle.load(tmp_path / "b")
    assert loaded.classes == ("ham", "other", "spam")
    assert loaded.hash == bundle.hash
    assert loaded.predict(data) == bundle.predict(data)


def test_the_golden_batch_is_predicted_as_a_request(bundle: ModelBundle) -> None:
    """By the same arithmetic: a bundle whose network rounds badly can be loaded where it was trained."""
    golden = bundle.golden
    np.testing.assert_allclose(
        bundle.predict_proba(golden.records, golden.slices), golden.probabilities, rtol=0, atol=1e-12
    )


def test_it_learns_what_is_there(bundle: ModelBundle) -> None:
    """On held-out rows of a table this plain nearly every prediction is right."""
    assert bundle.report.shipped[0].accuracy > 0.9


def test_progress_goes_from_start_to_end(bundle: ModelBundle, stages: list[tuple[str, float]]) -> None:
    """Stages come in order, the share never falls, and the last is 1."""
    shares = [share for _, share in stages]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert stages[-1] == ("done", 1.0)
    assert {"reading labels", "applying functions", "making features"} <= {stage for stage, _ in stages}


def test_held_out_rows_are_those_of_the_rule(bundle: ModelBundle, data: pd.DataFrame) -> None:
    """The reference and the sample are of the rows whose hash is divisible by ten, and no others."""
    out = held_out(content_hashes(data, FEATURES))
    assert bundle.lineage["rows"]["held_out"] == out.sum() == bundle.reference["__all__"].held_out
    sampled = {record["the text [raw]"] for record in bundle.sample}
    assert sampled == set(data["the text [raw]"][out])


def test_reference_counts_are_the_report_s(bundle: ModelBundle) -> None:
    """Held-out members and correct predictions per slice agree with the table of results."""
    for row in bundle.report.shipped:
        counts = bundle.reference[row.slice]
        assert counts.held_out == row.n
        if counts.held_out:
            assert counts.correct / counts.held_out == row.accuracy


def test_rates_of_outputs_are_of_the_held_out_rows(bundle: ModelBundle, data: pd.DataFrame) -> None:
    """Low confidence and disagreement agree with predictions of these rows."""
    rows = data[held_out(content_hashes(data, FEATURES))]
    S = bundle.memberships(FUNCTIONS, rows)
    P, inside = bundle.inference.predict_indicated(bundle.featurizer.transform(rows), S)
    outputs = bundle.outputs
    assert outputs is not None
    assert (outputs.low_confidence.count, outputs.low_confidence.n) == (
        (P.max(axis=1) < outputs.limit).sum(),
        len(rows),
    )
    assert tuple(outputs.disagreement) == bundle.inference.indicated
    own = S.align(bundle.inference.indicated)
    for k, rate in enumerate(outputs.disagreement.values()):
        known = ~own.unknown[:, k]
        assert (rate.count, rate.n) == ((inside[:, k] != own.member[:, k])[known].sum(), known.sum())


def test_a_column_with_times_gives_a_season(data: pd.DataFrame, tmp_path: Path) -> None:
    """Which survives saving; a table without the column, and one without the setting, has none."""
    frame = data.assign(at=pd.date_range("2026-02-16", periods=len(data), freq="h"))
    timed = config(learner=LearnerConfig(kind="erm", n_epochs=1), time="at", time_zone="Europe/Berlin")
    made = train(timed, frame)
    assert made.season is not None
    assert (made.season.zone, sum(made.season.rows)) == ("Europe/Berlin", len(data))
    assert {name: sum(counts) for name, counts in made.season.members.items()} == {
        name: counts.member for name, counts in made.reference.items() if counts.member and name != "__all__"
    }
    made.save(tmp_path / "b")
    assert ModelBundle.load(tmp_path / "b").season == made.season
    assert train(timed, data).season is None
    assert train(config(learner=LearnerConfig(kind="erm", n_epochs=1)), frame).season is None


def test_reference_counts_are_by_true_and_predicted_class(bundle: ModelBundle, data: pd.DataFrame) -> None:
    """The held-out rows of every true class, and of every slice, are counted in the pairs of classes."""
    out = held_out(content_hashes(data, FEATURES))
    true = Counter(data["kind of it"][out].astype(str))
    counted: Counter[str] = Counter()
    for true_class, predicted, number in bundle.reference["__all__"].confusion:
        assert predicted in bundle.classes
        counted[true_class] += number
    assert counted == true
    for counts in bundle.reference.values():
        assert sum(number for *_, number in counts.confusion) == counts.held_out


def test_reference_coverage_is_of_all_rows(bundle: ModelBundle, data: pd.DataFrame) -> None:
    """Members and unknowns per slice equal the functions' memberships of the whole table."""
    S = apply(FUNCTIONS, without_label(data, "kind of it"))
    for k, name in enumerate(S.names):
        counts = bundle.reference[name]
        assert (counts.n, counts.member) == (len(data), S.member[:, k].sum())
        assert counts.unknown == S.unknown[:, k].sum()


def test_repeats_among_held_out_rows_are_warned_of(data: pd.DataFrame) -> None:
    """A table repeated three times has a third of the contents, and the report has a remark."""
    thrice = pd.concat([data] * 3, ignore_index=True)
    made = train(config(learner=LearnerConfig(kind="erm", n_epochs=1)), thrice)
    rows = made.reference["__all__"].held_out
    assert f"The {rows} held-out rows have only {rows // 3} distinct contents" in made.report.to_text()
    accuracy = made.reference["__all__"].accuracy
    assert (accuracy.n, accuracy.effective_n) == (rows, rows // 3)
    assert made.report.shipped[0].effective_n == rows // 3


CELLS = [{"c1": a, "c2": b, "c3": c} for a in "abc" for b in "xy" for c in "pq"]
CATEGORIES = tuple(FeatureSpec(name, "category") for name in ("c1", "c2", "c3"))


def repeated(cells: list[dict[str, str]], times: int) -> pd.DataFrame:
    """Return every cell many times; one in four rows is spam, in the held-out cells one in thirty."""
    out = held_out(content_hashes(cells, CATEGORIES))
    return pd.DataFrame(
        [
            {**cell, "label": "spam" if k % (30 if is_out else 4) == 0 else "ham"}
            for cell, is_out in zip(cells, out, strict=True)
            for k in range(times)
        ]
    )


def trained_on(rows: pd.DataFrame, features: tuple[FeatureSpec, ...] = CATEGORIES) -> ModelBundle:
    """Return a plain model with a slice of one value of the first feature."""
    first = template("first", one_of={"field": features[0].column, "values": ["a", "0"]})
    learner = LearnerConfig(kind="erm", n_epochs=1)
    return train(TrainConfig("label", features, FunctionSet([first]), learner), rows)


def test_of_one_held_out_content_nothing_is_expected() -> None:
    """Twelve contents, one of them held out and purer than the others: 250 rows of it are no evidence."""
    made = trained_on(repeated(CELLS, 250))
    counts, overall = made.reference["__all__"], made.report.shipped[0]
    assert (counts.held_out, counts.held_out_contents, counts.accuracy.effective_n) == (250, 1, 1)
    assert (overall.n, overall.effective_n) == (250, 1)
    assert overall.accuracy == pytest.approx(1 - 9 / 250)
    assert overall.accuracy_lower is not None
    assert overall.accuracy_lower < 0.1
    text = made.report.to_text()
    assert "One content is held out (250 rows)" in text
    assert "the table has 12. No accuracy is expected, no accuracy alarm can be raised" in text
    assert "effective n" in text.split("\n\n")[1].splitlines()[0]
    assert "all rows (250, effective n 1)" in text


def test_a_table_of_four_contents_has_nothing_held_out_and_says_why() -> None:
    """No content of these is in the held-out tenth, however many rows there are."""
    cells = [cell for cell in CELLS if not held_out(content_hashes([cell], CATEGORIES))[0]][:4]
    made = trained_on(repeated(cells, 100))
    assert made.reference["__all__"].accuracy.effective_n == made.report.shipped[0].n == 0
    text = made.report.to_text()
    assert "No row is held out: a hash selects a tenth of the contents, and the table has 4." in text
    assert "the promotion gate cannot verify a later version: add rows with other contents" in text


def test_a_table_of_categories_has_the_effective_n_of_its_contents() -> None:
    """Coverage has at most the contents of the table, accuracy those that are held out, in every slice."""
    features = tuple(FeatureSpec(name, "category") for name in ("u", "v"))
    cells = [{"u": str(u), "v": str(v)} for u in range(12) for v in range(12)]
    rows = pd.DataFrame([{**cell, "label": "yn"[k % 2]} for cell in cells for k in range(5)])
    made = trained_on(rows, features)
    out = held_out(content_hashes(cells, features))
    first = np.array([cell["u"] == "0" for cell in cells])
    for name, contents in (("__all__", int(out.sum())), ("first", int((out & first).sum()))):
        assert made.reference[name].accuracy.effective_n == contents
        assert made.reference[name].accuracy.n == 5 * contents
        assert made.reference[name].coverage.effective_n == len(cells)


def test_the_report_says_what_to_be_careful_about(network_bundle: ModelBundle, data: pd.DataFrame) -> None:
    """Slices that are empty, small, or unknown in some rows are named, with numbers and reasons."""
    bundle, text = network_bundle, network_bundle.report.to_text()
    missing = int(data["number of likes"].isna().sum())
    assert "learned nothing: nobody" in text
    assert "too few to estimate an accuracy" in text
    assert f"Slice 'fragile' is unknown in {missing} of 400 rows (TypeError: {missing}; first in row" in text
    assert re.search(r" ERM +gain +95% interval +weighted +gain +95% interval$", text, re.MULTILINE)
    assert "paired differences to ERM and slice-weighted ERM" in text
    assert json.loads(json.dumps(bundle.report.to_json())) == bundle.report.to_json()
    assert len(bundle.report.shipped) == 4


def test_a_fault_is_in_the_report_without_its_message() -> None:
    """The bundle has row and kind of an exception; its message may quote a value of the row."""

    def careless(x):
        raise ValueError(f"4711-SECRET in {x!r}")

    functions = FunctionSet([SlicingFunction("careless", careless)])
    made = train(config(functions=functions, learner=LearnerConfig(kind="erm", n_epochs=1)), table(120))
    faults = made.report.functions[0]
    assert (faults.unknown, faults.first_fault) == ({"ValueError": 120}, "row 0: ValueError")
    expected = "(ValueError: 120; first in row 0): `sfs stats` shows the first message."
    assert expected in made.report.to_text()
    assert not any(b"4711" in content for content in made.files.values())


def test_a_plain_model_is_compared_with_the_slice_network_and_not_with_itself() -> None:
    """The report has the figures of the network with slices that did not ship, and no gain on the shipped model."""
    rows, random = table(300, 5), np.random.default_rng(5)
    noisy = random.random(300) < 0.3
    rows.loc[noisy, "kind of it"] = random.choice(["spam", "ham", "other"], noisy.sum())
    report = train(config(learner=replace(QUICK, kind="slice_residual", n_epochs=6, seed=5)), rows).report
    assert report.form.startswith("companion: weighted ERM")
    assert set(report.peers) == set(report.comparisons) == {"erm", "slice_residual"}
    text = report.to_text()
    assert "paired differences to ERM and the slice-aware network" in text
    own = f"{report.peers['slice_residual'][0].accuracy:.3f}"
    header, overall = (line.split() for line in text.splitlines() if line.startswith(("slice ", "__all__")))
    assert header[-4:] == ["slice-aware", "gain", "95%", "interval"]
    assert overall[-5] == own


@pytest.mark.parametrize(("kind", "peers"), [("erm", {"weighted_erm"}), ("weighted_erm", {"erm"})])
def test_a_plain_learner_is_no_peer_of_itself(kind: str, peers: set[str]) -> None:
    """A model has no gain on itself."""
    made = train(config(learner=LearnerConfig(kind=kind, n_epochs=1, widths=(4,))), table(150))
    assert set(made.report.peers) == peers


def test_targets_and_protection_are_in_the_report() -> None:
    """The target of a slice stands beside its accuracy; a slice below it is named with both and its n."""
    functions = FunctionSet(
        [
            template("asks", keyword={"field": "the text [raw]", "words": ["please"]}, target=1, protected=True),
            template("dear", compare={"field": "number of likes", "above": 10}, target=0.01),
        ]
    )
    rows = table(400)
    rows["kind of it"] = np.random.default_rng(0).permutation(rows["kind of it"])
    report = train(config(learner=LearnerConfig(kind="erm", n_epochs=1), functions=functions), rows).report
    assert (report.targets, report.protected) == ({"asks": 1.0, "dear": 0.01}, ("asks",))
    asks = next(row for row in report.shipped if row.slice == "asks")
    assert (
        f"below their target: asks ({asks.accuracy:.3f} of 1.000, n = {asks.n}). If the live accuracy is the same"
        in report.to_text()
    )
    lines = {line.split()[0]: line.split() for line in report.to_text().splitlines() if " to " in line}
    assert ("1.000" in lines["asks"], "0.010" in lines["dear"], lines["__all__"][9]) == (True, True, "-")


def test_peers_are_compared_on_the_same_rows(network_bundle: ModelBundle) -> None:
    """Each difference is the difference of the two accuracies, inside its interval; none where no row is."""
    bundle = network_bundle
    for peer in ("erm", "weighted_erm"):
        parts = (bundle.report.shipped, bundle.report.peers[peer], bundle.report.comparisons[peer])
        for row, other, gain in zip(*parts, strict=True):
            if row.n == 0:
                assert gain.difference is other.accuracy is None
            else:
                assert gain.difference == pytest.approx(row.accuracy - other.accuracy)
                assert gain.difference_lower <= gain.difference <= gain.difference_upper


def test_a_model_with_slices_is_compared_with_itself_without_them() -> None:
    """The peer reads the same features, those for linear models."""
    rows = table(1500).query("`kind of it` != 'other'").reset_index(drop=True)
    asks = rows["the text [raw]"].str.contains("please")
    rows.loc[asks, "kind of it"] = rows.loc[asks, "kind of it"].map({"spam": "ham", "ham": "spam"})
    made = train(config(), rows)
    assert isinstance(made.model, SliceAdapter)
    assert [*made.report.peers] == ["base"]
    held = held_out(content_hashes(rows, FEATURES))
    expected = made.model.base.predict_proba(made.featurizer.transform(rows[held])).argmax(axis=1)
    right = [made.classes[k] == label for k, label in zip(expected, rows["kind of it"][held], strict=True)]
    assert made.report.peers["base"][0].accuracy == pytest.approx(np.mean(right))
    assert made.report.comparisons["base"][1].difference_lower > 0
    assert "Gains are paired differences to the model without slices" in made.report.to_text()


def test_fingerprints_are_kept_and_read_by_name(bundle: ModelBundle, data: pd.DataFrame) -> None:
    """The bundle knows its functions, and a live set that is the same is trusted."""
    assert bundle.function_fingerprints == FUNCTIONS.fingerprints
    S = bundle.memberships(FUNCTIONS, data)
    assert S.unknown.any(axis=0).tolist() == [False, False, True]


def test_evaluation_reports_the_live_slices(bundle: ModelBundle, data: pd.DataFrame) -> None:
    """The report's slices are those of the functions given, trained with or not; none without."""
    live = FunctionSet([FUNCTIONS["asks"], template("north", one_of={"field": "land", "values": ["se"]})])
    report = evaluate(bundle, data, live)
    assert [row.name for row in report.rows] == ["__all__", "asks", "north"]
    assert report.overall.n == 400
    assert report["north"].n == (data["land"] == "se").sum()
    assert [row.name for row in evaluate(bundle, data).rows] == ["__all__"]


def test_evaluation_refuses_bad_rows(bundle: ModelBundle, data: pd.DataFrame) -> None:
    """No rows, blank labels, and labels that are no class are refused in one sentence."""
    with pytest.raises(DataError, match="no rows to evaluate on"):
        evaluate(bundle, data.iloc[:0])
    with pytest.raises(DataError, match="is blank in 400 of 400 rows"):
        evaluate(bundle, data.assign(**{"kind of it": None}))
    with pytest.raises(DataError, match="the true label 'eggs' is not among the classes"):
        evaluate(bundle, data.assign(**{"kind of it": "eggs"}))


def test_a_template_that_reads_the_label_is_refused(bundle: ModelBundle, data: pd.DataFrame) -> None:
    """Training and evaluation refuse a template that reads the label."""
    told = template("told", all=[{"missing": {"field": "land"}}, {"missing": {"field": "kind of it"}}])
    with pytest.raises(ConfigError, match="'told' reads the label column 'kind of it'"):
        config(functions=FunctionSet([told]))
    with pytest.raises(ConfigError, match="'told' reads the label column 'kind of it'"):
        evaluate(bundle, data, FunctionSet([told]))


def spoiler(x: object) -> bool:
    """Reads the label."""
    return x["kind of it"] == "spam"  # type: ignore[index]


def test_plain_functions_do_not_see_the_label(data: pd.DataFrame) -> None:
    """One that reads it is unknown in every row: in training, in evaluation and to the model."""
    functions = FunctionSet([SlicingFunction("spoiler", spoiler)])
    noise = data.assign(**{"the text [raw]": [f"word{k}" for k in range(400)], "number of likes": 1.0})
    made = train(config(functions=functions, learner=SHORT), noise)
    assert "Slice 'spoiler' is unknown in 400 of 400 rows (KeyError: 400" in made.report.to_text()
    assert evaluate(made, noise, functions)["spoiler"].unknown == 400
    assert made.memberships(functions, noise).unknown.all()
    assert made.memberships(functions, noise.to_dict("records")).unknown.all()
    assert made.report.shipped[0].accuracy < 0.7


def test_the_sample_holds_what_the_functions_read(data: pd.DataFrame) -> None:
    """Fields of templates and of Python functions are kept beside features; all but the label for whole records."""
    rows = data.assign(day=pd.Timestamp("2024-02-03"), extra=1)
    late = template("late", missing={"field": "extra"})
    quick = LearnerConfig(kind="erm", n_epochs=1)
    features = {spec.column for spec in FEATURES}
    declared = train(config(functions=FunctionSet([late]), learner=quick), rows)
    assert set(declared.sample[0]) == {*features, "extra"}
    functions = FunctionSet([late, SlicingFunction("odd", lambda x: x.extra % 2 == 1)])
    coded = train(config(functions=functions, learner=quick), rows)
    assert set(coded.sample[0]) == {*features, "extra"}
    assert set(coded.golden.records[0]) == features
    assert coded.memberships(functions, list(coded.sample)).member.all(axis=0).tolist() == [False, True]
    whole = train(
        config(functions=FunctionSet([SlicingFunction("whole", lambda x: len(vars(x)) > 3)]), learner=quick), rows
    )
    assert set(whole.sample[0]) == {*features, "extra", "day"}
    assert whole.sample[0]["day"] == "2024-02-03T00:00:00"


def counting(x: object, seen: list[int]) -> bool:
    """Changes its own resources, as an edited file would change it."""
    seen.append(1)
    return True


def test_functions_are_described_before_they_run(data: pd.DataFrame) -> None:
    """Fingerprints and the hash of the functions are those from before the training."""
    functions = FunctionSet([SlicingFunction("counting", counting, {"seen": []})])
    before = FunctionSet([SlicingFunction("counting", counting, {"seen": []})])
    made = train(config(functions=functions, learner=LearnerConfig(kind="erm", n_epochs=1)), data)
    assert made.function_fingerprints == before.fingerprints
    assert made.lineage["config"]["functions_sha256"] == before.hash


RUN = """
import sys
sys.path.insert(0, {folder!r})
import torch
torch.set_num_threads(1)
from test_train_table import SHORT, config, table
from models.training import train
print(train(config(learner=SHORT), table(150)).hash)
"""


def test_the_same_seed_gives_the_same_bundle(tmp_path: Path, root: Path) -> None:
    """Another process with another order of sets makes a bundle of the same hash; another seed does not."""
    (tmp_path / "test_train_table.py").write_text(Path(__file__).read_text())
    (tmp_path / "run.py").write_text(RUN.format(folder=str(tmp_path)))
    order = "77" if os.environ.get("PYTHONHASHSEED") != "77" else "1"
    done = subprocess.run(
        [sys.executable, str(tmp_path / "run.py")],
        env={**os.environ, "PYTHONHASHSEED": order, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert train(config(learner=SHORT), table(150)).hash == done.stdout.strip()
    other = train(config(learner=replace(SHORT, seed=1)), table(150))
    assert other.hash != done.stdout.strip()


@pytest.mark.parametrize("kind", ["erm", "weighted_erm", "slice_aware"])
def test_every_kind_of_learner_makes_a_bundle(kind: str, tmp_path: Path) -> None:
    """The plain learners and the attention network are saved and loaded like the default."""
    made = train(config(learner=LearnerConfig(kind=kind, n_epochs=1, widths=(4,))), table(150))
    made.save(tmp_path / "b")
    assert ModelBundle.load(tmp_path / "b").hash == made.hash


def test_no_functions_are_fine() -> None:
    """Without slices a plain model is trained, with a sentence in the report."""
    made = train(config(functions=FunctionSet(())), table(150))
    assert made.slice_names == ()
    assert set(made.reference) == {"__all__"}
    assert made.report.form == "linear"
    network = train(config(functions=FunctionSet(()), learner=replace(QUICK, kind="slice_residual")), table(150))
    assert "Without slices, only a plain model can be fitted." in network.report.to_text()


def test_a_table_of_which_nothing_is_held_out_still_makes_a_bundle(tmp_path: Path) -> None:
    """Without held-out rows the report is empty with a remark, and the golden batch is of training rows."""
    rows = table(150)
    kept = rows[~held_out(content_hashes(rows, FEATURES))]
    made = train(config(learner=LearnerConfig(kind="erm", n_epochs=1)), kept)
    assert made.sample == ()
    assert (made.reference["__all__"].held_out, made.reference["__all__"].n) == (0, len(kept))
    assert "No row is held out: a hash selects a tenth" in made.report.to_text()
    made.save(tmp_path / "b")
    assert len(ModelBundle.load(tmp_path / "b").golden.records) == 16


def test_numbers_and_booleans_are_classes_too() -> None:
    """A boolean label becomes the classes false and true, a number its spelling."""
    rows = table(150)
    for values, classes in (
        (rows["kind of it"] == "spam", ("false", "true")),
        (rows.index % 4 / 2, ("0", "1")),
    ):
        made = train(config(learner=LearnerConfig(kind="erm", n_epochs=1)), rows.assign(**{"kind of it": values}))
        assert made.classes == classes


BAD = {
    "empty": (lambda t: t.iloc[:0], "there are no rows to train on"),
    "few": (lambda t: t.iloc[:15], "15 rows are too few"),
    "no label": (lambda t: t.rename(columns={"kind of it": "Kind of it"}), "did you mean 'Kind of it'"),
    "no feature": (lambda t: t.drop(columns="land"), "no column 'land'"),
    "blank": (lambda t: t.assign(**{"kind of it": [None, *t["kind of it"][1:]]}), "blank in 1 of 150 rows"),
    "one class": (lambda t: t.assign(**{"kind of it": "ham"}), "holds only 'ham'"),
    "dates": (
        lambda t: t.assign(land=pd.Timestamp("2020-01-01")),
        "is a date or time and cannot be used as a feature",
    ),
    "words": (lambda t: t.assign(**{"number of likes": "many"}), "row [0-9]+: 'many' is not a number"),
    "records": (lambda t: t.to_dict("records"), "must be a data frame, got list"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_table_that_cannot_be_learned_from_is_refused(bad: str) -> None:
    """Each fault has one message that names it."""
    change, message = BAD[bad]
    with pytest.raises(DataError, match=message):
        train(config(), change(table(150)))


def test_a_template_of_another_table_is_refused() -> None:
    """A template that reads a column which is not there stops the training before it starts."""
    functions = FunctionSet([template("x", missing={"field": "lands"})])
    with pytest.raises(UnknownName, match="reads column 'lands'"):
        train(config(functions=functions), table(150))


def test_the_number_of_threads_changes_nothing() -> None:
    """Training computes on one thread, gives the same bundle under any setting, and restores the setting."""
    hashes = set()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            hashes.add(train(config(learner=SHORT), table(200)).hash)
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(1)
    assert len(hashes) == 1


def test_a_perfect_held_out_accuracy_is_called_suspicious() -> None:
    """A column that gives the label away is named, and so is the accuracy of 1.0 that it leads to."""
    frame = pd.DataFrame(
        {
            "size": [(k * 7919) % 997 / 2 for k in range(300)],
            "refund": [float(k % 3 == 0) for k in range(300)],
        }
    )
    frame["label"] = ["returned" if k % 3 == 0 else "kept" for k in range(300)]
    features = (FeatureSpec("size", "number"), FeatureSpec("refund", "number"))
    learner = LearnerConfig(kind="erm", n_epochs=40)
    warnings = train(TrainConfig("label", features, learner=learner), frame).report.warnings
    assert any("column 'refund' alone predicts the label for 100.0%" in warning for warning in warnings)
    assert any("A held-out accuracy of 1.0" in warning for warning in warnings)
    assert not any("'size' alone" in warning for warning in warnings)


def of_another_kind(folder: Path) -> dict[str, tuple[Callable[[], object], str]]:
    """Return calls of public names with an object that they do not take, and what each says."""
    pipeline, frame = make_pipeline(DummyClassifier()), pd.DataFrame({"a": ["x"], "label": ["y"]})
    features, functions = (FeatureSpec("a", "category"),), FunctionSet(())
    registry = models.ModelRegistry(folder)
    bundle = "must be a ModelBundle, as models.train and ModelRegistry.get return it, got"
    return {
        "put": (lambda: registry.put(pipeline), f"the model to store {bundle} Pipeline"),
        "put nothing": (lambda: registry.put(None), f"the model to store {bundle} NoneType"),
        "get": (
            lambda: registry.get(1.5),
            "a version must be its number or an alias such as 'champion', got float",
        ),
        "path": (lambda: registry.path("1"), "a version must be its number, got str"),
        "promote": (
            lambda: registry.promote(1, expected=None, reason="", at=None),
            "the time of the change must be a datetime with a time zone, got NoneType",
        ),
        "registry": (
            lambda: models.ModelRegistry(None),
            "the registry's folder must be a path, got NoneType",
        ),
        "name": (lambda: models.ModelRegistry(folder, 3), "the model name must be text, got int"),
        "evaluate": (lambda: models.evaluate(pipeline, frame), f"the model to evaluate {bundle} Pipeline"),
        "train": (
            lambda: models.train(pipeline, frame),
            "the configuration must be a TrainConfig, got Pipeline",
        ),
        "features": (
            lambda: TrainConfig("label", {"a": "category"}),
            "a feature must be a FeatureSpec, such as FeatureSpec('comment', 'text'), got str",
        ),
        "functions": (
            lambda: TrainConfig("label", features, [1]),
            "functions must be a FunctionSet: FunctionSet([...]), got list",
        ),
        "learner": (
            lambda: TrainConfig("label", features, functions, "erm"),
            "learner must be a LearnerConfig, such as LearnerConfig('erm'), got str",
        ),
        "featurizer": (
            lambda: models.Featurizer(["a"]),
            "a feature must be a FeatureSpec, such as FeatureSpec('comment', 'text'), got str",
        ),
        "attention": (
            lambda: models.SliceAwareClassifier(pipeline, 2, ["a"]),
            "base_architecture must be a torch module, got Pipeline",
        ),
        "residual": (
            lambda: models.SliceResidualClassifier(pipeline, 2, ["a"]),
            "backbone must be a torch module with out_features, got Pipeline",
        ),
        "scorer": (lambda: models.Scorer(metrics="f1"), "metrics must be a list of names: ['f1']"),
        "function set": (lambda: FunctionSet(None), "expected a list of functions, got None"),
        "applier": (lambda: sfs.SFApplier(None), "expected a list of functions, got None"),
        "files": (lambda: FunctionSet.from_files("a.py"), "expected a list of files or modules: ['a.py']"),
        "memberships": (
            lambda: sfs.SliceMatrix.from_recarray(frame),
            "memberships must be a record array with the name of every slice, as an applier returns, got a DataFrame: "
            "pass that, or SliceMatrix(names, S == 1, S == -1)",
        ),
    }


@pytest.mark.parametrize("call", list(of_another_kind(Path())))
def test_an_object_of_another_kind_is_refused(tmp_path: Path, call: str) -> None:
    """The message says what is accepted, and the type that was given."""
    run, message = of_another_kind(tmp_path)[call]
    with pytest.raises((ModelError, SliceError)) as refused:
        run()
    assert str(refused.value) == message
