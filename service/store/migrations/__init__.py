"""Schema migrations, run by ``service.store.schema``."""
