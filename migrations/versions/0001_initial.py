"""Initial schema: all tables, constraints and indexes.

The tables are written out and not derived from ``registry.models``, because a released migration must
not change. ``tests/registry/test_migrations.py`` compares the catalogues of both. ``registry.postgres.requirements``
creates the extension ``vector`` before this revision runs; a downgrade keeps the extension, which may belong to an
administrator.
"""

from __future__ import annotations

from alembic import op
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKeyConstraint,
    Identity,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SHA256 = "~ '^[0-9a-f]{64}$'"
f = op.f  # the name is final: no naming convention is applied to it
TABLES = (
    "ingest_runs",
    "crystals",
    "crystal_revisions",
    "ingest_outcomes",
    "properties",
    "levels_of_theory",
    "property_values",
    "densities",
    "image_recipes",
    "slice_images",
    "slice_inputs",
    "descriptions",
    "splits",
    "split_members",
    "experiments",
    "model_versions",
    "model_aliases",
    "epochs",
    "metrics",
    "predictions",
    "encoders",
    "encoder_aliases",
    "embeddings",
)


def upgrade() -> None:
    """Make all tables."""
    _crystals()
    _modalities()
    _splits()
    _models()
    _embeddings()


def downgrade() -> None:
    """Remove all tables, with their rows."""
    for table in reversed(TABLES):
        op.drop_table(table)


