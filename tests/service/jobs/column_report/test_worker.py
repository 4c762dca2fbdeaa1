"""The report process, and the behaviour of Evidently that it relies on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHILD = ("-P", "-W", "ignore", "-m", "service.jobs.column_report.worker")

CONTRACT = """
import json, sys
from pathlib import Path
import numpy as np, pandas as pd
from evidently import BinaryClassification, DataDefinition, Dataset, Report
from evidently.metrics import Accuracy
from evidently.metrics.group_by import GroupBy
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance
from service.jobs.column_report.columns import ColumnPair, count_names
from service.jobs.column_report.worker import ReportColumn, compare_column, drift_values, run_evidently

frame = pd.DataFrame({"slice": ["in"] * 20 + ["out"] * 80, "y": ["a"] * 100, "p": ["b"] * 20 + ["a"] * 80})
definition = DataDefinition(
    categorical_columns=["slice"],
    classification=[BinaryClassification(target="y", prediction_labels="p", pos_label="a")],
)
run = Report([GroupBy(Accuracy(), "slice")]).run(Dataset.from_pandas(frame, data_definition=definition), None)
groups = {m["config"]["label"]: m["value"] for m in json.loads(run.json())["metrics"] if "label" in m["config"]}

random = np.random.default_rng(0)
a, b = random.lognormal(size=1500), random.lognormal(0.2, size=900)
c, d = random.choice(["x", "y", "z"], 1500).tolist(), random.choice(["x", "z", "w"], 900).tolist()
end = "</script><b>"
columns = [
    ReportColumn("prediction", True, 0.1, a.tolist(), [*b.tolist()]),
    ReportColumn("target", False, 0.1, c, d),
    ReportColumn("target", False, 0.2, c, c),
]
found = run_evidently(columns)
ours = [wasserstein_distance(a, b) / np.std(a), jensenshannon(*count_names(c, d)[1:]), 0.0]
path = Path(sys.argv[1]) / "page.html"
found.save_html(path)
names = ColumnPair(f"n{end}", "category", False, tuple([end, "y"] * 40), tuple([end, "y", "y"] * 40))
record, given = compare_column(names)
small = ColumnPair("small", "number", True, tuple((a * 1e-6).tolist()), tuple((b * 1e-6).tolist()))
names = [chr(0), "", "a" + chr(0), chr(0xD800), "a", "b" * 50] * 10
odd = ColumnPair("odd", "category", False, tuple(names), tuple(names[::2] * 2))
huge = ColumnPair("huge", "number", True, (1e308, -1e308) * 40, (1e308, 1e307) * 40)
print(json.dumps({
    "groups": groups, "values": drift_values(found), "ours": ours, "wrote": path.exists(), "record": record,
    "ends": run_evidently([given]).get_html_str(as_iframe=False).count(end),
    "huge": compare_column(huge)[0], "small": compare_column(small)[0],
    "odd": compare_column(odd)[0],
}))
"""


@pytest.fixture(scope="module")
def evidently(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of Evidently in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CONTRACT, str(tmp_path_factory.mktemp("page"))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_group_by_is_still_wrong(evidently: dict[str, Any]) -> None:
    """GroupBy gives every slice the accuracy of all rows, not 0 and 1: if this fails, Evidently was fixed."""
    assert evidently["groups"] == {"in": 0.8, "out": 0.8}


def test_distances_are_those_whose_chance_is_computed(evidently: dict[str, Any]) -> None:
    """Evidently's distances equal those of scipy for any column names, repeated ones included."""
    assert list(evidently["values"]) == ["prediction", "target", "target'"]
    assert list(evidently["values"].values()) == pytest.approx(evidently["ours"])


def test_a_page_is_not_written_to_a_path(evidently: dict[str, Any]) -> None:
    """A Path is ignored silently, so that the product passes a str."""
    assert not evidently["wrote"]


def test_names_cannot_end_a_script_of_the_page(evidently: dict[str, Any]) -> None:
    """Names and values come from clients and reach the page as text."""
    assert evidently["ends"] == 0


def test_a_record_describes_a_column(evidently: dict[str, Any]) -> None:
    """A record has unchanged names, and the shares of both sides."""
    record = dict(evidently["record"])
    value, threshold = record.pop("value"), record.pop("threshold")
    assert value == pytest.approx(0.1192, abs=1e-3)
    assert threshold > 0.1  # chance exceeds the fixed 0.05 with 80 rows
    shares = record.pop("shares")
    assert shares == {
        "</script><b>": pytest.approx([1 / 2, 1 / 3]),
        "y": pytest.approx([1 / 2, 2 / 3]),
    }
    assert record == {
        "column": "n</script><b>",
        "kind": "category",
        "method": "jensenshannon",
        "drifted": value >= threshold,
        "rows": [80, 120],
        "error": "",
    }


def test_control_characters_are_values_like_others(evidently: dict[str, Any]) -> None:
    """A NUL, nothing, and a lone surrogate are three values; their names can be stored and shown."""
    odd = evidently["odd"]
    assert odd["error"] == ""
    assert set(odd["shares"]) == {"\\x00", "", "a\\x00", "\\ud800", "a", "b" * 50}


def test_a_column_that_evidently_cannot_compare_has_an_error(evidently: dict[str, Any]) -> None:
    """Its record has no value."""
    huge = evidently["huge"]
    assert (huge["value"], huge["drifted"]) == (None, None)
    assert huge["error"].startswith("Evidently could not compare it: ")
    assert "mean" not in huge


def test_small_numbers_drift_like_large_ones(evidently: dict[str, Any]) -> None:
    """Dividing numbers by a million changes neither distance nor method."""
    small = evidently["small"]
    assert small["value"] == pytest.approx(evidently["ours"][0])
    assert (small["drifted"], small["method"]) == (True, "wasserstein")


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    """A child whose standard input closes is killed while it waits for a file."""
    os.mkfifo(tmp_path / "spec.json")  # never written to
    child = subprocess.Popen(
        [sys.executable, *CHILD, "values", str(tmp_path), "600"],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(600) == -signal.SIGKILL
