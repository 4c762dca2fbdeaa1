"""Cells of the learner benchmark: the result of one method on one set-up with one seed, kept on disk."""

from __future__ import annotations

import ast
import hashlib
import inspect
import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import last_layer_peers
import learner_peers
import learner_setups
import network_stack
import our_learners

import models
from models import baselines, batches, config, experts, model_selection, objectives, refit, slice_aware, trainer

OURS = ("default", "slice residual", "adapter on linear", "adapter on trees", "adapter on network")
ATTENTION = "attention over slices"
OUTSIDE_OURS = {
    "bundle",
    "checkpointer",
    "comments",
    "dataset",
    "labelers",
    "label_model",
    "multitask",
    "paired_comparison",
    "registry",
    "scoring",
    "slice_report",
    "slice_tasks",
    "table_season",
    "training_log",
    "training_report",
    "training_rows",
}
"""Modules of ``models`` that a search does not use."""


@dataclass(frozen=True, order=True)
class CellName:
    """Set-up, share of flipped memberships, seed and method of a cell."""

    set_up: str
    flips: float
    seed: int
    method: str


class CellFolder:
    """Files of finished cells.

    The name of a file has a hash of the code that the cell depends on, without comments and docstrings. For a peer
    that is the code of the peers, of the set-ups, and of few functions of the product; for our learners it is that of
    the set-ups, of the benchmark, and of all modules of ``models`` that a search uses.

    Parameters
    ----------
    folder
        Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def peers_hash(self) -> str:
        """Hash of the code of a peer's cell."""
        return digest(
            [
                network_stack,
                learner_peers,
                last_layer_peers,
                learner_setups,
                baselines.MLP.__init__,
                baselines.MLP.forward,
                baselines.PlainClassifier,
                batches.shuffled_batches,
                config.LearnerConfig,
                model_selection.selection_score,
                objectives.row_weights,
                objectives.cell_rarity,
                refit.two_halves,
            ]
        )

    @cached_property
    def attention_hash(self) -> str:
        """Hash of the code of a cell of attention over slices, the network of which is the product's."""
        used = [learner_setups, slice_aware, experts, trainer, objectives, baselines, batches]
        return digest([*used, model_selection.selection_score, model_selection.train_candidate])

    @cached_property
    def ours_hash(self) -> str:
        """Hash of the code of our learners' cells."""
        folder = Path(str(models.__file__)).parent
        paths = sorted(path for path in folder.glob("*.py") if path.stem not in OUTSIDE_OURS)
        return digest([*paths, learner_setups, network_stack, our_learners])

    def path(self, cell: CellName) -> Path:
        """Return the file of a cell."""
        code = self.ours_hash if cell.method in OURS else self.peers_hash
        code = self.attention_hash if cell.method == ATTENTION else code
        words = f"{cell.set_up} {cell.flips:g} {cell.seed} {cell.method}"
        return self.folder / f"{words.replace(' ', '-')}-{code}.json"

    def read(self, cell: CellName) -> dict[str, Any] | None:
        """Return a finished cell."""
        path = self.path(cell)
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None

    def write(self, cell: CellName, result: dict[str, Any]) -> None:
        """Keep a finished cell."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(cell)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(result), encoding="utf-8")
        part.replace(path)


def digest(used: Sequence[Any]) -> str:
    """Return twelve hexadecimal digits of a hash of code: modules, classes, functions and paths of modules."""
    texts = [each.read_text(encoding="utf-8") if isinstance(each, Path) else inspect.getsource(each) for each in used]
    return hashlib.sha256("\0".join(map(bare, texts)).encode()).hexdigest()[:12]


def bare(code: str) -> str:
    """Return code without comments, docstrings and layout."""
    tree = ast.parse(textwrap.dedent(code))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)
