"""Labels from functions: rows without a label get probabilities of the classes by the votes of labeling functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, StrictBool, StrictFloat, StrictInt

from models.classes import class_codes, class_names
from models.dawid_skene import DawidSkeneLabelModel
from models.errors import DataError
from models.labelers import ABSTAIN, LabelMatrix
from models.slice_report import STRICT, align_table
from models.splits import Hashes, SplitIndices, held_out, split
from sfs.apply import evaluate_rows
from sfs.function import LabelingFunction
from sfs.intervals import Rate, effective_n
from sfs.record import Rows

MIN_LABELLED = 20
"""Least number of rows with a true label: validation and held-out rows are taken from these alone."""
_MIN_HELD_OUT = 2  # contents
LEAST_WEIGHT = 0.01
"""Least probability of a class, so that no label of functions is certain; a row is not trained on as such a class."""


@dataclass(frozen=True, slots=True)
class LabelingFunctionMetrics:
    """Votes of one labeling function on the rows of a training, and how often they are right.

    Parameters
    ----------
    name
        Name of the function.
    classes
        Classes for which it votes.
    votes, known
        Rows on which it votes, and on which it votes or abstains, of all rows; it failed on the others.
    estimated_accuracy
        Accuracy of its votes as the label model estimates it; None if it never votes.
    labelled, correct
        Votes on rows with a true label, and those that are right.
    effective_n
        Effective n of the contents of these rows.
    accuracy_lower, accuracy_upper
        Ends of the 95% interval of ``correct / labelled``.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: str
    classes: tuple[str, ...]
    votes: StrictInt
    known: StrictInt
    estimated_accuracy: StrictFloat | None
    labelled: StrictInt
    correct: StrictInt
    effective_n: StrictInt
    accuracy_lower: StrictFloat
    accuracy_upper: StrictFloat


@dataclass(frozen=True, slots=True)
class FunctionDependency:
    """Two labeling functions that agree more, or less, than their accuracies explain; duplicates have one vote."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    first: str
    second: str
    correlation: StrictFloat
    is_duplicate: StrictBool


@dataclass(frozen=True, slots=True)
class FunctionLabelsReport:
    """Rows of a training that have their label from functions, and these functions.

    Parameters
    ----------
    given
        Rows with a true label.
    labelled
        Training rows with a label of functions.
    abstained
        Rows without a label on which no function votes, left out.
    set_aside
        Rows without a label whose content is held out, or that of a validation row, left out.
    checked, correct
        Labelled validation and held-out rows on which a function votes, and those whose likeliest class is the true
        one; the label model has not seen their labels.
    checked_lower, checked_upper
        Ends of the 95% interval of ``correct / checked``, at the effective n of the contents.
    functions
        The functions in order.
    dependencies
        Pairs of functions that are not independent given the class.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    given: StrictInt
    labelled: StrictInt
    abstained: StrictInt
    set_aside: StrictInt
    checked: StrictInt
    correct: StrictInt
    checked_lower: StrictFloat
    checked_upper: StrictFloat
    functions: tuple[LabelingFunctionMetrics, ...]
    dependencies: tuple[FunctionDependency, ...]

    def sentences(self) -> Iterator[str]:
        """Yield the origin and quality of the labels."""
        yield (
            f"Labels from functions: {self.labelled:,} training rows without a label have probabilities of the "
            f"classes by {len(self.functions)} labeling functions. Left out are {self.abstained:,} rows on which none "
            f"votes, and {self.set_aside:,} whose content is held out, or that of a validation row."
        )
        if self.checked:
            yield (
                f"On {self.checked:,} labelled rows that the label model has not seen, its likeliest class is right in "
                f"{self.correct / self.checked:.1%} (95% interval {self.checked_lower:.1%} to "
                f"{self.checked_upper:.1%})."
            )

    def table(self) -> str:
        """Return the functions as an aligned table; the accuracy on labels has its n and its interval."""
        head = ["labeling function", "votes for", "votes", "coverage", "estimated accuracy", "accuracy", "n"]
        cells = [[*head, "95% interval"]]
        for each in self.functions:
            coverage = f"{each.votes / each.known:.1%}" if each.known else "-"
            estimated = "-" if each.estimated_accuracy is None else f"{each.estimated_accuracy:.3f}"
            counted = ["-", "0", "-"]
            if each.labelled:
                interval = f"{each.accuracy_lower:.3f} to {each.accuracy_upper:.3f}"
                counted = [f"{each.correct / each.labelled:.3f}", f"{each.labelled:,}", interval]
            cells.append([each.name, ", ".join(each.classes) or "-", f"{each.votes:,}", coverage, estimated, *counted])
        return align_table(cells)

    def warnings(self) -> Iterator[str]:
        """Yield the functions that depend on each other, never vote, or failed."""
        for pair in self.dependencies:
            names, correlation = f"{pair.first!r} and {pair.second!r}", f"{pair.correlation:.2f} given the class"
            if pair.is_duplicate:
                yield f"Labeling functions {names} are duplicates (correlation {correlation}): they share one vote."
            else:
                yield (
                    f"Labeling functions {names} depend on each other (correlation {correlation}): their agreement "
                    "counts twice. Merge them, or take out the words they share."
                )
        if silent := [each.name for each in self.functions if not each.votes]:
            yield f"Labeling functions that vote on no row: {', '.join(silent)}."
        rows = self.given + self.labelled + self.abstained + self.set_aside
        for each in self.functions:
            if each.known < rows:
                yield f"Labeling function {each.name!r} failed on {rows - each.known:,} rows: there it has no vote."


