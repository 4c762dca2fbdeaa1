"""The child process of a report, and what it relies on in Evidently."""

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
from service.jobs.column_report.columns import counts_of, distance_of_numbers, distance_of_shares
from service.jobs.column_report.worker import Shown, compare, drift_of, values_of
from service.jobs.column_report.columns import Compared

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
    Shown("prediction", True, 0.1, a.tolist(), [*b.tolist()]),
    Shown("target", False, 0.1, c, d),
    Shown("target", False, 0.2, c, c),
]
found = drift_of(columns)
ours = [distance_of_numbers(a, b), distance_of_shares(*counts_of(c, d)[1:]), 0.0]
path = Path(sys.argv[1]) / "page.html"
found.save_html(path)
names = Compared(f"n{end}", "category", False, tuple([end, "y"] * 40), tuple([end, "y", "y"] * 40))
record, shown = compare(names)
small = Compared("small", "number", True, tuple((a * 1e-6).tolist()), tuple((b * 1e-6).tolist()))
huge = Compared("huge", "number", True, (1e308, -1e308) * 40, (1e308, 1e307) * 40)
print(json.dumps({
    "groups": groups, "values": values_of(found), "ours": ours, "wrote": path.exists(), "record": record,
    "ends": drift_of([shown]).get_html_str(as_iframe=False).count(end),
    "huge": compare(huge)[0], "small": compare(small)[0],
}))
"""


@pytest.fixture(scope="module")
def evidently(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What Evidently does, as a process of its own saw it."""
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
    """GroupBy gives each slice the accuracy of all rows, not 0 and 1: if this fails, Evidently was mended."""
    assert evidently["groups"] == {"in": 0.8, "out": 0.8}


def test_distances_are_those_of_which_chance_is_known(evidently: dict[str, Any]) -> None:
    """Evidently's two distances are ours, whatever a column is called, and called twice."""
    assert list(evidently["values"]) == ["prediction", "target", "target'"]
    assert list(evidently["values"].values()) == pytest.approx(evidently["ours"])


def test_a_page_is_not_written_to_a_path(evidently: dict[str, Any]) -> None:
    """A Path is passed over in silence, for which reason we give a str."""
    assert not evidently["wrote"]


def test_no_name_ends_a_script_of_the_page(evidently: dict[str, Any]) -> None:
    """Names and values of records, which anybody may have sent, reach the page as text."""
    assert evidently["ends"] == 0


def test_a_record_tells_a_column(evidently: dict[str, Any]) -> None:
    """A record has names as they are, and the shares of both sides."""
    record = dict(evidently["record"])
    value, threshold = record.pop("value"), record.pop("threshold")
    assert value == pytest.approx(0.1192, abs=1e-3)
    assert threshold > 0.1  # 80 rows say less than the method's own 0.05 asks for
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


def test_a_column_that_evidently_cannot_compare_says_so(evidently: dict[str, Any]) -> None:
    """A column on which Evidently fails has no value but the reason."""
    huge = evidently["huge"]
    assert (huge["value"], huge["drifted"]) == (None, None)
    assert huge["error"].startswith("Evidently could not compare it: ")
    assert "mean" not in huge


def test_small_numbers_drift_as_great_ones_do(evidently: dict[str, Any]) -> None:
    """Numbers of a millionth are as far apart as they are when multiplied by a million, in a fixed method."""
    small = evidently["small"]
    assert small["value"] == pytest.approx(evidently["ours"][0])
    assert (small["drifted"], small["method"]) == (True, "wasserstein")


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    """A child whose parent is gone is killed, whatever it waits for."""
    os.mkfifo(tmp_path / "task.json")  # which nobody ever writes to
    child = subprocess.Popen(
        [sys.executable, *CHILD, "values", str(tmp_path)], stdin=subprocess.PIPE, start_new_session=True
    )
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(60) == -signal.SIGKILL
