"""Settings of a project: one YAML file, overridden by variables, validated into one frozen value.

This module has the names and choices, without slow imports.
"""

from __future__ import annotations

FILE_NAME = "slicewatch.yaml"
PREFIX = "SLICEWATCH_"
KEY_VARIABLE = "SLICEWATCH_KEY"
"""Variable with the key of commands that call a service."""
OTHER_VARIABLES = ("SLICEWATCH_CONFIG", "SLICEWATCH_DEBUG", KEY_VARIABLE, "SLICEWATCH_CA")
"""Variables with the prefix that are not settings."""

FEATURE_KINDS = ("text", "number", "category")
TABLE_FORMATS = ("csv", "tsv", "parquet", "jsonl")
"""Formats of a table whose suffix names none; ``table`` is a format by suffix or content."""
FORMATS = ("table", *TABLE_FORMATS, "youtube", "sms")
LEARNERS = ("auto", "slice_residual", "slice_aware", "erm", "weighted_erm")
LABELS = ("given", "from functions")
STREAMS = ("no_slice", "unknown", "predicted", "disagreement", "confidence", "votes")
SURVIVES = ("kill", "power")
REQUEST_POLICIES = ("all", "errors", "none")


def variable(key: str) -> str:
    """Return the variable that overrides a setting, such as SLICEWATCH_LEARNER_EPOCHS for learner.epochs."""
    return PREFIX + key.upper().replace(".", "_")
