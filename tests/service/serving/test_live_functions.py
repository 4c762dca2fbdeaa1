"""Live functions: templates and plain functions side by side."""

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.errors import ServiceError
from service.serving.breaker import FAULTS, BreakerLimits
from service.serving.function_call import STARTING
from service.serving.live_functions import LiveFunctions
from service.serving.python_functions import CHANGED
from sfs.apply import ApplyResult, apply
from sfs.function import SlicingFunction
from sfs.matrix import SliceMatrix
from sfs.registry import FunctionSet
from sfs.template import template

ROWS = [{"n": n, "text": "free" if n == 2 else "song"} for n in range(4)]
FREE = template("free", keyword={"field": "text", "words": ["free"]})
ODD = "@slicing_function()\ndef odd(x): return x.n % 2 == 1\n"
NOTES = """
@slicing_function()
def notes(x):
    return bool(Path(x.note).write_text(f"{os.getpid()} {os.getppid()}"))
"""
Eventually = Callable[[Callable[[], bool]], None]
LiveOf = Callable[..., LiveFunctions]


def reasons(applied: ApplyResult) -> dict[str, dict[str, int]]:
    """Return what is unknown and why, by function."""
    return {run.name: dict(run.unknown) for run in applied.stats if run.unknown}


def children() -> set[int]:
    """Return the numbers of this process's children."""
    tasks = Path(f"/proc/{os.getpid()}/task")
    return {int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()}


def test_functions_of_both_kinds_answer_as_they_do_offline(live_of: LiveOf) -> None:
    """The matrix is that of `apply`, names in the order of the set."""
    live = live_of(f"{ODD}@slicing_function()\ndef big(x): return x.n > 1\n", FREE)
    applied = live.apply(ROWS)
    assert applied.matrix == apply(live.functions, ROWS)
    assert [run.name for run in applied.stats] == ["free", "odd", "big"]
    again = live.with_functions(FunctionSet(reversed(list(live.functions)))).apply(ROWS)
    assert [run.name for run in again.stats] == ["big", "odd", "free"]


def test_one_kind_or_none_is_enough(live_of: LiveOf) -> None:
    """Sets without templates, without plain functions, and without any are applied, also to no rows."""
    live = live_of(ODD)
    for functions in (live.functions, FunctionSet([FREE]), FunctionSet([])):
        for rows in (ROWS, []):
            assert live.with_functions(functions).apply(rows).matrix == apply(functions, rows)


def test_a_set_without_plain_functions_starts_no_process(live_of: LiveOf, tmp_path: Path) -> None:
    """Neither when it is started nor when it is applied."""
    before = children()
    live = LiveFunctions(FunctionSet([FREE]), sources=[tmp_path / "none.py"])
    live.start()
    live.apply(ROWS)
    assert children() == before
    live.close()


def test_functions_that_cannot_be_loaded_say_so_at_the_start(live_of: LiveOf, tmp_path: Path) -> None:
    """The file was there when the service loaded it."""
    path = tmp_path / "gone.py"
    path.write_text(f"from sfs.function import slicing_function\n{ODD}")
    live = LiveFunctions(FunctionSet.from_file(path), sources=[path])
    path.unlink()
    with pytest.raises(ServiceError, match=r"gone\.py: cannot be read"):
        live.start()
    assert live.health() == {"odd": (True, STARTING)}


def test_a_function_whose_file_was_changed_is_unknown(live_of: LiveOf, tmp_path: Path) -> None:
    """Only that function; the others of the file compute what they did."""
    path = tmp_path / "edited.py"
    code = f"from sfs.function import slicing_function\n{ODD}{ODD.replace('odd', 'even')}"
    path.write_text(code)
    live = LiveFunctions(FunctionSet.from_file(path), sources=[path])
    path.write_text(code.replace("2 == 1\n@", "2 == 0\n@"))
    live.start()
    assert live.functions.names == ("odd", "even")
    assert reasons(live.apply(ROWS)) == {"odd": {CHANGED: 4}}
    assert live.health() == {"odd": (True, CHANGED), "even": (False, None)}
    live.close()


def test_without_a_start_the_first_batches_start_it(live_of: LiveOf, file: Path, mixed: FunctionSet) -> None:
    """Meanwhile plain functions are unknown, and templates are not."""
    live = LiveFunctions(FunctionSet([FREE, mixed["odd"]]), sources=[file])
    applied = live.apply(ROWS)
    assert reasons(applied) == {"odd": {STARTING: 4}}
    assert applied.matrix.column("free").tolist() == [False, False, True, False]
    live.start()
    assert live.apply(ROWS).matrix == apply(live.functions, ROWS)
    live.close()


def test_another_set_keeps_processes_and_what_is_known_of_functions(
    live_of: LiveOf, clock: Any, tmp_path: Path
) -> None:
    """Templates come and go while the service runs; a breaker goes with the fingerprint."""
    limits = BreakerLimits(faults=3, least_ms=20_000, hold_ms=20_000)
    live = live_of(f"{NOTES}@slicing_function()\ndef bad(x): return 1 / 0\n", limits=limits, clock=clock)
    rows = [{**row, "note": str(tmp_path / "note")} for row in ROWS]
    live.apply(rows)
    process = (tmp_path / "note").read_text()
    other = live.with_functions(FunctionSet([FREE, *live.functions]))
    other.apply(rows)
    assert (tmp_path / "note").read_text() == process
    assert other.breakers["bad"].reason == FAULTS
    assert other.health() == {"notes": (False, None), "bad": (True, FAULTS)}
    changed = live.with_functions(FunctionSet([SlicingFunction("bad", lambda x: x.n > 0)]))
    assert not changed.breakers["bad"].is_open


@pytest.mark.parametrize("ended", ["closed", "forgotten"])
def test_processes_end_with_the_functions(
    ended: str, file: Path, mixed: FunctionSet, tmp_path: Path, alive: Any, eventually: Eventually
) -> None:
    """Whether a set is closed, or nothing refers to it any more."""
    live = LiveFunctions(FunctionSet([mixed["notes"]]), sources=[file])
    live.start()
    live.apply([{"note": str(tmp_path / "note")}])
    processes = [int(each) for each in (tmp_path / "note").read_text().split()]
    assert all(map(alive, processes))
    if ended == "closed":
        live.close()
    else:
        del live
        gc.collect()
    eventually(lambda: not any(map(alive, processes)))


def test_threads_that_apply_at_once_get_their_own_answers(live_of: LiveOf) -> None:
    """Rows of one batch are never answered with those of another."""
    live = live_of(ODD, FREE)
    found: list[SliceMatrix] = []
    batches = [ROWS[:k] for k in (1, 2, 3, 4)] * 5
    threads = [threading.Thread(target=lambda b=b: found.append(live.apply(b).matrix)) for b in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {len(batch): apply(live.functions, batch) for batch in batches}
    assert len(found) == 20
    assert all(matrix == expected[len(matrix)] for matrix in found)
