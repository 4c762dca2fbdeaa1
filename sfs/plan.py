"""Many templates evaluated together over columns: a field is read once, a distinct question asked once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from operator import and_, or_
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sfs.grammar import Spec, leaves
from sfs.inputs import Inputs
from sfs.predicates import group_of, source_of
from sfs.record import ABSENT, Columns

if TYPE_CHECKING:
    from sfs.template import Template

BoolMatrix = NDArray[np.bool_]
Columned: TypeAlias = Sequence[bool] | BoolMatrix
WRONG_TYPE = "wrong type"
ABSENT_FIELD = "absent field"
_JOIN = {"all": and_, "any": or_}


@dataclass(frozen=True, slots=True)
class PlanResult:
    """What T templates answer for N rows.

    Parameters
    ----------
    member
        bool[N, T].
    unknown
        bool[N, T]; never true where ``member`` is.
    seconds
        float[T], the time of each template: its share of every group of questions that it asks.
    faults
        T mappings of the reason to the number of unknown rows.
    first_faults
        T descriptions of the first unknown row, or None.
    """

    member: BoolMatrix
    unknown: BoolMatrix
    seconds: NDArray[np.float64]
    faults: tuple[Mapping[str, int], ...]
    first_faults: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class _Answers:
    """What L leaves answer for N rows."""

    member: BoolMatrix  # [N, L]
    unknown: BoolMatrix  # [N, L]
    seconds: NDArray[np.float64]  # [G], one per group
    any_unknown: bool


class Plan:
    """T templates, compiled to be evaluated together.

    Parameters
    ----------
    templates
        The templates, in the order of the answer's columns.

    Attributes
    ----------
    fields
        The columns that the templates read.
    """

    def __init__(self, templates: Sequence[Template]) -> None:
        specs = [template.spec for template in templates]
        grouped = _grouped([leaf for spec in specs for leaf in leaves(spec)])
        laid_out = [(g, key, leaf) for g, found in enumerate(grouped.values()) for key, leaf in found.items()]
        self.fields = frozenset(leaf[kind]["field"] for _, _, leaf in laid_out for kind in leaf)
        self._groups = [group_of(source, list(found.values())) for source, found in grouped.items()]
        self._spans = _spans([len(found) for found in grouped.values()])
        self._group_of_leaf = [g for g, _, _ in laid_out]
        self._position = {key: p for p, (_, key, _) in enumerate(laid_out)}
        self._trees = [self._tree(spec) for spec in specs]
        self._uses = [tuple(self._position[_key(leaf)] for leaf in leaves(spec)) for spec in specs]
        self._first_uses = np.array([used[0] for used in self._uses], dtype=np.intp)
        self._composite = [t for t, tree in enumerate(self._trees) if not isinstance(tree, int)]
        self._shares = self._time_shares()

    def evaluate(self, columns: Columns) -> PlanResult:
        """Return the answers of the T templates for N rows.

        Raises
        ------
        UnknownName
            If the rows are a data frame without a column that a template reads; before any work.
        """
        answers = self._ask(columns)
        member, unknown = self._combine(answers)
        faults, first_faults = self._faults(answers, unknown, columns)
        return PlanResult(member, unknown, answers.seconds @ self._shares, faults, first_faults)

    def memberships(self, columns: Columns) -> tuple[BoolMatrix, BoolMatrix]:
        """Return member and unknown of ``evaluate`` alone, which for one row takes less time."""
        return self._combine(self._ask(columns))

    def _ask(self, columns: Columns) -> _Answers:
        for field in self.fields:
            columns.field(field)
        inputs = Inputs(columns)
        member = np.zeros((len(columns), len(self._position)), dtype=bool, order="F")  # [N, L]
        unknown = np.zeros_like(member)
        seconds = np.zeros(len(self._groups))
        any_unknown = False
        for g, (group, span) in enumerate(zip(self._groups, self._spans, strict=True)):
            start = perf_counter()
            if wrong := group.evaluate(inputs, member[:, span]):
                unknown[wrong, span] = any_unknown = True
            seconds[g] = perf_counter() - start
        return _Answers(member, unknown, seconds, any_unknown)

    def _combine(self, answers: _Answers) -> tuple[BoolMatrix, BoolMatrix]:
        sure = answers.member
        possible = sure | answers.unknown if answers.any_unknown else sure
        member = self._templates(sure, possible)
        if not answers.any_unknown:
            return member, np.zeros(member.shape, dtype=bool)
        return member, self._templates(possible, sure) & ~member

    def _templates(self, sure: BoolMatrix, possible: BoolMatrix) -> BoolMatrix:
        """Return bool[N, T], what the templates are sure of."""
        out = sure[:, self._first_uses]  # [N, T]
        sure_columns, possible_columns = _columns(sure), _columns(possible)
        for t in self._composite:
            out[:, t] = _sure(self._trees[t], sure_columns, possible_columns)
        return out

    def _faults(
        self, answers: _Answers, unknown: BoolMatrix, columns: Columns
    ) -> tuple[tuple[Mapping[str, int], ...], tuple[str | None, ...]]:
        if not answers.any_unknown:
            return ({},) * len(self._trees), (None,) * len(self._trees)
        absent = _absent_rows(columns, {group.field for group in self._groups} - {""})
        some = [bool(each.any()) for each in unknown.T]
        faults = tuple(
            self._reasons(t, answers, unknown[:, t], absent) if some[t] else {} for t in range(len(some))
        )
        first = tuple(
            self._describe(t, answers, unknown, columns) if some[t] else None for t in range(len(some))
        )
        return faults, first

    def _reasons(
        self, t: int, answers: _Answers, unknown: NDArray[np.bool_], absent: Mapping[str, NDArray[np.bool_]]
    ) -> dict[str, int]:
        """Count the unknown rows of a template by what the first leaf that is unknown there lacks."""
        count, lacking = int(unknown.sum()), 0
        if absent:
            rest = unknown.copy()
            for leaf in self._uses[t]:
                here = rest & answers.unknown[:, leaf]
                rest ^= here
                field = self._groups[self._group_of_leaf[leaf]].field
                lacking += int((here & absent[field]).sum()) if field in absent else 0
        counts = {ABSENT_FIELD: lacking, WRONG_TYPE: count - lacking}
        return {reason: n for reason, n in counts.items() if n}

    def _describe(self, t: int, answers: _Answers, unknown: BoolMatrix, columns: Columns) -> str:
        row = int(np.argmax(unknown[:, t]))
        leaf = next(p for p in self._uses[t] if answers.unknown[row, p])
        group = self._groups[self._group_of_leaf[leaf]]
        value = columns.field(group.field)[row]
        if value is ABSENT:
            return f"row {row}: {ABSENT_FIELD}: the record has no {group.field!r}: give null if there is no value"
        return f"row {row}: {WRONG_TYPE}: {group.field!r} must hold {group.wants}, got {type(value).__name__}"

    def _tree(self, spec: Spec) -> Any:
        """Return a leaf's position, or (kind, parts)."""
        kind, body = next(iter(spec.items()))
        if kind in ("all", "any"):
            return kind, [self._tree(part) for part in body]
        if kind == "not":
            return kind, [self._tree(body)]
        return self._position[_key(spec)]

    def _time_shares(self) -> NDArray[np.float64]:
        """Return float[G, T]: a group's time, split over its leaves and theirs over their users."""
        users = np.zeros((len(self._position), len(self._trees)))  # [L, T]
        for t, used in enumerate(self._uses):
            users[list(used), t] = 1.0
        shares = np.zeros((len(self._groups), len(self._trees)))
        for leaf, g in enumerate(self._group_of_leaf):
            shares[g] += users[leaf] / users[leaf].sum() / self._group_of_leaf.count(g)
        return shares


