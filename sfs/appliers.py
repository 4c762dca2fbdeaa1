"""Snorkel-compatible appliers: same names, arguments and results.

Missing values are those of pandas (NaN, NA), as in Snorkel; ``sfs.apply`` passes None instead. A row of a data
frame is a record with the interface of a Series, such as ``x.get("likes")``, and that of a mapping is a dict. A
function may assign to fields of its row; the next one does not see it. The result is -1 if the function
abstained, or if it raised or returned an invalid value and faults are tolerated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from sfs.apply import evaluate_rows, evaluate_templates, validate_rows
from sfs.errors import InvalidReturnValue, SliceError
from sfs.function import LabelingFunction, SlicingFunction
from sfs.record import FrameRow, Rows, is_dataframe, mapping_row
from sfs.registry import FunctionSet, validate_functions
from sfs.template import Template

if TYPE_CHECKING:
    import pandas as pd


class ApplierMetadata(NamedTuple):
    """Number of faults per function; functions without faults are absent."""

    faults: dict[str, int]


class Applier:
    """Common part of the appliers: functions of one kind, and the shape of their results."""

    _kind: ClassVar[type[LabelingFunction]] = LabelingFunction

    def __init__(self, lfs: Iterable[LabelingFunction]) -> None:
        self._functions = validate_functions(lfs, self._kind)
        # a FunctionSet keeps its templates compiled
        self._given = lfs if isinstance(lfs, FunctionSet) else self._functions

    def _apply(self, rows: Rows, progress_bar: bool, fault_tolerant: bool, return_meta: bool) -> Any:
        with tqdm(total=len(rows), unit="row", disable=None if progress_bar else True) as bar:
            codes, faults = evaluate_codes(self._given, self._functions, rows, fault_tolerant, bar.update)
        return self._result(codes, faults, return_meta)

    def _result(self, codes: NDArray[np.int64], faults: Mapping[str, int], return_meta: bool) -> Any:
        out: Any = codes
        if self._kind is SlicingFunction:
            names = [function.name for function in self._functions]
            out = np.recarray((len(codes),), dtype=[(name, np.int64) for name in names])
            for k, name in enumerate(names):
                out[name] = codes[:, k]
        if not return_meta:
            return out
        return out, ApplierMetadata({name: count for name, count in faults.items() if count})

    def __repr__(self) -> str:
        return f"{type(self).__name__}, LFs: {[function.name for function in self._functions]}"


class LFApplier(Applier):
    """Labelling-function applier for a list of objects or the rows of an array.

    Parameters
    ----------
    lfs
        Functions with distinct names.

    Raises
    ------
    InvalidFunction, DuplicateName
        If an item is not a function, or two share a name.

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
        data_points: Iterable[Any] | NDArray[Any],
        progress_bar: bool = True,
        fault_tolerant: bool = False,
        return_meta: bool = False,
    ) -> Any:
        """Return the results of K functions for N rows.

        Parameters
        ----------
        data_points
            Objects, or an array.
        progress_bar
            Whether to show a progress bar if standard error is a terminal.
        fault_tolerant
            Whether to return -1 for a fault instead of raising its exception.
        return_meta
            Whether to return ``ApplierMetadata`` as well.

        Returns
        -------
        int64[N, K], or a recarray of N rows with one field per slicing function; with ``return_meta``, a tuple of
        the result and ``ApplierMetadata``.

        Raises
        ------
        Exception
            Without ``fault_tolerant``: the original exception of the first faulty function in the first faulty
            row; ``InvalidReturnValue`` for an invalid return value.
        """
        points: Any = data_points
        if isinstance(points, Iterable) and not hasattr(points, "__getitem__"):
            points = list(points)  # a generator, for example
        return self._apply(validate_rows(points), progress_bar, fault_tolerant, return_meta)


class SFApplier(LFApplier):
    """Slicing-function applier for a list of objects or the rows of an array; see ``LFApplier``.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> is_big = SlicingFunction("is_big", lambda x: x.num > 42)
    >>> SFApplier([is_big]).apply([SimpleNamespace(num=10), SimpleNamespace(num=100)], progress_bar=False)
    rec.array([(0,), (1,)],
              dtype=[('is_big', '<i8')])
    """

    _kind = SlicingFunction


class PandasLFApplier(Applier):
    """Labelling-function applier for a data frame; see ``LFApplier``."""

    def apply(
        self,
        df: pd.DataFrame,
        progress_bar: bool = True,
        fault_tolerant: bool = False,
        return_meta: bool = False,
    ) -> Any:
        """Return the results of K functions for N rows, in the frame's order; see ``LFApplier.apply``."""
        if not is_dataframe(df):
            raise SliceError(f"expected a data frame, got {type(df).__name__}: use SFApplier for other rows")
        return self._apply(validate_rows(df), progress_bar, fault_tolerant, return_meta)


class PandasSFApplier(PandasLFApplier):
    """Slicing-function applier for a data frame; see ``LFApplier``."""

    _kind = SlicingFunction


def evaluate_codes(
    given: Iterable[LabelingFunction],
    functions: Sequence[LabelingFunction],
    rows: Rows,
    fault_tolerant: bool,
    progress: Callable[[int], object] | None = None,
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """Return Snorkel's codes int64[N, K], and the number of faults of each function.

    Parameters
    ----------
    given
        The functions as the caller has them; a ``FunctionSet`` keeps its templates compiled.
    functions
        K functions.
    rows
        N rows.
    fault_tolerant
        Whether a fault is -1 instead of its exception.
    progress
        Callback with the number of rows completed since the last call.
    """
    codes = np.zeros((len(rows), len(functions)), dtype=np.int64)  # [N, K]
    position = {function.name: k for k, function in enumerate(functions)}
    faults = dict.fromkeys(position, 0)
    plain = [function for function in functions if not isinstance(function, Template)]
    templates, results = evaluate_templates(given, functions, rows)
    if results is not None:
        if not fault_tolerant and (first := next(filter(None, results.first_faults), None)):
            raise InvalidReturnValue(first)
        at = [position[template.name] for template in templates]
        codes[:, at] = np.where(results.unknown, -1, results.member)
        for template, reasons in zip(templates, results.faults, strict=True):
            faults[template.name] = sum(reasons.values())
    evaluator = evaluate_rows(plain, rows, progress, strict=not fault_tolerant, records=snorkel_rows)
    for function, result in zip(plain, evaluator.results, strict=True):
        codes[:, position[function.name]] = np.where(result.unknown, -1, result.values)
        faults[function.name] = result.faults
    return codes, faults


def slice_dataframe(df: pd.DataFrame, slicing_function: SlicingFunction) -> pd.DataFrame:
    """Return the member rows of a slice; rows of unknown membership are excluded.

    Raises
    ------
    Exception
        If the function raises.
    """
    S = PandasSFApplier([slicing_function]).apply(df, progress_bar=False)
    return df.iloc[np.flatnonzero(S[slicing_function.name] == 1)]


def snorkel_rows(block: Any) -> list[Any]:
    """Return the rows of a block as Snorkel passes them to functions."""
    if not is_dataframe(block):
        # The exact type check is faster, and covers most rows.
        return [mapping_row(row) if type(row) is dict or isinstance(row, Mapping) else row for row in block]
    names = list(block.columns)
    if not names:
        return [FrameRow({}, label) for label in block.index]
    values = [block.iloc[:, j].tolist() for j in range(len(names))]
    labelled = zip(zip(*values, strict=True), block.index, strict=True)
    return [FrameRow(dict(zip(names, row, strict=True)), label) for row, label in labelled]
