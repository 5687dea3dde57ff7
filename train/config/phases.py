"""Phases of training: step size, batch size, number of epochs, and early stopping."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from train.config_base import ConfigModel, Fraction, Whole

__all__ = ["PhaseConfig", "TrainingConfig"]


class PhaseConfig(ConfigModel):
    """One phase of training: Adam on the mean squared error of the standardised target."""

    learning_rate: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
    """Step size of Adam."""
    batch_size: Annotated[int, Field(strict=True, ge=2)] = 32
    """Rows of a step, at least 2 because of BatchNorm; a last batch of one row joins the one before it."""
    max_epochs: Whole = 700
    """Largest number of epochs."""
    patience: Whole = 15
    """Epochs without a lower loss on the stop rows before the phase ends."""
    weight_decay: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] = 0.0
    """Decoupled weight decay (AdamW); 0 is plain Adam."""


class TrainingConfig(ConfigModel):
    """Training of the dense layers and the backbones of a model."""

    readout: PhaseConfig = PhaseConfig(learning_rate=7e-4)
    """First phase: the dense layers, on frozen features."""
    finetune: PhaseConfig = PhaseConfig(learning_rate=1e-5)
    """Second phase: dense layers and backbones."""
    finetune_enabled: Annotated[bool, Field(strict=True)] = False
    """Whether the backbones are fine-tuned."""
    stop_fraction: Fraction = 0.1
    """Share of the training rows that early stopping uses; they are not trained on."""

    def limited(self, max_epochs: int) -> TrainingConfig:
        """The same with another largest number of epochs in each phase."""
        return self.replace(
            readout=self.readout.replace(max_epochs=max_epochs), finetune=self.finetune.replace(max_epochs=max_epochs)
        )
