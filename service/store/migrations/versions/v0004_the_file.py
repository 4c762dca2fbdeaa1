"""Identity of the file, and an index on the age of pending labels."""

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Create both."""
    table = op.create_table(
        "store_identity",
        sa.Column("id", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_store_identity"),
    )
    op.bulk_insert(table, [{"id": secrets.token_hex(16)}])
    op.create_index("ix_pending_labels_received_us", "pending_labels", ["received_us"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_pending_labels_received_us", "pending_labels")
    op.drop_table("store_identity")
