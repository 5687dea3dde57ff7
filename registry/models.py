"""Tables of the registry.

Invariants are constraints of the database. Units are stated in the column comments, which ``\\d+`` in ``ecdreg db
shell`` shows. Identity keys are ``bigint``. Everything derived from a crystal refers to one of its revisions, so that
the inputs of a split or a model stay when the crystal changes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    DateTime,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Text,
    UniqueConstraint,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, REAL
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from registry.types import Float32Array

__all__ = [
    "Base",
    "Crystal",
    "CrystalRevision",
    "Density",
    "Description",
    "Embedding",
    "Encoder",
    "EncoderAlias",
    "Epoch",
    "Experiment",
    "ImageRecipe",
    "IngestOutcome",
    "IngestRun",
    "LevelOfTheory",
    "Metric",
    "ModelAlias",
    "ModelVersion",
    "Prediction",
    "Property",
    "PropertyValue",
    "SliceImage",
    "SliceInput",
    "Split",
    "SplitMember",
]

# Predictable names, so that a migration can name what it drops.
NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

SHA256 = "~ '^[0-9a-f]{64}$'"


class Base(DeclarativeBase):
    """Declarative base; tests compare its metadata with the migrations."""

    metadata = MetaData(naming_convention=NAMING_CONVENTION)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        int: BigInteger,
        float: Double,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        list[str]: ARRAY(Text),
        list[int]: ARRAY(Integer),
        list[float]: ARRAY(REAL),
    }


def _identity() -> Mapped[int]:
    return mapped_column(BigInteger, Identity(always=True), primary_key=True)


def _now() -> Mapped[datetime]:
    return mapped_column(server_default=func.now())


def _finite(column: str) -> str:
    # PostgreSQL sorts NaN above Infinity, so this refuses NaN as well.
    return f"{column} > '-Infinity' AND {column} < 'Infinity'"


# --------------------------------------------------------------------------- provenance


class IngestRun(Base):
    """One call of ``ecdreg ingest``."""

    __tablename__ = "ingest_runs"
    __table_args__ = (
        CheckConstraint("status IN ('running', 'finished', 'interrupted', 'failed')", "status"),
        CheckConstraint("(status = 'running') = (finished_at IS NULL)", "finished"),
    )

    id: Mapped[int] = _identity()
    source: Mapped[str] = mapped_column(comment="name of the source: sample, mp, or a folder's name")
    source_release: Mapped[str | None] = mapped_column(comment="version of its data as the source states it")
    parameters: Mapped[dict[str, Any]] = mapped_column(comment="options of the run, including recipes and text levels")
    code_version: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="running")
    started_at: Mapped[datetime] = _now()
    finished_at: Mapped[datetime | None]


class IngestOutcome(Base):
    """Outcome of one crystal of a source in one run."""

    __tablename__ = "ingest_outcomes"
    __table_args__ = (
        CheckConstraint("outcome IN ('created', 'updated', 'unchanged', 'partial', 'deferred', 'rejected')", "outcome"),
        CheckConstraint("(outcome IN ('partial', 'deferred', 'rejected')) = (reason IS NOT NULL)", "reason"),
        CheckConstraint(f"input_sha256 {SHA256}", "input_sha256"),
        Index(None, "source_id", "recorded_at"),
    )

    run_id: Mapped[int] = mapped_column(ForeignKey("ingest_runs.id", ondelete="CASCADE"), primary_key=True)
    source_id: Mapped[str] = mapped_column(primary_key=True)
    outcome: Mapped[str]
    reason: Mapped[str | None] = mapped_column(comment="why partial, deferred (worth another try) or rejected")
    input_sha256: Mapped[str | None] = mapped_column(
        comment="of all inputs of the source and of all options that affect the result; null where it was not read"
    )
    revision_id: Mapped[int | None] = mapped_column(ForeignKey("crystal_revisions.id"), index=True)
    recorded_at: Mapped[datetime] = _now()


# ----------------------------------------------------------------------------- crystals


class Crystal(Base):
    """Identity of a crystal; its data are stored in its revisions."""

    __tablename__ = "crystals"
    __table_args__ = (UniqueConstraint("source", "source_id"),)

    id: Mapped[int] = _identity()
    source: Mapped[str]
    source_id: Mapped[str] = mapped_column(index=True)
    material_key: Mapped[str] = mapped_column(
        index=True,
        comment="external id (mp-...), else a structure fingerprint: equal for one material under several sources",
    )
    created_at: Mapped[datetime] = _now()

    revisions: Mapped[list[CrystalRevision]] = relationship(back_populates="crystal", order_by="CrystalRevision.n")


class CrystalRevision(Base):
    """One state of a crystal; the views show the current one."""

    __tablename__ = "crystal_revisions"
    __table_args__ = (
        UniqueConstraint("crystal_id", "n"),
        UniqueConstraint("id", "crystal_id"),
        CheckConstraint("n >= 1", "n"),
        CheckConstraint("space_group_number BETWEEN 1 AND 230", "space_group_number"),
        CheckConstraint("n_sites > 0", "n_sites"),
        CheckConstraint("volume > 0 AND volume < 'Infinity'", "volume"),
        CheckConstraint("cardinality(elements) > 0", "elements"),
        CheckConstraint("(structure IS NULL) = (space_group_number IS NULL)", "structure"),
        CheckConstraint(f"content_sha256 {SHA256}", "content_sha256"),
        Index("uq_crystal_revisions_current", "crystal_id", unique=True, postgresql_where=text("is_current")),
        Index(None, "elements", postgresql_using="gin"),
        Index(None, "chemsys"),
    )

    id: Mapped[int] = _identity()
    crystal_id: Mapped[int] = mapped_column(ForeignKey("crystals.id", ondelete="CASCADE"))
    n: Mapped[int] = mapped_column(Integer)
    is_current: Mapped[bool]
    content_sha256: Mapped[str] = mapped_column(
        comment="of structure, properties and densities as the source provided them"
    )
    run_id: Mapped[int] = mapped_column(ForeignKey("ingest_runs.id"), index=True)
    formula: Mapped[str] = mapped_column(comment="reduced formula")
    chemsys: Mapped[str] = mapped_column(comment="elements in alphabetical order, joined by '-'")
    elements: Mapped[list[str]]
    space_group_number: Mapped[int | None] = mapped_column(SmallInteger)
    space_group_symbol: Mapped[str | None]
    prototype: Mapped[str | None] = mapped_column(
        comment="anonymous formula, Pearson symbol and space group number, as AB-cF8-225"
    )
    n_sites: Mapped[int | None] = mapped_column(Integer, comment="sites of the stored cell")
    volume: Mapped[float | None] = mapped_column(comment="volume of the stored cell [Å^3]")
    structure: Mapped[dict[str, Any] | None] = mapped_column(
        comment="pymatgen Structure as a dict [Å]; null where only the formula is known"
    )
    created_at: Mapped[datetime] = _now()

    crystal: Mapped[Crystal] = relationship(back_populates="revisions")


class Property(Base):
    """A property of crystals: built in (copied from ``registry.properties``) or added by a user."""

    __tablename__ = "properties"
    __table_args__ = (
        CheckConstraint("name ~ '^[a-z][a-z0-9_]*$'", "name"),
        CheckConstraint("plausible_min < plausible_max", "plausible"),
        CheckConstraint("lower_bound <= plausible_min", "lower_bound"),
    )

    name: Mapped[str] = mapped_column(primary_key=True)
    unit: Mapped[str]
    description: Mapped[str]
    label: Mapped[str] = mapped_column(comment="words for axes and tables, without the unit")
    plausible_min: Mapped[float] = mapped_column(comment="below it a value is suspect [the property's unit]")
    plausible_max: Mapped[float] = mapped_column(comment="above it a value is suspect [the property's unit]")
    range_reason: Mapped[str] = mapped_column(comment="why a value outside the range is suspect")
    lower_bound: Mapped[float | None] = mapped_column(
        comment="physical lower bound, where prediction intervals end [the property's unit]; null where there is none"
    )
    target: Mapped[bool] = mapped_column(
        server_default=text("false"), comment="whether similarity searches report it for each neighbour"
    )
    builtin: Mapped[bool] = mapped_column(
        server_default=text("false"), comment="whether ecdreg defines it; else a user added it"
    )


class LevelOfTheory(Base):
    """A level of theory; where a property is known at several, views show the preferred one."""

    __tablename__ = "levels_of_theory"

    name: Mapped[str] = mapped_column(primary_key=True)
    preference: Mapped[int] = mapped_column(
        Integer, comment="of several values the one with the smallest preference is shown"
    )
    description: Mapped[str]


class PropertyValue(Base):
    """A property of one revision at one level of theory."""

    __tablename__ = "property_values"
    __table_args__ = (
        CheckConstraint(_finite("value"), "finite"),
        CheckConstraint("suspect = (suspect_reason IS NOT NULL)", "suspect"),
        Index(None, "property", "value"),
    )

    revision_id: Mapped[int] = mapped_column(ForeignKey("crystal_revisions.id", ondelete="CASCADE"), primary_key=True)
    property: Mapped[str] = mapped_column(ForeignKey("properties.name"), primary_key=True)
    level_of_theory: Mapped[str] = mapped_column(ForeignKey("levels_of_theory.name"), primary_key=True)
    value: Mapped[float] = mapped_column(comment="in the property's unit, see the table properties")
    source_release: Mapped[str | None]
    suspect: Mapped[bool] = mapped_column(server_default=text("false"))
    suspect_reason: Mapped[str | None]


# ------------------------------------------------------------- densities, images, texts


class Density(Base):
    """An electron charge density; its grid is stored in a file of the grid store."""

    __tablename__ = "densities"
    __table_args__ = (
        CheckConstraint("kind IN ('total', 'spin', 'deformation')", "kind"),
        CheckConstraint("cardinality(grid_shape) = 3 AND 0 < ALL (grid_shape)", "grid_shape"),
        CheckConstraint(_finite("n_electrons"), "n_electrons"),
        CheckConstraint(f"sha256 {SHA256}", "sha256"),
    )

    revision_id: Mapped[int] = mapped_column(ForeignKey("crystal_revisions.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    level_of_theory: Mapped[str] = mapped_column(ForeignKey("levels_of_theory.name"), primary_key=True)
    grid_shape: Mapped[list[int]] = mapped_column(comment="points along the three lattice vectors")
    n_electrons: Mapped[float] = mapped_column(comment="integral over the cell [e]; for spin, its moment [mu_B]")
    uri: Mapped[str] = mapped_column(comment="path of the grid inside the grid store")
    sha256: Mapped[str] = mapped_column(comment="of the file at uri")
    provenance: Mapped[str | None] = mapped_column(comment="how it was calculated, as stated in its file")
    origin: Mapped[dict[str, Any] | None] = mapped_column(
        comment=(
            "what it was downloaded from: task_id, bucket, key, etag, sha256, bytes; of a grid made smaller also: slim,"
            " native_grid; null for a local file at its native grid"
        )
    )
    structure: Mapped[dict[str, Any] | None] = mapped_column(
        comment="atoms in the grid's cell, as pymatgen has them [Å]; null where that is the revision's own structure"
    )


class ImageRecipe(Base):
    """Parameters of a slice; their hash is the version of the recipe."""

    __tablename__ = "image_recipes"
    __table_args__ = (UniqueConstraint("sha256"), CheckConstraint(f"sha256 {SHA256}", "sha256"))

    id: Mapped[int] = _identity()
    name: Mapped[str] = mapped_column(index=True)
    parameters: Mapped[dict[str, Any]]
    sha256: Mapped[str]
    unit: Mapped[str | None] = mapped_column(comment="unit of the pixels; null for imported and fourier")
    created_at: Mapped[datetime] = _now()


class SliceImage(Base):
    """A slice through the densities of a crystal, by one recipe."""

    __tablename__ = "slice_images"
    __table_args__ = (
        CheckConstraint("channels > 0 AND height > 0 AND width > 0", "shape"),
        CheckConstraint("octet_length(pixels) = 4 * channels * height * width", "pixels"),
        CheckConstraint(
            "cardinality(pixel_min) = channels AND cardinality(pixel_max) = channels"
            " AND cardinality(pixel_mean) = channels AND cardinality(pixel_std) = channels",
            "statistics",
        ),
        CheckConstraint(f"sha256 {SHA256}", "sha256"),
    )

    revision_id: Mapped[int] = mapped_column(ForeignKey("crystal_revisions.id", ondelete="CASCADE"), primary_key=True)
    recipe_id: Mapped[int] = mapped_column(ForeignKey("image_recipes.id"), primary_key=True, index=True)
    channels: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer, comment="pixels")
    width: Mapped[int] = mapped_column(Integer, comment="pixels")
    pixels: Mapped[NDArray[np.float32]] = mapped_column(
        Float32Array, comment="float32, little-endian, channels x height x width, unit of the recipe"
    )
    pixel_min: Mapped[list[float]] = mapped_column(comment="per channel [unit of the recipe]")
    pixel_max: Mapped[list[float]] = mapped_column(comment="per channel [unit of the recipe]")
    pixel_mean: Mapped[list[float]] = mapped_column(comment="per channel [unit of the recipe]")
    pixel_std: Mapped[list[float]] = mapped_column(comment="per channel [unit of the recipe]")
    sha256: Mapped[str] = mapped_column(comment="of the pixels")


class SliceInput(Base):
    """The density from which a channel of a slice was computed."""

    __tablename__ = "slice_inputs"
    __table_args__ = (
        ForeignKeyConstraint(
            ["revision_id", "recipe_id"], ["slice_images.revision_id", "slice_images.recipe_id"], ondelete="CASCADE"
        ),
        ForeignKeyConstraint(
            ["revision_id", "kind", "level_of_theory"],
            ["densities.revision_id", "densities.kind", "densities.level_of_theory"],
            ondelete="CASCADE",
        ),
        CheckConstraint("channel >= 0", "channel"),
    )

    revision_id: Mapped[int] = mapped_column(primary_key=True)
    recipe_id: Mapped[int] = mapped_column(primary_key=True)
    channel: Mapped[int] = mapped_column(Integer, primary_key=True)
    kind: Mapped[str]
    level_of_theory: Mapped[str]


class Description(Base):
    """A text about a crystal at one text level."""

    __tablename__ = "descriptions"
    __table_args__ = (
        CheckConstraint("text_level IN ('formula', 'keywords', 'all')", "text_level"),
        CheckConstraint("text <> ''", "text"),
        Index(
            "ix_descriptions_words",
            text("to_tsvector('english'::regconfig, text)"),
            postgresql_using="gin",
        ),
    )

    revision_id: Mapped[int] = mapped_column(ForeignKey("crystal_revisions.id", ondelete="CASCADE"), primary_key=True)
    text_level: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str]
    generator: Mapped[str] = mapped_column(comment="robocrystallographer, or the source that brought the text")
    generator_version: Mapped[str | None]


# ------------------------------------------------------------------------------- splits


class Split(Base):
    """Fixed assignment of crystals to cv, holdout or excluded, for one target."""

    __tablename__ = "splits"
    __table_args__ = (
        UniqueConstraint("name", "target"),
        UniqueConstraint("id", "target"),
        CheckConstraint("origin IN ('rule', 'file')", "origin"),
        CheckConstraint("n_folds >= 2", "n_folds"),
        CheckConstraint("(origin = 'rule') = (seed IS NOT NULL)", "seed"),
    )

    id: Mapped[int] = _identity()
    name: Mapped[str]
    target: Mapped[str] = mapped_column(ForeignKey("properties.name"))
    origin: Mapped[str] = mapped_column(comment="rule, or file where it was imported")
    parameters: Mapped[dict[str, Any]] = mapped_column(
        comment="the rule (holdout share, required modalities, ...) or the file's name and sha256"
    )
    seed: Mapped[int | None]
    n_folds: Mapped[int] = mapped_column(SmallInteger)
    iqr_bounds: Mapped[dict[str, Any] | None] = mapped_column(
        comment="bounds found on minimum and maximum of the slices [unit of the recipe]; null without IQR cleaning"
    )
    created_at: Mapped[datetime] = _now()

    members: Mapped[list[SplitMember]] = relationship(back_populates="split")


class SplitMember(Base):
    """Assignment of one crystal in a split."""

    __tablename__ = "split_members"
    __table_args__ = (
        ForeignKeyConstraint(["revision_id", "crystal_id"], ["crystal_revisions.id", "crystal_revisions.crystal_id"]),
        UniqueConstraint("split_id", "revision_id"),
        CheckConstraint("subset IN ('cv', 'holdout', 'excluded')", "subset"),
        CheckConstraint("(subset = 'cv') = (fold IS NOT NULL)", "fold"),
        CheckConstraint("fold >= 0", "fold_number"),
        CheckConstraint("(subset = 'excluded') = (reason IS NOT NULL)", "reason"),
        CheckConstraint("subset = 'excluded' OR revision_id IS NOT NULL", "known"),
        CheckConstraint("(revision_id IS NULL) = (crystal_id IS NULL)", "crystal"),
        Index(None, "revision_id"),
    )

    split_id: Mapped[int] = mapped_column(ForeignKey("splits.id", ondelete="CASCADE"), primary_key=True)
    source_id: Mapped[str] = mapped_column(primary_key=True, comment="source:id, or the id in the imported file")
    crystal_id: Mapped[int | None]
    revision_id: Mapped[int | None] = mapped_column(comment="null for an unknown id of an imported file")
    subset: Mapped[str]
    fold: Mapped[int | None] = mapped_column(SmallInteger, comment="the fold that scores this crystal, from 0")
    reason: Mapped[str | None] = mapped_column(comment="why excluded: suspect, unknown, modality missing, IQR")

    split: Mapped[Split] = relationship(back_populates="members")


# ------------------------------------------------------------------------------- models


class Experiment(Base):
    """One training run: folds and phases on a split, then a refit on all of cv."""

    __tablename__ = "experiments"
    __table_args__ = (
        ForeignKeyConstraint(["split_id", "target"], ["splits.id", "splits.target"]),
        UniqueConstraint("name", "target", "version"),
        UniqueConstraint("id", "name", "target"),
        CheckConstraint("name ~ '^[a-z0-9][a-z0-9_.-]*$'", "name"),
        CheckConstraint("version >= 1", "version"),
        CheckConstraint("status IN ('running', 'finished', 'interrupted', 'failed')", "status"),
        CheckConstraint(f"config_sha256 {SHA256}", "config_sha256"),
        Index(None, "split_id", "target"),
        Index(None, "config_sha256"),
    )

    id: Mapped[int] = _identity()
    name: Mapped[str] = mapped_column(comment="name of the model: image, text, stacked, baseline-magpie")
    target: Mapped[str]
    version: Mapped[int] = mapped_column(Integer, comment="counts the experiments of one name and target")
    kind: Mapped[str] = mapped_column(comment="kind of the model")
    config: Mapped[dict[str, Any]]
    config_sha256: Mapped[str] = mapped_column(comment="of the config without its seed: runs of one config share it")
    seed: Mapped[int]
    split_id: Mapped[int]
    code_version: Mapped[str]
    status: Mapped[str] = mapped_column(server_default="running")
    created_at: Mapped[datetime] = _now()
    finished_at: Mapped[datetime | None]

    model_versions: Mapped[list[ModelVersion]] = relationship(back_populates="experiment")


class ModelVersion(Base):
    """Fitted weights and scalers: of one fold, or of the refit on all of cv (fold is null)."""

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("experiment_id", "fold", "phase", postgresql_nulls_not_distinct=True),
        UniqueConstraint("id", "experiment_id"),
        CheckConstraint("fold >= 0", "fold"),
        CheckConstraint("phase IN ('fit', 'align', 'readout', 'finetune')", "phase"),
        CheckConstraint("status IN ('ready', 'discarded')", "status"),
        CheckConstraint("(status = 'ready') = (artifact_uri IS NOT NULL)", "artifact"),
        CheckConstraint("(artifact_uri IS NULL) = (artifact_sha256 IS NULL)", "checksum"),
        CheckConstraint(f"artifact_sha256 {SHA256}", "artifact_sha256"),
        CheckConstraint("n_train > 0", "n_train"),
    )

    id: Mapped[int] = _identity()
    experiment_id: Mapped[int] = mapped_column(ForeignKey("experiments.id", ondelete="CASCADE"))
    fold: Mapped[int | None] = mapped_column(SmallInteger, comment="the fold that scored it; null for the refit")
    phase: Mapped[str] = mapped_column(comment="align, readout or finetune; fit for a baseline")
    n_train: Mapped[int] = mapped_column(Integer, comment="number of rows that the weights were fitted to")
    best_epoch: Mapped[int | None] = mapped_column(Integer, comment="epoch of the weights that were kept, from 1")
    scalers: Mapped[dict[str, Any]] = mapped_column(comment="fitted on the training rows of this version alone")
    artifact_uri: Mapped[str | None] = mapped_column(comment="path inside the artifact store")
    artifact_sha256: Mapped[str | None] = mapped_column(comment="of the file at artifact_uri")
    status: Mapped[str] = mapped_column(server_default="ready")
    created_at: Mapped[datetime] = _now()

    experiment: Mapped[Experiment] = relationship(back_populates="model_versions")


class ModelAlias(Base):
    """A name such as ``best`` or ``production`` for one version of a model."""

    __tablename__ = "model_aliases"
    __table_args__ = (
        ForeignKeyConstraint(
            ["experiment_id", "name", "target"],
            ["experiments.id", "experiments.name", "experiments.target"],
            ondelete="CASCADE",
        ),
        ForeignKeyConstraint(
            ["model_version_id", "experiment_id"], ["model_versions.id", "model_versions.experiment_id"]
        ),
        CheckConstraint("alias ~ '^[a-z][a-z0-9_.-]*$'", "alias"),
    )

    name: Mapped[str] = mapped_column(primary_key=True)
    target: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    experiment_id: Mapped[int]
    model_version_id: Mapped[int]


class Epoch(Base):
    """One point of a learning curve."""

    __tablename__ = "epochs"
    __table_args__ = (CheckConstraint("epoch >= 1", "epoch"), CheckConstraint(_finite("train_loss"), "finite"))

    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id", ondelete="CASCADE"), primary_key=True)
    epoch: Mapped[int] = mapped_column(Integer, primary_key=True)
    train_loss: Mapped[float] = mapped_column(
        comment="mean squared error of the standardised target; the contrastive loss in the align phase"
    )
    stop_loss: Mapped[float | None] = mapped_column(
        comment="the same on the inner rows that early stopping uses; null in the refit"
    )
    seconds: Mapped[float]


class Metric(Base):
    """A score of one model version on one subset."""

    __tablename__ = "metrics"
    __table_args__ = (
        CheckConstraint("subset IN ('train', 'validation', 'holdout')", "subset"),
        CheckConstraint("name IN ('r2', 'rmse', 'mae')", "name"),
        CheckConstraint(_finite("value"), "finite"),
        CheckConstraint("n > 0", "n"),
    )

    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id", ondelete="CASCADE"), primary_key=True)
    subset: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float] = mapped_column(comment="r2 has no unit; rmse and mae are in the unit of the target")
    n: Mapped[int] = mapped_column(Integer, comment="number of rows that were scored")


class Prediction(Base):
    """Prediction of a model version for one crystal."""

    __tablename__ = "predictions"
    __table_args__ = (
        CheckConstraint("subset IN ('train', 'validation', 'holdout', 'none')", "subset"),
        CheckConstraint(_finite("value"), "finite"),
        CheckConstraint("spread >= 0 AND spread < 'Infinity'", "spread"),
        CheckConstraint("(lower IS NULL) = (upper IS NULL) AND lower <= upper", "interval"),
        Index(None, "revision_id"),
    )

    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id", ondelete="CASCADE"), primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("crystal_revisions.id", ondelete="CASCADE"), primary_key=True)
    subset: Mapped[str] = mapped_column(comment="subset of the crystal in the model's split; none: not in the split")
    value: Mapped[float] = mapped_column(comment="in the unit of the target")
    spread: Mapped[float | None] = mapped_column(
        comment="standard deviation over the models of the folds, in the unit of the target; not an error bar"
    )
    lower: Mapped[float | None] = mapped_column(comment="lower end of the 90 % interval, in the unit of the target")
    upper: Mapped[float | None] = mapped_column(comment="upper end of the 90 % interval, in the unit of the target")
    out_of_domain: Mapped[bool | None] = mapped_column(
        comment=(
            "whether the crystal is farther from the cross-validated rows than 99 % of them are from those of other"
            " folds; null for a model without features"
        )
    )
    created_at: Mapped[datetime] = _now()


# --------------------------------------------------------------------------- embeddings


class Encoder(Base):
    """A model that computes embeddings: a frozen backbone, or a trained tower of a refit."""

    __tablename__ = "encoders"
    __table_args__ = (
        UniqueConstraint("name"),
        UniqueConstraint("id", "dim"),
        UniqueConstraint(
            "weights_sha256", "recipe_id", "text_level", "preprocessing_sha256", postgresql_nulls_not_distinct=True
        ),
        CheckConstraint("dim BETWEEN 1 AND 16000", "dim"),
        CheckConstraint("modality ~ '^[a-z][a-z0-9_-]*$'", "modality"),
        CheckConstraint(f"weights_sha256 {SHA256}", "weights_sha256"),
        CheckConstraint(f"preprocessing_sha256 {SHA256}", "preprocessing_sha256"),
    )

    id: Mapped[int] = _identity()
    name: Mapped[str]
    modality: Mapped[str]
    dim: Mapped[int] = mapped_column(Integer)
    weights_sha256: Mapped[str]
    recipe_id: Mapped[int | None] = mapped_column(ForeignKey("image_recipes.id"), index=True)
    text_level: Mapped[str | None]
    preprocessing: Mapped[dict[str, Any]] = mapped_column(comment="steps between an input and the weights")
    preprocessing_sha256: Mapped[str]
    model_version_id: Mapped[int | None] = mapped_column(
        ForeignKey("model_versions.id", ondelete="CASCADE"), index=True, comment="null for a frozen backbone"
    )
    created_at: Mapped[datetime] = _now()


class EncoderAlias(Base):
    """A name for an encoder; searches that name none use ``default``."""

    __tablename__ = "encoder_aliases"
    __table_args__ = (CheckConstraint("alias ~ '^[a-z][a-z0-9_.-]*$'", "alias"),)

    alias: Mapped[str] = mapped_column(primary_key=True)
    encoder_id: Mapped[int] = mapped_column(ForeignKey("encoders.id", ondelete="CASCADE"))


class Embedding(Base):
    """Embedding of one revision by one encoder."""

    __tablename__ = "embeddings"
    __table_args__ = (
        ForeignKeyConstraint(["encoder_id", "dim"], ["encoders.id", "encoders.dim"], ondelete="CASCADE"),
        CheckConstraint("vector_dims(embedding) = dim AND vector_norm(embedding) > 0", "embedding"),
        CheckConstraint(f"input_sha256 {SHA256}", "input_sha256"),
        Index(None, "revision_id"),
    )

    encoder_id: Mapped[int] = mapped_column(primary_key=True)
    revision_id: Mapped[int] = mapped_column(ForeignKey("crystal_revisions.id", ondelete="CASCADE"), primary_key=True)
    dim: Mapped[int] = mapped_column(Integer)
    embedding: Mapped[NDArray[np.float32]] = mapped_column(VECTOR())
    input_sha256: Mapped[str] = mapped_column(comment="of the input, to detect outdated vectors")


# Vectors stay in their row as long as it fits a page (2,000 dimensions). By default those of
# more than 2 kB (500 dimensions) would be moved out, and each distance of a scan would fetch
# its vector through another index, which the planner does not count. PLAIN would do the same,
# but refuse what does not fit, as 2,048 dimensions.
STORAGE = DDL("ALTER TABLE embeddings ALTER COLUMN embedding SET STORAGE MAIN")  # type: ignore[no-untyped-call]
event.listen(Embedding.__table__, "after_create", STORAGE)
