"""Frozen features: computed once, kept, made anew when the input changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from registry.database import session_scope
from registry.encoders import EncoderKey, ensure_encoder, read_embeddings, resolve_encoder
from registry.errors import ArtifactError, ModelError, NotFoundError
from registry.image_recipes import ensure_recipes, find_recipe
from registry.jobs.progress import Silent
from tests.train.conftest import SmallRegistry
from train.backbones.base import Backbone
from train.features.cache import FeatureCache, check_known, described, input_sha256
from train.features.crystals import CrystalInputs, read_crystals
from train.featurizers.catalog import Featurizer
from train.modalities.features import CompositionFeatures, FeatureConfig
from train.modalities.image import load_images, recipe_channels


class Counting(Silent):
    """A progress that counts what is computed."""

    def __init__(self) -> None:
        self.computed = 0

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.computed += steps


def tables(small: SmallRegistry) -> tuple[Any, Any, int]:
    counting = Counting()
    cache = FeatureCache(small.engine, models=None, progress=counting)
    inputs = small.config("stacked").inputs
    crystals = read(small, inputs)
    image, words = (cache.table(name, inputs[name], crystals) for name in ("image", "text"))
    assert cache.table("image", inputs["image"], crystals) is image  # in memory by now
    return image, words, counting.computed


def read(small: SmallRegistry, inputs: Any, ids: list[int] | None = None) -> CrystalInputs:
    with Session(small.engine) as session:
        return read_crystals(session, inputs, ids)


def loaded(small: SmallRegistry, kind: str) -> Featurizer:
    """The featurizer of a small tower."""
    inputs = small.config(kind).inputs
    cache = FeatureCache(small.engine, models=None, progress=Silent())
    return cache.featurizer(kind, inputs[kind], read(small, inputs))


def test_features_are_computed_once_and_kept_as_embeddings(small: SmallRegistry) -> None:
    image, words, computed = tables(small)
    assert (image.encoder, words.encoder, computed) == ("tiny-image:metric", "tiny-text:keywords", 80)
    again, _, computed = tables(small)
    assert computed == 0
    np.testing.assert_array_equal(again.vectors, image.vectors)
    with Session(small.engine) as session:
        kept = read_embeddings(session, image.encoder_id)
        recipe_id = find_recipe(session, "metric").id
        pixels = load_images(session, [4], recipe_id=recipe_id)
    backbone = loaded(small, "image")
    np.testing.assert_allclose(kept[4][1], backbone.features(pixels)[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(image.rows(np.array([9, 4]))[1], kept[4][1])
    with pytest.raises(NotFoundError, match="no features of tiny-image:metric for revision 99"):
        image.rows(np.array([99]))


def test_only_what_changed_is_computed_anew(small: SmallRegistry) -> None:
    before, _, _ = tables(small)
    with small.engine.begin() as connection:
        connection.execute(text("UPDATE descriptions SET text = 'Softer.' WHERE revision_id = 7"))
        connection.execute(
            text("DELETE FROM embeddings WHERE revision_id = 8 AND encoder_id = :e"), {"e": before.encoder_id}
        )
    after, words, computed = tables(small)
    assert computed == 2
    np.testing.assert_allclose(after.vectors, before.vectors, rtol=1e-4, atol=1e-5)
    changed = read(small, small.config("text").inputs, [7])
    with Session(small.engine) as session:
        assert read_embeddings(session, words.encoder_id, [7])[7][0] == input_sha256(changed, 0, ("text",))


def test_a_known_backbone_is_not_even_loaded(small: SmallRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(small.engine, models=None, progress=Silent())
    known = described(loaded(small, "image"))
    inputs = small.config("image").inputs
    crystals = read(small, inputs)
    first = cache.table("image", inputs["image"], crystals)

    def refuse(*args: Any, **kwargs: Any) -> Backbone:
        raise AssertionError("loaded")

    monkeypatch.setattr("train.features.cache.restore_featurizer", refuse)
    fresh = FeatureCache(small.engine, models=None, progress=Silent())
    table = fresh.table("image", inputs["image"], crystals, known=known)
    assert table.encoder_id == first.encoder_id


def test_features_that_are_made_otherwise_now_take_the_name(small: SmallRegistry) -> None:
    """A home that was made by an earlier version: ``ecdreg similar --encoder pettifor`` means today's vectors."""

    class Listening(Silent):
        def __init__(self) -> None:
            self.messages: list[str] = []

        def message(self, line: str) -> None:
            self.messages.append(line)

    identity: dict[str, Any] = {"weights_sha256": "ab" * 32, "dim": 7, "preprocessing": {"name": "pettifor"}}
    with session_scope(small.engine) as session:
        key = EncoderKey(identity["weights_sha256"], identity["preprocessing"])
        old = ensure_encoder(session, key, name="pettifor", modality="composition", dim=identity["dim"]).id
    listening = Listening()
    config: FeatureConfig = CompositionFeatures(backbone="pettifor")
    inputs = read(small, {"composition": config})
    for _ in range(2):  # the second time there is no message
        cache = FeatureCache(small.engine, models=None, progress=listening)
        table = cache.table("composition", config, inputs)
        assert table.encoder == "pettifor"
    with Session(small.engine) as session:
        assert resolve_encoder(session, "pettifor").id == table.encoder_id != old
        (former,) = session.scalars(text("SELECT name FROM encoders WHERE id = :id"), {"id": old})
    (line,) = listening.messages
    assert line.endswith(f"belong to the encoder {former!r} from now on")
    # A model that was trained on the old features requests those, and does not take the name.
    with pytest.raises(ArtifactError):
        cache.table("composition", config, inputs, known=identity)
    with Session(small.engine) as session:
        assert resolve_encoder(session, "pettifor").id == table.encoder_id


