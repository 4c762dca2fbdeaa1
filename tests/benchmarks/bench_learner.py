"""Compare the default learner and the slice-residual network with plain peers, cell by cell, over seeds.

    python tests/benchmarks/bench_learner.py --data DIR --out FILE.json [--seeds 10] [--who all|peers|ours]

A cell is a method on a set-up with a seed. Finished cells are in the folder ``--cells``, by a hash of the code they
depend on, so that a run that is cut goes on, and ``--who ours`` measures our learners anew when only they have
changed. The peers of a set-up take about a minute of a core with each seed, our learners one to five, and all cells
of ten seeds hours. Of what is not measured the output has no cell. Flips change that share of all memberships in
training, validation and serving; slices are then judged by the true ones. Test rows are looked at for the cells
alone.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from last_layer_peers import (
    AutomaticFeatureReweighting,
    ClassBalancedLastLayer,
    DeepFeatureReweighting,
    SelectiveFinetuning,
)
from learner_cells import ATTENTION, OURS, CellFolder, CellName
from learner_peers import (
    Attention,
    Deeper,
    Erm,
    ErmGrid,
    GroupDRO,
    JustTrainTwice,
    Peer,
    WeightedErm,
    WorstClassSelection,
)
from learner_setups import Problem, SetUp, problems, with_flips
from our_learners import cost, measured, ours

SMALL_NET = "ERM, 10 hidden units"


def peers_of(problem: Problem, setup: SetUp) -> list[Peer]:
    """Return the peers, those that others start from first."""
    recipe, grid = setup.recipe, ErmGrid(setup.recipe)
    found: list[Peer] = [
        Erm(grid),
        WeightedErm(recipe),
        GroupDRO(recipe),
        JustTrainTwice(recipe, grid),
        DeepFeatureReweighting(grid),
        AutomaticFeatureReweighting(recipe),
        ClassBalancedLastLayer(grid),
        SelectiveFinetuning(grid),
        WorstClassSelection(grid),
        Deeper(recipe),
        Attention(recipe),
    ]
    if problem.name == "geometry K=2":
        small = Erm(ErmGrid(replace(recipe, widths=(10,))))
        small.name = SMALL_NET
        found.append(small)
    return found


def run(problem: Problem, seed: int, wanted: Sequence[str], cells: CellFolder) -> None:
    """Measure the missing cells of these methods on a set-up with a seed."""
    clean: SetUp | None = None
    peers: list[Peer] = []
    for flips in problem.flips:
        setup: SetUp | None = None
        for method in methods(problem, flips):
            if method not in wanted:
                continue
            cell = CellName(problem.name, flips, seed, method)
            if cells.read(cell) is not None:
                continue
            if clean is None:
                clean = problem.make(seed)
                peers = peers_of(problem, clean)
            if setup is None:
                setup = with_flips(clean, flips, seed)
            started = time.monotonic()
            if method not in OURS:
                peer = next(each for each in peers if each.name == method)
                model = peer.fit(setup.train, setup.valid, 2, seed)
                result = measured(model, setup, setup.test.X, setup.test.S)
            else:
                result = ours(method, problem, setup, seed)
            cells.write(cell, result)
            figures = f"{100 * result['overall']:.1f} {100 * min(result['slices']):.1f}" if result else "not searched"
            print(*cell_words(cell), figures, result.get("form", ""), f"{time.monotonic() - started:.0f} s", flush=True)


def cell_words(cell: CellName) -> Iterator[str]:
    """Yield the parts of a cell's name."""
    yield from (cell.set_up, f"{cell.flips:g}", str(cell.seed), cell.method + ":")


PEERS = (
    "ERM",
    "weighted ERM",
    "GroupDRO",
    "JTT",
    "last-layer retraining (DFR)",
    "AFR",
    "class-balanced last layer",
    "SELF",
    "worst-class selection",
    "deeper plain nets",
)
"""Names of the peers that have been compared on every set-up; attention over slices and the small net come beside."""


def methods(problem: Problem, flips: float) -> list[str]:
    """Return the names of the methods of a set-up, the peers first."""
    beside = [] if flips else [ATTENTION, *[SMALL_NET] * (problem.name == "geometry K=2")]
    return [*PEERS, *beside, *OURS]


def forward_cost(cells: CellFolder) -> list[dict[str, Any]]:
    """Return the cost of slices in the forward pass, from its cell if it has been measured."""
    name = CellName("forward pass", 0.0, 0, OURS[1])
    if (found := cells.read(name)) is None:
        found = {"networks": cost()}
        cells.write(name, found)
    return list(found["networks"])


def collected(chosen: Sequence[Problem], seeds: Sequence[int], cells: CellFolder) -> list[dict[str, Any]]:
    """Return the finished cells."""
    found = []
    for problem in chosen:
        for flips in problem.flips:
            for seed in seeds:
                for method in methods(problem, flips):
                    name = CellName(problem.name, flips, seed, method)
                    if result := cells.read(name):
                        found.append({"set_up": problem.name, "flips": flips, "seed": seed, "method": method} | result)
    return found


def main() -> None:
    """Measure what is missing and write what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("SLICEWATCH_TEST_DATA"), help="public data sets")
    parser.add_argument("--out", type=Path, required=True, help="where the cells go, as JSON")
    parser.add_argument("--cells", type=Path, default=Path("build/learner"), help="folder of finished cells")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=300)
    parser.add_argument("--set-ups", default="", help="comma separated; all by default")
    parser.add_argument("--methods", default="", help="comma separated; all by default")
    parser.add_argument("--most-flips", type=float, default=1.0, help="largest share of flipped memberships")
    parser.add_argument("--who", choices=("all", "peers", "ours", "finished"), default="all")
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data or SLICEWATCH_TEST_DATA must name the folder of the public data sets")
    torch.set_num_threads(1)
    known = problems(Path(options.data))
    chosen = [each for each in known if not options.set_ups or each.name in options.set_ups.split(",")]
    cells, seeds = CellFolder(options.cells), range(options.first_seed, options.first_seed + options.seeds)
    theirs = (*PEERS, ATTENTION, SMALL_NET)
    stages = {"all": [theirs, OURS], "peers": [theirs], "ours": [OURS], "finished": []}[options.who]
    for stage in stages:
        wanted = [each for each in stage if not options.methods or each in options.methods.split(",")]
        for seed in seeds:
            for problem in chosen:
                flips = tuple(each for each in problem.flips if each <= options.most_flips)
                run(replace(problem, flips=flips), seed, wanted, cells)
    found = {"cells": collected(chosen, seeds, cells), "cost": forward_cost(cells)}
    options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
