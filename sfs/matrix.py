"""Slice matrix: memberships of rows in slices, known and unknown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sfs.errors import DuplicateName, SliceError, UnknownName
from sfs.intervals import Rate

BoolMatrix = NDArray[np.bool_]


class SliceMatrix:
    """Memberships of N rows in K named slices: member, not member, or unknown.

    Parameters
    ----------
    names
        K distinct slice names.
    member
        bool[N, K], true for a known member.
    unknown
        bool[N, K], true for an unknown membership; all false by default.

    Raises
    ------
    DuplicateName
        If two slices share a name.
    SliceError
        If a shape is wrong, or an entry is both member and unknown.
    """

    __slots__ = ("_index", "member", "names", "unknown")

    def __init__(self, names: Iterable[str], member: ArrayLike, unknown: ArrayLike | None = None) -> None:
        self.names: tuple[str, ...] = tuple(names)
        self.member: BoolMatrix = _frozen(member)
        self.unknown: BoolMatrix = _frozen(np.zeros_like(self.member) if unknown is None else unknown)
        self._index = {name: k for k, name in enumerate(self.names)}
        if len(self._index) != len(self.names):
            raise DuplicateName(f"slice names must be distinct, got {list(self.names)}")
        for name, array in (("member", self.member), ("unknown", self.unknown)):
            if array.ndim != 2 or array.shape[1] != len(self.names):
                raise SliceError(
                    f"{name} must have shape [N, {len(self.names)}] to match the names, got {list(array.shape)}"
                )
        if self.member.shape != self.unknown.shape:
            raise SliceError(f"member has shape {self.member.shape}, but unknown has shape {self.unknown.shape}")
        if bool((self.member & self.unknown).any()):
            raise SliceError("an entry is both member and unknown: set member to False for unknown entries")

    def __len__(self) -> int:
        return len(self.member)

    def __repr__(self) -> str:
        return f"SliceMatrix({len(self)} rows, slices={list(self.names)})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SliceMatrix)
            and self.names == other.names
            and np.array_equal(self.member, other.member)
            and np.array_equal(self.unknown, other.unknown)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays are not hashable

    def position(self, name: str) -> int:
        """Return the column position of a slice; raise UnknownName if it is absent."""
        if name not in self._index:
            raise UnknownName(f"no slice {name!r}; the slices are {list(self.names)}")
        return self._index[name]

    def column(self, name: str) -> BoolMatrix:
        """Return bool[N], the known members of one slice."""
        return self.member[:, self.position(name)]

    def coverage(self) -> dict[str, Rate]:
        """Return the coverage of every slice: members as a rate of the rows of known membership."""
        members = self.member.sum(axis=0)
        known = (~self.unknown).sum(axis=0)
        return {name: Rate(int(m), int(n)) for name, m, n in zip(self.names, members, known, strict=True)}

    def take(self, rows: ArrayLike | slice) -> SliceMatrix:
        """Return the matrix of selected rows, by positions or a bool[N] mask.

        Raises
        ------
        SliceError
            If the positions or the mask have another number of dimensions than one.
        """
        chosen = rows if isinstance(rows, slice) else np.asarray(rows)
        if not isinstance(chosen, slice) and chosen.ndim != 1:
            raise SliceError(f"take needs a list of positions or a mask bool[N], got an array of shape {chosen.shape}")
        return self._with(self.names, self.member[chosen], self.unknown[chosen], self._index)

    def align(self, names: Sequence[str]) -> SliceMatrix:
        """Return the matrix with the given slice names, in order; an absent slice is unknown in every row."""
        index = {name: k for k, name in enumerate(names)}
        if len(index) != len(names):
            raise DuplicateName(f"slice names must be distinct, got {list(names)}")
        if index.keys() <= self._index.keys():
            at = np.array([self._index[name] for name in names], dtype=np.intp)
            # By rows in memory, unlike `[:, at]`: sums of a training would have other last digits.
            return self._with(tuple(names), self.member.take(at, axis=1), self.unknown.take(at, axis=1), index)
        member = np.zeros((len(self), len(names)), dtype=bool)
        unknown = np.ones_like(member)
        for name, k in index.items():
            if name in self._index:
                member[:, k] = self.member[:, self._index[name]]
                unknown[:, k] = self.unknown[:, self._index[name]]
        return self._with(tuple(names), member, unknown, index)

    @classmethod
    def _with(
        cls, names: tuple[str, ...], member: BoolMatrix, unknown: BoolMatrix, index: dict[str, int]
    ) -> SliceMatrix:
        """Return a matrix of arrays that are valid and not shared: every request makes some."""
        matrix = object.__new__(cls)
        member.flags.writeable = unknown.flags.writeable = False
        matrix.names, matrix.member, matrix.unknown, matrix._index = names, member, unknown, index
        return matrix

    def to_recarray(self) -> np.recarray:
        """Return Snorkel's recarray: one int64 field per slice, 1 for member, 0 for not member, -1 for unknown."""
        codes = np.where(self.unknown, -1, self.member.astype(np.int64))  # [N, K]
        out = np.recarray((len(self),), dtype=[(name, np.int64) for name in self.names])
        for k, name in enumerate(self.names):
            out[name] = codes[:, k]
        return out

    @classmethod
    def from_recarray(cls, S: np.recarray) -> SliceMatrix:
        """Create a slice matrix from Snorkel's recarray: 1 for member, 0 for not member, -1 for unknown.

        Raises
        ------
        SliceError
            If S is no record array, or a field holds any other value.
        """
        if not isinstance(S, np.ndarray) or (S.dtype.names is None and S.dtype.kind != "V"):
            got = "an array without names" if isinstance(S, np.ndarray) else f"a {type(S).__name__}"
            raise SliceError(
                f"memberships must be a record array with the name of every slice, as an applier returns, got {got}: "
                "pass that, or SliceMatrix(names, S == 1, S == -1)"
            )
        names = S.dtype.names or ()
        codes = np.stack([np.asarray(S[name]) for name in names], axis=1) if names else np.zeros((len(S), 0))
        if not np.isin(codes, (-1, 0, 1)).all():
            bad = codes[~np.isin(codes, (-1, 0, 1))].flat[0]
            raise SliceError(f"values must be 1, 0 or -1 (unknown), got {bad!r}")
        return cls(names, codes == 1, codes == -1)

    @classmethod
    def empty(cls, rows: int) -> SliceMatrix:
        """Create a matrix of N rows and no slices."""
        return cls((), np.zeros((rows, 0), dtype=bool))


def _frozen(array: ArrayLike) -> BoolMatrix:
    given = np.asarray(array)
    if given.dtype != np.bool_:
        raise SliceError(
            f"a slice matrix must be boolean, got {given.dtype}: convert Snorkel's -1/0/1 with from_recarray"
        )
    out: BoolMatrix = given.copy()
    out.flags.writeable = False
    return out
