"""Slicewatch service: commands, HTTP API, console, monitoring and retraining."""
