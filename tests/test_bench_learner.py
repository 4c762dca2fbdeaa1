"""The learner benchmark: what it measures, keeps and collects."""

from dataclasses import replace
from pathlib import Path

import pytest
from bench_learner import PEERS, SMALL_NET, collected, forward_cost, methods, peers_of, run
from learner_cells import ATTENTION, OURS, CellFolder, CellName
from learner_setups import Problem, SetUp, geometry, problems


class Small(Problem):
    """The geometry with few rows and epochs."""

    made = 0

    def make(self, seed: int) -> SetUp:
        Small.made += 1
        setup = geometry(seed, sizes=(200, 150, 300))
        return replace(setup, recipe=replace(setup.recipe, n_epochs=2, evaluate_every=1, widths=(4,)))


@pytest.fixture
def cells(tmp_path: Path) -> CellFolder:
    return CellFolder(tmp_path)


def test_a_cut_run_goes_on(cells: CellFolder) -> None:
    """Finished cells are not measured again, and all are collected in the order of the methods."""
    problem = Small("geometry K=2", Path(), (0.0, 0.2))
    run(problem, 1, ("ERM", "AFR"), cells)
    before = {path: path.stat().st_mtime_ns for path in cells.folder.iterdir()}
    assert len(before) == 4
    made = Small.made
    run(problem, 1, ("ERM", "AFR"), cells)
    assert Small.made == made
    run(problem, 1, ("ERM", "AFR", SMALL_NET), cells)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    found = collected([problem], [1], cells)
    assert [(each["flips"], each["method"]) for each in found] == [
        (0.0, "ERM"),
        (0.0, "AFR"),
        (0.0, SMALL_NET),
        (0.2, "ERM"),
        (0.2, "AFR"),
    ]
    assert all(0 <= each["overall"] <= 1 and len(each["slices"]) == 4 for each in found)


def test_a_base_that_is_not_searched_leaves_no_figures(cells: CellFolder) -> None:
    """Its cell is finished and empty."""
    cells.write(CellName("geometry K=2", 0.0, 1, "adapter on trees"), {})
    problem = Small("geometry K=2", Path())
    made = Small.made
    run(problem, 1, ("adapter on trees",), cells)
    assert Small.made == made
    assert not collected([problem], [1], cells)


def test_our_learners_have_cells(cells: CellFolder) -> None:
    """They have the form that was shipped, and figures with unknown memberships."""
    problem = Small("geometry K=2", Path())
    run(problem, 1, ("slice residual", "adapter on linear"), cells)
    ours, adapter = collected([problem], [1], cells)
    assert ours["form"]
    assert [*ours["unknown"]] == ["0.1", "0.3", "0.5"]
    assert len(adapter["base"]["slices"]) == 4


def test_names_of_methods() -> None:
    """Each peer is found by its name; the small net and attention are beside the peers, without flips."""
    problem = Small("geometry K=2", Path(), (0.0, 0.2))
    assert [peer.name for peer in peers_of(problem, problem.make(0))] == [*PEERS, ATTENTION, SMALL_NET]
    assert methods(problem, 0.0) == [*PEERS, ATTENTION, SMALL_NET, *OURS]
    assert methods(problem, 0.2) == [*PEERS, *OURS]
    assert {each.name for each in problems(Path()) if len(each.flips) > 1} == {
        "geometry K=2",
        "keyword text K=100",
        "SMS",
    }


def test_the_forward_pass_is_measured_once(cells: CellFolder) -> None:
    """Its cell has a plain and a sliced time of each network, and is read the second time."""
    first = forward_cost(cells)
    assert all(each["sliced_ms"] > 0 and each["plain_ms"] > 0 for each in first)
    assert forward_cost(cells) == first
