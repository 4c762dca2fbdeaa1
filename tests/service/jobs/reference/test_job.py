"""Counts of the slices on the reference table: made once, in a process, and again only where something is new."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from factories import START, make_deployment, make_settings

from service.decisions import RateKey
from service.jobs.reference.job import ReferenceCounts
from service.jobs.reference.worker import count_slices
from service.serving.breaker import BreakerLimits
from service.serving.deployment import Deployment
from service.serving.live_functions import LiveFunctions
from service.serving.table_reference import COUNTS, FOLDER, GIVEN, SAMPLE, TableReference
from service.settings.schema import Settings
from service.store.engine import Store
from service.store.writer import Writer
from sfs.intervals import Rate
from sfs.registry import FunctionSet
from sfs.template import Template, template

LONG = template("long", length={"field": "text", "unit": "words", "above": 1})
TWICE = template("twice", regex={"field": "text", "pattern": "t1$"})
PEEKS = "from sfs import slicing_function\n@slicing_function()\ndef peeks(x): return x.label == 'y'\n"

Make = Callable[..., tuple[Deployment, ReferenceCounts]]

pytestmark = pytest.mark.usefixtures("forked_children")


def table(rows: int = 60) -> pd.DataFrame:
    """Return rows of which a third has two words, a tenth is repeated, and labels are known."""
    texts = [f"t{i % 54}{' more' * (i % 3 == 0)}" for i in range(rows)]
    return pd.DataFrame({"text": texts, "label": ["x" if i % 2 else "y" for i in range(rows)]})


@pytest.fixture
def make(log: tuple[Store, Writer], tmp_path: Path) -> Make:
    """Function that makes a deployment and its job over the same files."""
    settings = make_settings(tmp_path)
    table().to_csv(settings.data, index=False)

    def make(*functions: Any, live: LiveFunctions | None = None, **changes: Any) -> tuple[Deployment, ReferenceCounts]:
        changed: Settings = replace(settings, **changes)
        deployment = make_deployment(*log, changed, functions=FunctionSet(functions), live=live)
        live_functions = deployment.state.functions
        origins = {each.name: "http" if isinstance(each, Template) else "file" for each in live_functions}
        deployment.activate_functions(live_functions, origins)
        return deployment, ReferenceCounts(changed, deployment)

    return make


def test_the_slices_are_counted_on_the_table_and_kept(make: Make, tmp_path: Path) -> None:
    """The effective n is the number of distinct contents; a restart counts nothing, and the files are private."""
    deployment, job = make(LONG)
    assert deployment.state.missing_reference("long") == "not counted on the reference table yet"
    job.run()
    state = deployment.state
    assert (state.references, state.table_note) == ({"long": Rate(20, 60, 50)}, "")
    assert len(state.sample) == 60
    assert set(state.sample[0]) == {"text"}
    assert "text" in state.schema
    folder = tmp_path / FOLDER
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / SAMPLE).stat().st_mode & 0o777 == 0o600
    written = (folder / COUNTS).stat().st_mtime_ns
    restarted, job = make(LONG)
    job.run()
    assert restarted.state.references == state.references
    assert (folder / COUNTS).stat().st_mtime_ns == written


def test_a_function_that_is_added_is_counted_alone(make: Make) -> None:
    """The counts of the others stay, also those of rows that the table no longer has a function for."""
    deployment, job = make(LONG)
    job.run()
    deployment.activate_functions(FunctionSet([LONG, TWICE]), {"long": "http", "twice": "http"})
    assert deployment.state.references == {"long": Rate(20, 60, 50)}
    job.run()
    assert deployment.state.references == {"long": Rate(20, 60, 50), "twice": Rate(2, 60, 30)}


def test_another_table_is_counted_again_and_a_touched_one_is_not(make: Make, tmp_path: Path) -> None:
    """The content decides, not the time of the file."""
    deployment, job = make(LONG)
    job.run()
    before = deployment.state.table
    os.utime(tmp_path / "data.csv", (0, 0))
    job.run()
    assert deployment.state.table is before
    table(30).to_csv(tmp_path / "data.csv", index=False)
    job.run()
    assert deployment.state.references == {"long": Rate(10, 30)}


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "data.csv cannot be read: No such file"), ("other\n1\n", "'text'"), ("", "data.csv is empty")],
)
def test_an_unreadable_table_is_a_reason(make: Make, tmp_path: Path, content: str | None, reason: str) -> None:
    """It is shown with the slices, without the path; a table that is corrected is read at once."""
    file = tmp_path / "data.csv"
    deployment, job = make(LONG)
    file.unlink()
    if content is not None:
        file.write_text(content)
    job.run()
    shown = deployment.state.missing_reference("long")
    assert reason in shown
    assert str(tmp_path) not in shown
    table(30).to_csv(file, index=False)
    job.run()
    assert deployment.state.references == {"long": Rate(10, 30)}


def test_predictions_in_a_file_set_the_accuracy_of_the_followed_version(make: Make, tmp_path: Path) -> None:
    """Functions see neither class; a row without one of them counts for coverage only."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    rows = table(90).assign(guess=lambda frame: frame["label"].where(frame.index % 3 != 0, "y"))
    rows.loc[0, "guess"] = None
    rows.to_csv(folder / "given-1.csv", index=False)
    given = '{"path": "given-1.csv", "name": "v.csv", "format": "table", "label": "label", "predicted": "guess"}'
    (folder / GIVEN).write_text(given)
    (tmp_path / "peeks.py").write_text(PEEKS)
    functions = FunctionSet.from_files([tmp_path / "peeks.py"])
    live = LiveFunctions(FunctionSet([LONG, *functions]), sources=[tmp_path / "peeks.py"])
    deployment, job = make(live=live, functions=(str(tmp_path / "peeks.py"),))
    job.run()
    assert deployment.state.accuracies == {}
    deployment.activate_external(7, START)
    job.run()
    assert deployment.state.references == {"long": Rate(30, 90, 50)}
    assert deployment.state.accuracies == {"__all__": Rate(74, 89, 50)}
    assert deployment.state.table is not None
    assert deployment.state.table.version == 7
    pairs = Counter(zip(rows["label"][1:], rows["guess"][1:], strict=True))
    assert deployment.state.table.counts["__all__"].confusion == tuple((*pair, pairs[pair]) for pair in sorted(pairs))
    assert deployment.state.missing_reference("peeks") == "known on fewer than two distinct rows of v.csv"
    live.close()


