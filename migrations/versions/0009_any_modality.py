"""Accept encoders of any modality: a modality that another package adds has a name of its own."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

BUILT_IN = "modality IN ('image', 'text', 'composition', 'density', 'stacked')"


def upgrade() -> None:
    """Check the form of the name alone."""
    op.drop_constraint(op.f("ck_encoders_modality"), "encoders", type_="check")
    op.create_check_constraint(op.f("ck_encoders_modality"), "encoders", "modality ~ '^[a-z][a-z0-9_-]*$'")


def downgrade() -> None:
    """Accept the modalities of this project alone; fails while there are encoders of others."""
    op.drop_constraint(op.f("ck_encoders_modality"), "encoders", type_="check")
    op.create_check_constraint(op.f("ck_encoders_modality"), "encoders", BUILT_IN)
