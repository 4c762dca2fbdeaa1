"""Two versions of a model on the same held-out rows: on which contents both, or only one, is right.

Rows that repeat a content are answered nearly alike, and are no more evidence than one of them. Each content
is therefore one vote, however often it comes: the figures are of contents, not of traffic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.bundle import ModelBundle
from models.classes import read_labels, without_label
from models.errors import DataError
from models.splits import content_hashes, held_out
from sfs.apply import apply_with_stats
from sfs.function import ALL_ROWS, LabelingFunctionSlice
from sfs.registry import FunctionSet


@dataclass(frozen=True, slots=True)
class DuelCells:
    """How two versions fare on the contents of a slice's known members, or of all rows (``__all__``).

    A version is right about a content if it is right on more than half of its rows in the slice. Rows of one
    content may differ in label, and in the columns that are no text. The rule is the same for both versions,
    needs no order of the rows, and favours nobody where labels contradict each other evenly: then whoever
    always answers the same is not right.

    Parameters
    ----------
    slice
        Which.
    n
        Different contents compared.
    both, only_champion, only_candidate
        Contents that both, and only the one or the other, predict rightly.
    rows
        Rows that hold these contents.
    """

    slice: str
    n: int
    both: int
    only_champion: int
    only_candidate: int
    rows: int


def duel(
    champion: ModelBundle, candidate: ModelBundle, rows: pd.DataFrame, functions: FunctionSet
) -> tuple[DuelCells, ...]:
    """Compare two versions on the same rows: all rows first, then every slice in the functions' order.

    Each version is told the memberships that it may know: of its own slices, by functions that compute what
    they did in its training. A label that is none of a version's classes is one that it misses.

    Parameters
    ----------
    champion, candidate
        The versions.
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
        _check_held_out(rows, bundle, role)
    truth = np.array(read_labels(rows, champion.label), dtype=object)
    live = FunctionSet(each for each in functions if not isinstance(each, LabelingFunctionSlice))
    S = apply_with_stats(live, without_label(rows, champion.label)).matrix
    one, other = (
        np.array(bundle.predict(rows, bundle.trusted(S, live.fingerprints)), dtype=object) == truth
        for bundle in (champion, candidate)
    )
    hashes = content_hashes(rows, candidate.featurizer.specs)
    content = np.unique(hashes, return_inverse=True)[1]
    members = [(ALL_ROWS, np.ones(len(rows), dtype=bool)), *((name, S.column(name)) for name in S.names)]
    return tuple(_cells(name, content[member], one[member], other[member]) for name, member in members)


def held_out_for(bundles: tuple[ModelBundle, ...], rows: pd.DataFrame) -> NDArray[np.bool_]:
    """Return bool[N], the rows that none of the versions has seen, nor ever will."""
    out = np.ones(len(rows), dtype=bool)
    for bundle in bundles:
        out &= held_out(content_hashes(rows, bundle.featurizer.specs))
    return out


def _check_held_out(rows: pd.DataFrame, bundle: ModelBundle, role: str) -> None:
    seen = np.flatnonzero(~held_out_for((bundle,), rows))
    if len(seen):
        raise DataError(
            f"{len(seen):,} of {len(rows):,} rows, first row {seen[0]}, are not held out for the {role}, which may "
            "have learned them: compare on held-out rows only"
        )


def _cells(
    name: str, content: NDArray[np.int64], one: NDArray[np.bool_], other: NDArray[np.bool_]
) -> DuelCells:
    """Count the votes of contents: of each row its content's number, and whether each version is right."""
    rows = np.bincount(content)
    seen = rows > 0
    champion, candidate = (
        2 * np.bincount(content[right], minlength=len(rows)) > rows for right in (one, other)
    )
    return DuelCells(
        slice=name,
        n=int(seen.sum()),
        both=int((champion & candidate).sum()),
        only_champion=int((champion & ~candidate).sum()),
        only_candidate=int((~champion & candidate).sum()),
        rows=len(content),
    )
