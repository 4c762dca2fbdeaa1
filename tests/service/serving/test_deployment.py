"""The active version and functions: exchanged as a whole, and known to store and counters first."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from factories import (
    PATIENT_LIMITS,
    START,
    make_counts,
    make_deployment,
    make_prediction,
    make_settings,
    make_state,
    open_log,
)

from models.bundle.model_bundle import ModelBundle
from models.comments.generate import generate
from models.config import LearnerConfig, TrainConfig
from models.features import FeatureSpec
from models.registry import AliasChange
from models.training import train
from service.decisions import RateKey
from service.errors import NoModel
from service.events import FunctionSetVersion
from service.metrics.process import ProcessMetrics
from service.serving.deployment import ActiveModel, Deployment, FunctionHealth
from service.serving.live_functions import LiveFunctions
from service.serving.references import BASELINE_KEY, baseline_to_json, reference_accuracy, reference_coverage
from service.serving.table_reference import TableReference
from service.settings.schema import Settings
from service.store.engine import Store
from service.store.errors import StoreStopped
from service.store.queries import function_set
from service.store.runs import move_run, open_run
from service.store.writer import Writer
from sfs.function import LabelingFunction, LabelingFunctionSlice
from sfs.intervals import Rate
from sfs.registry import FunctionSet
from sfs.template import template

POPULAR = template("popular", compare={"field": "likes", "above": 4})
PEEKS = "@slicing_function()\ndef peeks(x): return 1 / 0\n@labeling_function()\ndef votes(x): return 1\n"


@pytest.fixture
def log(tmp_path: Path) -> Iterator[tuple[Store, Writer]]:
    """An empty log of one test."""
    with open_log(tmp_path / "store.sqlite3") as log:
        yield log


@pytest.fixture
def deployment(
    log: tuple[Store, Writer], settings: Settings, metrics: ProcessMetrics, active: ActiveModel
) -> Deployment:
    """Functions without a version."""
    return make_deployment(*log, settings, live=active.live, metrics=metrics)


def change(version: int, minutes: int) -> AliasChange:
    return AliasChange(minutes, version, "hash", "promote", "a test", START + timedelta(minutes=minutes))


def recorded(store: Store, functions: FunctionSet) -> tuple[str, ...]:
    """Return the names of a function set in the store."""
    with store.read() as connection:
        version = function_set(connection, functions.hash)
    return () if version is None else version.names


def test_at_first_there_is_no_version(deployment: Deployment, active: ActiveModel, log: tuple[Store, Writer]) -> None:
    """The functions are known to the store, and the classes are those of the settings."""
    state = deployment.state
    assert (state.version, state.active, state.references, state.promoted_at) == (None, None, {}, None)
    assert state.functions is active.live.functions
    assert state.fingerprints == active.live.functions.fingerprints
    assert (state.classes, deployment.label) == (("false", "true"), "spam")
    assert recorded(log[0], state.functions) == ("short", "clicks")


def test_a_version_is_activated_with_its_references_classes_and_history(
    deployment: Deployment, active: ActiveModel, metrics: ProcessMetrics
) -> None:
    """It is promoted at the last change of the alias to it; its series exist before its first prediction."""
    history = [change(1, 1), change(2, 2), change(1, 3), change(2, 4), change(1, 5)]
    deployment.activate_version(replace(active, version=2), history)
    state = deployment.state
    assert (state.version, state.classes) == (2, active.bundle.classes)
    assert state.active == replace(active, version=2)
    assert state.references == reference_coverage(active.bundle, active.live)
    assert state.accuracies == reference_accuracy(active.bundle, active.live)
    assert (state.promoted_at, state.promotion) == (history[3].at, history[3])
    assert state.history == tuple(history)
    assert 'slicewatch_predictions_total{label="true",model="comments",version="2"} 0.0' in (metrics.text().decode())


def test_functions_changed_while_a_version_was_loading_stay(deployment: Deployment, active: ActiveModel) -> None:
    """The version is activated with the functions of the moment."""
    deployment.activate_functions(FunctionSet([POPULAR]), {"popular": "http"})
    deployment.activate_version(active, ())
    assert deployment.state.functions.names == ("popular",)
    assert deployment.state.active is not None
    assert deployment.state.active.live is deployment.state.live
    assert set(deployment.state.references) == {"popular"}


def test_the_baseline_of_the_run_that_made_a_version_replaces_training_counts(
    deployment: Deployment, active: ActiveModel, log: tuple[Store, Writer]
) -> None:
    """Only for functions with the same fingerprint."""
    fingerprints = active.live.functions.fingerprints
    baseline = {("short", fingerprints["short"]): Rate(3, 4), ("clicks", "another"): Rate(1, 4)}

    def store_run(connection: Any) -> None:
        run = open_run(connection, "comments", "training", "manual", "a test", START)
        data = {BASELINE_KEY: baseline_to_json(baseline)}
        move_run(connection, run.id, "training", START, state="gated", candidate=2, data=data)

    log[1].submit(store_run).result()
    trained = reference_coverage(active.bundle, active.live)
    deployment.activate_version(replace(active, version=2), ())
    assert deployment.state.references == {"short": Rate(3, 4), "clicks": trained["clicks"]}
    deployment.activate_version(active, ())
    assert deployment.state.references == trained


def test_functions_are_activated_with_their_references(
    deployment: Deployment, active: ActiveModel, log: tuple[Store, Writer]
) -> None:
    """The store knows the set; the model, its version and the processes stay."""
    deployment.activate_version(active, [change(1, 1)])
    functions = FunctionSet([*active.live.functions, POPULAR])
    origins = {"short": "file", "clicks": "file", "popular": "http"}
    deployment.activate_functions(functions, origins)
    state = deployment.state
    assert (state.version, state.promoted_at) == (1, START + timedelta(minutes=1))
    assert state.active is not None
    assert (state.active.bundle, state.active.live) == (active.bundle, state.live)
    assert state.functions == functions
    assert set(state.metadata) == {"short", "clicks", "popular"}
    assert set(state.references) == {"short", "clicks", "popular"}
    assert set(state.accuracies) == {"__all__", "clicks"}
    assert recorded(log[0], functions) == ("short", "clicks", "popular")
    assert [each["name"] for each in state.declarations] == ["popular"]


def test_a_change_applies_only_new_functions_to_the_sample(deployment: Deployment, active: ActiveModel) -> None:
    """The rate of an added function is that of its addition, until another function has its name."""
    deployment.activate_version(active, ())
    other = template("other", length={"field": "text", "below": 20})
    changed = template("popular", compare={"field": "likes", "above": 1})
    rates = []
    for functions in ([POPULAR], [other, POPULAR], [other, changed]):
        deployment.activate_functions(FunctionSet(functions), {each.name: "http" for each in functions})
        assert deployment.state.active is not None
        assert deployment.state.references == reference_coverage(active.bundle, deployment.state.active.live)
        rates.append(deployment.state.references["popular"])
    assert rates[1] is rates[0]
    assert rates[2] != rates[0]


def test_a_change_that_cannot_be_recorded_has_no_effect(
    deployment: Deployment, active: ActiveModel, log: tuple[Store, Writer]
) -> None:
    """A prediction must not be logged with a function set that the store does not know."""
    deployment.activate_version(active, ())
    before = deployment.state
    log[1].stop()
    with pytest.raises(StoreStopped):
        deployment.activate_functions(FunctionSet([POPULAR]), {"popular": "http"})
    assert deployment.state is before


def test_an_external_version_is_tracked_while_no_model_is_active(
    deployment: Deployment, active: ActiveModel, metrics: ProcessMetrics
) -> None:
    """Since its first row; it has no promotion, though a local version may have the same number."""
    deployment.activate_external(7, START)
    deployment.activate_external(7, START + timedelta(days=1))
    state = deployment.state
    assert (state.version, state.promoted_at, state.active, state.promotion) == (7, START, None, None)
    assert 'slicewatch_predictions_total{label="true",model="comments",version="7"} 0.0' in (metrics.text().decode())
    deployment.activate_version(active, ())
    deployment.activate_external(8, START)
    assert deployment.state.version == 1


def test_the_most_logged_external_version_is_followed(
    deployment: Deployment, active: ActiveModel, log: tuple[Store, Writer]
) -> None:
    """A rollback elsewhere is, after five minutes; a stray version, half of the traffic, and one request are not."""
    first, half, rollback = (
        [(0, 7, 2, 7)],
        [(10, 99, 1, 4), (11, 3, 18, 4), (19, 3, 1, 4)],
        [(20, 3, 20, 4), (25, 3, 1, 3)],
    )
    request = [(1, 4, 9, 7), (7, 4, 0, 7), (8, 7, 1, 7), (9, 4, 9, 4)]
    rows = 0
    for minute, version, count, expected in first + request + half + rollback:
        at = START + timedelta(minutes=minute)
        predictions = [
            make_prediction(str(rows + n), at, "true", model="comments", version=version, source="logged")
            for n in range(count)
        ]
        rows += count
        log[1].append(predictions).result()
        deployment.follow_external_version(at)
        assert (minute, deployment.state.version) == (minute, expected)
    deployment.activate_version(active, ())
    deployment.follow_external_version(at)
    assert deployment.state.version == 1


def test_a_lead_that_was_lost_begins_again(deployment: Deployment, log: tuple[Store, Writer]) -> None:
    """The version that was followed takes its traffic back in between."""
    for number, (minute, version) in enumerate(((0, 7), (1, 4), (3, 7), (7, 4), (9, 4), (12, 4))):
        at = START + timedelta(minutes=minute)
        rows = [make_prediction(f"{number}.{n}", at, "true", model="comments", version=version) for n in range(1000)]
        log[1].append(rows).result()
        deployment.follow_external_version(at)
        assert deployment.state.version == (4 if minute == 12 else 7)


def test_an_external_version_has_the_rates_of_its_table_and_first_labels(deployment: Deployment) -> None:
    """Coverage belongs to functions, accuracy to a version; a promotion elsewhere keeps the one and drops the other."""
    prints = deployment.state.fingerprints
    every, short = make_counts(500, 500, 0, 500, 400, 380, 400, 400), make_counts(500, 50, 0, 500, 20, 15, 20, 20)
    counts = {"__all__": every, "short": short}
    deployment.set_table(TableReference("rows.csv", "", 500, True, 7, {"short": prints["short"]}, counts))
    deployment.activate_external(7, START)
    key = RateKey("short", prints["short"], "accuracy")
    deployment.record_first_labels(7, {key: Rate(270, 300)}, {})
    state = deployment.state
    assert (state.references, state.is_external) == ({"short": Rate(50, 500)}, True)
    assert state.accuracies == {"__all__": Rate(380, 400), "short": Rate(270, 300)}
    deployment.activate_external(8, START + timedelta(days=1))
    deployment.record_first_labels(7, {key: Rate(1, 2)}, {})  # of a version that is no longer followed
    assert (deployment.state.references, deployment.state.accuracies) == ({"short": Rate(50, 500)}, {})
    deployment.activate_functions(FunctionSet([POPULAR]), {"popular": "http"})
    assert deployment.state.references == {}


@pytest.mark.parametrize(
    ("note", "reason"),
    [("", "not counted on the reference table yet"), ("being counted on rows.csv", "being counted on rows.csv")],
)
def test_a_missing_reference_has_a_reason(deployment: Deployment, note: str, reason: str) -> None:
    """It names the table; a function that is unknown on all of it is not counted again."""
    deployment.activate_external(7, START)
    prints = deployment.state.fingerprints
    broken = make_counts(500, 0, 500, 0, 0, 0, 0, 0)
    table = TableReference("rows.csv", "", 500, False, None, {"short": prints["short"]}, {"short": broken})
    deployment.set_table(table, note)
    assert deployment.state.missing_reference("short") == "known on fewer than two distinct rows of rows.csv"
    assert deployment.state.missing_reference("clicks") == reason


def test_without_rows_no_external_version_is_followed(deployment: Deployment) -> None:
    """The version stays unknown, or that of the stored evidence."""
    deployment.follow_external_version(START)
    assert deployment.state.version is None
    deployment.follow_external_version(START, (7, START))
    assert (deployment.state.version, deployment.state.promoted_at) == (7, START)


def test_history_is_recorded_for_the_active_version(deployment: Deployment, active: ActiveModel) -> None:
    """Without a version there is nothing to record."""
    deployment.record_history([change(1, 1)])
    assert deployment.state.history == ()
    deployment.activate_version(active, [change(1, 1)])
    deployment.record_history([change(1, 1), change(2, 2), change(1, 3)])
    assert deployment.state.promoted_at == START + timedelta(minutes=3)
    assert len(deployment.state.history) == 3


def test_unknown_classes_are_refused(deployment: Deployment) -> None:
    """The message says what to do."""
    assert deployment.require_classes() == ("false", "true")
    deployment.state = make_state(classes=())
    with pytest.raises(NoModel, match=r"set `classes` in slicewatch\.yaml, or train a model"):
        deployment.require_classes()


@pytest.mark.parametrize(("classes", "positive"), [(("x", "y"), "y"), (("x", "y", "z"), None), ((), None)])
def test_the_second_of_two_classes_is_positive(
    classes: tuple[str, ...], positive: str | None, deployment: Deployment
) -> None:
    """With any other number of classes there is no default."""
    deployment.state = make_state(classes=classes)
    assert deployment.estimate_config.positive == positive


def test_health_is_that_of_the_python_functions(
    live_of: Callable[..., LiveFunctions], log: tuple[Store, Writer], tmp_path: Path
) -> None:
    """Templates are left out; labelling functions are recorded as votes."""
    limits = replace(PATIENT_LIMITS, faults=2)
    live = live_of(PEEKS, POPULAR, limits=limits)
    deployment = make_deployment(*log, make_settings(tmp_path), live=live)
    assert deployment.state.functions_version.votes == ("votes",)
    assert deployment.health() == {name: FunctionHealth(name, "ok", None) for name in ("peeks", "votes")}
    live.apply([{"likes": 1}] * 2)
    assert deployment.health()["peeks"] == FunctionHealth("peeks", "open", "faults")


def test_the_model_of_another_bundle_reads_all_memberships(
    bundle: ModelBundle, active: ActiveModel, deployment: Deployment
) -> None:
    """Without changed functions the slice matrix is passed on unchanged, and with them it is selected by name."""
    S = active.live.apply([{"text": "click"}]).matrix
    assert active.usable_memberships(S) is S
    reordered = LiveFunctions(FunctionSet(reversed(list(active.live.functions))))
    S = reordered.apply([{"text": "click"}]).matrix
    selected = ActiveModel(bundle, 1, reordered).usable_memberships(S)
    assert selected.names == ("short", "clicks")
    assert selected.member.tolist() == [[True, True]]


def test_the_votes_of_a_training_are_expected_live(tmp_path: Path) -> None:
    """From the report in the bundle, of unchanged functions that vote for one class."""
    frame = generate(400, seed=1)
    functions = [
        LabelingFunction("checks", lambda x: 1 if "check" in x.text.lower() else -1),
        LabelingFunction("songs", lambda x: 0 if "song" in x.text.lower() else -1),
        LabelingFunction("either", lambda x: int("http" in x.text)),
    ]
    learner = LearnerConfig("erm", n_epochs=1, widths=(4,))
    features = (FeatureSpec("text", "text"),)
    config = TrainConfig("label", features, learner=learner, labeling_functions=tuple(functions))
    train(config, frame.assign(label=frame["label"].where(frame.index < 300))).save(tmp_path / "bundle")
    bundle = ModelBundle.load(tmp_path / "bundle")
    assert bundle.report.labels is not None
    counted = {each.name: (each.correct, each.labelled) for each in bundle.report.labels.functions}

    def expected(live: list[LabelingFunction]) -> dict[str, tuple[str, int, int]]:
        slices = LiveFunctions(FunctionSet([LabelingFunctionSlice(each) for each in live]))
        names, prints = slices.functions.names, tuple(slices.functions.fingerprints.values())
        version = FunctionSetVersion("live", names, prints, START, names)
        state = make_state(live=slices, functions_version=version, active=ActiveModel(bundle, 1, slices))
        return {key.slice: (name, rate.count, rate.n) for key, (name, rate) in state.vote_accuracies.items()}

    assert expected(functions) == {"checks": ("spam", *counted["checks"]), "songs": ("ham", *counted["songs"])}
    changed = LabelingFunction("checks", lambda x: 1 if "check out" in x.text.lower() else -1)
    assert expected([changed, functions[1]]).keys() == {"songs"}
