"""A space that images and texts share: the networks, their phases, and what a trained one leaves for searches."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sqlalchemy import select
from sqlalchemy.orm import Session
from torch import nn

from registry.crystals import CrystalData
from registry.encoders import read_embeddings, resolve_encoder
from registry.errors import ModelError
from registry.model_store import resolve_model
from registry.models import Encoder, Epoch, Metric, ModelVersion
from registry.search.vectors import similar_to_vector
from tests.train.conftest import SmallRegistry, fit_phases, flat_config
from train.config.config import TrainConfig
from train.config.phases import PhaseConfig
from train.features.batch import Batch
from train.models.building import build_network
from train.models.checkpoints import from_bytes, to_bytes
from train.models.contrastive_networks import ContrastiveNetwork, contrastive_loss
from train.models.network_fitting import FittedNetwork
from train.models.scalers import StandardScaler
from train.prediction.encoding import encode_text, reads_sentences
from train.prediction.predictor import Predictor

RNG = np.random.default_rng(3)
QUICK = PhaseConfig(learning_rate=1e-2, batch_size=16, max_epochs=40, patience=10)


def dual(**changes: Any) -> TrainConfig:
    given = {"projection_dim": 8, "projection_dropout": 0.1, "align": QUICK, "readout": QUICK} | changes
    return flat_config(kind="dual-encoder", target="k_vrh", **given)


def paired(n: int = 60) -> tuple[Batch, np.ndarray]:
    """Images and texts that depend on the same four hidden numbers, and a target that these determine."""
    hidden = RNG.normal(size=(n, 4))
    image = hidden @ RNG.normal(size=(4, 12)) + 0.05 * RNG.normal(size=(n, 12))
    text = hidden @ RNG.normal(size=(4, 10)) + 0.05 * RNG.normal(size=(n, 10))
    features = {"image": image.astype(np.float32), "text": text.astype(np.float32)}
    return Batch(n, features), 100 + 20 * hidden[:, 0]


def network_of(config: TrainConfig | None = None, **dims: int) -> ContrastiveNetwork:
    network = build_network(config or dual(), dims or {"image": 12, "text": 10}, 0)
    assert isinstance(network, ContrastiveNetwork)
    return network


def changed(before: dict[str, torch.Tensor], network: nn.Module) -> set[str]:
    return {name for name, value in network.state_dict().items() if not torch.equal(before[name], value)}


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def test_contrastive_loss_by_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (nn.functional.normalize(torch.randn(5, 3, generator=generator), dim=1) for _ in range(2))
    scale = 7.0
    logits = scale * (image @ text.T).double()
    rows = -torch.log(torch.diag(logits.exp()) / logits.exp().sum(1)).mean()
    columns = -torch.log(torch.diag(logits.exp()) / logits.exp().sum(0)).mean()
    loss = contrastive_loss(image, text, torch.tensor(math.log(scale)))
    assert float(loss) == pytest.approx(float((rows + columns) / 2), rel=1e-5)
    # It is symmetric, equals log n for identical vectors, and its scale has an upper limit.
    assert float(contrastive_loss(text, image, torch.tensor(math.log(scale)))) == pytest.approx(float(loss))
    same = torch.ones(8, 4) / 2
    assert float(contrastive_loss(same, same, torch.tensor(3.0))) == pytest.approx(math.log(8), rel=1e-5)
    hundred = contrastive_loss(image, text, torch.tensor(math.log(100.0)))
    assert torch.equal(contrastive_loss(image, text, torch.tensor(20.0)), hundred)


def test_published_settings_are_the_defaults() -> None:
    for kind in ("clip", "dual-encoder"):
        config = flat_config(kind)
        published = PhaseConfig(learning_rate=1.5e-4, batch_size=32, max_epochs=800, patience=50)
        assert config.training.readout == config.training.finetune == published
        requested = flat_config(kind, readout={"learning_rate": 7e-4})
        assert requested.training.readout == PhaseConfig(learning_rate=7e-4)
        assert config.embedded == ("image",)
        assert config.modalities == ("image", "text")
    limits = {flat_config("clip", text_level=t).inputs["text"].max_tokens for t in ("formula", "keywords", "all")}
    assert limits == {77}
    assert flat_config("dual-encoder", text_level="formula").inputs["text"].max_tokens == 11
    assert flat_config("clip").encoder.name == "openai/clip-vit-base-patch32"


def test_the_projections_of_a_published_clip_make_1024_features_for_one_linear_layer() -> None:
    network = network_of(flat_config("clip", "k_vrh"), image=512, text=512)
    assert isinstance(network.readout.head, nn.Linear)
    assert network.readout.head.in_features == 1024
    assert network.width == 512
    assert [name for name, _ in network.named_parameters()] == ["log_scale", "readout.head.weight", "readout.head.bias"]
    with pytest.raises(ModelError, match="do not belong to one CLIP"):
        network_of(flat_config("clip", "k_vrh"), image=512, text=384)


def test_each_phase_changes_what_it_may() -> None:
    batch, values = paired()
    before: dict[str, torch.Tensor] | None = None
    seen = []
    for fitted in fit_phases(dual(), batch, values, seed=1, epochs={"align": 3, "readout": 3}):
        assert isinstance(fitted, FittedNetwork)
        if before is not None:
            seen.append(changed(before, fitted.network))
        else:
            trained = {name for name, p in fitted.network.named_parameters() if p.requires_grad}
            assert trained == {
                "log_scale",
                *(f"towers.{name}.readout.body.1.{part}" for name in ("image", "text") for part in ("weight", "bias")),
            }
        before = state(fitted.network)
    assert seen == [{"scale.mean", "scale.scale", "readout.head.weight", "readout.head.bias"}]


def test_alignment_brings_an_image_and_its_text_together() -> None:
    batch, values = paired(80)
    fit, held = batch.take(np.arange(60)), batch.take(np.arange(60, 80))
    first, last = 0.0, 0.0
    for fitted in fit_phases(dual(), fit, values[:60], seed=0, epochs={"align": 60, "readout": 40}):
        if fitted.phase == "align":
            assert fitted.result is not None
            first, last = fitted.result.history[0].train_loss, fitted.result.history[-1].train_loss
    assert isinstance(fitted, FittedNetwork)
    assert last < 0.5 * first
    image, text = (fitted.encode(Batch(20, {name: held.features[name]})) for name in ("image", "text"))
    np.testing.assert_allclose(np.linalg.norm(image, axis=1), 1, rtol=1e-5)
    assert ((text @ image.T).argmax(1) == np.arange(20)).mean() > 0.8  # of crystals that no fit has seen
    assert np.corrcoef(fitted.predict(held), values[60:])[0, 1] > 0.9
    # A crystal's vector is its image's, whatever its text.
    np.testing.assert_array_equal(fitted.encode(held), image)


def test_the_same_seed_gives_the_same_model_and_another_seed_another() -> None:
    batch, values = paired()
    stop = (batch.take(np.arange(50, 60)), values[50:])
    fit = (batch.take(np.arange(50)), values[:50])

    def last(seed: int) -> FittedNetwork:
        *_, fitted = fit_phases(dual(), *fit, seed=seed, stop=stop)
        assert isinstance(fitted, FittedNetwork)
        return fitted

    one, same, other = last(5), last(5), last(6)
    assert not changed(state(one.network), same.network)
    assert not np.array_equal(one.predict(batch), other.predict(batch))


def test_checkpoints_give_the_network_back() -> None:
    batch, values = paired()
    for config in (dual(), flat_config("clip", "k_vrh", readout=QUICK)):
        rows = batch if config.kind != "clip" else Batch(60, dict.fromkeys(("image", "text"), batch.features["image"]))
        *_, fitted = fit_phases(config, rows, values, seed=0, epochs={"align": 2, "readout": 2})
        assert isinstance(fitted, FittedNetwork)
        data = fitted.to_bytes(extra={})
        again = from_bytes(data)
        assert isinstance(again.network, ContrastiveNetwork)
        assert again.config == config
        scaler = StandardScaler.from_dict(again.target_scaler.to_dict())
        assert to_bytes(again.network, config, target_scaler=scaler, phase=again.phase, extra={}) == data


@pytest.mark.parametrize("kind", ["clip", "dual-encoder"])
def test_an_experiment_from_the_registry_and_back_to_it(small: SmallRegistry, kind: str) -> None:
    result = small.run(small.config(kind))
    assert result.cv["r2"] > 0.3
    assert result.n_holdout > 0
    with Session(small.engine) as session:
        encoder = resolve_encoder(session, f"{kind}:k_vrh@1")
        assert (encoder.modality, encoder.text_level) == ("image", None)
        assert encoder.recipe_id is not None
        stored = read_embeddings(session, encoder.id)
        assert len(stored) == 40
        (model,) = resolve_model(session, f"{kind}:k_vrh")
        predictor = Predictor.load(session, small.settings, model)
        phases = session.scalars(select(ModelVersion.phase).where(ModelVersion.fold == 0)).all()
        scored = set(session.scalars(select(ModelVersion.phase).join(Metric)))
        curves = set(session.scalars(select(ModelVersion.phase).join(Epoch)))
    assert set(phases) == ({"readout"} if kind == "clip" else {"align", "readout"}) == curves
    assert scored == {"readout"}
    predictions = predictor.predict_registered(small.engine, list(small.revisions.values())[:3])
    assert all(math.isfinite(one.value) for one in predictions)


@pytest.mark.parametrize("kind", ["clip", "dual-encoder"])
def test_a_sentence_finds_crystals_by_their_images(
    small: SmallRegistry, crystal_of: Callable[..., CrystalData], kind: str
) -> None:
    small.run(small.config(kind))
    with Session(small.engine) as session:
        encoder = resolve_encoder(session, f"{kind}:k_vrh@1")
        assert reads_sentences(session, encoder)
        vector = encode_text(session, small.settings, encoder, crystal_of(5).descriptions[0].text)
        np.testing.assert_allclose(np.linalg.norm(vector), 1, rtol=1e-5)
        found = similar_to_vector(session, vector, encoder=encoder.name, k=40)
        stored = {rid: v for rid, (_, v) in read_embeddings(session, encoder.id).items()}
        (model,) = resolve_model(session, f"{kind}:k_vrh")
        predictor = Predictor.load(session, small.settings, model, folds=False)
    assert len(found) == 40
    nearest = max(stored, key=lambda rid: float(vector @ stored[rid]))
    by_id = {rid: source_id for source_id, rid in small.revisions.items()}
    assert found[0].source_id == by_id[nearest]
    assert found[0].distance == pytest.approx(1 - float(vector @ stored[nearest]), abs=1e-5)
    if kind == "dual-encoder":
        texts = predictor.encode_texts([crystal_of(i).descriptions[0].text for i in range(40)])
        cosines = texts @ np.stack([stored[small.revisions[f"mp-{i + 1}"]] for i in range(40)]).T
        ranks = (cosines >= np.diag(cosines)[:, None]).sum(1)
        assert np.median(ranks) < 13  # 20 by chance
    # The vector of a crystal from files equals its stored embedding, and needs no text.
    import dataclasses

    alone = dataclasses.replace(crystal_of(5), descriptions=())
    np.testing.assert_allclose(predictor.encode([alone])[0], stored[small.revisions["mp-6"]], atol=1e-5)
    np.testing.assert_allclose(predictor.encode_images(alone.slices[0].pixels[None])[0], predictor.encode([alone])[0])


def test_the_kept_images_of_a_clip_are_found_by_sentences_without_training(small: SmallRegistry) -> None:
    small.run(small.config("clip"))
    with Session(small.engine) as session:
        names = set(session.scalars(select(Encoder.name).where(Encoder.model_version_id.is_(None))))
        assert names == {"tiny-clip:metric", "tiny-clip:keywords"}
        frozen = resolve_encoder(session, "tiny-clip:metric")
        assert reads_sentences(session, frozen)
        text = "KCl. All K-Cl bond lengths are 3.1 Å."
        vector = encode_text(session, small.settings, frozen, text)
        for name in ("clip:k_vrh@1", "tiny-clip:keywords"):
            same = encode_text(session, small.settings, resolve_encoder(session, name), text)
            np.testing.assert_allclose(vector, same, atol=1e-6)
        assert len(similar_to_vector(session, vector, encoder=frozen.name, k=3)) == 3


@pytest.mark.parametrize("kind", ["clip", "dual-encoder"])
def test_fine_tuning_trains_both_halves_and_keeps_them_with_the_model(small: SmallRegistry, kind: str) -> None:
    config = small.config(kind, finetune_enabled=True, readout={"learning_rate": 1e-2, "max_epochs": 3, "patience": 3})
    small.run(config)
    with Session(small.engine) as session:
        (model,) = resolve_model(session, f"{kind}:k_vrh")
        assert model.model_version.phase == "finetune"
        predictor = Predictor.load(session, small.settings, model, folds=False)
        stored = read_embeddings(session, resolve_encoder(session, f"{kind}:k_vrh@1").id)
        vector = encode_text(session, small.settings, resolve_encoder(session, f"{kind}:k_vrh@1"), "KCl is halite")
    assert len(stored) == 40
    assert {name: record.stored for name, record in predictor._refit.records.items()} == {"image": True, "text": True}
    np.testing.assert_allclose(vector, predictor.encode_texts(["KCl is halite"])[0], atol=1e-6)
