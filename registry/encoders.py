"""Encoders and their embeddings: whatever yields vectors, and the vectors.

An encoder is its weights with what it reads and how: another recipe, text level or preprocessing is
another encoder. Each embedding carries the checksum of its input, so that a stale one is seen.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
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
    "BY_RULE",
    "DEFAULT_ALIAS",
    "ensure_encoder",
    "read_embeddings",
    "resolve_encoder",
    "set_encoder_alias",
    "take_name",
    "write_embeddings",
]

DEFAULT_ALIAS = "default"
"""Alias of the encoder that a search uses that names none."""

BY_RULE = ("fingerprint", "pettifor", "magpie", "elements", "density-statistics")
"""Encoders that ``ecdreg encoders add`` makes by a rule that nothing is trained for."""


def ensure_encoder(
    session: Session,
    *,
    name: str,
    modality: str,
    dim: int,
    weights_sha256: str,
    preprocessing: Mapping[str, Any],
    recipe_id: int | None = None,
    text_level: str | None = None,
    model_version_id: int | None = None,
) -> Encoder:
    """The encoder of this identity, which is added if it is not there.

    Parameters
    ----------
    name
        Name that it gets if it is new; where another encoder has it, with ``-`` and eight digits of
        this one's identity behind.
    modality
        image, text, composition, density or stacked.
    dim
        Length of its vectors.
    weights_sha256, preprocessing, recipe_id, text_level
        Its identity: the weights, and what happens to which input before they see it (JSON values).
    model_version_id
        The refit it is a part of; None for a frozen backbone.

    Raises
    ------
    ModelError
        If the same identity is registered with another length of vectors.
    """
    preprocessing_sha256 = json_sha256(preprocessing)
    identity = (weights_sha256, recipe_id, text_level, preprocessing_sha256)
    # With NULL equal to NULL, as in the unique constraint.
    same = [
        column.is_not_distinct_from(value)
        for column, value in zip(
            (Encoder.weights_sha256, Encoder.recipe_id, Encoder.text_level, Encoder.preprocessing_sha256),
            identity,
            strict=True,
        )
    ]
    query = select(Encoder).where(*same)
    encoder = session.scalars(query).one_or_none()
    if encoder is None:
        taken = session.scalar(select(Encoder.id).where(Encoder.name == name))
        session.execute(
            postgresql.insert(Encoder)
            .values(
                name=name if taken is None else _suffixed(name, identity),
                modality=modality,
                dim=dim,
                weights_sha256=weights_sha256,
                recipe_id=recipe_id,
                text_level=text_level,
                preprocessing=dict(preprocessing),
                preprocessing_sha256=preprocessing_sha256,
                model_version_id=model_version_id,
            )
            # Two trainings may find the same backbone missing at once.
            .on_conflict_do_nothing()
        )
        encoder = session.scalars(query).one()
    if encoder.dim != dim:
        raise ModelError(
            f"encoder {encoder.name!r} has vectors of {encoder.dim} numbers, not {dim}; its weights or preprocessing"
            " have changed without their checksums"
        )
    return encoder


def take_name(session: Session, encoder: Encoder, name: str) -> str | None:
    """Give an encoder a name that another one may have: the vectors that are made today are found by it.

    For features by a rule, of which a name has one version at a time. Where a network reads pictures of two sizes, both
    encoders go on, and keep their names.

    Parameters
    ----------
    encoder
        The encoder.
    name
        A name without a suffix.

    Returns
    -------
    str or None
        What the other encoder is called from now on: the name, with ``-`` and eight digits of its identity behind.
        None where the encoder had the name.
    """
    if encoder.name == name:
        return None
    other = session.scalars(select(Encoder).where(Encoder.name == name).with_for_update()).one_or_none()
    if other is not None:
        identity = (other.weights_sha256, other.recipe_id, other.text_level, other.preprocessing_sha256)
        other.name = _suffixed(name, identity)
        session.flush()  # a name is of one encoder at any moment
    encoder.name = name
    session.flush()
    return None if other is None else other.name


def write_embeddings(session: Session, encoder: Encoder | int, rows: Iterable[tuple[int, ArrayLike, str]]) -> int:
    """Write vectors; those that are there are replaced.

    Parameters
    ----------
    encoder
        The encoder, or its id.
    rows
        (revision id, vector of the encoder's length, checksum of the input).

    Returns
    -------
    int
        Number of vectors written.

    Raises
    ------
    QueryError
        If a vector has another length, or is zero or not finite; nothing is written then.
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
        # Sorted, so that two writers lock the same rows in the same order.
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
    """Stored vectors by revision, each with the checksum of the input that it was made from.

    Parameters
    ----------
    encoder_id
        The encoder.
    revision_ids
        Revisions that are asked for; None: all. Those without a vector are missing in the answer.

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
    # Binary: a vector of 1280 numbers is 5 kB instead of 14 kB of text to parse.
    with connection.cursor(binary=True) as cursor:
        cursor.execute(query, values)
        return {
            revision_id: (sha, np.asarray(vector.to_numpy(), dtype=np.float32)) for revision_id, sha, vector in cursor
        }


def set_encoder_alias(session: Session, alias: str, encoder: Encoder | int) -> None:
    """Let an alias point to an encoder; it leaves the one it pointed to.

    Raises
    ------
    ConfigurationError
        If it cannot be an alias, or is the name of an encoder.
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
    """The encoder of a name or an alias; None: that of the alias ``default``.

    Raises
    ------
    NotFoundError
        If there is none; the message names those that there are, and how one is made that could be there.
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
    if wanted in BY_RULE:
        raise NotFoundError(f"no encoder {wanted!r} yet; `ecdreg encoders add {wanted}` makes it")
    if not names:
        raise NotFoundError("there are no embeddings yet; `ecdreg train` makes them")
    near = difflib.get_close_matches(wanted, [*names, *BY_RULE], n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"
    if near and near[0] not in names:
        hint += f" `ecdreg encoders add {near[0]}` makes it"
    what = "encoder has the alias 'default'" if name is None else f"encoder {name!r}"
    raise NotFoundError(f"no {what}; {hint}")


def _suffixed(name: str, identity: tuple[str, int | None, str | None, str]) -> str:
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
            f"vector of revision {revision_id} has shape {array.shape}; encoder {encoder.name!r} yields"
            f" ({encoder.dim},)"
        )
    if not np.isfinite(array).all() or not np.any(array):
        raise QueryError(
            f"vector of revision {revision_id} is zero or not finite, and has no direction to compare; encoder"
            f" {encoder.name!r} cannot read this crystal"
        )
    return array