class WeightedRows(NamedTuple):
    """Rows in classes: positions int64[W], classes int64[W], and weights float64[W] below 1."""

    positions: NDArray[np.int64]
    y: NDArray[np.int64]
    weight: NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class FunctionLabels:
    """Rows with a label of functions.

    Parameters
    ----------
    positions
        int64[R], the positions of the rows; none is held out, and none has the content of a validation row.
    probabilities
        float64[R, C], probabilities of the classes, below 1.
    report
        Figures of the functions and of the rows.
    """

    positions: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    report: FunctionLabelsReport

    def weighted_rows(self) -> WeightedRows:
        """Return every row once in each class that is likely enough, or the likeliest, with its weight."""
        likeliest = self.probabilities.max(axis=1, keepdims=True)
        at, y = np.nonzero(self.probabilities >= np.minimum(likeliest, LEAST_WEIGHT))
        return WeightedRows(self.positions[at], y.astype(np.int64), self.probabilities[at, y])


@dataclass(frozen=True, eq=False, slots=True)
class PartialLabels:
    """Labels of N rows, some of which may have none.

    Parameters
    ----------
    classes
        The C classes in order.
    y
        int64[N], positions of classes; of no meaning in rows without a label.
    known
        bool[N], the rows with a label.
    """

    classes: tuple[str, ...]
    y: NDArray[np.int64]
    known: NDArray[np.bool_]

    @classmethod
    def of(cls, labels: Sequence[str | None], column: str) -> PartialLabels:
        """Return the labels of a column, None where a row has none.

        Raises
        ------
        DataError
            If there is one class only, or, where some rows have no label, fewer than 20 have one.
        """
        given = [label for label in labels if label is not None]
        if len(given) < min(len(labels), MIN_LABELLED):
            counts = ", ".join(f"{name}: {number:,}" for name, number in sorted(Counter(given).items()))
            raise DataError(
                f"{len(given):,} of {len(labels):,} rows have a label in {column!r}{f' ({counts})' * bool(counts)}. "
                f"Validation and held-out rows need true labels: label at least {MIN_LABELLED} rows, drawn at random"
            )
        classes = class_names(given, column)
        known = np.array([label is not None for label in labels], np.bool_)
        y = np.zeros(len(labels), np.int64)
        y[known] = class_codes(given, classes)
        return cls(classes, y, known)

    def to_bytes(self) -> bytes:
        """Return the labels as bytes for a hash; those of a table without blanks are its classes alone."""
        return self.y.tobytes() + (b"" if self.known.all() else self.known.tobytes())

    def split(self, hashes: Hashes) -> SplitIndices:
        """Return the split of the rows with a label; those without are in no part of it.

        Parameters
        ----------
        hashes
            uint64[N], equal for rows of one content.

        Raises
        ------
        DataError
            As `models.splits.split`, or, where some rows have no label, if fewer than two contents are held out.
        """
        at = np.flatnonzero(self.known)
        parts = split(hashes[at], self.y[at], self.classes)
        contents = len(np.unique(hashes[at[parts.held_out]]))
        if len(at) < len(hashes) and contents < _MIN_HELD_OUT:
            raise DataError(
                f"{len(at):,} of {len(hashes):,} rows have a label, and {contents} distinct of these "
                f"{'is' if contents == 1 else 'are'} held out, where {_MIN_HELD_OUT} are needed to evaluate a model: "
                "label more rows, of which a tenth is held out"
            )
        return replace(parts, train=at[parts.train], valid=at[parts.valid], held_out=at[parts.held_out])