def _crystals() -> None:
    op.create_table(
        "ingest_runs",
        Column("id", BigInteger(), Identity(always=True), nullable=False),
        Column("source", Text(), nullable=False, comment="name of the source: sample, mp, or a folder's name"),
        Column("source_release", Text(), nullable=True, comment="the source's own version of its data"),
        Column("parameters", JSONB(), nullable=False, comment="options of the run, recipes and text levels included"),
        Column("code_version", Text(), nullable=False),
        Column("status", Text(), server_default="running", nullable=False),
        Column("started_at", DateTime(timezone=True), server_default=text("now()"), nullable=False),
        Column("finished_at", DateTime(timezone=True), nullable=True),
        CheckConstraint("(status = 'running') = (finished_at IS NULL)", name=f("ck_ingest_runs_finished")),
        CheckConstraint("status IN ('running', 'finished', 'interrupted', 'failed')", name=f("ck_ingest_runs_status")),
        PrimaryKeyConstraint("id", name=f("pk_ingest_runs")),
    )
    op.create_table(
        "crystals",
        Column("id", BigInteger(), Identity(always=True), nullable=False),
        Column("source", Text(), nullable=False),
        Column("source_id", Text(), nullable=False),
        Column(
            "material_key",
            Text(),
            nullable=False,
            comment="external id (mp-...), else a structure fingerprint: equal for one material under several sources",
        ),
        Column("created_at", DateTime(timezone=True), server_default=text("now()"), nullable=False),
        PrimaryKeyConstraint("id", name=f("pk_crystals")),
        UniqueConstraint("source", "source_id", name=f("uq_crystals_source_source_id")),
    )
    op.create_index(f("ix_crystals_material_key"), "crystals", ["material_key"])
    op.create_index(f("ix_crystals_source_id"), "crystals", ["source_id"])
    op.create_table(
        "crystal_revisions",
        Column("id", BigInteger(), Identity(always=True), nullable=False),
        Column("crystal_id", BigInteger(), nullable=False),
        Column("n", Integer(), nullable=False),
        Column("is_current", Boolean(), nullable=False),
        Column("content_sha256", Text(), nullable=False, comment="of structure, properties and densities as they came"),
        Column("run_id", BigInteger(), nullable=False),
        Column("formula", Text(), nullable=False, comment="reduced formula"),
        Column("chemsys", Text(), nullable=False, comment="elements in alphabetical order, joined by '-'"),
        Column("elements", ARRAY(Text()), nullable=False),
        Column("space_group_number", SmallInteger(), nullable=True),
        Column("space_group_symbol", Text(), nullable=True),
        Column(
            "prototype",
            Text(),
            nullable=True,
            comment="anonymous formula, Pearson symbol and space group number, as AB-cF8-225",
        ),
        Column("n_sites", Integer(), nullable=True, comment="sites of the stored cell"),
        Column("volume", Double(), nullable=True, comment="volume of the stored cell [Å^3]"),
        Column(
            "structure",
            JSONB(),
            nullable=True,
            comment="pymatgen Structure as a dict [Å]; null where only the formula is known",
        ),
        Column("created_at", DateTime(timezone=True), server_default=text("now()"), nullable=False),
        CheckConstraint(f"content_sha256 {SHA256}", name=f("ck_crystal_revisions_content_sha256")),
        CheckConstraint("volume > 0 AND volume < 'Infinity'", name=f("ck_crystal_revisions_volume")),
        CheckConstraint("(structure IS NULL) = (space_group_number IS NULL)", name=f("ck_crystal_revisions_structure")),
        CheckConstraint("cardinality(elements) > 0", name=f("ck_crystal_revisions_elements")),
        CheckConstraint("n >= 1", name=f("ck_crystal_revisions_n")),
        CheckConstraint("n_sites > 0", name=f("ck_crystal_revisions_n_sites")),
        CheckConstraint("space_group_number BETWEEN 1 AND 230", name=f("ck_crystal_revisions_space_group_number")),
        ForeignKeyConstraint(
            ["crystal_id"], ["crystals.id"], name=f("fk_crystal_revisions_crystal_id"), ondelete="CASCADE"
        ),
        ForeignKeyConstraint(["run_id"], ["ingest_runs.id"], name=f("fk_crystal_revisions_run_id")),
        PrimaryKeyConstraint("id", name=f("pk_crystal_revisions")),
        UniqueConstraint("crystal_id", "n", name=f("uq_crystal_revisions_crystal_id_n")),
        UniqueConstraint("id", "crystal_id", name=f("uq_crystal_revisions_id_crystal_id")),
    )
    op.create_index(f("ix_crystal_revisions_chemsys"), "crystal_revisions", ["chemsys"])
    op.create_index(f("ix_crystal_revisions_elements"), "crystal_revisions", ["elements"], postgresql_using="gin")
    op.create_index(f("ix_crystal_revisions_run_id"), "crystal_revisions", ["run_id"])
    op.create_index(
        "uq_crystal_revisions_current",
        "crystal_revisions",
        ["crystal_id"],
        unique=True,
        postgresql_where=text("is_current"),
    )
    op.create_table(
        "ingest_outcomes",
        Column("run_id", BigInteger(), nullable=False),
        Column("source_id", Text(), nullable=False),
        Column("outcome", Text(), nullable=False),
        Column("reason", Text(), nullable=True, comment="why partial, deferred (worth another try) or rejected"),
        Column(
            "input_sha256",
            Text(),
            nullable=True,
            comment="of everything the source offered and every option that shapes the result; "
            "null where it was not read",
        ),
        Column("revision_id", BigInteger(), nullable=True),
        Column("recorded_at", DateTime(timezone=True), server_default=text("now()"), nullable=False),
        CheckConstraint(
            "(outcome IN ('partial', 'deferred', 'rejected')) = (reason IS NOT NULL)",
            name=f("ck_ingest_outcomes_reason"),
        ),
        CheckConstraint(f"input_sha256 {SHA256}", name=f("ck_ingest_outcomes_input_sha256")),
        CheckConstraint(
            "outcome IN ('created', 'updated', 'unchanged', 'partial', 'deferred', 'rejected')",
            name=f("ck_ingest_outcomes_outcome"),
        ),
        ForeignKeyConstraint(["revision_id"], ["crystal_revisions.id"], name=f("fk_ingest_outcomes_revision_id")),
        ForeignKeyConstraint(["run_id"], ["ingest_runs.id"], name=f("fk_ingest_outcomes_run_id"), ondelete="CASCADE"),
        PrimaryKeyConstraint("run_id", "source_id", name=f("pk_ingest_outcomes")),
    )
    op.create_index(f("ix_ingest_outcomes_revision_id"), "ingest_outcomes", ["revision_id"])
    op.create_index(f("ix_ingest_outcomes_source_id_recorded_at"), "ingest_outcomes", ["source_id", "recorded_at"])
    op.create_table(
        "properties",
        Column("name", Text(), nullable=False),
        Column("unit", Text(), nullable=False),
        Column("description", Text(), nullable=False),
        Column("plausible_min", Double(), nullable=False, comment="below it a value is suspect [the property's unit]"),
        Column("plausible_max", Double(), nullable=False, comment="above it a value is suspect [the property's unit]"),
        CheckConstraint("plausible_min < plausible_max", name=f("ck_properties_plausible")),
        PrimaryKeyConstraint("name", name=f("pk_properties")),
    )
    op.create_table(
        "levels_of_theory",
        Column("name", Text(), nullable=False),
        Column("preference", Integer(), nullable=False, comment="the smallest is shown first"),
        Column("description", Text(), nullable=False),
        PrimaryKeyConstraint("name", name=f("pk_levels_of_theory")),
    )
    op.create_table(
        "property_values",
        Column("revision_id", BigInteger(), nullable=False),
        Column("property", Text(), nullable=False),
        Column("level_of_theory", Text(), nullable=False),
        Column("value", Double(), nullable=False, comment="in the unit of the table properties"),
        Column("source_release", Text(), nullable=True),
        Column("suspect", Boolean(), server_default=text("false"), nullable=False),
        Column("suspect_reason", Text(), nullable=True),
        CheckConstraint("value > '-Infinity' AND value < 'Infinity'", name=f("ck_property_values_finite")),
        CheckConstraint("suspect = (suspect_reason IS NOT NULL)", name=f("ck_property_values_suspect")),
        ForeignKeyConstraint(
            ["level_of_theory"], ["levels_of_theory.name"], name=f("fk_property_values_level_of_theory")
        ),
        ForeignKeyConstraint(["property"], ["properties.name"], name=f("fk_property_values_property")),
        ForeignKeyConstraint(
            ["revision_id"], ["crystal_revisions.id"], name=f("fk_property_values_revision_id"), ondelete="CASCADE"
        ),
        PrimaryKeyConstraint("revision_id", "property", "level_of_theory", name=f("pk_property_values")),
    )
    op.create_index(f("ix_property_values_property_value"), "property_values", ["property", "value"])


