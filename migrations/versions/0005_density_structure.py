"""Densities know the atoms of their own cell, where that is not the crystal's stored one.

The Materials Project's densities were calculated in cells of their own, relaxed apart from the
structure that it shows; what reads a density around its atoms needs those.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

COMMENT = "atoms in the grid's cell, as pymatgen has them [Å]; null where that is the revision's own structure"


def upgrade() -> None:
    """Add the column; what was ingested before is taken to lie in its revision's cell."""
    op.add_column("densities", Column("structure", JSONB(), nullable=True, comment=COMMENT))


def downgrade() -> None:
    """Remove the column, with the structures in it."""
    op.drop_column("densities", "structure")
