"""Scan of a data set: one pass over its rows and labels, and a guess of the kind of each column."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, time, timedelta
from typing import TYPE_CHECKING, Any

from service.cli.project import blank_rows, feature_specs, project_source
from service.errors import MisuseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pandas as pd

    from service.settings.schema import Settings

SAMPLE_ROWS = 1000
SAMPLE_SEED = 0
LABEL_NAMES = ("label", "class", "target", "y")
MAX_CLASSES = 50
MAX_CATEGORIES = 100
MAX_CATEGORY_CHARACTERS = 60
MAX_NAME_CHARACTERS = 200
MAX_NUMBER = 10**300
MIN_ROWS = 20
_ID_NAME = re.compile(r"(^|[\W_])(id|uuid|guid|key|index|idx|nr|no|row|rownum|unnamed: ?\d+|level_\d+)$", re.IGNORECASE)
_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ]\d{1,2}:\d{2}.*)?")
_NUMBER = re.compile(r"[+-]?([1-9]\d*|0)(\.\d+)?")
_DIGITS = r"(?:[1-9]\d{0,2}(?:[,.'’_ \u00a0\u202f]\d{2,3})*[,.'’_ \u00a0\u202f]\d{3}|0|[1-9]\d*)(?:[.,]\d+)?"
_CURRENCY = r"(?:[$€£¥₹₽₩₺¢]|[A-Za-z]{2,3}\$?|kr\.?)"
_SPELLED_NUMBER = re.compile(
    rf"[(+\-−]?\s?(?:{_CURRENCY}\s?)?[+\-−]?{_DIGITS}\s?(?:%|‰|{_CURRENCY})?[)\-]?", re.IGNORECASE
)
_A_DATE = "it is a date; derive a number or a category from it"


@dataclass(frozen=True, slots=True)
class DatasetScan:
    """Result of one pass over all rows.

    Attributes
    ----------
    rows
        Number of rows.
    first, sample
        The first batch, and a uniform random sample of all rows.
    contents
        Hashes of the sample's contents; None if a feature cannot be read.
    classes
        The classes of the label.
    never_missing
        Columns that have a value in every row.
    remarks
        Limits of the split into training, validation and held-out rows.
    unlabelled
        Rows without a label, which functions label.
    """

    rows: int
    first: pd.DataFrame
    sample: pd.DataFrame
    contents: Any
    classes: tuple[str, ...]
    never_missing: frozenset[str]
    remarks: tuple[str, ...]
    unlabelled: int


def scan(
    settings: Settings,
    problems: list[str],
    progress: Callable[[str, float], object] = lambda stage, share: None,
) -> DatasetScan | None:
    """Read all rows once, in bounded memory, and append problems; None if the rows cannot be read."""
    import numpy as np
    import pandas as pd

    from models.errors import ModelError
    from sfs.errors import SliceError

    random = np.random.default_rng(SAMPLE_SEED)
    rows, first, keys, sample = 0, None, np.empty(0), None
    labels, features = _LabelScan(settings.label, settings.labels_from_functions), _FeatureScan(settings)
    missing: set[str] = set()
    schema, faults = settings.table_schema, dict[str, str]()
    try:
        source = project_source(settings)
        total = source.total() if settings.data.is_file() else None
        for batch in source.batches():
            batch.index = pd.RangeIndex(rows, rows + len(batch))  # messages name rows of the table
            faults = schema.faults(batch) | faults
            if first is None:
                first, settled = batch, schema.completed(batch, settings.features)
            batch = settled.parse_frame(batch)  # as `train` reads it
            labels.add(batch)
            features.add(batch)
            missing |= {str(name) for name, absent in batch.isna().any().items() if absent}
            rows += len(batch)
            keys, sample = _smallest_keys(keys, sample, random.random(len(batch)), batch)
            progress("reading", rows / total if total else 0.0)
    except (SliceError, ModelError, OSError) as error:
        problems.append(f"data: {error}")
        sample = None
    if first is not None:
        problems += [f"data: {fault}" for fault in faults.values()]
        problems += labels.problems(rows)
        problems += [f"features: {each}" for column, each in features.problems.items() if column not in faults]
    if first is None or sample is None:
        return None
    remarks: tuple[str, ...] = ()
    hashes = features.hashes()
    if labels.are_sound and hashes is not None:
        from models.function_labels import PartialLabels

        try:
            remarks = PartialLabels.of(labels.labels, settings.label).split(hashes).remarks
        except ModelError as error:
            problems.append(f"label: {error}")
    never_missing = frozenset(map(str, first.columns)) - missing
    contents, sample = None if hashes is None else hashes[sample.index], sample.reset_index(drop=True)
    unlabelled = labels.labels.count(None)
    return DatasetScan(rows, first, sample, contents, tuple(labels.classes), never_missing, remarks, unlabelled)


class _LabelScan:
    """Labels of all rows, batch after batch; with ``partial``, rows may have none."""

    def __init__(self, column: str, partial: bool) -> None:
        self.column, self._is_partial = column, partial
        self.labels: list[str | None] = []
        self.classes: dict[str, str] = {}
        self._blank: list[int] = []
        self._error: str | None = None
        self._is_absent = False

    def add(self, batch: pd.DataFrame) -> None:
        """Add a batch; a missing column is another problem."""
        from models.classes import read_known_labels
        from models.errors import ModelError

        if self.column not in map(str, batch.columns):
            self._is_absent = True
            return
        try:
            read = read_known_labels(batch, self.column)
        except ModelError as error:
            self._error = self._error or str(error)
        else:
            # One text a class, however many rows it has.
            self.labels += [label and self.classes.setdefault(label, label) for label in read]
        if not self._is_partial:
            self._blank += batch.index[blank_rows(batch[self.column])].tolist()

    @property
    def are_sound(self) -> bool:
        """Whether every row has a label that can be read."""
        return not (self._is_absent or self._blank or self._error or len(self.classes) < 2)

    def problems(self, rows: int) -> Iterator[str]:
        """Yield the problems of the labels of all rows."""
        from models.classes import class_names
        from models.errors import ModelError

        if self._is_absent:
            return
        if self._error is None and not self.are_sound:
            try:
                class_names(list(self.classes), self.column)
            except ModelError as error:
                self._error = str(error)
        if self._error:
            yield f"label: {self._error}"
        if self._blank:
            yield (
                f"label: {len(self._blank):,} of {rows:,} rows have no {self.column!r}, first in row "
                f"{self._blank[0]} (from 0): fill them in or remove those rows"
            )


class _FeatureScan:
    """Features of all rows, batch after batch: the first problem of every column, and hashes of the contents."""

    def __init__(self, settings: Settings) -> None:
        self.problems: dict[str, str] = {}
        self._specs = feature_specs(settings)
        self._refused: set[str] = set()
        self._hashes: list[Any] = []

    def add(self, batch: pd.DataFrame) -> None:
        """Add a batch; a missing column is another problem."""
        from models.errors import ModelError
        from models.features import Featurizer
        from models.splits import content_hashes

        names = set(map(str, batch.columns))
        self._refused |= {spec.column for spec in self._specs if spec.column not in names}
        for spec in self._specs:
            if spec.column not in self._refused:
                try:
                    Featurizer([spec]).fit(batch[[spec.column]])
                except ModelError as error:
                    self.problems[spec.column] = str(error)
                    self._refused.add(spec.column)
        if not self._refused:
            self._hashes.append(content_hashes(batch, self._specs))

    def hashes(self) -> Any:
        """Return uint64[N], or None if a feature could not be read."""
        import numpy as np

        return None if self._refused or not self._specs else np.concatenate(self._hashes)


def _smallest_keys(
    keys: Any, sample: pd.DataFrame | None, new_keys: Any, batch: pd.DataFrame
) -> tuple[Any, pd.DataFrame]:
    """Return the rows of a sample and a batch with the smallest random keys, in file order."""
    import numpy as np
    import pandas as pd

    keys = np.concatenate([keys, new_keys])
    chosen = np.sort(np.argsort(keys, kind="stable")[:SAMPLE_ROWS])
    old = len(keys) - len(batch)
    parts = [batch.iloc[chosen[chosen >= old] - old]]
    if sample is not None:
        parts.insert(0, sample.iloc[chosen[chosen < old]])
    return keys[chosen], pd.concat([part for part in parts if len(part)] or parts[:1])


@dataclass(frozen=True, slots=True)
class ColumnGuess:
    """Guessed kind of a column, and the reason; ``kind`` is None if the column is left out."""

    name: str
    kind: str | None
    reason: str
    distinct: int
    missing: int
    rows: int


def guess_columns(frame: pd.DataFrame, label: str, rows: int | None = None) -> list[ColumnGuess]:
    """Guess the kind of every column but the label.

    Parameters
    ----------
    frame
        The first rows of a table, or all.
    rows
        Number of rows of the whole table, if known.

    Raises
    ------
    MisuseError
        If no column can be a feature.
    """
    guesses = []
    for column in frame.columns:
        if (name := str(column)) != label:
            series = frame[column]
            present = _without_infinity(series.dropna())
            kind, reason = _guess_kind(name, series, present, max(rows or 0, len(frame)))
            missing = len(series) - len(present)
            guesses.append(ColumnGuess(name, kind, reason, _count_distinct(series), missing, len(series)))
    if not any(guess.kind for guess in guesses):
        reasons = "; ".join(f"{guess.name!r}: {guess.reason}" for guess in guesses)
        raise MisuseError(f"no column can be a feature: {reasons or 'there is only the label'}")
    return guesses


def guess_label(frame: pd.DataFrame, requested: str | None) -> str:
    """Return the label column: the requested one, or one with a usual name and few values.

    Raises
    ------
    MisuseError
        If the requested column is missing, or no column is obvious; the message lists the candidates.
    """
    from sfs.errors import nearest

    names = [str(name) for name in frame.columns]
    if requested is not None:
        if not requested.strip():
            raise MisuseError("the label column needs a name: name it in the header of the table")
        if requested not in names:
            raise MisuseError(
                f"no column {requested!r} for the label{nearest(requested, names)}; the columns are {names}"
            )
        return requested
    counts = {str(name): _count_distinct(frame[name]) for name in frame.columns}
    candidates = {name: n for name, n in counts.items() if 2 <= n <= MAX_CLASSES and name.strip()}
    for usual in LABEL_NAMES:
        for name in candidates:
            if name.strip().lower() == usual:
                return name
    listed = ", ".join(f"{name!r} ({count} values)" for name, count in candidates.items())
    raise MisuseError(
        f"which column is the label? Pass --label COLUMN; candidates: {listed or 'none has 2 to 50 values'}"
    )


def excerpt(value: Any, max_characters: int = 40) -> str:
    """Return a value on one printable line.

    Examples
    --------
    >>> excerpt("two\\nlines " + "x" * 50, max_characters=12)
    'two lines...'
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    return line if len(line) <= max_characters else line[: max_characters - 3].rstrip() + "..."