def test_a_family_is_counted_on_a_table_with_predictions(make: Make, tmp_path: Path) -> None:
    """All of its slices at once, and again when one joins it; one that is stopped leaves the others as they are."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    table(90).assign(guess="y").to_csv(folder / "given-1.csv", index=False)
    given = '{"path": "given-1.csv", "name": "v.csv", "format": "table", "label": "label", "predicted": "guess"}'
    (folder / GIVEN).write_text(given)
    ones = template("ones", family="ends", regex={"field": "text", "pattern": "1$"})
    twos = template("twos", family="ends", regex={"field": "text", "pattern": "2$"})
    deployment, job = make(ones, twos)
    deployment.activate_external(7, START)
    job.run()
    both = deployment.state.families["ends"]
    counts = deployment.state.class_counts[RateKey.of_family("ends", both)]
    assert (counts.member, [*both]) == (14, ["ones", "twos"])
    assert sum(number for *_, number in counts.confusion) == 14
    threes = template("threes", family="ends", regex={"field": "text", "pattern": "3$"})
    functions = FunctionSet([ones, twos, threes])
    deployment.activate_functions(functions, dict.fromkeys(functions.names, "http"))
    job.run()
    all_three = deployment.state.families["ends"]
    assert deployment.state.class_counts[RateKey.of_family("ends", all_three)].member == 20
    loaded = TableReference.load(folder)
    assert loaded is not None
    assert loaded.families["ends"].fingerprints == all_three
    before = (folder / COUNTS).stat().st_mtime_ns
    job.run()
    assert (folder / COUNTS).stat().st_mtime_ns == before


def test_a_table_is_counted_again_for_other_features(make: Make, tmp_path: Path) -> None:
    """Contents are those of the features; predictions in the table still belong to the version that made them."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    rows = table(90).assign(likes=range(90))
    rows.assign(guess=rows["label"]).to_csv(folder / "given-1.csv", index=False)
    given = '{"path": "given-1.csv", "name": "v.csv", "format": "table", "label": "label", "predicted": "guess"}'
    (folder / GIVEN).write_text(given)
    deployment, job = make(LONG)
    deployment.activate_external(7, START)
    job.run()
    assert deployment.state.accuracies == {"__all__": Rate(90, 90, 50)}
    deployment, job = make(LONG, features={"likes": "number"})
    deployment.activate_external(8, START)
    job.run()
    assert deployment.state.references == {"long": Rate(30, 90)}
    assert deployment.state.table is not None
    assert deployment.state.table.version == 7


