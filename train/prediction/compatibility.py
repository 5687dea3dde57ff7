"""Compatibility: the inputs of a model for a crystal, and refusal of inputs unlike its training data.

Another recipe, density kind, level of theory or text level gives numbers that mean nothing. Each modality checks its
own input (:class:`train.modalities.Modality`); the message states what to give instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from registry.crystals import CrystalData
from train.config.config import TrainConfig
from train.features.crystals import CrystalInputs
from train.modalities import MODALITIES

__all__ = ["check_stored", "read_inputs"]


def read_inputs(
    crystals: Sequence[CrystalData],
    config: TrainConfig,
    trained_on: Mapping[str, Any],
    *,
    model: str,
    modalities: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Inputs of a model for N crystals, by modality: pixels (N, C, H, W), texts, formulas, densities.

    Parameters
    ----------
    crystals
        N crystals that were prepared from files.
    config
        Configuration of the model.
    trained_on
        What the model was trained on.
    model
        Its name, for messages.
    modalities
        Of these alone; None: of all that the model reads.

    Raises
    ------
    IncompatibleInputError
        If a crystal lacks an input, or offers it of another recipe, density kind, level of theory or text level.
    """
    read: dict[str, Any] = {}
    for name in config.modalities if modalities is None else modalities:
        modality, features = MODALITIES[name], config.inputs[name]
        read[name] = modality.batch([modality.read(one, features, trained_on, model=model) for one in crystals])
    return read


def check_stored(crystals: CrystalInputs, config: TrainConfig, trained_on: Mapping[str, Any], *, model: str) -> None:
    """Refuse crystals of the registry that lack inputs of a model.

    Parameters
    ----------
    crystals
        With a column for each modality of the model.
    config, trained_on, model
        As for :func:`read_inputs`.

    Raises
    ------
    IncompatibleInputError
        As :func:`read_inputs`.
    """
    for row, crystal in enumerate(crystals.source_ids):
        for name, features in config.inputs.items():
            column = crystals.columns[name]
            MODALITIES[name].check(crystal, column, row, features, trained_on, model=model)
