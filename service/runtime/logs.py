"""Log format of the process: one JSON object per line, or plain lines on a terminal."""

from __future__ import annotations

import logging
from typing import TextIO

from pythonjsonlogger.json import JsonFormatter

_PLAIN = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
_QUIET = ("apscheduler", "alembic", "uvicorn")
"""Loggers of libraries that log every step; only their warnings are kept."""
_STANDARD_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}


def configure(stream: TextIO, *, plain: bool, level: int = logging.INFO) -> None:
    """Write all log records of the process to a stream, and remove earlier handlers.

    Parameters
    ----------
    stream
        Receives the lines.
    plain
        Whether to write plain lines; otherwise JSON with ``time``, ``level``, ``logger``, ``message``, and
        the extra fields of the record, such as ``request_id``.
    level
        Minimum level.
    """
    handler = logging.StreamHandler(stream)
    if plain:
        handler.setFormatter(_PlainFormatter())
    else:
        names = {"levelname": "level", "name": "logger"}
        template = "%(levelname)s %(name)s %(message)s"
        handler.setFormatter(JsonFormatter(template, rename_fields=names, timestamp="time"))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


class _PlainFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return one record as a line, with its extra fields as ``name=value``."""
        extra = [f"{key}={value}" for key, value in vars(record).items() if key not in _STANDARD_FIELDS]
        return " ".join([_PLAIN.format(record), *extra])
