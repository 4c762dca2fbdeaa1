"""Project of the soak: two versions of a model, slices whose right members are known, and hostile functions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pandas as pd

from models.bundle.model_bundle import ModelBundle
from models.comments.generate import generate
from models.registry import ModelRegistry
from sfs.apply import apply
from sfs.matrix import SliceMatrix
from sfs.registry import FunctionSet

Record = dict[str, Any]

NAME = "comments"
VERSIONS = (1, 2)
TRAINING_ROWS, POOL = 600, 300
HOSTILE = "hostile"
"""Names of functions that begin with this belong to attackers: their own memberships may be anything."""
TOLERANCE = 1e-5
"""Largest difference of a probability, as for the golden batch of a bundle: batches add in another order."""

SETTINGS = """\
name: comments
data: comments.csv
label: label
features: {text: text, video: category, likes: number}
functions: [FUNCTIONS]
learner: {kind: slice_residual, epochs: 2, hidden: [16]}
retrain: {automatic: false}
monitor: {tick_seconds: 2, minimum_labels: 5}
"""
SLICES = '''\
from collections import Counter

from sfs import slicing_function


@slicing_function()
def exclaiming(x):
    """Has an exclamation mark."""
    return x.text is not None and "!" in x.text


@slicing_function()
def shouting(x):
    """Written in capitals."""
    return x.text is not None and x.text.isupper()


@slicing_function()
def monotonous(x):
    """Has a letter that is a seventh of the text; in a process of its own."""
    return x.text is not None and max(Counter(x.text.replace(" ", "")).values(), default=0) * 7 > len(x.text)
'''
TEMPLATES = """\
slices:
  - {name: long_text, length: {field: text, unit: characters, at_least: 107}}
  - {name: high_likes, compare: {field: likes, at_least: 7}}
  - {name: no_likes, missing: {field: likes}}
  - {name: giveaway, regex: {field: text, pattern: "(?i)giveaway|raffle|free"}}
  - {name: please, keyword: {field: text, words: [please, plz, subscribe]}}
"""
ATTACKS = {
    "fork": "    return os.fork() == 0",
    "print": "    print('x' * 1_000_000)\n    return True",
    "allocate": "    return len([bytearray(2**26) for _ in range(64)]) > 0",
    "forge": """\
    for name in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                os.write(int(name), b"\\1\\0\\0\\0" * 64)
        except OSError:
            pass
    return False""",
    "change": """\
    object.__setattr__(x, "text", "!" * 200)
    builtins.len = lambda value: 0
    re.search = lambda *values: True
    return True""",
    "sleep": "    time.sleep(30)\n    return True",
    "spin": "    while True:\n        pass",
    "kill": "    os.kill(os.getpid(), 9)",
    "raise": "    raise ValueError(x.text * 100)",
    "thread": "    threading.Thread(target=time.sleep, args=[600], daemon=True).start()\n    return True",
}
"""Python functions that attack once a text names them."""


def marked(attack: str) -> str:
    """Return a text that sets off one function."""
    return f"attack {attack} now"


def _hostile_functions() -> str:
    lines = ["import builtins, os, re, threading, time", "from sfs import slicing_function", ""]
    for name, body in ATTACKS.items():
        lines += [
            f"\n@slicing_function()\ndef {HOSTILE}_{name}(x):",
            f"    if x.text != {marked(name)!r}:\n        return False",
            body,
        ]
    return "\n".join(lines) + "\n"


def make(folder: Path) -> None:
    """Write a project, train two versions of its model, and then add the hostile functions."""
    folder.mkdir(parents=True)
    generate(TRAINING_ROWS, seed=0).to_csv(folder / "comments.csv", index=False)
    (folder / "slices.py").write_text(SLICES)
    (folder / "slices.yaml").write_text(TEMPLATES)
    (folder / f"{HOSTILE}.py").write_text(_hostile_functions())
    settings = folder / "slicewatch.yaml"
    settings.write_text(SETTINGS.replace("FUNCTIONS", "slices.py, slices.yaml"))
    for seed in range(len(VERSIONS)):
        command = [sys.executable, "-m", "service", "train", "--config", str(settings)]
        command_environ = {"SLICEWATCH_LEARNER_SEED": str(seed)}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environ(**command_environ))
    settings.write_text(SETTINGS.replace("FUNCTIONS", f"slices.py, slices.yaml, {HOSTILE}.py"))


def environ(**variables: str) -> dict[str, str]:
    """Return the environment of this process without its own settings, with some variables."""
    import os

    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLICEWATCH_")}
    return kept | {"OMP_NUM_THREADS": "1"} | variables


@dataclass(frozen=True)
class Truth:
    """The right answers to the records of the pool.

    Parameters
    ----------
    records
        The pool.
    functions
        The functions of the project that attack nothing.
    bundles
        The models by version.
    """

    records: Sequence[Record]
    functions: FunctionSet
    bundles: Mapping[int, ModelBundle]
    _probabilities: dict[tuple[int, int, frozenset[str]], dict[str, float]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def of(cls, folder: Path) -> Truth:
        """Read the project."""
        table = generate(2 * POOL, seed=1).drop_duplicates("text")[["text", "video", "likes"]][:POOL]
        registry = ModelRegistry(folder / ".slicewatch/registry", name=NAME)
        records: list[Record] = json.loads(pd.DataFrame(table).to_json(orient="records"))
        functions = FunctionSet.from_files([folder / "slices.py", folder / "slices.yaml"])
        return cls(records, functions, {version: registry.get(version) for version in VERSIONS})

    @cached_property
    def matrix(self) -> SliceMatrix:
        """Memberships of the pool: all are known."""
        matrix = apply(self.functions, list(self.records))
        assert not matrix.unknown.any()
        return matrix

    def slices(self, n: int) -> frozenset[str]:
        """Return the slices of a record of the pool."""
        return frozenset(name for name, member in zip(self.matrix.names, self.matrix.member[n], strict=True) if member)

    def probabilities(self, n: int, version: int, unknown: frozenset[str]) -> dict[str, float]:
        """Return the probabilities of a record by class; memberships in some slices are unknown."""
        key = n, version, unknown
        with self._lock:
            if key not in self._probabilities:
                part, bundle = self.matrix.take([n]), self.bundles[version]
                hidden = np.array([[name in unknown for name in part.names]])
                S = SliceMatrix(part.names, part.member & ~hidden, hidden)
                (P,) = bundle.predict_proba([self.records[n]], S.align(bundle.slice_names)).tolist()
                self._probabilities[key] = dict(zip(bundle.classes, P, strict=True))
            return self._probabilities[key]

    def problems(self, n: int, answer: Mapping[str, Any]) -> list[str]:
        """Return every way in which an answer to a record of the pool is wrong; an unknown membership is none."""
        version, unknown = answer["version"], frozenset(answer["unknown_slices"])
        if version not in self.bundles:
            return [f"version {version}"]
        right, found = self.slices(n), {*answer["slices"]} & {*self.functions.names}
        out = [f"membership in {name}" for name in (right ^ found) - unknown]
        out += [f"both a member of {name} and unknown" for name in unknown & {*answer["slices"]}]
        P = self.probabilities(n, version, unknown & {*self.functions.names})
        if answer["probabilities"].keys() != P.keys() or any(
            abs(P[name] - p) > TOLERANCE for name, p in answer["probabilities"].items()
        ):
            out.append(f"probabilities {answer['probabilities']} instead of {P} of version {version}")
        elif answer["probabilities"][answer["label"]] < max(P.values()) - TOLERANCE:
            out.append(f"class {answer['label']}")
        return out
