"""Encoders and their embeddings.

An encoder computes vectors. It is identified by its weights, its inputs and their preprocessing: another recipe, text
level or preprocessing is another encoder. Each embedding has the checksum of its input, so that outdated ones are
found.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sqlalchemy import select
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from registry.checksums import json_sha256
from registry.errors import ConfigurationError, ModelError, NotFoundError, QueryError
from registry.models import Encoder, EncoderAlias

__all__ = [
    "DEFAULT_ALIAS",
    "FEATURIZERS",
    "EncoderKey",
    "assign_name",
    "ensure_encoder",
    "read_embeddings",
    "resolve_encoder",
    "set_encoder_alias",
    "write_embeddings",
]

DEFAULT_ALIAS = "default"
"""Alias of the encoder of a search without the name of an encoder."""

FEATURIZERS = ("fingerprint", "pettifor", "magpie", "elements", "density-statistics")
"""Encoders without trained weights, which ``ecdreg encoders add`` creates."""


@dataclass(frozen=True)
class EncoderKey:
    """Identity of an encoder: its weights, its input, and the preprocessing of the input."""

    weights_sha256: str
    preprocessing: Mapping[str, Any]
    """JSON values."""
    recipe_id: int | None = None
    """Image recipe of the input."""
    text_level: str | None = None
    """Text level of the input."""

    @property
    def columns(self) -> dict[str, Any]:
        """The identity by the columns of the unique constraint."""
        return {
            "weights_sha256": self.weights_sha256,
            "recipe_id": self.recipe_id,
            "text_level": self.text_level,
            "preprocessing_sha256": json_sha256(self.preprocessing),
        }


def ensure_encoder(
    session: Session,
    key: EncoderKey,
    *,
    name: str,
    modality: str,
    dim: int,
    model_version_id: int | None = None,
) -> Encoder:
    """The encoder with this identity; a new encoder is added.

    Parameters
    ----------
    session
        A new encoder is added to it.
    key
        The identity.
    name
        Name of a new encoder. If another encoder has this name, ``-`` and eight digits of the checksum of the identity
        are appended.
    modality
        image, text, composition, density or stacked.
    dim
        Length of the vectors.
    model_version_id
        The refit that the encoder is part of; None for a frozen backbone.

    Raises
    ------
    ModelError
        If the identity exists with another length of the vectors.
    """
    identity = key.columns
    # NULL equals NULL, as in the unique constraint.
    query = select(Encoder).where(
        *(getattr(Encoder, column).is_not_distinct_from(value) for column, value in identity.items())
    )
    encoder = session.scalars(query).one_or_none()
    if encoder is None:
        taken = session.scalar(select(Encoder.id).where(Encoder.name == name))
        session.execute(
            postgresql.insert(Encoder)
            .values(
                name=name if taken is None else _suffixed(name, tuple(identity.values())),
                modality=modality,
                dim=dim,
                preprocessing=dict(key.preprocessing),
                model_version_id=model_version_id,
                **identity,
            )
            # Two processes may add the same backbone at the same time.
            .on_conflict_do_nothing()
        )
        encoder = session.scalars(query).one()
    if encoder.dim != dim:
        raise ModelError(
            f"encoder {encoder.name!r} has vectors of length {encoder.dim}, not {dim}; its weights or preprocessing"
            " have changed, but not their checksums"
        )
    return encoder


def assign_name(session: Session, encoder: Encoder, name: str) -> str | None:
    """Assign a name to an encoder; another encoder with this name is renamed.

    A featurizer has one name, which belongs to its current version. Networks that read images of two sizes are two
    encoders, which keep their names.

    Parameters
    ----------
    encoder
        The encoder.
    name
        The name, without a suffix.

    Returns
    -------
    str or None
        The new name of the other encoder: the name with ``-`` and eight digits of the checksum of its identity. None
        if no other encoder had the name.
    """
    if encoder.name == name:
        return None
    other = session.scalars(select(Encoder).where(Encoder.name == name).with_for_update()).one_or_none()
    if other is not None:
        identity = (other.weights_sha256, other.recipe_id, other.text_level, other.preprocessing_sha256)
        other.name = _suffixed(name, identity)
        session.flush()  # names are unique after each statement
    encoder.name = name
    session.flush()
    return None if other is None else other.name


def write_embeddings(session: Session, encoder: Encoder | int, rows: Iterable[tuple[int, ArrayLike, str]]) -> int:
    """Write embeddings; existing ones are replaced.

    Parameters
    ----------
    encoder
        The encoder, or its id.
    rows
        Revision id, vector of length ``dim``, and checksum of the input.

    Returns
    -------
    int
        Number of written vectors.

    Raises
    ------
    QueryError
        If a vector has another length, is zero or is not finite; nothing is written.
    NotFoundError
        If there is no such encoder.
    """
    if isinstance(encoder, int):
        encoder = _by_id(session, encoder)
    checked = [(int(revision_id), _vector(vector, encoder, revision_id), sha) for revision_id, vector, sha in rows]
    if not checked:
        return 0
    from pgvector import Vector
    from pgvector.psycopg import register_vector

    connection = session.connection().connection.driver_connection
    assert connection is not None, "a session in use has a connection"
    register_vector(connection)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMP TABLE IF NOT EXISTS incoming_embeddings"
            " (revision_id bigint, embedding vector, input_sha256 text) ON COMMIT DELETE ROWS"
        )
        cursor.execute("TRUNCATE incoming_embeddings")
        with cursor.copy(
            "COPY incoming_embeddings (revision_id, embedding, input_sha256) FROM STDIN WITH (FORMAT BINARY)"
        ) as copy:
            copy.set_types(["int8", "vector", "text"])
            for revision_id, vector, sha in checked:
                copy.write_row((revision_id, Vector(vector), sha))
        # Sorted, so that concurrent writers lock rows in the same order.
        cursor.execute(
            "INSERT INTO embeddings (encoder_id, revision_id, dim, embedding, input_sha256)"
            " SELECT %s, revision_id, %s, embedding, input_sha256 FROM incoming_embeddings ORDER BY revision_id"
            " ON CONFLICT (encoder_id, revision_id) DO UPDATE"
            " SET dim = excluded.dim, embedding = excluded.embedding, input_sha256 = excluded.input_sha256",
            (encoder.id, encoder.dim),
        )
    return len(checked)


def read_embeddings(
    session: Session, encoder_id: int, revision_ids: Sequence[int] | None = None
) -> dict[int, tuple[str, NDArray[np.float32]]]:
    """Stored embeddings by revision, with the checksums of their inputs.

    Parameters
    ----------
    encoder_id
        The encoder.
    revision_ids
        The requested revisions; None: all. Revisions without an embedding are missing in the result.

    Returns
    -------
    dict
        (input_sha256, vector of shape (dim,)) by revision id.
    """
    from pgvector.psycopg import register_vector

    connection = session.connection().connection.driver_connection
    assert connection is not None, "a session in use has a connection"
    register_vector(connection)
    query = "SELECT revision_id, input_sha256, embedding FROM embeddings WHERE encoder_id = %s"
    values: list[Any] = [int(encoder_id)]
    if revision_ids is not None:
        query += " AND revision_id = ANY(%s)"
        values.append([int(revision_id) for revision_id in revision_ids])
    # Binary: a vector of 1280 numbers has 5 kB, and 14 kB as text.
    with connection.cursor(binary=True) as cursor:
        cursor.execute(query, values)
        return {
            revision_id: (sha, np.asarray(vector.to_numpy(), dtype=np.float32)) for revision_id, sha, vector in cursor
        }


def set_encoder_alias(session: Session, alias: str, encoder: Encoder | int) -> None:
    """Set an alias of an encoder; an alias belongs to one encoder.

    Raises
    ------
    ConfigurationError
        If the alias is not valid, or is the name of an encoder.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_.-]*", alias):
        raise ConfigurationError(f"{alias!r} cannot be an alias; start with a lower case letter, then a-z 0-9 _ . -")
    if session.scalar(select(Encoder.id).where(Encoder.name == alias)):
        raise ConfigurationError(f"{alias!r} is the name of an encoder; choose another alias")
    encoder_id = encoder if isinstance(encoder, int) else encoder.id
    session.execute(
        postgresql.insert(EncoderAlias)
        .values(alias=alias, encoder_id=encoder_id)
        .on_conflict_do_update(index_elements=[EncoderAlias.alias], set_={"encoder_id": encoder_id})
    )


