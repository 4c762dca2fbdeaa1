"""First labels, alarms, runs, audit and reports; existing labels do not become first labels."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create these tables."""
    _make_first_labels()
    _make_alarms()
    _make_runs()
    _make_records()


def downgrade() -> None:
    """Drop them."""
    for table in ("reports", "audit", "runs", "alarms", "first_labels"):
        op.drop_table(table)


def _make_first_labels() -> None:
    op.create_table(
        "first_labels",
        sa.Column("seq", ROW_NUMBER, autoincrement=True),
        sa.Column("prediction_row", ROW_NUMBER, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_first_labels"),
        sa.UniqueConstraint("prediction_row", name="uq_first_labels_prediction_row"),
        sa.ForeignKeyConstraint(["prediction_row"], ["predictions.row"], name="fk_first_labels_prediction_row"),
    )
    op.create_index("ix_first_labels_model_seq", "first_labels", ["model", "seq"])


def _make_alarms() -> None:
    op.create_table(
        "alarms",
        sa.Column("id", ROW_NUMBER, autoincrement=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("slice", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("drift", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("acknowledged_us", sa.BigInteger),
        sa.Column("acknowledged_by", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("resolved_us", sa.BigInteger),
        sa.Column("resolution", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_alarms"),
    )
    _make_unique("uq_alarms_unresolved", "alarms", ["model", "slice", "kind"], ["open", "acknowledged"])


def _make_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("id", ROW_NUMBER, autoincrement=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("trigger", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("opened_us", sa.BigInteger, nullable=False),
        sa.Column("updated_us", sa.BigInteger, nullable=False),
        sa.Column("alarms", sa.Text, nullable=False),
        sa.Column("slices", sa.Text, nullable=False),
        sa.Column("since_us", sa.BigInteger),
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("champion", sa.BigInteger),
        sa.Column("candidate", sa.BigInteger),
        sa.Column("data", sa.Text),
        sa.Column("decision", sa.Text),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
    )
    _make_unique("uq_runs_active", "runs", ["model"], ["waiting_for_labels", "training", "gated"])


def _make_records() -> None:
    op.create_table(
        "audit",
        sa.Column("id", ROW_NUMBER, autoincrement=True),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_table(
        "reports",
        sa.Column("id", ROW_NUMBER, autoincrement=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("start_us", sa.BigInteger, nullable=False),
        sa.Column("end_us", sa.BigInteger, nullable=False),
        sa.Column("reference_rows", sa.BigInteger, nullable=False),
        sa.Column("current_rows", sa.BigInteger, nullable=False),
        sa.Column("columns", sa.Text, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_reports"),
    )


def _make_unique(name: str, table: str, columns: list[str], states: list[str]) -> None:
    """Create an index that makes these columns unique among rows in these states."""
    condition = sa.column("state").in_(states)
    op.create_index(name, table, columns, unique=True, sqlite_where=condition, postgresql_where=condition)
