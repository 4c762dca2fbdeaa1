"""Columnar evaluation of templates: every field is read once, every distinct predicate evaluated once.

Predicates that read one field in the same way form a group. A group sets the members in bool[N, P] and returns
the unreadable rows: rows with a value of the wrong type, or without the field. A row with a missing value is
neither a member nor unknown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from itertools import accumulate
from numbers import Real
from operator import and_, or_
from time import perf_counter
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from sfs.grammar import Spec, leaves, limits
from sfs.metering import OUT_OF_TIME, Meter
from sfs.patterns import ARROW_ROWS, PatternSet, TextColumn, with_case_flag, words_pattern
from sfs.record import ABSENT, Columns, text_of

BoolMatrix = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
LeafColumns: TypeAlias = Sequence[bool] | BoolMatrix
ValuesT = TypeVar("ValuesT")

WRONG_TYPE = "wrong type"
ABSENT_FIELD = "absent field"

_JOIN = {"all": and_, "any": or_}
_MAX_SPLIT_WORDS = 64  # up to this bound, splitting stops early, and large batches use a search
_MAX_SEARCHES = 3
_SPACE = "".join(rf"\x{{{code:x}}}" for code in range(0x3001) if chr(code).isspace())
_MORE_WORDS = rf"(?:[^{_SPACE}]+[{_SPACE}]+){{%d}}[^{_SPACE}]"
"""RE2 pattern for a text of more than %d words, separated as in ``str.split``; no space is above U+3000."""


@dataclass(frozen=True, slots=True)
class TemplateResults:
    """Results of T templates for N rows.

    Parameters
    ----------
    member
        bool[N, T].
    unknown
        bool[N, T]; never true with ``member``.
    seconds
        float[T], time per template; the time of a group is divided among its templates.
    faults
        T mappings of the reason to the number of unknown rows.
    first_faults
        T descriptions of the first unknown row, or None.
    """

    member: BoolMatrix
    unknown: BoolMatrix
    seconds: FloatArray
    faults: tuple[Mapping[str, int], ...]
    first_faults: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class _LeafResults:
    """Results of L leaves for N rows."""

    member: BoolMatrix  # [N, L]
    unknown: BoolMatrix  # [N, L]
    seconds: FloatArray  # [G], one per group
    any_unknown: bool
    unmatched: Mapping[int, NDArray[np.intp]]  # rows that the meter left out, by leaf


class TemplatePlan:
    """Compiled plan of T templates, evaluated together.

    Parameters
    ----------
    specs
        Canonical templates, in the order of the results' columns.

    Attributes
    ----------
    fields
        Columns that the templates read.
    """

    def __init__(self, specs: Iterable[Spec]) -> None:
        specs = list(specs)
        grouped: dict[tuple[str, str, str], dict[str, Spec]] = {}  # distinct leaves by source
        for spec in specs:
            for leaf in leaves(spec):
                grouped.setdefault(_source_of(leaf), {})[leaf_key(leaf)] = leaf
        self.fields = frozenset(
            body["field"] for group in grouped.values() for leaf in group.values() for body in leaf.values()
        )
        self._groups = [_group_of(source, list(group.values())) for source, group in grouped.items()]
        sizes = [len(group) for group in grouped.values()]
        self._spans = [slice(end - size, end) for end, size in zip(accumulate(sizes), sizes, strict=True)]
        self._group_of_leaf = [g for g, size in enumerate(sizes) for _ in range(size)]
        keys = [key for group in grouped.values() for key in group]
        self._position = {key: position for position, key in enumerate(keys)}
        self._trees = [self._tree(spec) for spec in specs]
        self._uses = [tuple(self._position[leaf_key(leaf)] for leaf in leaves(spec)) for spec in specs]
        self._first_uses = np.array([used[0] for used in self._uses], dtype=np.intp)
        self._composite = [t for t, tree in enumerate(self._trees) if not isinstance(tree, int)]
        # float[G, T]: the time of a group is divided among its leaves, and that of a leaf among its templates
        users = np.zeros((len(keys), len(specs)))  # [L, T]
        for t, used in enumerate(self._uses):
            users[list(used), t] = 1.0
        self._users = [np.flatnonzero(row).tolist() for row in users]
        self._time_shares = np.zeros((len(self._groups), len(specs)))
        for leaf_position, g in enumerate(self._group_of_leaf):
            self._time_shares[g] += users[leaf_position] / users[leaf_position].sum() / sizes[g]

    def evaluate(self, columns: Columns, meter: Meter | None = None) -> TemplateResults:
        """Return the results of the T templates for N rows.

        The meter bounds the time: a row whose patterns it stopped is unknown, unless other parts determine it.

        Raises
        ------
        UnknownName
            If the rows are a data frame without a column that a template reads; raised before any evaluation.
        """
        results = self._evaluate_leaves(columns, meter)
        member, unknown = self._combine(results)
        faults, first_faults = self._faults(results, unknown, columns, meter)
        return TemplateResults(member, unknown, results.seconds @ self._time_shares, faults, first_faults)

    def memberships(self, columns: Columns) -> tuple[BoolMatrix, BoolMatrix]:
        """Return only the member and unknown matrices; faster than ``evaluate`` for a single row."""
        return self._combine(self._evaluate_leaves(columns))

    def _evaluate_leaves(self, columns: Columns, meter: Meter | None = None) -> _LeafResults:
        for field in self.fields:
            columns.field(field)
        if meter is not None:
            meter.begin(self._users, len(self._trees))
        reader = _FieldReader(columns)
        member = np.zeros((len(columns), len(self._position)), dtype=bool, order="F")  # [N, L]
        unknown = np.zeros_like(member)
        seconds = np.zeros(len(self._groups))
        any_unknown = False
        unmatched: dict[int, NDArray[np.intp]] = {}
        for g, (group, span) in enumerate(zip(self._groups, self._spans, strict=True)):
            start = perf_counter()
            if isinstance(group, _TextGroup) and meter is not None:
                unreadable, missed = group.match(reader, member[:, span], _GroupMeter(meter, span.start))
                for p, rows in missed.items():
                    unmatched[span.start + p] = rows
                    unknown[rows, span.start + p] = any_unknown = True
            else:
                unreadable = group.evaluate(reader, member[:, span])
            if unreadable:
                unknown[unreadable, span] = any_unknown = True
            seconds[g] = perf_counter() - start
        return _LeafResults(member, unknown, seconds, any_unknown, unmatched)

    def _combine(self, results: _LeafResults) -> tuple[BoolMatrix, BoolMatrix]:
        certain = results.member
        possible = certain | results.unknown if results.any_unknown else certain
        member = self._combine_trees(certain, possible)
        if not results.any_unknown:
            return member, np.zeros(member.shape, dtype=bool)
        return member, self._combine_trees(possible, certain) & ~member

    def _combine_trees(self, certain: BoolMatrix, possible: BoolMatrix) -> BoolMatrix:
        """Return bool[N, T], the certain members of the templates."""
        out = certain[:, self._first_uses]  # [N, T]
        columns: list[LeafColumns] = [
            matrix[0].tolist() if len(matrix) == 1 else matrix.T  # plain booleans are faster for one row
            for matrix in (certain, possible)
        ]
        for t in self._composite:
            out[:, t] = _certain_rows(self._trees[t], *columns)
        return out

    def _faults(
        self, results: _LeafResults, unknown: BoolMatrix, columns: Columns, meter: Meter | None
    ) -> tuple[tuple[Mapping[str, int], ...], tuple[str | None, ...]]:
        """Return the number of unknown rows by reason, and the first unknown row, of every template."""
        if not results.any_unknown:
            return ({},) * len(self._trees), (None,) * len(self._trees)
        faults: list[Mapping[str, int]] = [{} for _ in self._trees]
        first_faults: list[str | None] = [None for _ in self._trees]
        absent: dict[str, NDArray[np.bool_]] = {}  # bool[N] per field that is absent in some rows
        for field in {group.field for group in self._groups} - {""}:
            rows = np.array([value is ABSENT for value in columns.field(field)])
            if rows.any():
                absent[field] = rows
        for t in np.flatnonzero(unknown.any(axis=0)).tolist():
            late = OUT_OF_TIME if meter is None else meter.reason(t)
            faults[t] = self._reasons(t, results, unknown[:, t], absent, late)
            first_faults[t] = self._describe(t, int(np.argmax(unknown[:, t])), results, columns, late)
        return tuple(faults), tuple(first_faults)

    def _reasons(
        self,
        t: int,
        results: _LeafResults,
        unknown: NDArray[np.bool_],
        absent: Mapping[str, NDArray[np.bool_]],
        late: str,
    ) -> dict[str, int]:
        """Count the unknown rows of a template; the first unknown leaf of a row determines the reason."""
        count, lacking, unmatched = int(unknown.sum()), 0, 0
        if absent or results.unmatched:
            rest = unknown.copy()
            for leaf in self._uses[t]:
                here = rest & results.unknown[:, leaf]
                rest ^= here
                unmatched += int(here[results.unmatched[leaf]].sum()) if leaf in results.unmatched else 0
                field = self._groups[self._group_of_leaf[leaf]].field
                lacking += int((here & absent[field]).sum()) if field in absent else 0
        counts = {ABSENT_FIELD: lacking, late: unmatched, WRONG_TYPE: count - lacking - unmatched}
        return {reason: n for reason, n in counts.items() if n}

    def _describe(self, t: int, row: int, results: _LeafResults, columns: Columns, late: str) -> str:
        leaf = next(p for p in self._uses[t] if results.unknown[row, p])
        if leaf in results.unmatched and row in results.unmatched[leaf]:
            return f"row {row}: {late}"
        group = self._groups[self._group_of_leaf[leaf]]
        value = columns.field(group.field)[row]
        if value is ABSENT:
            return f"row {row}: {ABSENT_FIELD}: the record has no {group.field!r}: use null for a missing value"
        kind = type(value).__name__
        return f"row {row}: {WRONG_TYPE}: {group.field!r} must be {group.expected}, got {kind}"

    def _tree(self, spec: Spec) -> Any:
        """Return a leaf's position, or (kind, parts)."""
        kind, body = next(iter(spec.items()))
        if kind in ("all", "any"):
            return kind, [self._tree(part) for part in body]
        if kind == "not":
            return kind, [self._tree(body)]
        return self._position[leaf_key(spec)]