def resolve_encoder(session: Session, name: str | None = None) -> Encoder:
    """The encoder with a name or an alias; None: the alias ``default``.

    Raises
    ------
    NotFoundError
        If there is none; the message names the existing ones, and the command that creates a featurizer.
    """
    wanted = name or DEFAULT_ALIAS
    encoder = session.scalars(
        select(Encoder)
        .outerjoin(EncoderAlias, EncoderAlias.encoder_id == Encoder.id)
        .where((Encoder.name == wanted) | (EncoderAlias.alias == wanted))
        .order_by((Encoder.name == wanted).desc())
        .limit(1)
    ).one_or_none()
    if encoder is not None:
        return encoder
    names = session.scalars(select(Encoder.name).order_by(Encoder.name)).all()
    if wanted in FEATURIZERS:
        raise NotFoundError(f"no encoder {wanted!r} yet; `ecdreg encoders add {wanted}` creates it")
    if not names:
        raise NotFoundError("there are no embeddings yet; `ecdreg train` creates them")
    near = difflib.get_close_matches(wanted, [*names, *FEATURIZERS], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"
    if near and near[0] not in names:
        hint += f" `ecdreg encoders add {near[0]}` creates it"
    what = "encoder has the alias 'default'" if name is None else f"encoder {name!r}"
    raise NotFoundError(f"no {what}; {hint}")


def _suffixed(name: str, identity: Sequence[str | int | None]) -> str:
    return f"{name}-{json_sha256(identity)[:8]}"


def _by_id(session: Session, encoder_id: int) -> Encoder:
    encoder = session.get(Encoder, encoder_id)
    if encoder is None:
        raise NotFoundError(f"no encoder with the id {encoder_id}; the table encoders lists them")
    return encoder


def _vector(vector: ArrayLike, encoder: Encoder, revision_id: int) -> NDArray[np.float32]:
    array = np.asarray(vector, dtype=np.float32)
    if array.shape != (encoder.dim,):
        raise QueryError(
            f"vector of revision {revision_id} has shape {array.shape}; encoder {encoder.name!r} computes"
            f" vectors of shape ({encoder.dim},)"
        )
    if not np.isfinite(array).all() or not np.any(array):
        raise QueryError(
            f"vector of revision {revision_id} is zero or not finite, and cannot be compared; encoder"
            f" {encoder.name!r} cannot be used for this crystal"
        )
    return array
