"""Column ``densities.structure``: the atoms in the cell of the density where it is not the stored cell.

Densities of the Materials Project were calculated in cells that were relaxed separately from the published structure.
Reading a density around its atoms requires the positions in that cell.
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
    """Add the column; null means that the density has the cell of its revision."""
    op.add_column("densities", Column("structure", JSONB(), nullable=True, comment=COMMENT))


def downgrade() -> None:
    """Remove the column with its structures."""
    op.drop_column("densities", "structure")