def _absent_rows(columns: Columns, fields: Iterable[str]) -> dict[str, NDArray[np.bool_]]:
    """Return bool[N], the rows that lack a field, for every field that some row lacks."""
    found = {field: [value is ABSENT for value in columns.field(field)] for field in fields}
    return {field: np.array(lacking) for field, lacking in found.items() if any(lacking)}


def _grouped(asked: Sequence[Spec]) -> dict[tuple[str, str, str], dict[str, Spec]]:
    """Return the distinct leaves by what they read."""
    grouped: dict[tuple[str, str, str], dict[str, Spec]] = {}
    for leaf in asked:
        grouped.setdefault(source_of(leaf), {})[_key(leaf)] = leaf
    return grouped


def _spans(sizes: Sequence[int]) -> list[slice]:
    """Return the columns of each group, side by side."""
    ends = list(accumulate(sizes))
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _columns(matrix: BoolMatrix) -> Columned:
    """Return L columns that &, | and ^ work on: bool[N] each, or for one row plain booleans, which cost less."""
    return matrix[0].tolist() if len(matrix) == 1 else matrix.T


def _sure(tree: Any, sure: Columned, possible: Columned) -> Any:
    """Return bool[N], the rows of which a tree is sure, by Kleene's strong three-valued logic.

    ``sure`` and ``possible`` are what the leaves are sure of, and what they do not rule out; exchanged, they
    give what the tree does not rule out.
    """
    if isinstance(tree, int):
        return sure[tree]
    kind, parts = tree
    if kind == "not":
        return _sure(parts[0], possible, sure) ^ True
    return reduce(_JOIN[kind], [_sure(part, sure, possible) for part in parts])


def _key(leaf: Spec) -> str:
    return json.dumps(leaf, sort_keys=True)
