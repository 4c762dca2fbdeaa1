"""A trained model as one folder."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import torch as tensors

from models.baselines import MLP, PlainClassifier
from models.bundle.files import content_hash, write_folder
from models.bundle.model_bundle import FILES, ModelBundle
from models.bundle.records import GoldenBatch, plain_records
from models.bundle.reference import FamilyCounts, reference_counts
from models.errors import BundleError, DataError
from models.features import FeatureSpec, Featurizer
from models.linear_classifier import LinearClassifier
from models.outputs import OutputRates
from models.slice_adapter import SliceAdapter
from models.slice_residual import SliceResidualClassifier
from models.training_report import SplitSizes, TrainingReport
from models.tree_classifier import TreeClassifier, TreeSettings
from sfs.apply import apply_with_stats
from sfs.function import SlicingFunction
from sfs.intervals import Rate
from sfs.matrix import SliceMatrix
from sfs.registry import FunctionSet
from sfs.schema import Column, Schema
from sfs.template import template

SPECS = (FeatureSpec("a text", "text"), FeatureSpec("n", "number"), FeatureSpec("c", "category"))
FRAME = pd.DataFrame(
    {
        "a text": ["check this out", "please like", None, "https://a.ly", "good", "ok"] * 5,
        "n": pd.array([1, 2, None, 400, 5, 6] * 5, dtype="Int64"),
        "c": ["x", "y", "x", None, "y", "x"] * 5,
        "not a feature": range(30),
    }
)
FUNCTIONS = FunctionSet(
    [
        template("big", compare={"field": "n", "above": 4}),
        template("asks", keyword={"field": "a text", "words": ["please"]}),
        template("late", compare={"field": "not a feature", "above": 20}),
    ]
)
PARTS = ("architecture", "features")
REPORT = TrainingReport("plain", (), (), SplitSizes(0, 0, 0), {}, (), (), {}, {}, ())


def make_bundle(seed: int = 0, kind: str = "slice_residual") -> ModelBundle:
    """An untrained model whose predictions depend on every feature and membership, as a bundle."""
    torch.manual_seed(seed)
    featurizer = Featurizer(SPECS, wide=kind == "linear").fit(FRAME)
    backbone = MLP(featurizer.n_features, (8,))
    if kind == "plain":
        model: Any = PlainClassifier(backbone, 3)
    elif kind in ("linear", "trees"):
        X, y, rng = featurizer.transform(FRAME), np.arange(len(FRAME)) % 3, np.random.default_rng(seed)
        base: Any = LinearClassifier.fit(X, y, 3, 1.0)
        if kind == "trees":
            base = TreeClassifier.fit(X, y, 3, TreeSettings(3, 4, 0.5), seed)
        model = SliceAdapter(base, FUNCTIONS.names, FUNCTIONS.names[:2])
        model.set_terms(rng.normal(size=2), rng.normal(size=(2, 3)))
    else:
        model = SliceResidualClassifier(backbone, 8, FUNCTIONS.names, 3)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    model.eval()
    S = apply_with_stats(FUNCTIONS, FRAME).matrix

    def predict(records: Any, slices: SliceMatrix | None) -> np.ndarray:
        return model.predict_proba(featurizer.transform(records), slices)

    sample = plain_records(FRAME, [spec.column for spec in SPECS])
    return ModelBundle(
        name="comments",
        label="y",
        classes=("a", "b", "c"),
        featurizer=featurizer,
        model=model,
        function_fingerprints=FUNCTIONS.fingerprints,
        lineage={"seed": seed},
        reference=reference_counts(
            S, np.arange(len(FRAME), dtype=np.uint64), np.arange(len(FRAME)), *[["a"] * len(FRAME)] * 2
        ),
        sample=tuple(sample),
        golden=GoldenBatch.record(predict, sample[:6], S.take(slice(0, 6))),
        report=REPORT,
    )


@pytest.fixture(scope="module")
def bundle() -> ModelBundle:
    """One bundle for tests that change nothing."""
    return make_bundle()


@pytest.fixture
def saved(bundle: ModelBundle, tmp_path: Path) -> Path:
    """The bundle's folder."""
    bundle.save(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.mark.parametrize("kind", ["slice_residual", "plain", "linear", "trees"])
def test_a_loaded_bundle_is_the_saved_one(kind: str, tmp_path: Path) -> None:
    """Hash, predictions and all parts of the bundle survive."""
    bundle = make_bundle(kind=kind)
    bundle.save(tmp_path / "b")
    loaded = ModelBundle.load(tmp_path / "b")
    assert loaded.hash == bundle.hash == content_hash(bundle.files)
    assert loaded.files == bundle.files
    S = bundle.memberships(FUNCTIONS, FRAME)
    np.testing.assert_array_equal(loaded.predict_proba(FRAME, S), bundle.predict_proba(FRAME, S))
    np.testing.assert_array_equal(loaded.predict_proba(FRAME), bundle.predict_proba(FRAME))
    for name in ("name", "label", "classes", "function_fingerprints", "lineage", "reference", "sample"):
        assert getattr(loaded, name) == getattr(bundle, name)
    assert loaded.slice_names == ("big", "asks", "late")
    assert loaded.feature_columns == ("a text", "n", "c")


def test_counts_of_families_are_kept(saved: Path, tmp_path: Path) -> None:
    """Bundles of earlier releases have none."""
    bundle = ModelBundle.load(saved)
    family = FamilyCounts({name: FUNCTIONS.fingerprints[name] for name in ("big", "asks")}, bundle.reference["big"])
    replace(bundle, families={"size": family}).save(tmp_path / "with")
    assert ModelBundle.load(tmp_path / "with").families == {"size": family}
    earlier = rewritten(
        tmp_path / "with",
        "config.json",
        lambda config: {key: value for key, value in config.items() if key != "families"},
    )
    assert ModelBundle.load(earlier).families == {}


def test_rates_of_outputs_are_kept(saved: Path, tmp_path: Path) -> None:
    """Bundles of earlier releases have none; those of a slice that the bundle does not have are refused."""
    bundle = ModelBundle.load(saved)
    assert bundle.outputs is None
    outputs = OutputRates(0.5, Rate(3, 40), {"big": Rate(1, 40, 30)})
    replace(bundle, outputs=outputs).save(tmp_path / "with")
    assert ModelBundle.load(tmp_path / "with").outputs == outputs
    of_others = {"outputs": outputs.to_json() | {"disagreement": {"small": {"count": 1, "n": 2}}}}
    folder = rewritten(tmp_path / "with", "config.json", lambda config: config | of_others)
    with pytest.raises(BundleError, match="impossible"):
        ModelBundle.load(folder)


def test_a_bundle_without_a_schema_gets_that_of_its_sample(saved: Path) -> None:
    """Bundles of the first release have no schema."""
    folder = rewritten(saved, "config.json", lambda config: config | {"schema": None})
    schema = ModelBundle.load(folder).schema
    assert {spec.column for spec in SPECS} == schema.columns.keys()
    assert schema == Schema([Column("a text", "text"), Column("n", "integer"), Column("c", "category")])


def test_a_bundle_holds_no_code_and_only_known_files(saved: Path) -> None:
    """JSON and safetensors are all there is."""
    assert {path.suffix for path in saved.iterdir()} == {".json", ".jsonl", ".safetensors"}
    assert {path.name for path in saved.iterdir()} == {*FILES, "manifest.json"}


def test_loading_brings_no_compiler(saved: Path) -> None:
    """torch's compiler takes a second and a hundred megabytes to import, and nothing here is compiled; SymPy is its."""
    code = (
        "import sys; from models.bundle.model_bundle import ModelBundle; "
        f"ModelBundle.load({str(saved)!r}); sys.exit(bool({{'torch._dynamo', 'sympy'}} & {{*sys.modules}}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_other_weights_are_another_hash() -> None:
    """Two models of one shape have two hashes, the same model has one."""
    assert make_bundle(0).hash == make_bundle(0).hash != make_bundle(1).hash


def test_records_and_tables_are_answered_alike(bundle: ModelBundle) -> None:
    """A request gets the probabilities that the table got, with memberships or without."""
    S = bundle.memberships(FUNCTIONS, FRAME)
    whole = bundle.predict_proba(FRAME, S)
    assert whole.shape == (30, 3)
    np.testing.assert_allclose(bundle.predict_proba(list(bundle.sample), S), whole, atol=1e-6)
    assert bundle.predict(FRAME, S) == [bundle.classes[k] for k in whole.argmax(axis=1)]
    assert (np.abs(bundle.predict_proba(FRAME) - whole).max(axis=1) > 1e-3).any()


def test_many_rows_are_answered_in_parts(bundle: ModelBundle) -> None:
    """Rows of several chunks are predicted as they are alone, each with its memberships."""
    S = bundle.memberships(FUNCTIONS, FRAME)
    times = 700
    rows = pd.concat([FRAME] * times, ignore_index=True)
    many = SliceMatrix(S.names, np.tile(S.member, (times, 1)), np.tile(S.unknown, (times, 1)))
    expected = np.tile(bundle.predict_proba(FRAME, S), (times, 1))
    np.testing.assert_allclose(bundle.predict_proba(rows, many), expected, atol=1e-6)


def test_no_rows_have_no_answers(bundle: ModelBundle) -> None:
    """An empty table or list gives an empty matrix of the usual width."""
    assert bundle.predict_proba([]).shape == (0, 3)
    assert bundle.predict(FRAME.iloc[:0]) == []


def test_memberships_of_other_rows_are_refused(bundle: ModelBundle) -> None:
    """Rows and memberships must be as many."""
    with pytest.raises(DataError, match="there are 30 rows, but memberships of 2"):
        bundle.predict_proba(FRAME, SliceMatrix.empty(2))


def test_a_missing_feature_is_refused_by_name(bundle: ModelBundle) -> None:
    """A missing feature column is named."""
    with pytest.raises(DataError, match="row 0 has no column 'a text'; did you mean 'a_text'"):
        bundle.predict_proba([{"a_text": "x", "n": 1, "c": "x"}])


def test_changed_and_absent_functions_are_unknown_to_the_model(bundle: ModelBundle) -> None:
    """Only live functions unchanged since the training are read; others are unknown."""
    live = FunctionSet([template("asks", keyword={"field": "a text", "words": ["plz"]}), FUNCTIONS["big"]])
    known = bundle.memberships(live, FRAME)
    assert known.names == bundle.slice_names
    assert known.unknown.all(axis=0).tolist() == [False, True, True]
    np.testing.assert_array_equal(known.column("big"), apply_with_stats(FUNCTIONS, FRAME).matrix.column("big"))
    applied = apply_with_stats(live, FRAME).matrix
    assert bundle.usable_memberships(applied, live.fingerprints) == known
    assert bundle.usable_memberships(applied, {}).unknown.all()


def test_memberships_apply_no_other_function(bundle: ModelBundle) -> None:
    """Live functions unknown to the model are not run for it."""
    live = FunctionSet([*FUNCTIONS, template("new", missing={"field": "no such column"})])
    assert bundle.memberships(live, FRAME) == bundle.memberships(FUNCTIONS, FRAME)


class Counted(FunctionSet):
    """A set that counts how often its functions are read."""

    reads = 0

    def __iter__(self) -> Iterator[SlicingFunction]:
        self.reads += 1
        return super().__iter__()


def test_live_functions_are_selected_once(bundle: ModelBundle) -> None:
    """Sets of one hash share the selection of the model's functions, and only the last few are kept."""
    new = template("new", missing={"field": "n"})
    live, same = Counted([FUNCTIONS["big"], new]), Counted([FUNCTIONS["big"], new])

    def reads(functions: Counted) -> int:
        before = functions.reads
        bundle.memberships(functions, FRAME)
        return functions.reads - before

    assert (reads(live), reads(live), reads(same)) == (1, 0, 0)
    for k in range(10):
        bundle.memberships(FunctionSet([template(f"other {k}", missing={"field": "n"})]), FRAME)
    assert reads(live) == 1


def rewritten(saved: Path, name: str, change: Any) -> Path:
    """A folder whose manifest is right for contents that are wrong."""
    files = {file: (saved / file).read_bytes() for file in FILES}
    content = json.loads(files[name])
    files[name] = json.dumps(change(content)).encode()
    write_folder(saved.with_name("rewritten"), files)
    return saved.with_name("rewritten")


def within(key: str, value: Any) -> Any:
    return lambda content: {**content, key: value}


def deeper(key: str, inner: str, value: Any) -> Any:
    return lambda content: {**content, key: {**content[key], inner: value}}


BACKBONE = {"in_features": 7, "widths": [8]}
WRONG = {
    "no key": (
        "config.json",
        lambda c: {k: c[k] for k in c if k != "label"},
        "config.json, label: Field required",
    ),
    "type": ("config.json", within("classes", "ab"), "config.json, classes: .* got 'ab'"),
    "format": ("config.json", within("format", 7), "has format 7, this version reads 1"),
    "classes": (
        "config.json",
        within("classes", ["a", "a", "b"]),
        "classes must be distinct",
    ),
    "fewer classes": (
        "config.json",
        within("classes", ["a", "b"]),
        "has classes 3, the rest of the bundle 2",
    ),
    "functions": ("config.json", within("functions", [{"name": "x"}]), "functions, 0, fingerprint: Field"),
    "other slices": (
        "config.json",
        within("functions", [{"name": "x", "fingerprint": "f"}]),
        "has slices .*the rest of the bundle",
    ),
    "features": (
        "config.json",
        within("features", [{"column": "n"}]),
        "config.json: malformed state of feature 0",
    ),
    "fewer features": (
        "config.json",
        lambda c: {**c, "features": c["features"][:1]},
        "has features 2055, the rest of the bundle 2049",
    ),
    "kind": ("config.json", deeper("architecture", "kind", "pickle"), "unknown network kind 'pickle'"),
    "shape": ("config.json", deeper("architecture", "backbone", {}), "the architecture cannot be built"),
    "width": ("config.json", deeper("architecture", "backbone", BACKBONE), "has features 7"),
    "mode": ("config.json", deeper("architecture", "mode", "soft"), "does not fit the architecture"),
    "widths": (
        "config.json",
        deeper("architecture", "backbone", {"in_features": 7, "widths": []}),
        "be built",
    ),
    "huge": (
        "config.json",
        deeper("architecture", "backbone", {"in_features": 2055, "widths": [10**12]}),
        "config.json: the architecture cannot be built|does not fit the architecture",
    ),
    "fingerprint": (
        "config.json",
        lambda c: {**c, "functions": [{**f, "fingerprint": 7} for f in c["functions"]]},
        "config.json, functions, 0, fingerprint: .* got 7",
    ),
    "flag counts": ("reference.json", deeper("big", "correct", True), "impossible counts"),
    "report values": ("report.json", within("sentences", 3), "report.json, sentences: .* got 3"),
    "no proof": ("golden.json", within("records", []), "golden.json is malformed|no record to verify"),
    "large answers": ("golden.json", within("probabilities", [[10**400]]), "golden.json is malformed"),
    "no counts": ("reference.json", lambda c: {}, "reference.json must hold counts of __all__, big"),
    "bad counts": ("reference.json", within("big", {"n": 1}), "reference.json holds malformed counts"),
    "impossible": ("reference.json", deeper("big", "member", 99), "impossible counts"),
    "report": ("report.json", lambda c: {}, "report.json, form: Field required"),
    "golden": ("golden.json", within("records", None), "golden.json is malformed"),
    "answers": (
        "golden.json",
        lambda c: {**c, "probabilities": c["probabilities"][::-1]},
        "golden batch with memberships, row [0-9]: the model predicts",
    ),
    "blind answers": (
        "golden.json",
        lambda c: {**c, "without_slices": c["without_slices"][::-1]},
        "golden batch without memberships, row [0-9]: the model predicts",
    ),
    "fewer answers": (
        "golden.json",
        lambda c: {**c, "probabilities": c["probabilities"][:2]},
        r"expected probabilities \(2, 3\), got \(6, 3\)",
    ),
    "golden columns": (
        "golden.json",
        lambda c: {**c, "records": [{"n": 1}] * 6},
        "cannot be used: golden batch: row 0 has no column 'a text'",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_bundle_that_contradicts_itself_is_refused(saved: Path, wrong: str) -> None:
    """Even with a right manifest, wrong configuration, reference or golden batch is named."""
    name, change, message = WRONG[wrong]
    with pytest.raises(BundleError, match=message):
        ModelBundle.load(rewritten(saved, name, change))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[1]", "line 31: must be a record, got list"),
        (b"{", "line 31 is not JSON"),
        (b"[" * 100_000, "line 31 is nested too deeply"),
        (b'{"n": 1}', "row 30 has no column 'a text'"),
        (b"{}\n" * 1000, "holds 1,030 records, at most 1,000 are"),
    ],
)
def test_a_sample_of_anything_but_records_is_refused(saved: Path, line: bytes, message: str) -> None:
    """Every line of the sample must be a record with the feature columns."""
    files = {file: (saved / file).read_bytes() for file in FILES}
    files["sample.jsonl"] += line
    write_folder(saved.with_name("sampled"), files)
    with pytest.raises(BundleError, match=message):
        ModelBundle.load(saved.with_name("sampled"))


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a JSON value holds others; of lists the first entry stands for all."""
    keys: list[Any] = list(value) if isinstance(value, dict) else []
    if isinstance(value, list) and value:
        keys = [0]
    for key in keys:
        yield (*at, key)
        yield from places(value[key], (*at, key))


def replaced(value: Any, at: tuple[Any, ...], junk: Any) -> Any:
    if not at:
        return junk
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[at[0]] = replaced(value[at[0]], at[1:], junk)
    return copy


@pytest.mark.parametrize("name", ["config.json", "reference.json", "golden.json"])
def test_no_value_makes_loading_fail_in_another_way(saved: Path, tmp_path: Path, name: str) -> None:
    """Whatever a field holds, the bundle is loaded or refused as a bundle, never with another error."""
    assert count_refused({file: (saved / file).read_bytes() for file in FILES}, name, (), tmp_path) > 30


@pytest.mark.parametrize(("kind", "part"), [(kind, part) for kind in ("linear", "trees") for part in PARTS])
def test_no_value_of_an_adapted_model_makes_loading_fail_in_another_way(kind: str, part: str, tmp_path: Path) -> None:
    """So do the state of features for linear models, trees, and the adapter."""
    assert count_refused(make_bundle(kind=kind).files, "config.json", (part,), tmp_path) > 10


def count_refused(files: Mapping[str, bytes], name: str, within: tuple[str, ...], tmp_path: Path) -> int:
    """Return how many bundles with junk in a place of a file are refused; every other one is loaded."""
    content = json.loads(files[name])
    refused, alike = 0, {"big", "late"}  # slices whose fields are those of `asks`
    chosen = [at for at in places(content) if at[0] not in alike and at[: len(within)] == within]
    for k, at in enumerate(chosen):
        for n, junk in enumerate((None, "x", [], {"a": 1}, -1, 10**400)):
            changed = json.dumps(replaced(content, at, junk)).encode()
            folder = tmp_path / f"{k}-{n}"
            write_folder(folder, {**files, name: changed})
            try:
                ModelBundle.load(folder)
            except BundleError:
                refused += 1
    return refused


def test_other_weights_fail_the_golden_batch(saved: Path) -> None:
    """Weights of the right shape other than the saved ones fail the golden batch."""
    files = {file: (saved / file).read_bytes() for file in FILES}
    files["weights.safetensors"] = make_bundle(1).files["weights.safetensors"]
    write_folder(saved.with_name("mixed"), files)
    with pytest.raises(BundleError, match="golden batch with memberships, row"):
        ModelBundle.load(saved.with_name("mixed"))


def test_weights_that_are_not_finite_are_refused(saved: Path) -> None:
    """NaN among the weights is an error at loading."""
    files = {file: (saved / file).read_bytes() for file in FILES}
    state = tensors.load(files["weights.safetensors"])
    files["weights.safetensors"] = tensors.save({k: v * torch.nan for k, v in state.items()})
    write_folder(saved.with_name("nan"), files)
    with pytest.raises(BundleError, match="cannot be used"):
        ModelBundle.load(saved.with_name("nan"))


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 100])
def test_weights_that_are_no_safetensors_are_refused(saved: Path, content: bytes) -> None:
    """A pickle, or anything else, is never read as weights."""
    files = {file: (saved / file).read_bytes() for file in FILES}
    write_folder(saved.with_name("other"), {**files, "weights.safetensors": content})
    with pytest.raises(BundleError, match=r"weights.safetensors holds no weights"):
        ModelBundle.load(saved.with_name("other"))


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_proved(saved: Path, name: str) -> None:
    """One byte more in any file, and the bundle is refused with its name."""
    (saved / name).write_bytes((saved / name).read_bytes() + b"\n")
    with pytest.raises(BundleError, match=f"{name} was altered"):
        ModelBundle.load(saved)


def test_a_folder_is_not_overwritten(bundle: ModelBundle, saved: Path) -> None:
    """Saving where a bundle is already is refused."""
    with pytest.raises(BundleError, match="exists: bundles are never changed"):
        bundle.save(saved)