def _modalities() -> None:
    op.create_table(
        "densities",
        Column("revision_id", BigInteger(), nullable=False),
        Column("kind", Text(), nullable=False),
        Column("level_of_theory", Text(), nullable=False),
        Column("grid_shape", ARRAY(Integer()), nullable=False, comment="points along the three lattice vectors"),
        Column(
            "n_electrons", Double(), nullable=False, comment="integral over the cell [e]; for spin, its moment [mu_B]"
        ),
        Column("uri", Text(), nullable=False, comment="path of the grid inside the grid store"),
        Column("sha256", Text(), nullable=False, comment="of the file at uri"),
        Column("provenance", Text(), nullable=True, comment="how it was calculated, as its file says"),
        CheckConstraint("kind IN ('total', 'spin', 'deformation')", name=f("ck_densities_kind")),
        CheckConstraint("n_electrons > '-Infinity' AND n_electrons < 'Infinity'", name=f("ck_densities_n_electrons")),
        CheckConstraint(f"sha256 {SHA256}", name=f("ck_densities_sha256")),
        CheckConstraint("cardinality(grid_shape) = 3 AND 0 < ALL (grid_shape)", name=f("ck_densities_grid_shape")),
        ForeignKeyConstraint(["level_of_theory"], ["levels_of_theory.name"], name=f("fk_densities_level_of_theory")),
        ForeignKeyConstraint(
            ["revision_id"], ["crystal_revisions.id"], name=f("fk_densities_revision_id"), ondelete="CASCADE"
        ),
        PrimaryKeyConstraint("revision_id", "kind", "level_of_theory", name=f("pk_densities")),
    )
    op.create_table(
        "image_recipes",
        Column("id", BigInteger(), Identity(always=True), nullable=False),
        Column("name", Text(), nullable=False),
        Column("parameters", JSONB(), nullable=False),
        Column("sha256", Text(), nullable=False),
        Column("unit", Text(), nullable=True, comment="unit of the pixels; null for imported and fourier"),
        Column("created_at", DateTime(timezone=True), server_default=text("now()"), nullable=False),
        CheckConstraint(f"sha256 {SHA256}", name=f("ck_image_recipes_sha256")),
        PrimaryKeyConstraint("id", name=f("pk_image_recipes")),
        UniqueConstraint("sha256", name=f("uq_image_recipes_sha256")),
    )
    op.create_index(f("ix_image_recipes_name"), "image_recipes", ["name"])
    op.create_table(
        "slice_images",
        Column("revision_id", BigInteger(), nullable=False),
        Column("recipe_id", BigInteger(), nullable=False),
        Column("channels", Integer(), nullable=False),
        Column("height", Integer(), nullable=False, comment="pixels"),
        Column("width", Integer(), nullable=False, comment="pixels"),
        Column(
            "pixels",
            LargeBinary(),
            nullable=False,
            comment="float32, little-endian, channels x height x width, unit of the recipe",
        ),
        Column("pixel_min", ARRAY(REAL()), nullable=False, comment="per channel"),
        Column("pixel_max", ARRAY(REAL()), nullable=False, comment="per channel"),
        Column("pixel_mean", ARRAY(REAL()), nullable=False, comment="per channel"),
        Column("pixel_std", ARRAY(REAL()), nullable=False, comment="per channel"),
        Column("sha256", Text(), nullable=False, comment="of the pixels"),
        CheckConstraint(f"sha256 {SHA256}", name=f("ck_slice_images_sha256")),
        CheckConstraint(
            "cardinality(pixel_min) = channels AND cardinality(pixel_max) = channels"
            " AND cardinality(pixel_mean) = channels AND cardinality(pixel_std) = channels",
            name=f("ck_slice_images_statistics"),
        ),
        CheckConstraint("channels > 0 AND height > 0 AND width > 0", name=f("ck_slice_images_shape")),
        CheckConstraint("octet_length(pixels) = 4 * channels * height * width", name=f("ck_slice_images_pixels")),
        ForeignKeyConstraint(["recipe_id"], ["image_recipes.id"], name=f("fk_slice_images_recipe_id")),
        ForeignKeyConstraint(
            ["revision_id"], ["crystal_revisions.id"], name=f("fk_slice_images_revision_id"), ondelete="CASCADE"
        ),
        PrimaryKeyConstraint("revision_id", "recipe_id", name=f("pk_slice_images")),
    )
    op.create_index(f("ix_slice_images_recipe_id"), "slice_images", ["recipe_id"])
    op.create_table(
        "slice_inputs",
        Column("revision_id", BigInteger(), nullable=False),
        Column("recipe_id", BigInteger(), nullable=False),
        Column("channel", Integer(), nullable=False),
        Column("kind", Text(), nullable=False),
        Column("level_of_theory", Text(), nullable=False),
        CheckConstraint("channel >= 0", name=f("ck_slice_inputs_channel")),
        ForeignKeyConstraint(
            ["revision_id", "kind", "level_of_theory"],
            ["densities.revision_id", "densities.kind", "densities.level_of_theory"],
            name=f("fk_slice_inputs_revision_id_kind_level_of_theory"),
            ondelete="CASCADE",
        ),
        ForeignKeyConstraint(
            ["revision_id", "recipe_id"],
            ["slice_images.revision_id", "slice_images.recipe_id"],
            name=f("fk_slice_inputs_revision_id_recipe_id"),
            ondelete="CASCADE",
        ),
        PrimaryKeyConstraint("revision_id", "recipe_id", "channel", name=f("pk_slice_inputs")),
    )
    op.create_table(
        "descriptions",
        Column("revision_id", BigInteger(), nullable=False),
        Column("level", Text(), nullable=False),
        Column("text", Text(), nullable=False),
        Column(
            "generator", Text(), nullable=False, comment="robocrystallographer, or the source that brought the text"
        ),
        Column("generator_version", Text(), nullable=True),
        CheckConstraint("level IN ('formula', 'keywords', 'all')", name=f("ck_descriptions_level")),
        CheckConstraint("text <> ''", name=f("ck_descriptions_text")),
        ForeignKeyConstraint(
            ["revision_id"], ["crystal_revisions.id"], name=f("fk_descriptions_revision_id"), ondelete="CASCADE"
        ),
        PrimaryKeyConstraint("revision_id", "level", name=f("pk_descriptions")),
    )
    op.create_index(
        "ix_descriptions_words",
        "descriptions",
        [text("to_tsvector('english'::regconfig, text)")],
        postgresql_using="gin",
    )


