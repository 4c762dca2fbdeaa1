"""Schema migrations, run by ``service.store.engine``."""