def _certain_rows(tree: Any, certain: LeafColumns, possible: LeafColumns) -> Any:
    """Return bool[N], the certain members of a tree, by Kleene's strong three-valued logic.

    ``certain`` holds the members of the leaves, ``possible`` their members and unknown rows. With the two
    swapped, the result holds the members and unknown rows of the tree.
    """
    if isinstance(tree, int):
        return certain[tree]
    kind, parts = tree
    if kind == "not":
        return _certain_rows(parts[0], possible, certain) ^ True
    return reduce(_JOIN[kind], [_certain_rows(part, certain, possible) for part in parts])


def leaf_key(leaf: Spec) -> str:
    """Return a text that only equal leaves share."""
    return json.dumps(leaf, sort_keys=True)


@dataclass(frozen=True, slots=True)
class _Readable(Generic[ValuesT]):
    """Readable values of one field."""

    values: ValuesT  # excludes missing values and values of the wrong type
    rows: NDArray[np.intp] | slice  # positions of the values
    unreadable: Sequence[int]  # positions of rows with a value of the wrong type, or without the field


class _FieldReader:
    """Reader of the fields of N rows as text or as numbers, cached."""

    def __init__(self, columns: Columns) -> None:
        self.values = columns.field
        self._texts: dict[str, _Readable[TextColumn]] = {}
        self._numbers: dict[str, _Readable[FloatArray]] = {}

    def texts(self, field: str) -> _Readable[TextColumn]:
        if field not in self._texts:
            values = self.values(field)
            if set(map(type, values)) <= {str}:
                self._texts[field] = _Readable(TextColumn(values), slice(None), ())
            else:
                rows = [row for row, value in enumerate(values) if isinstance(value, str)]
                readable = TextColumn([str(values[row]) for row in rows])
                self._texts[field] = _readable(values, rows, readable)
        return self._texts[field]

    def numbers(self, field: str) -> _Readable[FloatArray]:
        if field not in self._numbers:
            values = self.values(field)
            if set(map(type, values)) <= {float}:
                self._numbers[field] = _Readable(np.array(values, dtype=np.float64), slice(None), ())
            else:
                numbers = [_number(value) for value in values]
                rows = [row for row, number in enumerate(numbers) if number is not None]
                readable = np.array([numbers[row] for row in rows], dtype=np.float64)
                self._numbers[field] = _readable(values, rows, readable)
        return self._numbers[field]


