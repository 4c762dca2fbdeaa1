"""The parts of a bundle between memory and bytes, each refused by name when it is not what it must be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol, cast

import numpy as np
import safetensors
from numpy.typing import NDArray
from safetensors import torch as tensors
from torch import Tensor

from models.bundle_files import FORMAT, from_json_bytes
from models.errors import BundleError, ModelError
from models.features import Featurizer
from models.learners import network_from_config
from models.rows import FeatureRows
from sfs.matrix import SliceMatrix

CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
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
    return config


def _check_names(what: str, names: list[Any], at_least: int) -> None:
    if (
        not all(isinstance(name, str) for name in names)
        or len(set(names)) != len(names)
        or len(names) < at_least
    ):
        raise BundleError(f"{CONFIG}: {what} must be {at_least} or more different texts, got {names}")


def featurizer_from(config: Mapping[str, Any]) -> Featurizer:
    """Return the featurizer of a configuration; BundleError if its state is none."""
    try:
        return Featurizer.from_json(config["features"])
    except ModelError as error:
        raise BundleError(f"{CONFIG}: {error}") from error


def network_from(config: Mapping[str, Any], n_features: int, weights: bytes) -> Network:
    """Return the network of a configuration with its weights.

    Raises
    ------
    BundleError
        If the architecture cannot be built, or does not fit features, classes, slices or weights.
    """
    shape = config["architecture"]
    try:
        state = tensors.load(weights)
        model = network_from_config(shape)
    except (safetensors.SafetensorError, json.JSONDecodeError) as error:
        raise BundleError(f"{WEIGHTS} holds no weights: {error}") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BundleError(f"{CONFIG}: the architecture cannot be built: {error!r}") from error
    _check_fit(shape, model, n_features, config)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise BundleError(f"{WEIGHTS} does not fit the architecture in {CONFIG}: {error}") from error
    return cast("Network", model.eval())


def _check_fit(shape: Mapping[str, Any], model: Any, n_features: int, config: Mapping[str, Any]) -> None:
    slices = [function["name"] for function in config["functions"]]
    facts = [
        ("features", shape.get("backbone", {}).get("in_features"), n_features),
        ("classes", model.num_classes, len(config["classes"])),
        ("slices", list(shape.get("slice_names", slices)), slices),
    ]
    for what, has, needs in facts:
        if has != needs:
            raise BundleError(f"{CONFIG}: the architecture has {what} {has}, the rest of the bundle {needs}")
