"""Phase ``align`` of model versions: contrastive training of a dual encoder before its readout is fitted.

The phase has its own learning curve. Its loss is contrastive, not the squared error of a target, and a model after
this phase has no scores.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

PHASE = "align, readout or finetune; fit for a baseline"
TRAIN_LOSS = "mean squared error of the standardised target; the contrastive loss in the align phase"
OLD_PHASE = "readout or finetune; fit for a baseline"
OLD_TRAIN_LOSS = "mean squared error of the standardised target"


def upgrade() -> None:
    """Permit the phase, and document its losses."""
    op.drop_constraint(op.f("ck_model_versions_phase"), "model_versions")
    op.create_check_constraint(
        op.f("ck_model_versions_phase"), "model_versions", "phase IN ('fit', 'align', 'readout', 'finetune')"
    )
    op.alter_column("model_versions", "phase", comment=PHASE, existing_comment=OLD_PHASE)
    op.alter_column("epochs", "train_loss", comment=TRAIN_LOSS, existing_comment=OLD_TRAIN_LOSS)


def downgrade() -> None:
    """Remove the phase with its model versions and learning curves."""
    op.execute("DELETE FROM model_versions WHERE phase = 'align'")
    op.drop_constraint(op.f("ck_model_versions_phase"), "model_versions")
    op.create_check_constraint(
        op.f("ck_model_versions_phase"), "model_versions", "phase IN ('fit', 'readout', 'finetune')"
    )
    op.alter_column("model_versions", "phase", comment=OLD_PHASE, existing_comment=PHASE)
    op.alter_column("epochs", "train_loss", comment=OLD_TRAIN_LOSS, existing_comment=TRAIN_LOSS)
