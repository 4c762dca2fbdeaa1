"""What a training's process does: rows read, a candidate trained and saved, and compared with the champion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any, TypeAlias, cast

import numpy as np

from models.bundle import ModelBundle
from models.config import TrainConfig
from models.duel import DuelCells, duel, held_out_for
from models.features import FeatureKind, FeatureSpec
from models.learners import LearnerConfig
from models.project_rows import Source
from models.splits import content_hashes
from models.traffic_rows import LabelledRows, with_traffic
from models.training import train
from service.jobs.training_spec import CANDIDATE, TrainingSpec, read_traffic
from sfs.declarations import from_declaration
from sfs.registry import FunctionSet
from sfs.votes import VoteSlice

Tell: TypeAlias = Callable[[str, float], object]

_TRAINING_FROM, _TRAINING_TO = 0.05, 0.9


@dataclass(frozen=True, slots=True)
class _Given:
    """What is trained on: rows, functions, and the names of those that no row can tell of."""

    rows: LabelledRows
    functions: FunctionSet
    set_aside: list[str]


def train_candidate(spec: TrainingSpec, folder: Path, tell: Tell) -> dict[str, Any]:
    """Train a candidate, save its bundle, and return as JSON values what it came to beside the champion.

    Parameters
    ----------
    spec
        What is asked.
    folder
        Where the bundle is saved, under a name of its own.
    tell
        Told what is being done and the share of the whole that is done.

    Raises
    ------
    ModelError, SliceError, ServiceError, OSError
        If the rows, the functions, the configuration or the champion are not fit for it.
    """
    begun = monotonic()
    tell("reading", 0.0)
    champion = None if spec.champion is None else ModelBundle.load(spec.champion)
    kinds = cast("Mapping[str, FeatureKind]", spec.features)
    features = tuple(FeatureSpec(column, kind) for column, kind in kinds.items())
    given = _read(spec, features)
    config = TrainConfig(spec.label, features, given.functions, _learner(spec), spec.name)

    def progress(stage: str, share: float) -> None:
        tell(stage, _TRAINING_FROM + (_TRAINING_TO - _TRAINING_FROM) * share)

    made = train(config, given.rows.frame, progress=progress)
    rows = {
        "base_rows": given.rows.base,
        "traffic_rows": given.rows.traffic,
        "traffic_left_out": given.rows.left_out,
    }
    candidate = replace(made, lineage={**made.lineage, "data": rows})
    tell("comparing with the champion", _TRAINING_TO)
    counts, cells = _compared(champion, candidate, given)
    repeated = {each.slice: each.rows for each in cells if each.rows > each.n}
    candidate.save(folder / CANDIDATE)
    tell("done", 1.0)
    seconds = round(monotonic() - begun, 1)
    data = {
        **rows,
        **counts,
        "held_out_rows_of_slices": repeated,
        "functions_set_aside": given.set_aside,
        "seconds": seconds,
    }
    return {"hash": candidate.hash, "data": data, "cells": [asdict(each) for each in cells]}


def _read(spec: TrainingSpec, features: tuple[FeatureSpec, ...]) -> _Given:
    text = tuple(each.column for each in features if each.kind == "text")
    base = Source(Path(spec.data), spec.format, text, spec.label).read()
    traffic = [] if spec.traffic is None else read_traffic(Path(spec.traffic))
    of_files = FunctionSet.from_files(spec.functions, votes=True)
    added = [from_declaration(each) for each in spec.added if each["name"] not in of_files]
    there = {*map(str, base.columns), *(name for record, _ in traffic for name in record)}
    # one that was added and reads what no row has would end every training; nothing can be learned of it
    aside = [each.name for each in added if not set(each.fields) <= there]
    slices = [each for each in of_files if not isinstance(each, VoteSlice)]
    functions = FunctionSet([*slices, *(each for each in added if each.name not in aside)])
    return _Given(with_traffic(base, traffic, spec.label, features, functions), functions, aside)


def _learner(spec: TrainingSpec) -> LearnerConfig:
    values = dict(spec.learner)
    if "widths" in values:
        values["widths"] = tuple(values["widths"])
    return LearnerConfig(**values)


def _compared(
    champion: ModelBundle | None, candidate: ModelBundle, given: _Given
) -> tuple[dict[str, int], tuple[DuelCells, ...]]:
    """Compare on the rows that are held out for both; return how many there are, and how both fare."""
    frame = given.rows.frame
    both = (candidate,) if champion is None else (champion, candidate)
    held = held_out_for(both, frame)
    contents = content_hashes(frame, candidate.featurizer.specs)
    counts = {
        "contents": len(np.unique(contents)),
        "held_out_rows": int(held.sum()),
        "held_out_traffic_rows": int(held[given.rows.base :].sum()),
        "held_out_contents": len(np.unique(contents[held])),
    }
    if champion is None:
        return counts, ()
    return counts, duel(champion, candidate, frame[held], given.functions)
