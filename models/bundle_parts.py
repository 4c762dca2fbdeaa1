"""The parts of a bundle between memory and bytes, each refused by name when it is not what it must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, cast

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors import torch as tensors
from torch import Tensor, nn

from models.bundle_files import FAULTS, FORMAT, from_json_bytes, reading
from models.errors import BundleError
from models.learners import network_from_config
from models.rows import FeatureRows
from models.sample import SAMPLE_ROWS
from sfs.matrix import SliceMatrix

CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
SAMPLE = "sample.jsonl"
_WEIGHT_FAULTS: tuple[type[Exception], ...] = (safetensors.SafetensorError, *FAULTS)
_KEYS = {
    "format": int,
    "name": str,
    "label": str,
    "classes": list,
    "features": list,
    "architecture": dict,
    "functions": list,
    "lineage": dict,
}


class Network(Protocol):
    """What a bundle needs of a network."""

    def predict_proba(self, X: FeatureRows, S: SliceMatrix | None = None) -> NDArray[np.float64]:
        """Return float[N, C]."""
        ...

    def config(self) -> dict[str, Any]:
        """Return the shape as JSON values."""
        ...

    def state_dict(self) -> Mapping[str, Tensor]:
        """Return the weights."""
        ...


def weights_to_bytes(model: Network) -> bytes:
    """Return a network's weights as safetensors."""
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    return bytes(tensors.save(state))


def config_from_bytes(content: bytes) -> dict[str, Any]:
    """Return the configuration; BundleError unless it is complete, of our format, and possible."""
    config = from_json_bytes(CONFIG, content)
    if not isinstance(config, dict) or set(config) != set(_KEYS):
        raise BundleError(f"{CONFIG} must hold exactly {', '.join(sorted(_KEYS))}")
    for key, kind in _KEYS.items():
        if not isinstance(config[key], kind):
            raise BundleError(f"{CONFIG}: {key!r} must be {kind.__name__}, got {type(config[key]).__name__}")
    if config["format"] != FORMAT:
        raise BundleError(f"{CONFIG} states format {config['format']}, this version reads {FORMAT}")
    _check_names("classes", config["classes"], at_least=2)
    if not all(isinstance(f, dict) and set(f) == {"name", "fingerprint"} for f in config["functions"]):
        raise BundleError(f"{CONFIG}: every function must have a name and a fingerprint")
    _check_names("functions", [function["name"] for function in config["functions"]], at_least=0)
    if not all(isinstance(function["fingerprint"], str) for function in config["functions"]):
        raise BundleError(f"{CONFIG}: every fingerprint must be text")
    return config


def _check_names(what: str, names: list[Any], at_least: int) -> None:
    if (
        not all(isinstance(name, str) for name in names)
        or len(set(names)) != len(names)
        or len(names) < at_least
    ):
        raise BundleError(f"{CONFIG}: {what} must be {at_least} or more different texts, got {names}")


def sample_from_bytes(content: bytes) -> tuple[dict[str, Any], ...]:
    """Return the records of a sample; BundleError naming the first line that holds none."""
    lines = content.splitlines()
    if len(lines) > SAMPLE_ROWS:
        raise BundleError(f"{SAMPLE} holds {len(lines):,} records, and at most {SAMPLE_ROWS:,} can be")
    records = tuple(from_json_bytes(f"{SAMPLE}, line {k}", line) for k, line in enumerate(lines, 1))
    for k, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise BundleError(f"{SAMPLE}, line {k}: must be a record, got {type(record).__name__}")
    return records


def network_from(config: Mapping[str, Any], n_features: int, weights: bytes) -> Network:
    """Return the network of a configuration with its weights.

    It is first built without memory for numbers, so that an architecture which is not that of the weights
    costs none.

    Raises
    ------
    BundleError
        If the architecture cannot be built, or does not fit features, classes, slices or weights.
    """
    shape = config["architecture"]
    try:
        state = tensors.load(weights)
    except _WEIGHT_FAULTS as error:
        raise BundleError(f"{WEIGHTS} holds no weights: {error}") from error
    with reading(f"{CONFIG}: the architecture cannot be built"), torch.device("meta"):
        outline = network_from_config(shape)
    with reading(f"{CONFIG}, architecture"):
        _check_fit(shape, outline, n_features, config)
        _check_weights(outline, state)
        model = network_from_config(shape)
        model.load_state_dict(state)
    return cast("Network", model.eval())


def _check_weights(outline: nn.Module, state: Mapping[str, Tensor]) -> None:
    needed = {name: (tuple(value.shape), value.dtype) for name, value in outline.state_dict().items()}
    has = {name: (tuple(value.shape), value.dtype) for name, value in state.items()}
    for name in sorted(needed.keys() | has.keys()):
        if needed.get(name) != has.get(name):
            raise BundleError(
                f"{WEIGHTS} does not fit the architecture in {CONFIG}: {name} must be {needed.get(name)}, "
                f"is {has.get(name)}"
            )


def _check_fit(shape: Mapping[str, Any], model: Any, n_features: int, config: Mapping[str, Any]) -> None:
    slices = [function["name"] for function in config["functions"]]
    facts = [
        ("features", shape.get("backbone", {}).get("in_features"), n_features),
        ("classes", model.num_classes, len(config["classes"])),
        ("slices", list(getattr(model, "slice_names", slices)), slices),
    ]
    for what, has, needs in facts:
        if has != needs:
            raise BundleError(f"{CONFIG}: the architecture has {what} {has}, the rest of the bundle {needs}")
