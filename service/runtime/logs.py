"""The log of the process: one JSON object a line, or plain lines for a person at a terminal."""

from __future__ import annotations

import logging
from typing import TextIO

from pythonjsonlogger.json import JsonFormatter

_PLAIN = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
_QUIET = ("apscheduler", "alembic", "uvicorn")
"""Loggers of libraries that say too much; their warnings stay."""


def configure(stream: TextIO, *, plain: bool, level: int = logging.INFO) -> None:
    """Write every record of the process to a stream, in place of what was configured before.

    Parameters
    ----------
    stream
        Where the lines go.
    plain
        Lines for people; otherwise JSON, with the fields ``time``, ``level``, ``logger``, ``message``, and
        whatever else the record carries, such as ``request_id``.
    level
        The least severity that is written.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_PlainFields() if plain else _json())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


def _json() -> JsonFormatter:
    names = {"levelname": "level", "name": "logger"}
    return JsonFormatter("%(levelname)s %(name)s %(message)s", rename_fields=names, timestamp="time")


class _PlainFields(logging.Formatter):
    """Plain lines, to which the further fields of a record are added as ``name=value``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one record as text."""
        more = {key: value for key, value in vars(record).items() if key not in _KNOWN}
        return " ".join([_PLAIN.format(record), *(f"{key}={value}" for key, value in more.items())])


_KNOWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}