def _count_distinct(series: pd.Series[Any]) -> int:
    try:
        return int(series.nunique())
    except TypeError:  # lists and objects cannot be counted, and are left out
        return len(series)


def _without_infinity(present: pd.Series[Any]) -> pd.Series[Any]:
    """Return values without infinite ones, which count as missing in a feature."""
    import numpy as np

    if present.dtype.kind != "f":
        return present
    is_finite = np.isfinite(present.to_numpy(dtype=np.float64, na_value=np.nan))
    finite: pd.Series[Any] = present.loc[is_finite]
    return finite


def _guess_kind(name: str, series: pd.Series[Any], present: pd.Series[Any], rows: int) -> tuple[str | None, str]:
    from pandas.api import types

    from sfs.record import text_of

    if len(name) > MAX_NAME_CHARACTERS:
        return None, f"its name has more than {MAX_NAME_CHARACTERS} characters"
    if not name.strip():
        return None, "it has no name; name it in the header if the model should read it"
    if present.empty:
        return None, "it is empty"
    if reason := _unusable(present):
        return None, reason
    if _count_distinct(present) == 1 and len(present) == len(series):
        return None, "it has the same value in every row"
    inferred = present.infer_objects()
    if types.is_bool_dtype(inferred):
        return "category", "true or false"
    if types.is_numeric_dtype(inferred):
        return _guess_number(name, inferred, rows)
    return _guess_text(present.map(text_of).astype(object))