def _readable(values: list[Any], rows: list[int], readable: ValuesT) -> _Readable[ValuesT]:
    known = set(rows)
    unreadable = [row for row, value in enumerate(values) if value is not None and row not in known]
    return _Readable(readable, np.array(rows, dtype=np.intp), unreadable)


def _number(value: Any) -> float | None:
    """Return a number as a 64-bit float; None for a missing value, a boolean, and any other type."""
    if type(value) is float:
        return value
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (Real, Decimal)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf  # type: ignore[operator]
    except ValueError:  # a signalling NaN of decimal
        return None
    return None if math.isnan(number) else number


class _Group(Protocol):
    """Leaves evaluated together; a group reads one field, except for ``missing``."""

    field: str
    expected: str

    def evaluate(self, reader: _FieldReader, members: BoolMatrix) -> Sequence[int]:
        """Set the members in bool[N, P], initially all false, and return the unreadable rows."""
        ...


def _source_of(leaf: Spec) -> tuple[str, str, str]:
    """Return the properties that the leaves of one group share: engine, input, and field."""
    kind, body = next(iter(leaf.items()))
    field = body["field"]
    if kind == "keyword":
        return "text", "lowered", field
    if kind == "regex":
        return "text", "original", field
    if kind in ("length", "compare"):
        return "range", body.get("unit", "number"), field
    return kind, "", "" if kind == "missing" else field


