"""Errors of models; every message gives the cause, the value, and a remedy."""


class ModelError(ValueError):
    """Error of a model, its data, or its storage."""


class DataError(ModelError):
    """Rows or labels unfit for training or prediction."""


class ConfigError(ModelError):
    """Invalid configuration."""


class BundleError(ModelError):
    """Incomplete or altered bundle, or one that does not reproduce its golden batch."""


class RegistryError(ModelError):
    """Missing version or alias, or a concurrent change of an alias."""