def _splits() -> None:
    op.create_table(
        "splits",
        Column("id", BigInteger(), Identity(always=True), nullable=False),
        Column("name", Text(), nullable=False),
        Column("target", Text(), nullable=False),
        Column("origin", Text(), nullable=False, comment="made by a rule, or imported from a file"),
        Column(
            "parameters",
            JSONB(),
            nullable=False,
            comment="the rule (holdout share, required modalities, ...) or the file's name and sha256",
        ),
        Column("seed", BigInteger(), nullable=True),
        Column("n_folds", SmallInteger(), nullable=False),
        Column(
            "iqr_bounds",
            JSONB(),
            nullable=True,
            comment="bounds found on minimum and maximum of the slices [unit of the recipe]; null without IQR cleaning",
        ),
        Column("created_at", DateTime(timezone=True), server_default=text("now()"), nullable=False),
        CheckConstraint("(origin = 'rule') = (seed IS NOT NULL)", name=f("ck_splits_seed")),
        CheckConstraint("origin IN ('rule', 'file')", name=f("ck_splits_origin")),
        CheckConstraint("n_folds >= 2", name=f("ck_splits_n_folds")),
        ForeignKeyConstraint(["target"], ["properties.name"], name=f("fk_splits_target")),
        PrimaryKeyConstraint("id", name=f("pk_splits")),
        UniqueConstraint("id", "target", name=f("uq_splits_id_target")),
        UniqueConstraint("name", "target", name=f("uq_splits_name_target")),
    )
    op.create_table(
        "split_members",
        Column("split_id", BigInteger(), nullable=False),
        Column("source_id", Text(), nullable=False, comment="source:id, or the id that a file gave"),
        Column("crystal_id", BigInteger(), nullable=True),
        Column(
            "revision_id", BigInteger(), nullable=True, comment="null for an id of an imported file that is not known"
        ),
        Column("subset", Text(), nullable=False),
        Column("fold", SmallInteger(), nullable=True, comment="the fold that scores this crystal, from 0"),
        Column("reason", Text(), nullable=True, comment="why excluded: suspect, unknown, modality missing, IQR"),
        CheckConstraint("(subset = 'cv') = (fold IS NOT NULL)", name=f("ck_split_members_fold")),
        CheckConstraint("(subset = 'excluded') = (reason IS NOT NULL)", name=f("ck_split_members_reason")),
        CheckConstraint("subset = 'excluded' OR revision_id IS NOT NULL", name=f("ck_split_members_known")),
        CheckConstraint("subset IN ('cv', 'holdout', 'excluded')", name=f("ck_split_members_subset")),
        CheckConstraint("(revision_id IS NULL) = (crystal_id IS NULL)", name=f("ck_split_members_crystal")),
        CheckConstraint("fold >= 0", name=f("ck_split_members_fold_number")),
        ForeignKeyConstraint(
            ["revision_id", "crystal_id"],
            ["crystal_revisions.id", "crystal_revisions.crystal_id"],
            name=f("fk_split_members_revision_id_crystal_id"),
        ),
        ForeignKeyConstraint(["split_id"], ["splits.id"], name=f("fk_split_members_split_id"), ondelete="CASCADE"),
        PrimaryKeyConstraint("split_id", "source_id", name=f("pk_split_members")),
        UniqueConstraint("split_id", "revision_id", name=f("uq_split_members_split_id_revision_id")),
    )
    op.create_index(f("ix_split_members_revision_id"), "split_members", ["revision_id"])


