"""Appliers in other processes: functions that travel, results of partitions, and the first error of all."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfs.appliers import Applier, evaluate_codes
from sfs.apply import validate_rows
from sfs.errors import EngineError
from sfs.function import LabelingFunction
from sfs.preprocess import Preprocessor
from sfs.record import Rows


class PartitionCodes(NamedTuple):
    """Results of K functions for the N rows of a partition, or of a part of it.

    Parameters
    ----------
    rows
        N.
    codes
        Bytes of the codes, integers [N, K] of type ``kind``: Snorkel's, -1 for abstained or failed.
    kind
        NumPy's name of the integer type, the narrowest that holds the codes.
    faults
        Number of faults by function.
    error
        Pickled first exception, if faults are not tolerated and there is one; the codes are empty then.
    """

    rows: int
    codes: bytes
    kind: str
    faults: dict[str, int]
    error: bytes | None = None


class RemoteApplier(Applier):
    """Common part of the appliers whose rows are in other processes."""

    _extra: ClassVar[str]
    """Extra that has the packages of the applier."""

    def _packed(self) -> bytes:
        """Return the functions, pickled for processes that may not have imported their module."""
        try:
            return dumps_by_value((self._given, self._functions))
        except ModuleNotFoundError as error:
            raise missing_package(error, self._extra) from None

    def _joined(self, parts: Iterable[PartitionCodes], return_meta: bool) -> Any:
        """Return the results of all partitions, in their order; raise the first error."""
        arrays, faults, width = [], Counter[str](), len(self._functions)
        for part in parts:
            if part.error is not None:
                raise _unpickled(part.error)
            arrays.append(np.frombuffer(part.codes, part.kind).reshape(part.rows, width))
            faults.update(part.faults)
        codes: NDArray[np.int64] = np.concatenate([np.zeros((0, width), np.int64), *arrays], dtype=np.int64)
        return self._result(codes, faults, return_meta)


def partition_codes(packed: bytes, rows: Rows, fault_tolerant: bool) -> PartitionCodes:
    """Return the results of packed functions for the rows of a partition."""
    given, functions = _functions(packed)
    try:
        codes, faults = evaluate_codes(given, functions, validate_rows(rows), fault_tolerant)
    except (Exception, SystemExit) as error:  # a function that exits must not end a worker
        return PartitionCodes(0, b"", "int8", {}, _pickled_error(error))
    largest = int(codes.max(initial=0))  # the least is -1
    kind = next(kind for kind in (np.int8, np.int32, np.int64) if np.iinfo(kind).max >= largest)
    return PartitionCodes(len(codes), codes.astype(kind).tobytes(), np.dtype(kind).name, faults)


def dumps_by_value(value: Any) -> bytes:
    """Return a pickle with the functions of ``__main__`` as code; others are imported, or loaded from their files."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
        def reducer_override(self, each: Any) -> Any:
            # A decorated function is the value of its own name in __main__, which a worker does not have.
            if isinstance(each, (LabelingFunction, Preprocessor)) and _is_of_main(each):
                return object.__reduce_ex__(each, 2)
            return super().reducer_override(each)

    stream = io.BytesIO()
    Pickler(stream).dump(value)
    return stream.getvalue()


def missing_package(error: ModuleNotFoundError, extra: str) -> EngineError:
    """Return the error that names the extra to install."""
    return EngineError(f"{error.name} is not installed: run `pip install 'slicewatch[{extra}]'`")


def _is_of_main(each: Any) -> bool:
    f = getattr(each, "f", type(each))
    while hasattr(f, "func"):
        f = f.func
    return getattr(f, "__module__", None) == "__main__"


def _unpickled(packed: bytes) -> Any:
    import cloudpickle

    return cloudpickle.loads(packed)


_functions = lru_cache(maxsize=4)(_unpickled)  # a worker keeps the functions, and with them the memoized results


def _pickled_error(error: Exception | SystemExit) -> bytes:
    try:
        packed = dumps_by_value(error)
        _unpickled(packed)
    except Exception:  # an exception may be impossible to pickle, or to make again
        packed = dumps_by_value(EngineError(f"{type(error).__name__}: {error}"))
    return packed
