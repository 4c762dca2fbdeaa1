"""Labelling functions of a set; unknown for existing sets, which get none."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the names of the labelling functions to every function set."""
    op.add_column("function_sets", sa.Column("votes", sa.Text, nullable=False, server_default="[]"))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("function_sets", "votes")