def _models() -> None:
    op.create_table(
        "experiments",
        Column("id", BigInteger(), Identity(always=True), nullable=False),
        Column(
            "name",
            Text(),
            nullable=False,
            comment="what the user calls the model: image, text, stacked, baseline-magpie",
        ),
        Column("target", Text(), nullable=False),
        Column("version", Integer(), nullable=False, comment="counts the experiments of one name and target"),
        Column("kind", Text(), nullable=False, comment="the network or baseline that was trained"),
        Column("config", JSONB(), nullable=False),
        Column(
            "config_sha256",
            Text(),
            nullable=False,
            comment="of the config without its seed: runs of one config share it",
        ),
        Column("seed", BigInteger(), nullable=False),
        Column("split_id", BigInteger(), nullable=False),
        Column("code_version", Text(), nullable=False),
        Column("status", Text(), server_default="running", nullable=False),
        Column("created_at", DateTime(timezone=True), server_default=text("now()"), nullable=False),
        Column("finished_at", DateTime(timezone=True), nullable=True),
        CheckConstraint(f"config_sha256 {SHA256}", name=f("ck_experiments_config_sha256")),
        CheckConstraint("name ~ '^[a-z0-9][a-z0-9_.-]*$'", name=f("ck_experiments_name")),
        CheckConstraint("status IN ('running', 'finished', 'interrupted', 'failed')", name=f("ck_experiments_status")),
        CheckConstraint("version >= 1", name=f("ck_experiments_version")),
        ForeignKeyConstraint(
            ["split_id", "target"], ["splits.id", "splits.target"], name=f("fk_experiments_split_id_target")
        ),
        PrimaryKeyConstraint("id", name=f("pk_experiments")),
        UniqueConstraint("id", "name", "target", name=f("uq_experiments_id_name_target")),
        UniqueConstraint("name", "target", "version", name=f("uq_experiments_name_target_version")),
    )
    op.create_index(f("ix_experiments_config_sha256"), "experiments", ["config_sha256"])
    op.create_index(f("ix_experiments_split_id_target"), "experiments", ["split_id", "target"])
    op.create_table(
        "model_versions",
        Column("id", BigInteger(), Identity(always=True), nullable=False),
        Column("experiment_id", BigInteger(), nullable=False),
        Column("fold", SmallInteger(), nullable=True, comment="the fold that scored it; null for the refit"),
        Column("phase", Text(), nullable=False, comment="readout or finetune; fit for a baseline"),
        Column("n_train", Integer(), nullable=False, comment="rows that the weights were fitted to"),
        Column("best_epoch", Integer(), nullable=True, comment="epoch whose weights were kept, from 1"),
        Column("scalers", JSONB(), nullable=False, comment="fitted on the training rows of this version alone"),
        Column("artifact_uri", Text(), nullable=True, comment="path inside the artifact store"),
        Column("artifact_sha256", Text(), nullable=True, comment="of the file at artifact_uri"),
        Column("status", Text(), server_default="ready", nullable=False),
        Column("created_at", DateTime(timezone=True), server_default=text("now()"), nullable=False),
        CheckConstraint("(status = 'ready') = (artifact_uri IS NOT NULL)", name=f("ck_model_versions_artifact")),
        CheckConstraint(f"artifact_sha256 {SHA256}", name=f("ck_model_versions_artifact_sha256")),
        CheckConstraint("phase IN ('fit', 'readout', 'finetune')", name=f("ck_model_versions_phase")),
        CheckConstraint("status IN ('ready', 'discarded')", name=f("ck_model_versions_status")),
        CheckConstraint("(artifact_uri IS NULL) = (artifact_sha256 IS NULL)", name=f("ck_model_versions_checksum")),
        CheckConstraint("fold >= 0", name=f("ck_model_versions_fold")),
        CheckConstraint("n_train > 0", name=f("ck_model_versions_n_train")),
        ForeignKeyConstraint(
            ["experiment_id"], ["experiments.id"], name=f("fk_model_versions_experiment_id"), ondelete="CASCADE"
        ),
        PrimaryKeyConstraint("id", name=f("pk_model_versions")),
        UniqueConstraint(
            "experiment_id",
            "fold",
            "phase",
            name=f("uq_model_versions_experiment_id_fold_phase"),
            postgresql_nulls_not_distinct=True,
        ),
        UniqueConstraint("id", "experiment_id", name=f("uq_model_versions_id_experiment_id")),
    )
    op.create_table(
        "model_aliases",
        Column("name", Text(), nullable=False),
        Column("target", Text(), nullable=False),
        Column("alias", Text(), nullable=False),
        Column("experiment_id", BigInteger(), nullable=False),
        Column("model_version_id", BigInteger(), nullable=False),
        CheckConstraint("alias ~ '^[a-z][a-z0-9_.-]*$'", name=f("ck_model_aliases_alias")),
        ForeignKeyConstraint(
            ["experiment_id", "name", "target"],
            ["experiments.id", "experiments.name", "experiments.target"],
            name=f("fk_model_aliases_experiment_id_name_target"),
            ondelete="CASCADE",
        ),
        ForeignKeyConstraint(
            ["model_version_id", "experiment_id"],
            ["model_versions.id", "model_versions.experiment_id"],
            name=f("fk_model_aliases_model_version_id_experiment_id"),
        ),
        PrimaryKeyConstraint("name", "target", "alias", name=f("pk_model_aliases")),
    )
    op.create_table(
        "epochs",
        Column("model_version_id", BigInteger(), nullable=False),
        Column("epoch", Integer(), nullable=False),
        Column("train_loss", Double(), nullable=False, comment="mean squared error of the standardised target"),
        Column(
            "stop_loss",
            Double(),
            nullable=True,
            comment="the same on the inner rows that early stopping looks at; null in the refit",
        ),
        Column("seconds", Double(), nullable=False),
        CheckConstraint("train_loss > '-Infinity' AND train_loss < 'Infinity'", name=f("ck_epochs_finite")),
        CheckConstraint("epoch >= 1", name=f("ck_epochs_epoch")),
        ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=f("fk_epochs_model_version_id"), ondelete="CASCADE"
        ),
        PrimaryKeyConstraint("model_version_id", "epoch", name=f("pk_epochs")),
    )
    op.create_table(
        "metrics",
        Column("model_version_id", BigInteger(), nullable=False),
        Column("subset", Text(), nullable=False),
        Column("name", Text(), nullable=False),
        Column("value", Double(), nullable=False, comment="r2 has no unit; rmse and mae are in the unit of the target"),
        Column("n", Integer(), nullable=False, comment="rows that were scored"),
        CheckConstraint("name IN ('r2', 'rmse', 'mae')", name=f("ck_metrics_name")),
        CheckConstraint("subset IN ('train', 'validation', 'holdout')", name=f("ck_metrics_subset")),
        CheckConstraint("value > '-Infinity' AND value < 'Infinity'", name=f("ck_metrics_finite")),
        CheckConstraint("n > 0", name=f("ck_metrics_n")),
        ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=f("fk_metrics_model_version_id"), ondelete="CASCADE"
        ),
        PrimaryKeyConstraint("model_version_id", "subset", "name", name=f("pk_metrics")),
    )
    op.create_table(
        "predictions",
        Column("model_version_id", BigInteger(), nullable=False),
        Column("revision_id", BigInteger(), nullable=False),
        Column(
            "subset", Text(), nullable=False, comment="part the crystal plays in the model's split; none: outside it"
        ),
        Column("value", Double(), nullable=False, comment="in the unit of the target"),
        Column(
            "spread",
            Double(),
            nullable=True,
            comment="standard deviation over the models of the folds, in the unit of the target; no error bar",
        ),
        Column("lower", Double(), nullable=True, comment="lower end of the 90 % interval, in the unit of the target"),
        Column("upper", Double(), nullable=True, comment="upper end of the 90 % interval, in the unit of the target"),
        Column("created_at", DateTime(timezone=True), server_default=text("now()"), nullable=False),
        CheckConstraint("spread >= 0 AND spread < 'Infinity'", name=f("ck_predictions_spread")),
        CheckConstraint("subset IN ('train', 'validation', 'holdout', 'none')", name=f("ck_predictions_subset")),
        CheckConstraint("value > '-Infinity' AND value < 'Infinity'", name=f("ck_predictions_finite")),
        CheckConstraint("(lower IS NULL) = (upper IS NULL) AND lower <= upper", name=f("ck_predictions_interval")),
        ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=f("fk_predictions_model_version_id"), ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["revision_id"], ["crystal_revisions.id"], name=f("fk_predictions_revision_id"), ondelete="CASCADE"
        ),
        PrimaryKeyConstraint("model_version_id", "revision_id", name=f("pk_predictions")),
    )
    op.create_index(f("ix_predictions_revision_id"), "predictions", ["revision_id"])


