"""Prometheus metrics: the only code that uses ``prometheus_client``."""