def _unusable(present: pd.Series[Any]) -> str | None:
    """Return the reason why a column cannot be a feature because of the type of a value, or None."""
    import numpy as np

    from sfs.record import text_of

    known: tuple[tuple[tuple[type, ...], str], ...] = (
        ((timedelta, np.timedelta64), "it is a duration; derive a number from it, such as seconds"),
        ((date, np.datetime64), _A_DATE),
        ((time,), "it is a time of day; derive a number or a category from it, such as the hour"),
        ((bytes, bytearray, memoryview), "it holds bytes; decode them if they are text"),
        ((complex, np.complexfloating), "it holds complex numbers"),
        ((list, dict, tuple, np.ndarray), "it holds lists or objects"),
    )
    kinds = set(map(type, present.tolist())) if present.dtype == object else {present.dtype.type}
    for types, reason in known:
        if any(issubclass(kind, types) for kind in kinds):
            return reason
    if present.dtype == object:
        for value in present.tolist():
            if type(value) is int and abs(value) > MAX_NUMBER:
                return "it holds a number too large for a feature"
            try:
                text_of(value)
            except TypeError as error:
                return f"it holds a value that is no feature: {error}"
    return None


def _guess_number(name: str, present: pd.Series[Any], rows: int) -> tuple[str | None, str]:
    if len(present) >= MIN_ROWS and present.nunique() == len(present) and bool((present % 1 == 0).all()):
        # Consecutive numbers are an index, in any order.
        is_index = int(present.max()) - int(present.min()) < max(rows, len(present))
        if is_index or _ID_NAME.search(name):
            return None, "it looks like an id or an index: every row has its own number"
    low, high = (f"{v:.16g}" if v % 1 == 0 else f"{v:g}" for v in (present.min(), present.max()))
    return "number", f"numbers from {low} to {high}"


