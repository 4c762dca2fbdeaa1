"""Metrics, request log and traces: the only code that uses ``prometheus_client`` and ``opentelemetry``."""
