"""Exceptions of the models package; messages give the cause, the value and a remedy."""


class ModelError(ValueError):
    """Base class of errors of a model, its data or its storage."""


class DataError(ModelError):
    """Invalid rows or labels for training or prediction."""


class ConfigError(ModelError):
    """Invalid configuration."""


class BundleError(ModelError):
    """Incomplete or altered bundle, or a failed golden-batch check."""


class RegistryError(ModelError):
    """Missing version or alias, or a concurrent change of an alias."""
