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


class RegistryUnavailable(RegistryError):
    """Registry that cannot be read or written: damaged change of an alias, missing permission, full disk."""


def require_type(value: object, kind: type | tuple[type, ...], what: str, accepted: str) -> None:
    """Refuse an argument of another type, naming the accepted one.

    Raises
    ------
    DataError
        If the value is not an instance of ``kind``.
    """
    if not isinstance(value, kind):
        raise DataError(f"{what} must be {accepted}, got {type(value).__name__}")
