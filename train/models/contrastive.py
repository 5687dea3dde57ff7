"""Fit of networks of images and texts in one shared space; see :mod:`train.models.contrastive_networks`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from train.config.config import TrainConfig
from train.features.featurizers import Featurizer
from train.models import optimization as engine
from train.models.building import build_network
from train.models.contrastive_networks import ContrastiveNetwork
from train.models.fitting import FittedNetwork, OnEpoch, Shown, derived_seed, phases_of, telling
from train.models.networks import Inputs, Phase
from train.models.scalers import StandardScaler

__all__ = ["fit_contrastive"]


def fit_contrastive(
    config: TrainConfig,
    shown: Shown,
    values: NDArray[np.float64],
    *,
    seed: int,
    stop: tuple[Shown, NDArray[np.float64]] | None = None,
    epochs: Mapping[str, int] | None = None,
    backbones: Mapping[str, Featurizer],
    on_epoch: OnEpoch | None = None,
) -> Iterator[FittedNetwork]:
    """Fit from fresh projections; yields the model after each phase.

    Parameters
    ----------
    config
        Of kind ``clip`` or ``dual-encoder``.
    shown, values
        The rows to fit, N of them; values in the unit of the target. Scalers and the alignment see these alone.
    seed
        Of the initial weights, the order of the rows and dropout.
    stop
        Rows that stopping looks at and that nothing is fitted to; in the align phase by the contrastive loss.
    epochs
        Epochs of each phase, where there is no ``stop``; without either, ``max_epochs``.
    backbones
        The pre-trained backbones by modality.
    on_epoch
        Told of each epoch.

    Raises
    ------
    ModelError
        If the halves of a CLIP do not belong together, or the loss is not finite.
    """
    scaler = StandardScaler.fit(values)
    dims = {name: features.shape[1] for name, features in shown.features.items()}
    network = build_network(config, dims, derived_seed(seed, "weights"))
    assert isinstance(network, ContrastiveNetwork)
    if config.kind == "dual-encoder":
        for name in network.modalities:
            network.tower(name).scale.set(StandardScaler.fit(shown.features[name]))
    for phase in phases_of(config):
        reads_raw = phase == "finetune"
        if reads_raw:
            for name in network.modalities:
                network.tower(name).attach(backbones[name])
        network.set_phase(_phase(phase))

        def see(rows: Shown, phase: str = phase, reads_raw: bool = reads_raw) -> Inputs:
            inputs = rows.inputs(raw=reads_raw)
            # The projections are frozen: they are computed once, not in every epoch.
            return (
                engine.to_inputs(joined=engine.encode(network, inputs, joined=True)) if phase == "readout" else inputs
            )

        rows = see(shown)
        if phase == "readout":
            network.scale.set(StandardScaler.fit(np.asarray(rows["joined"])))
        settings = config.phase(phase)
        result = engine.fit(
            network,
            rows,
            scaler.transform(values),
            phase=settings,
            seed=derived_seed(seed, "fit", phase),
            stop=None if stop is None else (see(stop[0]), scaler.transform(stop[1])),
            epochs=None if stop is not None else (epochs or {}).get(phase, settings.max_epochs),
            on_epoch=None if on_epoch is None else telling(on_epoch, phase),
        )
        yield FittedNetwork(config, network, scaler, phase, reads_raw, result, backbones)


def _phase(name: str) -> Phase:
    return "align" if name == "align" else "readout" if name == "readout" else "finetune"
