"""Column ``predictions.out_of_domain``: whether the crystal is outside the domain of the training data.

Predictions have intervals from this revision on. The flag marks crystals for which an interval may be too narrow.
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
    """Add the column; it is null for existing predictions."""
    op.add_column("predictions", Column("out_of_domain", Boolean(), nullable=True, comment=COMMENT))


def downgrade() -> None:
    """Remove the column with its values."""
    op.drop_column("predictions", "out_of_domain")
