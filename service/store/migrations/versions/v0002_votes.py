"""Which functions of a set are labelling functions; of the sets until now it is not known, so none."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the names of the votes to every function set."""
    op.add_column("function_sets", sa.Column("votes", sa.Text, nullable=False, server_default="[]"))


def downgrade() -> None:
    """Take them away."""
    op.drop_column("function_sets", "votes")
