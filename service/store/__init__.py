"""The store: log, derived counts, alarms and runs; the only SQL of the service."""
