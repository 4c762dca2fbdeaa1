"""Functions that attack the others beside them: no membership of another function is ever wrong."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.serving.breaker import BreakerLimits
from service.serving.live_functions import LiveFunctions
from sfs.apply import apply
from sfs.registry import FunctionSet

LIMITS = BreakerLimits(budget_ms=1000, least_ms=20_000, hold_ms=20_000, faults=10**9, slow_batches=10**9)
"""The attacking functions are never set aside, and a busy machine ends no call."""
BATCHES, ROWS = 20, 50
CHILDREN = 80
GOOD = """
import builtins, ctypes, gc, os, re, struct, subprocess, sys
from pathlib import Path
from sfs.function import slicing_function

@slicing_function()
def odd(x):
    return x.n % 2 == 1

@slicing_function()
def short(x):
    return len(x.text) < 5

@slicing_function()
def song(x):
    return re.search("song", x.text) is not None
"""
ATTACKS = {
    "forks_once_and_returns_twice": """
    if not done:
        done.append(1)
        return os.fork() == 0
    return False
""",
    "forks_natively": """
    if not done:
        done.append(1)
        return ctypes.CDLL(None).fork() == 0
    return False
""",
    "forges_answers": """
    frame = sys._getframe()
    while "header" not in frame.f_locals:
        frame = frame.f_back
    header = frame.f_locals["header"]
    body = struct.pack("<QI", header["call"] + x.n % 2, os.getpid())
    for position in (header["functions"], range(3))[x.n % 3 == 0]:
        body += struct.pack("<Id", position, 0.0) + bytes([1] * 50 + [0] * 50)
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                os.write(int(name), struct.pack("<II", 0, len(body)) + body)
        except OSError:
            pass
    return False
""",
    "changes_its_record": """
    object.__setattr__(x, "text", "a song that is long")
    object.__setattr__(x, "n", 1)
    x.__dict__["n"] = 1
    return False
""",
    "patches_builtins_and_modules": """
    builtins.len = lambda value: 0
    re.search = lambda *values: True
    for each in gc.get_objects():
        if type(each).__name__ == "function" and each.__name__ in ("odd", "short", "song"):
            each.__code__ = (lambda x: True).__code__
    return False
""",
}
LEAKS = f"""
if "pytest" not in sys.modules:  # not in this process, which loads the file too
    sleep = lambda: os.posix_spawnp("sleep", ["sleep", "600"], os.environ, setsid=True)
    Path(__file__).with_suffix(".pids").write_text(" ".join(str(sleep()) for _ in range({CHILDREN})))

@slicing_function()
def leaks(x):
    for _ in range({CHILDREN}):
        if os.fork() == 0:
            os.setsid()
            os.execvp("sleep", ["sleep", "600"])
    return True
"""


def write(path: Path, *parts: str) -> FunctionSet:
    """Write a file of functions, and load it."""
    path.write_text("".join((GOOD, *parts)))
    return FunctionSet.from_files([path])


def batches() -> Iterator[list[dict[str, object]]]:
    """Rows that belong to every good slice in turn."""
    texts = ("song", "a long song", "hey", "something else")
    for batch in range(BATCHES):
        yield [{"n": batch * ROWS + n, "text": texts[n % 4]} for n in range(ROWS)]


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_membership_of_another_function_is_wrong(attack: str, tmp_path: Path) -> None:
    """3,000 memberships beside each attack: none is wrong, and none is unknown."""
    code = f"\ndone = []\n@slicing_function()\ndef {attack}(x):{ATTACKS[attack]}"
    functions = write(tmp_path / "attacked.py", code)
    good = FunctionSet([functions[name] for name in ("odd", "short", "song")])
    live = LiveFunctions(functions, LIMITS, sources=[tmp_path / "attacked.py"])
    live.start()
    wrong = unknown = memberships = 0
    try:
        for rows in batches():
            matrix = live.apply(rows).matrix
            for name in good.names:
                right, found = apply(good, rows).column(name), matrix.column(name)
                missing = matrix.unknown[:, matrix.names.index(name)]
                wrong += int(((right != found) & ~missing).sum())
                unknown += int(missing.sum())
                memberships += len(rows)
    finally:
        live.close()
    print(f"{attack}: {memberships} memberships of other functions, {wrong} wrong, {unknown} unknown")
    assert (memberships, wrong, unknown) == (3000, 0, 0)


def test_nothing_outlives_the_service(tmp_path: Path) -> None:
    """80 children that the file has started in sessions of their own end with it; a function can start none."""
    path = tmp_path / "leaks.py"
    path.write_text(GOOD + LEAKS)
    functions = FunctionSet.from_files([path])
    live = LiveFunctions(functions, LIMITS, sources=[path])
    live.start()
    processes = [int(each) for each in path.with_suffix(".pids").read_text().split()]
    assert [is_running(process) for process in processes] == [True] * CHILDREN
    stats = {run.name: run for run in live.apply([{"n": 1, "text": "song"}]).stats}
    assert stats["leaks"].unknown == {"PermissionError": 1}
    live.close()
    left = [process for process in processes if is_running(process)]
    print(f"{len(processes)} leaked children, {len(left)} left after the end")
    assert left == []


def test_a_stopped_machine_makes_no_row_unknown(tmp_path: Path) -> None:
    """A comparison is answered though its process is stopped before every batch, and is never over its budget."""
    code = "\n@slicing_function()\ndef notes(x):\n    return Path(x.note).write_text(str(os.getpid())) > 0\n"
    functions = write(tmp_path / "stopped.py", code)
    live = LiveFunctions(functions, BreakerLimits(hold_ms=1000), sources=[tmp_path / "stopped.py"])
    live.start()
    note, unknown = tmp_path / "note", 0
    rows = [{"n": n, "text": "song", "note": str(note)} for n in range(10)]
    try:
        for batch in range(6):
            if batch:
                os.kill(int(note.read_text()), signal.SIGSTOP)
            unknown += int(live.apply(rows).matrix.unknown.sum())
        assert live.disabled_reasons() == dict.fromkeys(functions.names)
    finally:
        live.close()
    assert unknown == 0