def _guess_text(present: pd.Series[str]) -> tuple[str | None, str]:
    sample, distinct = present.head(1000), present.nunique()
    words = float(sample.str.split().str.len().mean())
    if not sample.str.strip().any():
        return None, "it holds blanks only"
    if float(sample.map(lambda value: bool(_DATE.fullmatch(value.strip()))).mean()) >= 0.95:
        return None, _A_DATE
    is_short = float(sample.str.len().mean()) <= MAX_CATEGORY_CHARACTERS
    is_category = is_short and distinct <= MAX_CATEGORIES and distinct <= len(present) / 5
    if spelled := _spelled_number(sample):
        if is_category:
            return "category", f"few values, numbers in another format, such as {spelled!r}"
        separated = re.fullmatch(rf"[+-]?{_DIGITS}", spelled)
        return None, (
            f"it holds numbers in another format, such as {spelled!r}; write digits and a decimal point only"
            f"{', or set `decimal` and `thousands` in `schema`,' if separated else ','} and make it a number"
        )
    if is_category:
        return "category", "few values, often repeated"
    # Ids and links are ASCII; other text without spaces, such as Chinese, is text.
    characters = "".join(sample)
    unspaced = sum(character > "\u2e80" for character in characters) > len(characters) / 3
    if words >= 2.5 or (unspaced and len(characters) >= 5 * len(sample)):
        return "text", f"{words:.1f} words on average"
    if distinct > 0.9 * len(present) and len(present) >= MIN_ROWS:
        return None, "it looks like an id or a name: nearly every row has its own"
    if is_short and distinct <= MAX_CATEGORIES:
        return "category", "few values"
    return None, "it has too many values for a category and too few words for text"


def _spelled_number(sample: pd.Series[str]) -> str | None:
    """Return a number with separators, a currency, a percent sign or brackets, if nearly all are numbers."""
    values = [value.strip() for value in sample]
    spelled = [value for value in values if _SPELLED_NUMBER.fullmatch(value) and not _NUMBER.fullmatch(value)]
    numbers = len(spelled) + sum(bool(_NUMBER.fullmatch(value)) for value in values)
    return spelled[0] if spelled and numbers >= 0.95 * len(values) else None