def test_a_champion_that_cannot_be_loaded_has_no_table(make: Make, tmp_path: Path) -> None:
    """Nothing is counted, and a table that was counted before expects nothing, until there is no fault any more."""
    deployment, job = make(LONG)
    deployment.record_fault("damaged", 1, (), ())
    job.run()
    assert not (tmp_path / FOLDER / COUNTS).exists()
    deployment.clear_fault()
    job.run()
    assert deployment.state.references == {"long": Rate(20, 60, 50)}
    deployment.record_fault("damaged", 1, (), ())
    assert (deployment.state.references, deployment.state.missing_reference("long")) == (
        {},
        "the champion cannot be loaded",
    )


def test_a_class_that_is_unknown_is_a_reason(make: Make, tmp_path: Path) -> None:
    """It names the column and the row."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    table().assign(guess="z").to_csv(folder / "given-1.csv", index=False)
    given = '{"path": "given-1.csv", "name": "v.csv", "format": "table", "label": "label", "predicted": "guess"}'
    (folder / GIVEN).write_text(given)
    deployment, job = make(LONG)
    job.run()
    assert "column 'guess', row 0: 'z' is not a class" in deployment.state.missing_reference("long")


def test_a_function_that_ends_its_process_has_a_reason_and_no_count(make: Make, tmp_path: Path) -> None:
    """Rows counted before it would be no random sample; other functions are counted."""
    file = tmp_path / "ends.py"
    file.write_text(
        "import os\nfrom sfs import slicing_function\n"
        "@slicing_function()\ndef ends(x): return os._exit(1) if x.text == 't50' else 'more' in x.text\n"
    )
    live = LiveFunctions(FunctionSet([LONG, *FunctionSet.from_files([file])]), sources=[file])
    deployment, job = make(live=live, functions=(str(file),))
    job.run()
    job.run()
    assert deployment.state.references == {"long": Rate(20, 60, 50)}
    reason = "ends was stopped on data.csv, and is not counted: process died"
    assert deployment.state.missing_reference("ends") == reason
    live.close()


def test_a_slow_function_is_not_counted(tmp_path: Path) -> None:
    """Its expected coverage would be that of the rows on which it is fast."""
    file, data = tmp_path / "slow.py", tmp_path / "data.csv"
    file.write_text(
        "from time import process_time\nfrom sfs import slicing_function\n"
        "@slicing_function()\ndef slow(x):\n    end = process_time() + 0.02 * (x.text in ('t0 more', 't3 more'))\n"
        "    while process_time() < end: pass\n    return False\n"
        "@slicing_function()\ndef fast(x): return 'more' in x.text\n"
    )
    table(1002).to_csv(data, index=False)
    spec = {
        "path": str(data),
        "format": "table",
        "label": "label",
        "predicted": None,
        "hidden": "label",
        "classes": ["x", "y"],
        "features": {"text": "text"},
        "schema": [],
        "functions": [str(file)],
        "added": [],
        "names": ["slow", "fast"],
        "families": {"speed": ["slow", "fast"]},
    }
    result, _ = count_slices(spec, BreakerLimits(budget_ms=0.2, least_ms=60_000, hold_ms=60_000, slow_batches=1))
    assert result["stopped"] == {"slow": "over budget"}
    assert (result["fingerprints"].keys(), result["families"]) == ({"fast"}, {})
    assert (result["counts"]["fast"]["member"], result["counts"]["fast"]["n"]) == (334, 1002)