def _group_of(source: tuple[str, str, str], group: Sequence[Spec]) -> _Group:
    """Return the group of the leaves of one source, in their order."""
    engine, reads, field = source
    bodies = [next(iter(leaf.values())) for leaf in group]
    if engine == "text":
        return _TextGroup(field, PatternSet([pattern_of(leaf) for leaf in group], lowered=reads == "lowered"))
    if engine == "range":
        return _RangeGroup(field, reads, bodies)
    if engine == "one_of":
        return _ChoiceGroup(field, [body["values"] for body in bodies])
    return _MissingGroup([body["field"] for body in bodies])


def pattern_of(leaf: Spec) -> str:
    """Return the RE2 pattern of a keyword or regex."""
    kind, body = next(iter(leaf.items()))
    if kind == "keyword":
        return words_pattern(body["words"], body["whole_word"])
    return with_case_flag(body["pattern"], body["ignore_case"])


class _GroupMeter:
    """Meter of the patterns of one group, whose leaves begin at a position."""

    def __init__(self, meter: Meter, first: int) -> None:
        self._meter, self._first = meter, first

    @property
    def is_detailed(self) -> bool:
        return self._meter.is_detailed

    def add_bytes(self, count: int) -> None:
        self._meter.text_bytes += count

    def note(self, patterns: Sequence[int], seconds: float, usual_seconds: float) -> None:
        self._meter.note(self._leaves(patterns), seconds, usual_seconds)

    def wants(self, pattern: int) -> bool:
        return self._meter.wants(self._first + pattern)

    def is_suspect(self, key: object, patterns: Sequence[int]) -> bool:
        return self._meter.is_suspect(key, self._leaves(patterns))

    def call(
        self, key: object, patterns: Sequence[int], work: int, usual_seconds: float, function: Callable[[], object]
    ) -> object:
        return self._meter.call(key, self._leaves(patterns), work, usual_seconds, function)

    def _leaves(self, patterns: Sequence[int]) -> Sequence[int]:
        if isinstance(patterns, range):
            return range(self._first + patterns.start, self._first + patterns.stop)
        return [self._first + p for p in patterns]


class _TextGroup:
    """Keywords and regular expressions over the text of one field."""

    expected = "text"

    def __init__(self, field: str, patterns: PatternSet) -> None:
        self.field = field
        self._patterns = patterns

    def evaluate(self, reader: _FieldReader, members: BoolMatrix) -> Sequence[int]:
        return self.match(reader, members)[0]

    def match(
        self, reader: _FieldReader, members: BoolMatrix, meter: _GroupMeter | None = None
    ) -> tuple[Sequence[int], dict[int, NDArray[np.intp]]]:
        """Return the unreadable rows, and the rows that the meter left out, by pattern."""
        texts = reader.texts(self.field)
        if isinstance(texts.rows, slice):
            missed = self._patterns.match(texts.values, members, meter)
            return texts.unreadable, {p: np.array(rows, dtype=np.intp) for p, rows in missed.items()}
        matched = np.zeros((len(texts.rows), members.shape[1]), dtype=bool)
        missed = self._patterns.match(texts.values, matched, meter)
        members[texts.rows] = matched
        return texts.unreadable, {p: texts.rows[rows] for p, rows in missed.items()}