def test_another_backbone_than_the_known_one_is_refused(small: SmallRegistry) -> None:
    backbone = loaded(small, "text")
    check_known(backbone, described(backbone))
    with pytest.raises(ArtifactError, match="not the one of the training"):
        check_known(backbone, described(backbone) | {"weights_sha256": "0" * 64})


def test_channels_are_named_by_what_they_show(small: SmallRegistry) -> None:
    with session_scope(small.engine) as session:
        metric = find_recipe(session, "metric").id
        assert recipe_channels(session, metric) == ("total", "deformation")
        names = ("metric-fourier", "imported", "none")
        ids = ensure_recipes(session, {f"{i:064x}": (name, {name: True}, None) for i, name in enumerate(names)})
        fourier, imported, none = (ids[f"{i:064x}"] for i in range(3))
        for recipe_id in (fourier, imported):
            session.execute(
                text(
                    "INSERT INTO slice_images SELECT revision_id, :new, channels, height, width, pixels, pixel_min,"
                    " pixel_max, pixel_mean, pixel_std, sha256 FROM slice_images"
                    " WHERE revision_id = 1 AND recipe_id = :old"
                ),
                {"new": recipe_id, "old": metric},
            )
        session.execute(
            text(
                "INSERT INTO slice_inputs SELECT revision_id, :new, channel, kind, level_of_theory FROM slice_inputs"
                " WHERE revision_id = 1 AND recipe_id = :old"
            ),
            {"new": fourier, "old": metric},
        )
        assert recipe_channels(session, fourier) == ("fourier", "fourier")
        assert recipe_channels(session, imported) == ("imported", "imported")
        with pytest.raises(NotFoundError, match="no images under recipe"):
            recipe_channels(session, none)


def test_a_modality_that_no_crystal_has_is_refused(small: SmallRegistry) -> None:
    cache = FeatureCache(small.engine, models=None, progress=Silent())
    inputs = small.config("text", text_level="all").inputs
    with pytest.raises(ModelError, match="no crystal has the input of tiny-text:all"):
        cache.table("text", inputs["text"], read(small, inputs))
