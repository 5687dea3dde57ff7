"""Predictions say whether their crystal lies outside what the model was fitted to.

The interval was declared from the beginning, and is filled from here on; whether a crystal is
one that such an interval may be trusted for is a fact of its own.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import Boolean, Column

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COMMENT = (
    "whether the crystal lies farther from the cross-validated rows than 99 % of them from those of other folds;"
    " null for a model without features"
)


def upgrade() -> None:
    """Add the column; what was predicted before does not know."""
    op.add_column("predictions", Column("out_of_domain", Boolean(), nullable=True, comment=COMMENT))


def downgrade() -> None:
    """Remove the column, with what it says."""
    op.drop_column("predictions", "out_of_domain")
