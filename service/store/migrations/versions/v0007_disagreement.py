"""Slices of which the model's own indicators contradict the functions, by row; unknown for existing rows."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the column."""
    op.add_column("predictions", sa.Column("disagreement", sa.LargeBinary))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("predictions", "disagreement")
