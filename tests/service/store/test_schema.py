"""Migrations lead to the tables of the code, all at once or not at all."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from factories import dirty_count, recount
from sqlalchemy import inspect, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from service.events import FunctionSetVersion
from service.store import queries
from service.store.engine import (
    STEPS,
    Store,
    current_revision,
    downgrade_schema,
    latest_revision,
    upgrade_schema,
)
from service.store.errors import UnknownSchema
from service.store.labels import first_labels
from service.store.tables import metadata
from service.store.writer import Writer

FUNCTIONS = FunctionSetVersion("set-1", ("f",), ("x",), datetime(2026, 5, 1, tzinfo=UTC))
LOOP_TABLES = {"first_labels", "alarms", "runs", "audit", "reports"}


def test_the_steps_make_the_tables_of_the_code(store: Store) -> None:
    """A migrated store has the tables, columns, keys and indexes of ``tables``, and nothing else."""
    with store.writing.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert current_revision(connection) == latest_revision()


def test_unique_keys_are_those_of_the_code(store: Store) -> None:
    """The names and columns of every unique key agree, which the comparison of tables does not see."""
    with store.read() as connection:
        for table in metadata.sorted_tables:
            there = {k["name"]: k["column_names"] for k in inspect(connection).get_unique_constraints(table.name)}
            keys = {c for c in table.constraints if c.__visit_name__ == "unique_constraint"}
            assert there == {c.name: [column.name for column in c.columns] for c in keys}


def test_upgrading_twice_changes_nothing(store: Store) -> None:
    """A store of the latest version is unchanged."""
    with store.writing.begin() as connection:
        upgrade_schema(connection)
        assert current_revision(connection) == latest_revision()


def test_the_steps_can_be_taken_back(store: Store) -> None:
    """Downgrading to the base drops all tables, and upgrading creates them again."""
    with store.writing.begin() as connection:
        downgrade_schema(connection, "base")
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}
        upgrade_schema(connection)
        assert set(metadata.tables) < set(inspect(connection).get_table_names())


def test_a_store_from_before_votes_were_kept(tmp_path: Path, prediction, functions, start) -> None:
    """Old sets have no votes until they are recorded again, which recounts their blocks."""
    first, voting = functions(), replace(functions(), votes=("short", "asks"))
    with Store(tmp_path / "log.db") as store:
        writer = Writer(store)
        writer.record_functions(first)
        writer.append([prediction("p1"), prediction("p2", 400)])
        writer.submit(lambda _: None).result()
        recount(store, writer)
        writer.stop()
        with store.writing.begin() as connection:
            downgrade_schema(connection, "0001")
            assert "votes" not in {c["name"] for c in inspect(connection).get_columns("function_sets")}
    with Store(tmp_path / "log.db") as store:
        writer = Writer(store)
        with store.read() as connection:
            assert queries.function_set(connection, first.hash) == first
            assert dirty_count(connection) == 0
        for _ in range(2):
            writer.record_functions(voting).result()
        assert recount(store, writer) == 2
        writer.stop()
        with store.read() as connection:
            assert queries.function_set(connection, first.hash) == voting
            blocks = queries.counts_between(connection, "spam", 1, start, start + timedelta(days=1))
    assert [(block.member[3], block.unknown[3]) for block in blocks] == [(0, 1), (0, 1)]


def test_a_store_from_before_first_labels_were_kept(tmp_path: Path, prediction, label) -> None:
    """Rows labelled before the migration have no first label; rows labelled later do."""
    with Store(tmp_path / "log.db") as store:
        writer = Writer(store)
        writer.record_functions(FUNCTIONS)
        writer.append([prediction("labelled", member=b"\x01"), prediction("open", member=b"\x02")])
        writer.label("spam", [label("labelled"), label("early")]).result()
        writer.stop()
        with store.writing.begin() as connection:
            downgrade_schema(connection, "0002")
            assert LOOP_TABLES.isdisjoint(inspect(connection).get_table_names())
    with Store(tmp_path / "log.db") as store:
        writer = Writer(store)
        with store.read() as connection:
            assert set(inspect(connection).get_table_names()) > LOOP_TABLES
            assert queries.labels(connection, "spam", ["labelled"]) == {"labelled": "spam"}
            assert first_labels(connection, "spam", 0, 9) == []
        writer.label("spam", [label("labelled", "ham", seconds=90), label("open", "ham")])
        writer.append([prediction("early", member=b"\x04")])
        writer.stop()
        with store.read() as connection:
            kept = [(each.member, each.label) for each in first_labels(connection, "spam", 0, 9)]
            assert queries.labels(connection, "spam", ["labelled"]) == {"labelled": "ham"}
    assert kept == [(b"\x02", "ham"), (b"\x04", "spam")]


def test_a_step_that_fails_leaves_nothing(store: Store) -> None:
    """An interrupted upgrade leaves the store as it was."""
    with store.writing.begin() as connection:
        downgrade_schema(connection, "base")
    with store.writing.connect() as connection, connection.begin() as transaction:
        upgrade_schema(connection)
        assert "blocks" in inspect(connection).get_table_names()
        transaction.rollback()
    with store.read() as connection:
        assert set(inspect(connection).get_table_names()) <= {"alembic_version"}


def test_a_store_of_a_later_version_is_refused(store: Store) -> None:
    """The error names the unknown version and the remedy."""
    with store.writing.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with (
        pytest.raises(UnknownSchema, match=rf"has schema 9999.*its latest is {latest_revision()}.*use the release"),
        store.writing.begin() as connection,
    ):
        upgrade_schema(connection)


def test_every_table_can_be_spelled_for_postgresql() -> None:
    """All tables compile for PostgreSQL, with generated row numbers and 64-bit times."""
    spelled = {t.name: str(CreateTable(t).compile(dialect=postgresql.dialect())) for t in metadata.sorted_tables}
    assert "row BIGSERIAL" in spelled["predictions"].replace('"', "")
    assert "at_us BIGINT NOT NULL" in spelled["predictions"]
    assert "member BYTEA NOT NULL" in spelled["predictions"]
    assert "prediction_row BIGINT NOT NULL" in spelled["label_current"]
    assert "start_us BIGINT NOT NULL" in spelled["blocks"]


def spelled_steps() -> str:
    """Return the migration steps as PostgreSQL statements."""
    told = io.StringIO()
    options = {"as_sql": True, "output_buffer": told}
    context = MigrationContext.configure(dialect_name="postgresql", opts=options)
    with Operations.context(context):
        for step in reversed(list(ScriptDirectory(str(STEPS)).walk_revisions())):
            step.module.upgrade()
    return " ".join(told.getvalue().split())


def test_the_steps_make_the_indexes_of_the_code_on_postgresql_too() -> None:
    """The migrations create the same indexes, with their conditions."""
    told, dialect = spelled_steps(), postgresql.dialect()
    indexes = [index for table in metadata.sorted_tables for index in table.indexes]
    spelled = [str(CreateIndex(index).compile(dialect=dialect)) for index in indexes]
    assert all(f"{each};" in told for each in spelled)
    assert sum("WHERE" in each for each in spelled) == 2


@pytest.mark.parametrize("name", ["uq_alarms_unresolved", "uq_runs_active"])
def test_rows_of_some_states_are_unique_on_sqlite_as_in_the_code(store: Store, name: str) -> None:
    """The condition of a partial index is the same in the file as in the code."""
    (index,) = (i for table in metadata.sorted_tables for i in table.indexes if i.name == name)
    with store.read() as connection:
        query = text("SELECT sql FROM sqlite_master WHERE name = :name")
        assert connection.scalar(query, {"name": name}) == str(
            CreateIndex(index).compile(dialect=store.writing.dialect)
        )
