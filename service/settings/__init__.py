"""Settings of a project: one YAML file, overridden by variables, validated into one frozen value.

This module has the names and choices, without slow imports.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

FILE_NAME = "slicewatch.yaml"
PREFIX = "SLICEWATCH_"
OTHER_VARIABLES = ("SLICEWATCH_CONFIG", "SLICEWATCH_DEBUG")
"""Variables with the prefix that are not settings."""

FEATURE_KINDS = ("text", "number", "category")
TABLE_FORMATS = ("csv", "tsv", "parquet", "jsonl")
"""Formats of a table whose suffix names none; ``table`` is a format by suffix or content."""
FORMATS = ("table", *TABLE_FORMATS, "youtube", "sms")
LEARNERS = ("slice_residual", "slice_aware", "erm", "weighted_erm")
SURVIVES = ("kill", "power")


def variable(key: str) -> str:
    """Return the variable that overrides a setting.

    Examples
    --------
    >>> variable("learner.epochs")
    'SLICEWATCH_LEARNER_EPOCHS'
    """
    return PREFIX + key.upper().replace(".", "_")


def nearest(name: str, options: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the nearest spelling, or nothing.

    Examples
    --------
    >>> nearest("lable", ["label", "data"])
    "; did you mean 'label'?"
    """
    from sfs.errors import quoted_beside

    by_lower = {option.lower(): option for option in options}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.65)
    return f"; did you mean {quoted_beside(by_lower[close[0]], name)}?" if close else ""
