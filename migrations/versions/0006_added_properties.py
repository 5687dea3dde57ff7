"""Store the whole definition of a property in the table, so that users can add their own.

Label, reason of the range, lower bound and whether a property is a target were defined in the code only.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import Boolean, Column, Double, Text, text

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

COMMENTS = {
    "label": "words for axes and tables, without the unit",
    "range_reason": "why a value outside the range is suspect",
    "lower_bound": (
        "physical lower bound, where prediction intervals end [the property's unit]; null where there is none"
    ),
    "target": "whether similarity searches report it for each neighbour",
    "builtin": "whether ecdreg defines it; else a user added it",
}
BUILTIN = (
    "formation_energy_per_atom",
    "efermi",
    "k_vrh",
    "g_vrh",
    "band_gap",
    "total_magnetization",
    "energy_above_hull",
)


def upgrade() -> None:
    """Add the columns; the definitions of the code fill them at the end of the upgrade."""
    for name in ("label", "range_reason"):
        op.add_column("properties", Column(name, Text(), nullable=True, comment=COMMENTS[name]))
    op.add_column("properties", Column("lower_bound", Double(), nullable=True, comment=COMMENTS["lower_bound"]))
    for name in ("target", "builtin"):
        op.add_column(
            "properties",
            Column(name, Boolean(), nullable=False, server_default=text("false"), comment=COMMENTS[name]),
        )
    op.execute("UPDATE properties SET label = replace(name, '_', ' '), range_reason = 'outside the range given for it'")
    op.execute(f"UPDATE properties SET builtin = true WHERE name IN ({', '.join(map(repr, BUILTIN))})")
    for name in ("label", "range_reason"):
        op.alter_column("properties", name, nullable=False)
    op.create_check_constraint(op.f("ck_properties_name"), "properties", "name ~ '^[a-z][a-z0-9_]*$'")
    op.create_check_constraint(op.f("ck_properties_lower_bound"), "properties", "lower_bound <= plausible_min")


def downgrade() -> None:
    """Remove the columns; properties of users keep their rows, and the code of that revision ignores them."""
    op.drop_constraint(op.f("ck_properties_name"), "properties")
    op.drop_constraint(op.f("ck_properties_lower_bound"), "properties")
    for name in reversed(COMMENTS):
        op.drop_column("properties", name)
