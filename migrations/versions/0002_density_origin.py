"""Column ``densities.origin``: the source object of a downloaded density.

The Materials Project stores one object for each calculation. Its task, key, ETag and checksum identify one density
among those of a material, so that a registry can be built again exactly.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COMMENT = (
    "what it was downloaded from: task_id, bucket, key, etag, sha256, bytes; of a grid made smaller also: slim,"
    " native_grid; null for a local file at its native grid"
)


def upgrade() -> None:
    """Add the column; it is null for existing densities, which were read from files."""
    op.add_column("densities", Column("origin", JSONB(), nullable=True, comment=COMMENT))


def downgrade() -> None:
    """Remove the column with its values."""
    op.drop_column("densities", "origin")
