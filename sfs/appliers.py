"""Snorkel-shaped doors on the application of functions: same names, arguments and results.

Rows are handed over as Snorkel does, with pandas' own missing values (NaN, NA), where ``sfs.apply`` hands
None. A row of a data frame is a record that also answers what a Series does, such as ``x.get("likes")``.
-1 stands for unknown here: the function raised (where faults are tolerated), answered junk, or abstained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sfs.apply import checked_functions, checked_rows, planned_answers, rowwise_answers
from sfs.draft import FrameRow, MappingRow
from sfs.errors import InvalidAnswer, SliceError
from sfs.function import LabelingFunction, SlicingFunction
from sfs.record import Rows, is_frame
from sfs.registry import FunctionSet
from sfs.template import Template

if TYPE_CHECKING:
    import pandas as pd


_Codes: TypeAlias = tuple[NDArray[np.int64], int]  # int64[N], and how many rows failed


class ApplierMetadata(NamedTuple):
    """How often each function failed; functions that never did are left out."""

    faults: dict[str, int]


class _Applier:
    _kind: ClassVar[type[LabelingFunction]] = LabelingFunction

    def __init__(self, lfs: Iterable[LabelingFunction]) -> None:
        self._functions = checked_functions(lfs, self._kind)
        self._given = (
            lfs if isinstance(lfs, FunctionSet) else self._functions
        )  # a set keeps templates compiled

    def _apply(self, rows: Rows, progress_bar: bool, fault_tolerant: bool, return_meta: bool) -> Any:
        with tqdm(total=len(rows), unit="row", disable=None if progress_bar else True) as bar:
            answered = self._templates(rows, not fault_tolerant) | self._plain(rows, not fault_tolerant, bar)
        codes = np.zeros((len(rows), len(self._functions)), dtype=np.int64)  # [N, K]
        for k, function in enumerate(self._functions):
            codes[:, k] = answered[function.name][0]
        faults = {f.name: answered[f.name][1] for f in self._functions if answered[f.name][1]}
        out = self._named(codes) if self._kind is SlicingFunction else codes
        return (out, ApplierMetadata(faults)) if return_meta else out

    def _templates(self, rows: Rows, strict: bool) -> dict[str, _Codes]:
        planned = planned_answers(self._given, self._functions, rows)
        if planned is None:
            return {}
        templates, result = planned
        if strict and (first := next(filter(None, result.first_faults), None)):
            raise InvalidAnswer(first)
        codes = np.where(result.unknown, -1, result.member)  # [N, T]
        faults = [sum(reasons.values()) for reasons in result.faults]
        return {template.name: (codes[:, t], faults[t]) for t, template in enumerate(templates)}

    def _plain(self, rows: Rows, strict: bool, bar: tqdm[Any]) -> dict[str, _Codes]:
        plain = [function for function in self._functions if not isinstance(function, Template)]
        answers = rowwise_answers(plain, rows, bar.update, strict=strict, records=door_rows).answers
        codes = [np.where(one.unknown, -1, one.values) for one in answers]
        return {f.name: (codes[k], answers[k].faults) for k, f in enumerate(plain)}

    def _named(self, codes: NDArray[np.int64]) -> Any:
        S = np.recarray((len(codes),), dtype=[(function.name, np.int64) for function in self._functions])
        for k, function in enumerate(self._functions):
            S[function.name] = codes[:, k]
        return S

    def __repr__(self) -> str:
        return f"{type(self).__name__}, LFs: {[function.name for function in self._functions]}"


class LFApplier(_Applier):
    """Applies labelling functions to a list of objects or to the rows of an array.

    Parameters
    ----------
    lfs
        Functions with distinct names.

    Raises
    ------
    InvalidFunction, DuplicateName
        If something among them is not a function, or two carry one name.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> is_big = LabelingFunction("is_big", lambda x: 1 if x.num > 42 else -1)
    >>> LFApplier([is_big]).apply([SimpleNamespace(num=10), SimpleNamespace(num=100)], progress_bar=False)
    array([[-1],
           [ 1]])
    """

    def apply(
        self,
        data_points: Sequence[Any] | NDArray[Any],
        progress_bar: bool = True,
        fault_tolerant: bool = False,
        return_meta: bool = False,
    ) -> Any:
        """Return what K functions answer for N rows.

        Parameters
        ----------
        data_points
            A list of any objects, or an array.
        progress_bar
            Whether to show one where standard error is a terminal.
        fault_tolerant
            Whether a function that raises or answers junk is -1 in that row, rather than an error.
        return_meta
            Whether to return ``ApplierMetadata`` too.

        Returns
        -------
        int64[N, K], or a recarray of N rows with a field per slicing function; with ``return_meta`` a pair.

        Raises
        ------
        Exception
            If faults are not tolerated, what the first faulty row's first faulty function raised, unchanged;
            ``InvalidAnswer`` for junk.
        """
        return self._apply(checked_rows(data_points), progress_bar, fault_tolerant, return_meta)


class SFApplier(LFApplier):
    """Applies slicing functions to a list of objects or to the rows of an array; see ``LFApplier``.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> is_big = SlicingFunction("is_big", lambda x: x.num > 42)
    >>> SFApplier([is_big]).apply([SimpleNamespace(num=10), SimpleNamespace(num=100)], progress_bar=False)
    rec.array([(0,), (1,)],
              dtype=[('is_big', '<i8')])
    """

    _kind = SlicingFunction


class PandasLFApplier(_Applier):
    """Applies labelling functions to the rows of a data frame; see ``LFApplier``."""

    def apply(
        self,
        df: pd.DataFrame,
        progress_bar: bool = True,
        fault_tolerant: bool = False,
        return_meta: bool = False,
    ) -> Any:
        """Return what K functions answer for N rows, in the frame's order; see ``LFApplier.apply``."""
        if not is_frame(df):
            raise SliceError(f"expected a data frame, got {type(df).__name__}: SFApplier takes other rows")
        return self._apply(checked_rows(df), progress_bar, fault_tolerant, return_meta)


class PandasSFApplier(PandasLFApplier):
    """Applies slicing functions to the rows of a data frame; see ``LFApplier``."""

    _kind = SlicingFunction


def slice_dataframe(df: pd.DataFrame, slicing_function: SlicingFunction) -> pd.DataFrame:
    """Return the rows of a data frame that are members of a slice; a row whose membership is unknown is not.

    Raises
    ------
    Exception
        Whatever the function raises.
    """
    S = PandasSFApplier([slicing_function]).apply(df, progress_bar=False)
    return df.iloc[np.flatnonzero(S[slicing_function.name] == 1)]


def door_rows(block: Any) -> list[Any]:
    """Return a block's rows as Snorkel's functions expect them."""
    if not is_frame(block):
        return [MappingRow(dict(row)) if isinstance(row, Mapping) else row for row in block]
    names = list(block.columns)
    if not names:
        return [FrameRow({}, label) for label in block.index]
    values = [block.iloc[:, j].tolist() for j in range(len(names))]
    labelled = zip(zip(*values, strict=True), block.index, strict=True)
    return [FrameRow(dict(zip(names, row, strict=True)), label) for row, label in labelled]