def _embeddings() -> None:
    op.create_table(
        "encoders",
        Column("id", BigInteger(), Identity(always=True), nullable=False),
        Column("name", Text(), nullable=False),
        Column("modality", Text(), nullable=False),
        Column("dim", Integer(), nullable=False),
        Column("weights_sha256", Text(), nullable=False),
        Column("recipe_id", BigInteger(), nullable=True),
        Column("text_level", Text(), nullable=True),
        Column("preprocessing", JSONB(), nullable=False, comment="what happens to an input before the weights see it"),
        Column("preprocessing_sha256", Text(), nullable=False),
        Column("model_version_id", BigInteger(), nullable=True, comment="null for a frozen backbone"),
        Column("created_at", DateTime(timezone=True), server_default=text("now()"), nullable=False),
        CheckConstraint(
            "modality IN ('image', 'text', 'composition', 'density', 'stacked')", name=f("ck_encoders_modality")
        ),
        CheckConstraint(f"preprocessing_sha256 {SHA256}", name=f("ck_encoders_preprocessing_sha256")),
        CheckConstraint(f"weights_sha256 {SHA256}", name=f("ck_encoders_weights_sha256")),
        CheckConstraint("dim BETWEEN 1 AND 16000", name=f("ck_encoders_dim")),
        ForeignKeyConstraint(
            ["model_version_id"], ["model_versions.id"], name=f("fk_encoders_model_version_id"), ondelete="CASCADE"
        ),
        ForeignKeyConstraint(["recipe_id"], ["image_recipes.id"], name=f("fk_encoders_recipe_id")),
        PrimaryKeyConstraint("id", name=f("pk_encoders")),
        UniqueConstraint("id", "dim", name=f("uq_encoders_id_dim")),
        UniqueConstraint("name", name=f("uq_encoders_name")),
        UniqueConstraint(
            "weights_sha256",
            "recipe_id",
            "text_level",
            "preprocessing_sha256",
            name=f("uq_encoders_weights_sha256_recipe_id_text_level_preprocessing_sha256"),
            postgresql_nulls_not_distinct=True,
        ),
    )
    op.create_index(f("ix_encoders_model_version_id"), "encoders", ["model_version_id"])
    op.create_index(f("ix_encoders_recipe_id"), "encoders", ["recipe_id"])
    op.create_table(
        "encoder_aliases",
        Column("alias", Text(), nullable=False),
        Column("encoder_id", BigInteger(), nullable=False),
        CheckConstraint("alias ~ '^[a-z][a-z0-9_.-]*$'", name=f("ck_encoder_aliases_alias")),
        ForeignKeyConstraint(
            ["encoder_id"], ["encoders.id"], name=f("fk_encoder_aliases_encoder_id"), ondelete="CASCADE"
        ),
        PrimaryKeyConstraint("alias", name=f("pk_encoder_aliases")),
    )
    op.create_table(
        "embeddings",
        Column("encoder_id", BigInteger(), nullable=False),
        Column("revision_id", BigInteger(), nullable=False),
        Column("dim", Integer(), nullable=False),
        Column("embedding", VECTOR(), nullable=False),
        Column("input_sha256", Text(), nullable=False, comment="of the input, so that a stale vector is seen"),
        CheckConstraint(f"input_sha256 {SHA256}", name=f("ck_embeddings_input_sha256")),
        CheckConstraint(
            "vector_dims(embedding) = dim AND vector_norm(embedding) > 0", name=f("ck_embeddings_embedding")
        ),
        ForeignKeyConstraint(
            ["encoder_id", "dim"],
            ["encoders.id", "encoders.dim"],
            name=f("fk_embeddings_encoder_id_dim"),
            ondelete="CASCADE",
        ),
        ForeignKeyConstraint(
            ["revision_id"], ["crystal_revisions.id"], name=f("fk_embeddings_revision_id"), ondelete="CASCADE"
        ),
        PrimaryKeyConstraint("encoder_id", "revision_id", name=f("pk_embeddings")),
    )
    op.create_index(f("ix_embeddings_revision_id"), "embeddings", ["revision_id"])
    # In the row up to 2,000 dimensions, out of it beyond: a scan reads the vectors without detours.
    op.execute("ALTER TABLE embeddings ALTER COLUMN embedding SET STORAGE MAIN")
