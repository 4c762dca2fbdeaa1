"""A trained model as one folder: weights, configuration, reference and proof, and no code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from models.bundle_files import (
    FORMAT,
    content_hash,
    from_json_bytes,
    read_folder,
    reading,
    to_json_bytes,
    to_json_lines,
    write_folder,
)
from models.bundle_parts import (
    CONFIG,
    SAMPLE,
    WEIGHTS,
    Network,
    config_from_bytes,
    network_from,
    sample_from_bytes,
    weights_to_bytes,
)
from models.classes import without_label
from models.errors import BundleError, DataError
from models.features import Featurizer, Table, check_columns
from models.golden import GoldenBatch
from models.reference import SliceCounts, counts_from_json, counts_to_json
from models.report import TrainingReport
from sfs.apply import apply
from sfs.matrix import SliceMatrix
from sfs.record import Rows
from sfs.registry import FunctionSet

REFERENCE, GOLDEN, REPORT = "reference.json", "golden.json", "report.json"
FILES = (CONFIG, WEIGHTS, REFERENCE, SAMPLE, GOLDEN, REPORT)
_CHUNK_ROWS = 20_000
_KEPT_SUBSETS = 4


@dataclass(frozen=True)
class ModelBundle:
    """A model with all that is needed to serve, prove and watch it.

    Made by `models.train`, or loaded. Two trainings on the same rows with the same seed have one hash.

    Parameters
    ----------
    name, label
        What the model is called, and the column that it predicts.
    classes
        The C classes as text; columns of ``predict_proba``.
    featurizer
        From rows to features.
    model
        From features and memberships to probabilities.
    function_fingerprints
        The K slices that the model was trained with, and the fingerprints of their functions then.
    lineage
        How it was made, as JSON values: configuration, seed, rows of each split, a digest of the data.
    reference
        Counts per slice and of all rows (``__all__``): coverage of all labelled rows, accuracy of held-out ones.
    sample
        Held-out records as JSON values, to which changed functions can be applied: at most 1,000 and 4 MB. They
        have the columns of the features and of the templates; where the model was trained with plain
        functions, which may read any column, all columns but the label.
    golden
        The answers by which a loaded model is proved.
    report
        What the training came to.
    """

    name: str
    label: str
    classes: tuple[str, ...]
    featurizer: Featurizer = field(repr=False)
    model: Network = field(repr=False)
    function_fingerprints: Mapping[str, str]
    lineage: Mapping[str, Any] = field(repr=False)
    reference: Mapping[str, SliceCounts] = field(repr=False)
    sample: tuple[Mapping[str, Any], ...] = field(repr=False)
    golden: GoldenBatch = field(repr=False)
    report: TrainingReport = field(repr=False)

    @property
    def slice_names(self) -> tuple[str, ...]:
        """The K slices that the model was trained with."""
        return tuple(self.function_fingerprints)

    @property
    def feature_columns(self) -> tuple[str, ...]:
        """The columns that features are made of."""
        return tuple(spec.column for spec in self.featurizer.specs)

    def predict_proba(self, rows: Table, S: SliceMatrix | None = None) -> NDArray[np.float64]:
        """Return probabilities float64[N, C], columns as ``classes``.

        Parameters
        ----------
        rows
            A data frame, or a list of records that all have the feature columns (null where missing).
        S
            Memberships of the N rows, matched by slice name; a slice that is not there is unknown, and all
            are without S. Use `memberships` or `trusted` to get them from live functions.

        Raises
        ------
        DataError
            If a feature column is missing or cannot be read, or S has another number of rows.
        """
        if S is not None and len(S) != len(rows):
            raise DataError(f"there are {len(rows)} rows, but memberships of {len(S)}")
        starts = range(0, max(len(rows), 1), _CHUNK_ROWS)
        return np.concatenate([self._probabilities(rows, S, slice(at, at + _CHUNK_ROWS)) for at in starts])

    def _probabilities(self, rows: Table, S: SliceMatrix | None, part: slice) -> NDArray[np.float64]:
        chunk = rows.iloc[part] if isinstance(rows, pd.DataFrame) else rows[part]
        return self.model.predict_proba(self.featurizer.transform(chunk), None if S is None else S.take(part))

    def predict(self, rows: Table, S: SliceMatrix | None = None) -> list[str]:
        """Return the N most probable classes; see `predict_proba`."""
        return [self.classes[k] for k in self.predict_proba(rows, S).argmax(axis=1)]

    def memberships(self, functions: FunctionSet, rows: Rows) -> SliceMatrix:
        """Apply live functions and return what the model may know of its own slices.

        A slice whose function is missing, or computes something else than in training, is unknown. As in
        training, functions do not see the label column.
        """
        return apply(self._trusted_of(functions), without_label(rows, self.label)).align(self.slice_names)

    def _trusted_of(self, functions: FunctionSet) -> FunctionSet:
        """Return the functions that the model was trained with; the last few answers are kept, compiled.

        A tuple is replaced whole, so that threads need no lock: at worst one answer is found twice.
        """
        kept: tuple[tuple[str, FunctionSet], ...] = vars(self).get("_subsets", ())
        for set_hash, subset in kept:
            if set_hash == functions.hash:
                return subset
        mine = [each for each in functions if self._is_mine(each.name, each.fingerprint)]
        subset = functions if len(mine) == len(functions) else FunctionSet(mine)
        vars(self)["_subsets"] = ((functions.hash, subset), *kept)[:_KEPT_SUBSETS]
        return subset

    def trusted(self, S: SliceMatrix, fingerprints: Mapping[str, str]) -> SliceMatrix:
        """Return what the model may know of memberships that functions with these fingerprints gave."""
        mine = [k for k, name in enumerate(S.names) if self._is_mine(name, fingerprints.get(name))]
        names = [S.names[k] for k in mine]
        return SliceMatrix(names, S.member[:, mine], S.unknown[:, mine]).align(self.slice_names)

    def _is_mine(self, name: str, fingerprint: str | None) -> bool:
        return fingerprint is not None and self.function_fingerprints.get(name) == fingerprint

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The bundle's files by name, without the manifest."""
        functions = [{"name": n, "fingerprint": f} for n, f in self.function_fingerprints.items()]
        config = {
            "format": FORMAT,
            "name": self.name,
            "label": self.label,
            "classes": list(self.classes),
            "features": self.featurizer.to_json(),
            "architecture": self.model.config(),
            "functions": functions,
            "lineage": dict(self.lineage),
        }
        return {
            CONFIG: to_json_bytes(config),
            WEIGHTS: weights_to_bytes(self.model),
            REFERENCE: to_json_bytes(counts_to_json(self.reference)),
            SAMPLE: to_json_lines(self.sample),
            GOLDEN: to_json_bytes(self.golden.to_json()),
            REPORT: to_json_bytes(self.report.to_json()),
        }

    @cached_property
    def hash(self) -> str:
        """Sha256 in hex over the names and digests of the files."""
        return content_hash(self.files)

    def save(self, folder: str | Path) -> None:
        """Write the bundle into a new folder, which appears complete or not at all.

        Raises
        ------
        BundleError
            If the folder exists.
        """
        write_folder(Path(folder), self.files)

    @classmethod
    def load(cls, folder: str | Path) -> ModelBundle:
        """Read a bundle and prove it: every file's digest, the configuration, and the golden batch.

        Raises
        ------
        BundleError
            If a file is missing, added or altered, the configuration does not fit itself, the weights or this
            version, or the model does not give the answers that it gave when it was saved.
        """
        path = Path(folder)
        files = read_folder(path, FILES)
        try:
            bundle = cls._from_files(files)
            with reading("golden batch"):
                bundle.golden.prove(bundle.predict_proba)
        except BundleError as error:
            raise BundleError(f"the bundle in {path} cannot be used: {error}") from error
        vars(bundle)["files"] = files  # what was proved is what the hash is of
        return bundle

    @classmethod
    def _from_files(cls, files: Mapping[str, bytes]) -> ModelBundle:
        config = config_from_bytes(files[CONFIG])
        fingerprints = {function["name"]: function["fingerprint"] for function in config["functions"]}
        with reading(CONFIG):
            featurizer = Featurizer.from_json(config["features"])
        model = network_from(config, featurizer.n_features, files[WEIGHTS])
        sample = sample_from_bytes(files[SAMPLE])
        with reading(SAMPLE):
            check_columns(sample, [spec.column for spec in featurizer.specs])
        with reading(REFERENCE):
            reference = counts_from_json(from_json_bytes(REFERENCE, files[REFERENCE]), list(fingerprints))
        with reading(GOLDEN):
            golden = GoldenBatch.from_json(from_json_bytes(GOLDEN, files[GOLDEN]))
        with reading(REPORT):
            report = TrainingReport(from_json_bytes(REPORT, files[REPORT]))
        return cls(
            name=config["name"],
            label=config["label"],
            classes=tuple(config["classes"]),
            featurizer=featurizer,
            model=model,
            function_fingerprints=fingerprints,
            lineage=config["lineage"],
            reference=reference,
            sample=sample,
            golden=golden,
            report=report,
        )
