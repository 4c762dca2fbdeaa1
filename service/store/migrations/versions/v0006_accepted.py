"""Alarms whose rate was accepted as the new normal: requested, then adopted by the detectors."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the column."""
    op.add_column("alarms", sa.Column("accepted", sa.Text))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("alarms", "accepted")
