"""Function sets in the store: what the columns of its rows and blocks stand for."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, Row, select, update

from service.events import FunctionSetVersion
from service.store.dirty_blocks import SeriesKey, mark_dirty
from service.store.engine import insert_into
from service.store.tables import blocks, from_us, function_sets, to_us


def to_set(row: Row[Any]) -> FunctionSetVersion:
    """Return the function set that a row of ``function_sets`` keeps."""
    names, prints, votes = (tuple(json.loads(text)) for text in (row.names, row.fingerprints, row.votes))
    return FunctionSetVersion(row.hash, names, prints, from_us(row.at_us), votes)


def find_set(connection: Connection, set_hash: str) -> FunctionSetVersion | None:
    """Return what a set hash stands for; None for a set that was never recorded."""
    row = connection.execute(select(function_sets).where(function_sets.c.hash == set_hash)).first()
    return None if row is None else to_set(row)


def record_set(connection: Connection, functions: FunctionSetVersion) -> None:
    """Keep what a set hash stands for; a set that is there already stays as it is, but for its votes.

    A set from before it was kept which functions are votes learns it here, and its blocks are to be counted
    again: "no slice fired" has another meaning in them.
    """
    known = find_set(connection, functions.hash)
    votes = json.dumps(functions.votes)
    if known is None:
        row = {
            "hash": functions.hash,
            "names": json.dumps(functions.names),
            "fingerprints": json.dumps(functions.fingerprints),
            "at_us": to_us(functions.at),
            "votes": votes,
        }
        connection.execute(insert_into(connection, function_sets).on_conflict_do_nothing(), row)
    elif known.votes != functions.votes:
        here = function_sets.c.hash == functions.hash
        connection.execute(update(function_sets).where(here).values(votes=votes))
        b = blocks.c
        counted = select(b.model, b.version, b.set_hash, b.start_us).where(b.set_hash == functions.hash)
        mark_dirty(connection, [(SeriesKey(*row[:3]), row.start_us) for row in connection.execute(counted)])
