"""Model bundle: a folder of weights, configuration, reference and golden batch, without code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pandas as pd
import safetensors
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, StrictInt, TypeAdapter
from safetensors import torch as tensors

from models.bundle.files import (
    DECODE_ERRORS,
    FORMAT,
    bundle_part,
    content_hash,
    dump_json,
    parse_as,
    parse_json,
    read_folder,
    write_folder,
)
from models.bundle.records import SAMPLE_ROWS, GoldenBatch, stored_schema
from models.bundle.reference import FamilyCounts, SliceCounts, counts_from_json, counts_to_json
from models.classes import without_label
from models.errors import BundleError, DataError
from models.features import Featurizer, Table, check_columns
from models.inference import Inference, inference
from models.learners import Network, network_from_config
from models.outputs import OutputRates
from models.slice_report import STRICT
from models.table_season import TableSeason
from models.training_report import TrainingReport
from sfs.apply import apply
from sfs.matrix import SliceMatrix
from sfs.record import Rows
from sfs.registry import FunctionSet
from sfs.schema import Schema

CONFIG, WEIGHTS, REFERENCE = "config.json", "weights.safetensors", "reference.json"
SAMPLE, GOLDEN, REPORT = "sample.jsonl", "golden.json", "report.json"
FILES = (CONFIG, WEIGHTS, REFERENCE, SAMPLE, GOLDEN, REPORT)
_CHUNK_ROWS = 20_000
_WEIGHT_ERRORS: tuple[type[Exception], ...] = (safetensors.SafetensorError, *DECODE_ERRORS)
_CACHED_SUBSETS = 4


@dataclass(frozen=True, slots=True)
class FunctionRecord:
    """A function of the model's slices, and its fingerprint in training."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class BundleConfig:
    """The content of ``config.json``."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    format: StrictInt
    name: str
    label: str
    classes: list[str]
    features: list[Any]
    architecture: dict[str, Any]
    functions: list[FunctionRecord]
    lineage: dict[str, Any]
    schema: list[Any] | None = None
    outputs: dict[str, Any] | None = None
    season: dict[str, Any] | None = None
    families: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise BundleError(f"{CONFIG} has format {self.format}, this version reads {FORMAT}")
        if len(self.classes) < 2:
            raise BundleError(f"{CONFIG}: classes must be at least two, got {self.classes}")
        for part, names in (("classes", self.classes), ("functions", [f.name for f in self.functions])):
            if len(set(names)) != len(names):
                raise BundleError(f"{CONFIG}: {part} must be distinct, got {names}")


_CONFIG = TypeAdapter(BundleConfig)


@dataclass(frozen=True)
class ModelBundle:
    """Trained model with the data required to serve, verify and monitor it.

    Returned by `models.train` and `load`. Training on the same rows with the same seed gives the same hash.

    Parameters
    ----------
    name, label
        The model's name, and the column that it predicts.
    classes
        The C classes as text; columns of ``predict_proba``.
    featurizer
        From rows to features.
    model
        From features and memberships to probabilities.
    function_fingerprints
        The K slices of the training, and the fingerprints of their functions then.
    lineage
        The origin as JSON values: configuration, seed, rows of each split, a digest of the data.
    reference
        Counts per slice and of all rows (``__all__``): coverage of all labelled rows, accuracy of held-out ones.
    sample
        Held-out records as JSON values, to which changed functions can be applied: at most 1,000 and 4 MB. They
        have the columns of the features and those that the functions read; where a Python function reads records
        as a whole, all columns but the label.
    golden
        Predictions that verify a loaded model.
    report
        The results of the training.
    outputs
        Rates of its outputs on held-out rows; None without such rows, and of bundles of earlier versions.
    season
        Counts of the training rows by hour of week; None without times over two weeks.
    families
        Counts of the rows in any slice of a family, as ``reference``; of bundles of earlier versions none.
    schema
        Types of the columns, by which every source of rows is read. Of a bundle without one, it is settled from
        the sample.
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
    schema: Schema = field(default_factory=Schema, repr=False)
    outputs: OutputRates | None = field(default=None, repr=False)
    season: TableSeason | None = field(default=None, repr=False)
    families: Mapping[str, FamilyCounts] = field(default_factory=dict, repr=False)

    @property
    def slice_names(self) -> tuple[str, ...]:
        """The K slices of the training."""
        return tuple(self.function_fingerprints)

    @property
    def feature_columns(self) -> tuple[str, ...]:
        """The columns of the features."""
        return tuple(spec.column for spec in self.featurizer.specs)

    def predict_proba(self, rows: Table, S: SliceMatrix | None = None) -> NDArray[np.float64]:
        """Return probabilities float64[N, C], columns as ``classes``.

        Parameters
        ----------
        rows
            A data frame, or a list of records that all have the feature columns (null where missing).
        S
            Memberships of the N rows, matched by slice name; a missing slice is unknown, and all of them
            without S. Use `memberships` or `usable_memberships` to get them from live functions.

        Raises
        ------
        DataError
            If a feature column is missing or cannot be read, or S has another number of rows.
        """
        if S is not None and len(S) != len(rows):
            raise DataError(f"there are {len(rows)} rows, but memberships of {len(S)}")
        chunks = []
        for start in range(0, max(len(rows), 1), _CHUNK_ROWS):
            part = slice(start, start + _CHUNK_ROWS)
            chunk = rows.iloc[part] if isinstance(rows, pd.DataFrame) else rows[part]
            X = self.featurizer.transform(chunk)
            chunks.append(self.inference.predict_proba(X, None if S is None else S.take(part)))
        return np.concatenate(chunks)

    @cached_property
    def inference(self) -> Inference:
        """From features and memberships to probabilities, as fast as the network can."""
        return inference(self.model)

    def predict(self, rows: Table, S: SliceMatrix | None = None) -> list[str]:
        """Return the N most probable classes; see `predict_proba`."""
        return [self.classes[k] for k in self.predict_proba(rows, S).argmax(axis=1)]

    def memberships(self, functions: FunctionSet, rows: Rows) -> SliceMatrix:
        """Apply live functions and return the memberships in the model's slices.

        A slice is unknown if its function is missing or changed since the training. As in training, functions
        do not see the label column.
        """
        # The last few subsets are cached, compiled. The tuple is replaced whole, so that threads need no lock:
        # at worst one subset is computed twice.
        cached: tuple[tuple[str, FunctionSet], ...] = vars(self).get("_subsets", ())
        subset = next((subset for set_hash, subset in cached if set_hash == functions.hash), None)
        if subset is None:
            mine = [each for each in functions if self._matches(each.name, each.fingerprint)]
            subset = functions if len(mine) == len(functions) else FunctionSet(mine)
            vars(self)["_subsets"] = ((functions.hash, subset), *cached)[:_CACHED_SUBSETS]
        return apply(subset, without_label(rows, self.label)).align(self.slice_names)

    def usable_memberships(self, S: SliceMatrix, fingerprints: Mapping[str, str]) -> SliceMatrix:
        """Return the memberships in the model's slices, unknown where a function's fingerprint differs."""
        mine = [k for k, name in enumerate(S.names) if self._matches(name, fingerprints.get(name))]
        names = [S.names[k] for k in mine]
        return SliceMatrix(names, S.member[:, mine], S.unknown[:, mine]).align(self.slice_names)

    def _matches(self, name: str, fingerprint: str | None) -> bool:
        return fingerprint is not None and self.function_fingerprints.get(name) == fingerprint

    @cached_property
    def files(self) -> dict[str, bytes]:
        """The bundle's files by name, without the manifest."""
        config = BundleConfig(
            format=FORMAT,
            name=self.name,
            label=self.label,
            classes=list(self.classes),
            features=self.featurizer.to_json(),
            architecture=self.model.config(),
            functions=[FunctionRecord(*item) for item in self.function_fingerprints.items()],
            lineage=dict(self.lineage),
            schema=self.schema.to_json(),
            outputs=None if self.outputs is None else self.outputs.to_json(),
            season=None if self.season is None else self.season.to_json(),
            families={name: asdict(family) for name, family in self.families.items()},
        )
        weights = {name: value.detach().cpu().contiguous().clone() for name, value in self.model.state_dict().items()}
        lines = [json.dumps(record, allow_nan=False) + "\n" for record in self.sample]
        return {
            CONFIG: dump_json(asdict(config)),
            WEIGHTS: bytes(tensors.save(weights)),
            REFERENCE: dump_json(counts_to_json(self.reference)),
            SAMPLE: "".join(lines).encode("ascii"),
            GOLDEN: dump_json(self.golden.to_json()),
            REPORT: dump_json(self.report.to_json()),
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
        """Read and verify a bundle: every file's digest, the configuration, and the golden batch.

        Raises
        ------
        BundleError
            If a file is missing, added or altered, the configuration does not fit itself, the weights or this
            version, or the model does not reproduce the golden batch.
        """
        path = Path(folder)
        files = read_folder(path, FILES)
        try:
            with bundle_part("its content"):
                bundle = cls._from_files(files)
            with bundle_part("golden batch"):
                check_columns(bundle.golden.records, bundle.feature_columns)
            with bundle_part("golden batch", records=True):
                bundle.golden.verify(bundle.predict_proba)
        except BundleError as error:
            raise BundleError(f"the bundle in {path} cannot be used: {error}") from error
        vars(bundle)["files"] = files  # the hash is of the verified bytes
        return bundle

    @classmethod
    def _from_files(cls, files: Mapping[str, bytes]) -> ModelBundle:
        config = parse_as(_CONFIG, CONFIG, files[CONFIG])
        fingerprints = {function.name: function.fingerprint for function in config.functions}
        with bundle_part(CONFIG):
            featurizer = Featurizer.from_json(config.features)
            outputs = None if config.outputs is None else OutputRates.from_json(config.outputs, list(fingerprints))
            season = None if config.season is None else TableSeason.from_json(config.season, list(fingerprints))
            families = FamilyCounts.from_json(config.families or {}, fingerprints)
        model = _load_network(config, featurizer.n_features, files[WEIGHTS])
        sample = _parse_sample(files[SAMPLE])
        with bundle_part(SAMPLE):
            check_columns(sample, [spec.column for spec in featurizer.specs])
        with bundle_part(CONFIG):
            schema = stored_schema({"schema": config.schema, "features": config.features}, sample)
        with bundle_part(SAMPLE, records=True):
            sample = tuple(map(schema.parse_record, sample))
        with bundle_part(REFERENCE):
            reference = counts_from_json(parse_json(REFERENCE, files[REFERENCE]), list(fingerprints))
        with bundle_part(GOLDEN):
            golden = GoldenBatch.from_json(parse_json(GOLDEN, files[GOLDEN]))
        return cls(
            name=config.name,
            label=config.label,
            classes=tuple(config.classes),
            schema=schema,
            featurizer=featurizer,
            model=model,
            function_fingerprints=fingerprints,
            lineage=config.lineage,
            reference=reference,
            sample=sample,
            golden=golden,
            report=TrainingReport.from_json(files[REPORT]),
            outputs=outputs,
            season=season,
            families=families,
        )


def _parse_sample(content: bytes) -> tuple[dict[str, Any], ...]:
    lines = content.splitlines()
    if len(lines) > SAMPLE_ROWS:
        raise BundleError(f"{SAMPLE} holds {len(lines):,} records, at most {SAMPLE_ROWS:,} are allowed")
    records = tuple(parse_json(f"{SAMPLE}, line {k}", line) for k, line in enumerate(lines, 1))
    for k, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise BundleError(f"{SAMPLE}, line {k}: must be a record, got {type(record).__name__}")
    return records


def _in_features(network: Any) -> Any:
    """Return the number of features that a network reads."""
    return network.in_features if hasattr(network, "in_features") else network.backbone.in_features


def _load_network(config: BundleConfig, n_features: int, weights: bytes) -> Network:
    """Return the network of a configuration with its weights.

    It is first built without memory for numbers, so that an architecture that does not fit the weights costs
    none. BundleError if it cannot be built, or does not fit features, classes, slices or weights.
    """
    shape = config.architecture
    try:
        state = tensors.load(weights)
    except _WEIGHT_ERRORS as error:
        raise BundleError(f"{WEIGHTS} holds no weights: {error}") from error
    with bundle_part(f"{CONFIG}: the architecture cannot be built"), torch.device("meta"):
        outline: Any = network_from_config(shape)
    with bundle_part(f"{CONFIG}, architecture"):
        slices = [function.name for function in config.functions]
        for fact, has, needs in (
            ("features", _in_features(outline), n_features),
            ("classes", outline.num_classes, len(config.classes)),
            ("slices", list(getattr(outline, "slice_names", slices)), slices),
        ):
            if has != needs:
                raise BundleError(f"{CONFIG}: the architecture has {fact} {has}, the rest of the bundle {needs}")
        expected, actual = (
            {name: (tuple(value.shape), value.dtype) for name, value in weights.items()}
            for weights in (outline.state_dict(), state)
        )
        for name in sorted(expected.keys() | actual.keys()):
            if expected.get(name) != actual.get(name):
                raise BundleError(
                    f"{WEIGHTS} does not fit the architecture in {CONFIG}: {name} must be "
                    f"{expected.get(name)}, got {actual.get(name)}"
                )
        model = network_from_config(shape)
        model.load_state_dict(state)
    return cast("Network", model.eval())