class _RangeGroup:
    """Bounds on the number in one field, or on the length of its text in ``words`` or ``characters``."""

    def __init__(self, field: str, unit: str, bounds: Sequence[dict[str, float]]) -> None:
        self.field = field
        self.expected = "a number" if unit == "number" else "text"
        self._lows, self._highs = np.array([limits(each) for each in bounds]).T
        self._has_lows = bool(np.isfinite(self._lows).any())
        self._has_highs = bool(np.isfinite(self._highs).any())
        self._length: Callable[[TextColumn], FloatArray] | None = None
        if unit != "number":
            self._length = WordCounter(self._lows, self._highs) if unit == "words" else characters

    def evaluate(self, reader: _FieldReader, members: BoolMatrix) -> Sequence[int]:
        if self._length is None:
            numbers = reader.numbers(self.field)
            column, rows, unreadable = numbers.values[:, None], numbers.rows, numbers.unreadable
        else:
            texts = reader.texts(self.field)
            column, rows, unreadable = self._length(texts.values)[:, None], texts.rows, texts.unreadable
        # most groups have bounds on one side only
        within: BoolMatrix = column >= self._lows if self._has_lows else column <= self._highs  # [N, P]
        if self._has_lows and self._has_highs:
            within &= column <= self._highs
        members[rows] = within
        return unreadable


class _ChoiceGroup:
    """Listed values of one field, compared as canonical text."""

    expected = "text, a boolean or a number of finite size"

    def __init__(self, field: str, choices: Sequence[Iterable[str]]) -> None:
        self.field = field
        self._leaves: dict[str, list[int]] = {}
        for p, values in enumerate(choices):
            for value in values:
                self._leaves.setdefault(value, []).append(p)

    def evaluate(self, reader: _FieldReader, members: BoolMatrix) -> Sequence[int]:
        unreadable: list[int] = []
        rows: list[int] = []
        columns: list[int] = []
        for row, value in enumerate(reader.values(self.field)):
            if value is None:
                continue
            try:
                hits = self._leaves.get(value if type(value) is str else text_of(value))
            except TypeError:
                unreadable.append(row)
                continue
            if hits:
                rows += [row] * len(hits)
                columns += hits
        members[rows, columns] = True
        return unreadable


class _MissingGroup:
    """Rows without a value, or without the field, of P fields."""

    field = ""
    expected = "any value"

    def __init__(self, fields: Sequence[str]) -> None:
        self._fields = fields

    def evaluate(self, reader: _FieldReader, members: BoolMatrix) -> Sequence[int]:
        columns = [[value is None or value is ABSENT for value in reader.values(f)] for f in self._fields]
        members[:] = np.array(columns, dtype=bool).T  # [N, P]
        return ()


def characters(texts: TextColumn) -> FloatArray:
    """Return float64[N], the number of characters of each text."""
    return np.array([len(text) for text in texts.values], dtype=np.float64)


class WordCounter:
    """Counter of words as in ``str.split``, exact only as far as the bounds require.

    Parameters
    ----------
    lows, highs
        Lower and upper bounds on the count, inclusive; infinite bounds are ignored.
    """

    def __init__(self, lows: Iterable[float], highs: Iterable[float]) -> None:
        least = {math.ceil(low) for low in lows if math.isfinite(low)}
        beyond = {math.floor(high) + 1 for high in highs if math.isfinite(high)}
        self._steps = sorted(step for step in least | beyond if step > 0)
        most = self._steps[-1] if self._steps else 0
        self._max_splits = most - 1 if 0 < most <= _MAX_SPLIT_WORDS else -1
        self._can_search = self._max_splits >= 0 and len(self._steps) <= _MAX_SEARCHES

    def __call__(self, texts: TextColumn) -> FloatArray:
        """Return float64[N], values on the same side of every bound as the true word counts."""
        if not self._can_search or len(texts) < ARROW_ROWS:
            return np.array([len(text.split(None, self._max_splits)) for text in texts.values], dtype=np.float64)
        counts = np.zeros(len(texts))
        for step in self._steps:
            matched = pc.match_substring_regex(texts.original, _MORE_WORDS % (step - 1))
            counts[matched.to_numpy(zero_copy_only=False)] = step
        return counts
