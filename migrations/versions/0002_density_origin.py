"""Densities say where they were downloaded from, so that a registry can be made again exactly.

The Materials Project keeps one object per calculation; its task, key, ETag and checksum make
the difference between "a density of this material" and "this density".
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
    """Add the column; densities that are there came from files."""
    op.add_column("densities", Column("origin", JSONB(), nullable=True, comment=COMMENT))


def downgrade() -> None:
    """Remove the column, with what it says."""
    op.drop_column("densities", "origin")
