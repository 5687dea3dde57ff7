"""Encoders of the registry: list them, choose the default, add one that a fixed rule makes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text
from sqlalchemy.orm import Session

from ecdreg.results import Results
from registry.database import session_scope
from registry.encoders import DEFAULT_ALIAS, resolve_encoder, set_encoder_alias
from registry.files.grids import GridStore
from registry.jobs.progress import Silent

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection
    from registry.jobs.progress import Progress

__all__ = ["EncoderSummary", "add_encoder", "list_encoders", "set_default_encoder"]


@dataclass(frozen=True)
class EncoderSummary:
    """An encoder with the number of its vectors."""

    encoder: str
    """Its name."""
    modality: str
    """image, text, composition, density or stacked."""
    dim: int
    """Length of its vectors."""
    recipe: str | None
    """Name of its image recipe; None: it reads no image."""
    text_level: str | None
    """None: it reads no text."""
    vectors: int
    """Number of crystal revisions with a vector of this encoder."""
    frozen: bool
    """Whether it is a frozen backbone or a fixed rule, not a trained tower."""
    aliases: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The row of the JSON output."""
        return asdict(self)


def list_encoders(registry: RegistryConnection) -> Results[EncoderSummary]:
    """List the encoders, in the order in which they were added.

    Parameters
    ----------
    registry
        An open registry; only read.
    """
    with Session(registry.engine) as session:
        rows = tuple(_summaries(session))
    return Results(rows, notes=() if rows else ("no encoders yet; `ecdreg train stacked` makes some",))


def set_default_encoder(registry: RegistryConnection, name: str) -> EncoderSummary:
    """Choose the encoder that searches use when none is named.

    Parameters
    ----------
    registry
        An open registry.
    name
        Name or alias of an encoder; the alias ``default`` points to it afterwards.

    Raises
    ------
    NotFoundError
        If there is no such encoder.
    """
    with session_scope(registry.engine) as session:
        chosen = resolve_encoder(session, name)
        set_encoder_alias(session, DEFAULT_ALIAS, chosen)
        session.flush()
        return _summaries(session, chosen.id)[0]


def add_encoder(registry: RegistryConnection, name: str, *, progress: Progress | None = None) -> EncoderSummary:
    """Compute a vector of every crystal by a fixed rule that reads no label.

    Crystals that have a vector keep it. The default encoder is chosen again afterwards, unless a user has chosen one.

    Parameters
    ----------
    registry
        An open registry.
    name
        ``fingerprint``, ``pettifor``, ``magpie``, ``elements`` or ``density-statistics``.
    progress
        Receives the progress.

    Raises
    ------
    UnknownNameError
        If there is no such rule.
    ModelError
        If no crystal has the inputs of the rule.
    """
    from train.experiments.publish import update_default_encoder
    from train.features import cache

    grids = GridStore(registry.settings.grids_url)
    encoder_id = cache.add_encoder(
        registry.engine, name, models=registry.settings.models, progress=progress or Silent(), grids=grids
    )
    with session_scope(registry.engine) as session:
        update_default_encoder(session)
    with Session(registry.engine) as session:
        return _summaries(session, encoder_id)[0]


def _summaries(session: Session, encoder_id: int | None = None) -> list[EncoderSummary]:
    rows = session.execute(
        text(
            """
            SELECT e.name AS encoder, e.modality, e.dim, r.name AS recipe, e.text_level,
                   (SELECT count(*) FROM embeddings v WHERE v.encoder_id = e.id) AS vectors,
                   e.model_version_id IS NULL AS frozen,
                   ARRAY(SELECT a.alias FROM encoder_aliases a WHERE a.encoder_id = e.id ORDER BY a.alias) AS aliases
            FROM encoders e LEFT JOIN image_recipes r ON r.id = e.recipe_id
            WHERE e.id = :wanted OR CAST(:wanted AS bigint) IS NULL
            ORDER BY e.id
            """
        ),
        {"wanted": encoder_id},
    )
    return [EncoderSummary(**{**row, "aliases": tuple(row["aliases"])}) for row in rows.mappings()]
