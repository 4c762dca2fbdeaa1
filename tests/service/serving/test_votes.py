"""Labelling functions on live traffic."""

from service.serving.breaker import BreakerLimits
from service.serving.live_functions import LiveFunctions
from sfs.registry import FunctionSet

PYTHON = """
from sfs import labeling_function, slicing_function


@slicing_function()
def short(x):
    return len(x.text) < 5


@labeling_function()
def says_check(x):
    return 0 if "check" in x.text else -1
"""


def test_votes_are_answered_beside_slices(tmp_path):
    """In the processes in which plain functions run; a row at which the function raises is unknown."""
    path = tmp_path / "functions.py"
    path.write_text(PYTHON)
    functions = FunctionSet.from_files([path], votes=True)
    live = LiveFunctions(functions, BreakerLimits(least_ms=20_000, hold_ms=20_000), sources=[path])
    live.start()
    try:
        applied = live.apply([{"text": "check it"}, {"text": "hi"}, {"text": None}])
    finally:
        live.close()

    assert applied.matrix.names == ("short", "says_check")
    assert applied.matrix.member.tolist() == [[False, True], [True, False], [False, False]]
    assert applied.matrix.unknown.tolist() == [[False, False], [False, False], [True, True]]
    assert applied.stats[1].unknown == {"TypeError": 1}
