"""First tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create all tables."""
    _make_log()
    _make_labels()
    _make_counts()


def downgrade() -> None:
    """Drop all tables."""
    for table in (
        "checkpoints",
        "dirty_blocks",
        "blocks",
        "pending_labels",
        "label_current",
        "label_events",
        "predictions",
        "function_sets",
    ):
        op.drop_table(table)


def _make_log() -> None:
    op.create_table(
        "function_sets",
        sa.Column("hash", sa.Text),
        sa.Column("names", sa.Text, nullable=False),
        sa.Column("fingerprints", sa.Text, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_function_sets"),
    )
    op.create_table(
        "predictions",
        sa.Column("row", ROW_NUMBER, autoincrement=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("set_hash", sa.Text, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("probabilities", sa.LargeBinary),
        sa.Column("member", sa.LargeBinary, nullable=False),
        sa.Column("unknown", sa.LargeBinary, nullable=False),
        sa.Column("features", sa.Text),
        sa.Column("content_hash", sa.BigInteger, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("row", name="pk_predictions"),
        sa.UniqueConstraint("model", "id", name="uq_predictions_model_id"),
        sa.ForeignKeyConstraint(["set_hash"], ["function_sets.hash"], name="fk_predictions_set_hash"),
    )
    op.create_index("ix_predictions_model_at_us", "predictions", ["model", "at_us"])


def _make_labels() -> None:
    op.create_table(
        "label_events",
        sa.Column("row", ROW_NUMBER, autoincrement=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("prediction_id", sa.Text, nullable=False),
        sa.Column("observed_us", sa.BigInteger, nullable=False),
        sa.Column("labeller", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("received_us", sa.BigInteger, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("row", name="pk_label_events"),
        sa.UniqueConstraint(
            "model", "prediction_id", "observed_us", "labeller", "label", name="uq_label_events_statement"
        ),
        sa.UniqueConstraint("model", "idempotency_key", name="uq_label_events_model_idempotency_key"),
    )
    op.create_table(
        "label_current",
        sa.Column("prediction_row", ROW_NUMBER, autoincrement=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("observed_us", sa.BigInteger, nullable=False),
        sa.Column("received_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("prediction_row", name="pk_label_current"),
        sa.ForeignKeyConstraint(["prediction_row"], ["predictions.row"], name="fk_label_current_prediction_row"),
    )
    op.create_table(
        "pending_labels",
        sa.Column("model", sa.Text),
        sa.Column("prediction_id", sa.Text),
        sa.Column("received_us", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("model", "prediction_id", name="pk_pending_labels"),
    )


def _make_counts() -> None:
    op.create_table(
        "blocks",
        sa.Column("model", sa.Text),
        sa.Column("version", sa.BigInteger, autoincrement=False),
        sa.Column("set_hash", sa.Text),
        sa.Column("start_us", sa.BigInteger, autoincrement=False),
        sa.Column("seconds", sa.BigInteger, autoincrement=False),
        sa.Column("counts", sa.LargeBinary, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("model", "version", "start_us", "seconds", "set_hash", name="pk_blocks"),
    )
    op.create_table(
        "dirty_blocks",
        sa.Column("model", sa.Text),
        sa.Column("version", sa.BigInteger, autoincrement=False),
        sa.Column("set_hash", sa.Text),
        sa.Column("start_us", sa.BigInteger, autoincrement=False),
        sa.Column("mark", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("model", "version", "set_hash", "start_us", name="pk_dirty_blocks"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("name", sa.Text),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("state", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_checkpoints"),
    )
