"""Configuration of a training."""

import json

import pytest

from models.config import LearnerConfig, TrainConfig
from models.errors import ConfigError
from models.features import FeatureSpec


def test_a_configuration_is_json() -> None:
    """The settings of a training are JSON values."""
    config = TrainConfig("y", [FeatureSpec("n", "number")], learner=LearnerConfig(seed=3))  # type: ignore[arg-type]
    written = json.loads(json.dumps(config.to_json()))
    assert written == config.to_json()
    assert written["learner"]["seed"] == 3
    assert written["features"] == [{"column": "n", "kind": "number"}]


def test_the_label_is_no_feature() -> None:
    """A label among the features, an empty name, and no feature at all are refused."""
    feature = FeatureSpec("y", "category")
    with pytest.raises(ConfigError, match="'y' is both the label and a feature"):
        TrainConfig("y", (feature,))
    with pytest.raises(ConfigError, match="name is empty"):
        TrainConfig("z", (feature,), name=" ")
    with pytest.raises(ConfigError, match="no features: name at least one column"):
        TrainConfig("z", ())
