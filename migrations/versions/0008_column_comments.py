"""Describe columns with the terms of the field, in plain English."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

COMMENTS = (
    (
        "ingest_runs",
        "source_release",
        "the source's own version of its data",
        "version of its data as the source states it",
    ),
    (
        "ingest_runs",
        "parameters",
        "options of the run, recipes and text levels included",
        "options of the run, including recipes and text levels",
    ),
    (
        "ingest_outcomes",
        "input_sha256",
        "of everything the source offered and every option that shapes the result; null where it was not read",
        "of all inputs of the source and of all options that affect the result; null where it was not read",
    ),
    (
        "crystal_revisions",
        "content_sha256",
        "of structure, properties and densities as they came",
        "of structure, properties and densities as the source provided them",
    ),
    (
        "levels_of_theory",
        "preference",
        "the smallest is shown first",
        "of several values the one with the smallest preference is shown",
    ),
    (
        "property_values",
        "value",
        "in the unit of the table properties",
        "in the property's unit, see the table properties",
    ),
    (
        "densities",
        "provenance",
        "how it was calculated, as its file says",
        "how it was calculated, as stated in its file",
    ),
    ("slice_images", "pixel_min", "per channel", "per channel [unit of the recipe]"),
    ("slice_images", "pixel_max", "per channel", "per channel [unit of the recipe]"),
    ("slice_images", "pixel_mean", "per channel", "per channel [unit of the recipe]"),
    ("slice_images", "pixel_std", "per channel", "per channel [unit of the recipe]"),
    ("splits", "origin", "made by a rule, or imported from a file", "rule, or file where it was imported"),
    (
        "split_members",
        "source_id",
        "source:id, or the id that a file gave",
        "source:id, or the id in the imported file",
    ),
    (
        "split_members",
        "revision_id",
        "null for an id of an imported file that is not known",
        "null for an unknown id of an imported file",
    ),
    (
        "experiments",
        "name",
        "what the user calls the model: image, text, stacked, baseline-magpie",
        "name of the model: image, text, stacked, baseline-magpie",
    ),
    ("experiments", "kind", "the network or baseline that was trained", "kind of the model"),
    (
        "model_versions",
        "n_train",
        "rows that the weights were fitted to",
        "number of rows that the weights were fitted to",
    ),
    (
        "model_versions",
        "best_epoch",
        "epoch whose weights were kept, from 1",
        "epoch of the weights that were kept, from 1",
    ),
    (
        "epochs",
        "stop_loss",
        "the same on the inner rows that early stopping looks at; null in the refit",
        "the same on the inner rows that early stopping uses; null in the refit",
    ),
    ("metrics", "n", "rows that were scored", "number of rows that were scored"),
    (
        "predictions",
        "subset",
        "part the crystal plays in the model's split; none: outside it",
        "subset of the crystal in the model's split; none: not in the split",
    ),
    (
        "predictions",
        "spread",
        "standard deviation over the models of the folds, in the unit of the target; no error bar",
        "standard deviation over the models of the folds, in the unit of the target; not an error bar",
    ),
    (
        "predictions",
        "out_of_domain",
        "whether the crystal lies farther from the cross-validated rows than 99 % of them from those of "
        "other folds; null for a model without features",
        "whether the crystal is farther from the cross-validated rows than 99 % of them are from those of "
        "other folds; null for a model without features",
    ),
    (
        "encoders",
        "preprocessing",
        "what happens to an input before the weights see it",
        "steps between an input and the weights",
    ),
    (
        "embeddings",
        "input_sha256",
        "of the input, so that a stale vector is seen",
        "of the input, to detect outdated vectors",
    ),
)
"""Table, column, old comment, new comment."""


def upgrade() -> None:
    """Replace the comments."""
    for table, column, old, new in COMMENTS:
        op.alter_column(table, column, comment=new, existing_comment=old)


def downgrade() -> None:
    """Restore the comments."""
    for table, column, old, new in COMMENTS:
        op.alter_column(table, column, comment=old, existing_comment=new)
