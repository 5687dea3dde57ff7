"""Prediction: the same model for registry and file, and refusals of what it was not trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from registry.crystals import CrystalData
from registry.encoders import read_embeddings, resolve_encoder
from registry.errors import ArtifactError, IncompatibleInputError
from registry.files.artifacts import ArtifactStore
from registry.model_store import ResolvedModel, resolve_model
from registry.models import Prediction
from tests.train.conftest import SmallRegistry
from train.prediction.predictor import Predictor
from train.prediction.stored import predict_crystals


def resolved(small: SmallRegistry, name: str) -> ResolvedModel:
    with Session(small.engine) as session:
        (model,) = resolve_model(session, name)
        session.expunge_all()
        return model


def loaded(small: SmallRegistry, name: str, **options: Any) -> Predictor:
    with Session(small.engine) as session:
        (model,) = resolve_model(session, name)
        return Predictor.load(session, small.settings, model, **options)


@pytest.mark.parametrize("kind", ["stacked", "baseline-magpie"])
def test_a_file_and_the_registry_get_the_same_answer(
    small: SmallRegistry, crystal_of: Callable[..., CrystalData], kind: str
) -> None:
    small.run(small.config(kind))
    predictor = loaded(small, kind)
    crystals = [crystal_of(i) for i in (3, 11)]
    direct = predictor.predict(crystals)
    kept = predictor.predict_registered(small.engine, [small.revisions[c.source_id] for c in crystals])
    for one, other in zip(direct, kept, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-4)
        assert one.spread == pytest.approx(other.spread, rel=1e-3)
        assert one.n_models == 3
    if kind == "stacked":
        with Session(small.engine) as session:
            encoder = resolve_encoder(session, "stacked:k_vrh@1")
            stored = read_embeddings(session, encoder.id, [small.revisions["mp-4"]])[small.revisions["mp-4"]][1]
        vectors = loaded(small, kind, folds=False).encode(crystals)
        np.testing.assert_allclose(vectors[0], stored, rtol=1e-3, atol=1e-4)


def test_finetuned_backbones_answer_for_files_too(small: SmallRegistry, crystal_of: Callable[..., CrystalData]) -> None:
    small.run(small.config("image", finetune_enabled=True))
    predictor = loaded(small, "image")
    (direct,) = predictor.predict([crystal_of(5)])
    (kept,) = predictor.predict_registered(small.engine, [small.revisions["mp-6"]])
    assert direct.value == pytest.approx(kept.value, rel=1e-4)


def test_members_are_answered_as_when_they_had_not_been_seen(
    small: SmallRegistry, crystal_of: Callable[..., CrystalData], write: Callable[..., None]
) -> None:
    small.run(small.config("image"))
    model = resolved(small, "image")
    with Session(small.engine) as session:
        made = {p.revision_id: p for p in session.scalars(select(Prediction))}
    known = {rid: crystal_of(int(ident[3:]) - 1).properties[0].value for ident, rid in small.revisions.items()}
    for prediction in predict_crystals(small.engine, small.settings, model, list(small.revisions.values())):
        stored = made[prediction.revision_id]
        assert (prediction.value, prediction.spread, prediction.subset) == (stored.value, stored.spread, stored.subset)
        assert prediction.subset in ("validation", "holdout")
        assert prediction.known == known[prediction.revision_id]

    # One material under another id was fitted to all the same; a new one was not.
    write(
        dataclasses.replace(crystal_of(4), source="again"),
        dataclasses.replace(crystal_of(4), source="new", source_id="x", material_key="new"),
    )
    cv = any(p.subset == "validation" for rid, p in made.items() if rid == small.revisions["mp-5"])
    with Session(small.engine) as session:
        new = session.scalars(
            text("SELECT revision_id FROM v_materials WHERE source IN ('again', 'new') ORDER BY source")
        )
        ids = list(new)
    twin, other = predict_crystals(small.engine, small.settings, model, ids)
    assert (twin.subset, other.subset) == ("train" if cv else "none", "none")
    assert twin.value == pytest.approx(other.value)
    assert other.spread is not None
    again = predict_crystals(small.engine, small.settings, model, ids)
    assert [p.subset for p in again] == [twin.subset, other.subset]
    # Single precision: the order of a matrix product's sums is the processor's affair.
    assert [p.value for p in again] == pytest.approx([twin.value, other.value], rel=1e-6)
    with Session(small.engine) as session:
        kept = session.scalars(select(Prediction.subset).where(Prediction.revision_id.in_(ids))).all()
        assert sorted(kept) == sorted([twin.subset, other.subset])


def test_other_inputs_than_those_of_the_training_are_refused(
    small: SmallRegistry, crystal_of: Callable[..., CrystalData], write: Callable[..., None]
) -> None:
    small.run(small.config("stacked"))
    predictor = loaded(small, "stacked")
    good = crystal_of(0)
    (slice_,) = good.slices
    other_recipe = dataclasses.replace(slice_, recipe_parameters={**slice_.recipe_parameters, "window": 8})
    spin = dataclasses.replace(slice_, inputs=(("spin", "GGA"), ("deformation", "GGA")))
    words = dataclasses.replace(good.descriptions[0], text_level="all")
    cases = {
        "another version of the recipe 'metric'": {"slices": (other_recipe,)},
        "no slice of the recipe 'metric'.*give its deformation and total density": {"slices": ()},
        "spin density at GGA.*was trained on total density at GGA and": {"slices": (spin,)},
        "no text of level 'keywords'": {"descriptions": (words,)},
    }
    for message, changes in cases.items():
        with pytest.raises(IncompatibleInputError, match=message):
            predictor.predict([dataclasses.replace(good, **changes)])
    # The same holds for crystals of the registry.
    write(dataclasses.replace(crystal_of(1, level_of_theory="r2SCAN"), source="scan"))
    with Session(small.engine) as session:
        rid = session.scalar(text("SELECT revision_id FROM v_materials WHERE source = 'scan'"))
    with pytest.raises(IncompatibleInputError, match="total density at r2SCAN"):
        predict_crystals(small.engine, small.settings, resolved(small, "stacked"), [rid])


def test_weights_are_verified_when_they_are_loaded(small: SmallRegistry) -> None:
    small.run(small.config("text"))
    model = resolved(small, "text")
    path = ArtifactStore(small.settings.artifacts).root / (model.model_version.artifact_uri or "")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match="do not match their checksum"):
        loaded(small, "text")
    path.unlink()
    with pytest.raises(ArtifactError, match="cannot read weights"):
        loaded(small, "text")


def test_only_text_models_encode_a_sentence(small: SmallRegistry) -> None:
    small.run(small.config("stacked"))
    vectors = loaded(small, "text", folds=False).encode_texts(["MgO. All Mg-O bond lengths are 2.12 Å."])
    assert vectors.shape == (1, 8)
    with pytest.raises(IncompatibleInputError, match="does not read texts alone"):
        loaded(small, "stacked", folds=False).encode_texts(["MgO"])
