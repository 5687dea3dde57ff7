"""Tests of encoders: identity, names, aliases and embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from registry.crystals import WrittenCrystal
from registry.encoders import (
    EncoderKey,
    assign_name,
    ensure_encoder,
    read_embeddings,
    resolve_encoder,
    set_encoder_alias,
    write_embeddings,
)
from registry.errors import ConfigurationError, ModelError, NotFoundError, QueryError
from registry.image_recipes import find_recipe
from registry.models import Embedding, Encoder

SHA = "ab" * 32
OTHER = "cd" * 32


@pytest.fixture
def revisions(add_crystal: Callable[..., WrittenCrystal]) -> list[int]:
    return [add_crystal(f"mp-{i}", densities=False).revision_id for i in range(5)]


def _encoder(session: Session, **changes: Any) -> Encoder:
    key = {"weights_sha256": SHA, "preprocessing": {"size": 160}, "recipe_id": None, "text_level": None}
    given = {"name": "net", "modality": "image", "dim": 4} | {n: v for n, v in changes.items() if n not in key}
    return ensure_encoder(session, EncoderKey(**{name: changes.get(name, v) for name, v in key.items()}), **given)


def test_the_same_identity_is_the_same_encoder(session: Session) -> None:
    first = _encoder(session)
    assert _encoder(session, name="another name").id == first.id
    assert _encoder(session, preprocessing={"size": 160}).id == first.id
    with pytest.raises(ModelError, match="vectors of length 4, not 5"):
        _encoder(session, dim=5)


def test_another_identity_under_the_same_name_gets_a_suffix(session: Session, revisions: list[int]) -> None:
    recipe = find_recipe(session, "metric").id
    variants = [
        {},
        {"weights_sha256": OTHER},
        {"preprocessing": {"size": 224}},
        {"recipe_id": recipe},
        {"text_level": "all"},
    ]
    made = [_encoder(session, **changes) for changes in variants]
    assert len({encoder.id for encoder in made}) == 5
    assert made[0].name == "net"
    assert all(len(encoder.name) == 12 and encoder.name.startswith("net-") for encoder in made[1:])
    assert [_encoder(session, **changes).name for changes in variants] == [encoder.name for encoder in made]


def test_a_name_is_assigned_to_the_newest_encoder(session: Session) -> None:
    old, new = _encoder(session), _encoder(session, weights_sha256=OTHER)
    suffixed = new.name
    set_encoder_alias(session, "default", old)
    assert assign_name(session, old, "net") is None  # it already has the name
    former = assign_name(session, new, "net")
    assert former == old.name
    assert former is not None
    assert former.startswith("net-")
    assert resolve_encoder(session, "net").id == new.id
    assert resolve_encoder(session, former).id == old.id
    assert resolve_encoder(session).id == old.id  # an alias does not move
    # The suffix is that of a second encoder with this name. Then assign the name back.
    assert assign_name(session, old, "net") == new.name == suffixed
    with pytest.raises(NotFoundError):
        resolve_encoder(session, former)


def test_vectors_are_read_as_they_were_written(session: Session, revisions: list[int]) -> None:
    encoder = _encoder(session)
    vectors = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    rows = [(i, v, SHA) for i, v in zip(revisions, vectors, strict=True)]
    assert write_embeddings(session, encoder, rows) == 5
    back = read_embeddings(session, encoder.id, revisions)
    assert sorted(back) == revisions
    for i, vector in zip(revisions, vectors, strict=True):
        assert back[i][0] == SHA
        assert back[i][1].dtype == np.float32
        np.testing.assert_array_equal(back[i][1], vector)
    assert read_embeddings(session, encoder.id, [revisions[2], 10**9]).keys() == {revisions[2]}
    assert len(read_embeddings(session, encoder.id)) == 5
    assert read_embeddings(session, encoder.id, []) == {}


def test_vectors_are_replaced_with_their_checksum(session: Session, revisions: list[int]) -> None:
    encoder = _encoder(session)
    write_embeddings(session, encoder, [(i, np.ones(4), SHA) for i in revisions])
    # By id, and twice in one transaction: the temporary table is emptied in between.
    assert write_embeddings(session, encoder.id, [(revisions[0], np.full(4, 2.0), OTHER)]) == 1
    assert write_embeddings(session, encoder, []) == 0
    back = read_embeddings(session, encoder.id)
    assert back[revisions[0]][0] == OTHER
    np.testing.assert_array_equal(back[revisions[0]][1], np.full(4, 2.0))
    assert back[revisions[1]][0] == SHA


@pytest.mark.parametrize(
    "vector", [np.ones(3), np.ones((1, 4)), np.zeros(4), np.array([1, np.nan, 0, 0]), np.array([1e39, 0, 0, 0])]
)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_bad_vectors_are_refused_before_any_is_written(
    session: Session, revisions: list[int], vector: np.ndarray
) -> None:
    encoder = _encoder(session)
    with pytest.raises(QueryError, match=f"vector of revision {revisions[1]}"):
        write_embeddings(session, encoder, [(revisions[0], np.ones(4), SHA), (revisions[1], vector, SHA)])
    assert session.scalar(select(func.count()).select_from(Embedding)) == 0


def test_missing_encoder(session: Session) -> None:
    with pytest.raises(NotFoundError, match="no encoder with the id 99"):
        write_embeddings(session, 99, [])


def test_resolve(session: Session) -> None:
    with pytest.raises(NotFoundError, match="there are no embeddings yet"):
        resolve_encoder(session)
    first = _encoder(session, name="minilm:keywords")
    second = _encoder(session, name="efficientnet:metric", weights_sha256=OTHER)
    with pytest.raises(NotFoundError, match="no encoder has the alias 'default'; there are: efficientnet:metric"):
        resolve_encoder(session)
    set_encoder_alias(session, "default", first)
    assert resolve_encoder(session).id == resolve_encoder(session, "default").id == first.id
    set_encoder_alias(session, "default", second.id)
    assert resolve_encoder(session, None).id == second.id
    assert resolve_encoder(session, "minilm:keywords").id == first.id
    with pytest.raises(NotFoundError, match="no encoder 'minilm:keyword'; did you mean 'minilm:keywords'"):
        resolve_encoder(session, "minilm:keyword")


def test_invalid_aliases_are_refused(session: Session) -> None:
    encoder = _encoder(session, name="net")
    for alias in ("", "1", "a b", "Default"):
        with pytest.raises(ConfigurationError, match="cannot be an alias"):
            set_encoder_alias(session, alias, encoder)
    with pytest.raises(ConfigurationError, match="is the name of an encoder"):
        set_encoder_alias(session, "net", encoder)
