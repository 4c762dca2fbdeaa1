"""Incidents; alarms so far belong to none until the service assigns the unresolved ones."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the table, and the place of an alarm in an incident."""
    op.create_table(
        "incidents",
        sa.Column("id", ROW_NUMBER, autoincrement=True),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("acknowledged_us", sa.BigInteger),
        sa.Column("acknowledged_by", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_incidents"),
    )
    op.add_column("alarms", sa.Column("incident", sa.BigInteger))
    op.add_column("alarms", sa.Column("place", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("alarms", sa.Column("moved", sa.Text, nullable=False, server_default=""))
    op.create_index("ix_alarms_incident", "alarms", ["incident"])


def downgrade() -> None:
    """Drop them."""
    op.drop_index("ix_alarms_incident", "alarms")
    for column in ("moved", "place", "incident"):
        op.drop_column("alarms", column)
    op.drop_table("incidents")