def label_rows(
    functions: Sequence[LabelingFunction],
    rows: Rows,
    labels: PartialLabels,
    hashes: Hashes,
    splits: SplitIndices,
    progress: Callable[[int], object] | None = None,
    *,
    vote_classes: Sequence[str] = (),
) -> FunctionLabels:
    """Label rows by functions: those without a label, unless they are held out or repeat a validation row.

    The label model learns from the votes on these rows and on the training rows, and from the labels of the
    training rows.

    Parameters
    ----------
    functions
        M functions.
    rows
        N rows without the label column.
    labels
        Their labels.
    hashes
        uint64[N], equal for rows of one content.
    splits
        The split of the rows with a label.
    progress
        Called with the number of rows completed since the last call.
    vote_classes
        Classes that the votes 0, 1, ... stand for; by default ``labels.classes``.

    Raises
    ------
    DataError
        If a function votes for a class that there is not, or none votes on the rows without a label.
    """
    named = tuple(vote_classes) or labels.classes
    if absent := [name for name in named if name not in labels.classes]:
        raise DataError(f"labeling functions can vote for {absent[0]!r}, and no row has this label: label some rows so")
    votes, failed = label_matrix(functions, rows, named, progress)
    if named != labels.classes:
        codes = np.array([*(labels.classes.index(name) for name in named), ABSTAIN])  # -1 is the last one
        votes = codes[votes]
    outside = ~labels.known & ~held_out(hashes) & ~np.isin(hashes, hashes[splits.valid])
    unlabelled, some = np.flatnonzero(outside), (votes != ABSTAIN).any(axis=1)
    chosen = unlabelled[some[unlabelled]]
    if len(unlabelled) and not len(chosen):
        raise DataError(
            f"labeling functions vote on none of {len(unlabelled):,} training rows without a label: add functions, or "
            "leave these rows out"
        )
    model = DawidSkeneLabelModel(len(labels.classes))
    learned = np.concatenate([splits.train, unlabelled])
    truth = np.concatenate([labels.y[splits.train], np.full(len(unlabelled), ABSTAIN)])
    model.fit(votes[learned], truth)
    P = np.maximum(model.predict_proba(votes[chosen]), LEAST_WEIGHT)
    P /= P.sum(axis=1, keepdims=True)

    seen = np.concatenate([splits.valid, splits.held_out])
    seen = seen[some[seen]]
    right = model.predict_proba(votes[seen]).argmax(axis=1) == labels.y[seen]
    checked = Rate(int(right.sum()), len(seen), effective_n(hashes[seen]))
    report = FunctionLabelsReport(
        given=int(labels.known.sum()),
        labelled=len(chosen),
        abstained=len(unlabelled) - len(chosen),
        set_aside=int((~labels.known & ~outside).sum()),
        checked=checked.n,
        correct=checked.count,
        checked_lower=checked.interval()[0],
        checked_upper=checked.interval()[1],
        functions=tuple(_metrics(functions, votes, failed, labels, hashes, model)),
        dependencies=tuple(
            FunctionDependency(
                functions[each.first].name, functions[each.second].name, float(each.correlation), each.is_duplicate
            )
            for each in model.dependencies
            if each.correlation is not None
        ),
    )
    return FunctionLabels(chosen, P, report)


def label_matrix(
    functions: Sequence[LabelingFunction],
    rows: Rows,
    classes: Sequence[str],
    progress: Callable[[int], object] | None = None,
) -> tuple[LabelMatrix, NDArray[np.int64]]:
    """Return votes int64[N, M], -1 for an abstention or a failure, and the failed rows of each function, int64[M].

    Raises
    ------
    DataError
        If a function votes for a class that there is not.
    """
    results = evaluate_rows(functions, rows, progress).results
    votes = np.stack([np.where(each.unknown, ABSTAIN, each.values) for each in results], axis=1)
    for function, column in zip(functions, votes.T, strict=True):
        if column.size and column.max() >= len(classes):
            known = ", ".join(f"{k} {name}" for k, name in enumerate(classes[:10]))
            raise DataError(
                f"labeling function {function.name!r} returned {column.max()}, and the classes are {known}"
                f"{', ...' * (len(classes) > 10)}: return the position of a class, or -1 to abstain"
            )
    return votes, np.array([each.faults for each in results], np.int64)


def _metrics(
    functions: Sequence[LabelingFunction],
    votes: LabelMatrix,
    failed: NDArray[np.int64],
    labels: PartialLabels,
    hashes: Hashes,
    model: DawidSkeneLabelModel,
) -> Iterator[LabelingFunctionMetrics]:
    for k, (function, estimated) in enumerate(zip(functions, model.get_weights().tolist(), strict=True)):
        voted = votes[:, k] != ABSTAIN
        counted = np.flatnonzero(voted & labels.known)
        correct = int((votes[counted, k] == labels.y[counted]).sum())
        rate = Rate(correct, len(counted), effective_n(hashes[counted]))
        lower, upper = rate.interval()
        yield LabelingFunctionMetrics(
            name=function.name,
            classes=tuple(labels.classes[code] for code in np.unique(votes[voted, k]).tolist()),
            votes=int(voted.sum()),
            known=len(votes) - int(failed[k]),
            estimated_accuracy=estimated if voted.any() else None,
            labelled=len(counted),
            correct=correct,
            effective_n=rate.effective_n,
            accuracy_lower=lower,
            accuracy_upper=upper,
        )
