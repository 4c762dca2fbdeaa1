"""Paired comparison of two versions of a model on the same held-out rows.

Predictions on duplicate rows are nearly identical and add no evidence. Every distinct content therefore counts
once, regardless of its frequency in traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.bundle.model_bundle import ModelBundle
from models.classes import read_labels, without_label
from models.errors import DataError
from models.splits import Hashes, content_hashes, held_out
from sfs.apply import apply_with_stats
from sfs.function import ALL_ROWS, LabelingFunctionSlice
from sfs.registry import FunctionSet


@dataclass(frozen=True, slots=True)
class PairedCells:
    """Contents of a slice's known members, or of all rows (``__all__``), by which versions are correct.

    A version is correct on a content if it is correct on more than half of its rows in the slice. Rows of one
    content may differ in label, and in the columns that are no text. The rule is the same for both versions and
    independent of the order of rows. Where labels contradict each other evenly, a constant prediction is not
    correct.

    Parameters
    ----------
    n
        Distinct contents compared.
    both, only_champion, only_candidate
        Contents that both versions, and only the one or the other, predict correctly.
    rows
        Rows with these contents.
    """

    slice: str
    n: int
    both: int
    only_champion: int
    only_candidate: int
    rows: int


def compare_paired(
    champion: ModelBundle, candidate: ModelBundle, rows: pd.DataFrame, functions: FunctionSet
) -> tuple[PairedCells, ...]:
    """Compare two versions on the same rows: all rows first, then every slice in the functions' order.

    Each version reads the rows by its own schema, and the memberships in its own slices from functions unchanged
    since its training. A label outside a version's classes counts as an error of that version.

    Parameters
    ----------
    rows
        N rows with the label and the feature columns of both, held out for both.
    functions
        The live functions; the votes of labelling functions are no slices of a model, and are left out.

    Raises
    ------
    DataError
        If the versions predict different columns, a row is not held out for one of them, a column is missing
        or cannot be read, or a label is blank.
    SliceError
        If a template reads a column that the rows do not have.
    """
    if champion.label != candidate.label:
        raise DataError(
            f"the champion predicts {champion.label!r} and the candidate {candidate.label!r}: "
            "only models of one label can be compared"
        )
    for role, bundle in (("champion", champion), ("candidate", candidate)):
        seen = np.flatnonzero(~held_out_for((bundle,), rows))
        if len(seen):
            raise DataError(
                f"{len(seen):,} of {len(rows):,} rows, first row {seen[0]}, are not held out for the {role}, which "
                "may have learned them: compare on held-out rows only"
            )
    live = FunctionSet(each for each in functions if not isinstance(each, LabelingFunctionSlice))
    S = apply_with_stats(live, without_label(rows, champion.label)).matrix
    correct = []
    for bundle in (champion, candidate):
        read = bundle.schema.parse_frame(rows)
        predicted = bundle.predict(read, bundle.usable_memberships(S, live.fingerprints))
        truth = read_labels(read, bundle.label, bundle.classes)
        correct.append(np.array(predicted, dtype=object) == np.array(truth, dtype=object))
    contents = np.unique(_contents(candidate, rows), return_inverse=True)[1]
    cells = []
    for name, member in [(ALL_ROWS, np.ones(len(rows), dtype=bool)), *((n, S.column(n)) for n in S.names)]:
        content = contents[member]
        counts = np.bincount(content)
        one, other = (2 * np.bincount(content[version[member]], minlength=len(counts)) > counts for version in correct)
        cells.append(
            PairedCells(
                slice=name,
                n=int((counts > 0).sum()),
                both=int((one & other).sum()),
                only_champion=int((one & ~other).sum()),
                only_candidate=int((~one & other).sum()),
                rows=len(content),
            )
        )
    return tuple(cells)


def held_out_for(bundles: Sequence[ModelBundle], rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Return bool[N], the rows that are held out for all versions."""
    out = np.ones(len(rows), dtype=bool)
    for bundle in bundles:
        out &= held_out(_contents(bundle, rows))
    return out


def _contents(bundle: ModelBundle, rows: pd.DataFrame) -> Hashes:
    return content_hashes(bundle.schema.parse_frame(rows), bundle.featurizer.specs)
