"""Name the text level of a description as everywhere else: ``text_level``.

``level`` could also be read as the level of theory.
"""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Rename the column and its constraints; rows stay."""
    _rename("level", "text_level")


def downgrade() -> None:
    """Give the column and its constraints their old names."""
    _rename("text_level", "level")


def _rename(old: str, new: str) -> None:
    op.alter_column("descriptions", old, new_column_name=new)
    op.execute(f"ALTER TABLE descriptions RENAME CONSTRAINT ck_descriptions_{old} TO ck_descriptions_{new}")
    # From PostgreSQL 18 on, NOT NULL is a constraint with a name.
    op.execute(
        f"""
        DO $$
        BEGIN
            IF EXISTS (
                SELECT FROM pg_constraint
                WHERE conrelid = 'descriptions'::regclass AND conname = 'descriptions_{old}_not_null'
            ) THEN
                ALTER TABLE descriptions RENAME CONSTRAINT descriptions_{old}_not_null TO descriptions_{new}_not_null;
            END IF;
        END
        $$
        """
    )
