"""The errors of the first floor; every message says what, which value, and what to do."""


class ModelError(ValueError):
    """Anything wrong with models, their data, or their storage."""


class DataError(ModelError):
    """The rows or labels cannot be learned from or predicted."""


class ConfigError(ModelError):
    """A training configuration names something that does not exist or cannot be."""


class BundleError(ModelError):
    """A bundle is incomplete, altered, or does not reproduce its golden batch."""


class RegistryError(ModelError):
    """A version or alias does not exist, or another writer was first."""
