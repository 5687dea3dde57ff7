"""Base of the configurations of models: the properties that every kind of model has.

:data:`train.config.kinds.MODEL_KINDS` lists the kinds; :func:`train.config.kinds.parse_config` reads any of them. A
configuration holds no seed: runs of one configuration with several seeds share its checksum.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal

from registry.errors import ConfigurationError
from train.config.phases import PhaseConfig, TrainingConfig
from train.config_base import ConfigModel, Name
from train.modalities.features import FeatureConfig

__all__ = ["VERSION", "TrainConfig"]

VERSION = 2
"""Version of the layout of configurations; those of version 1 are read too (:mod:`train.config.version1`)."""


class TrainConfig(ConfigModel):
    """Options that decide how a model is trained, except the seed.

    Every subclass has a field ``type``, by which a stored configuration is recognised.
    """

    type: str
    version: Literal[2] = 2
    target: Name
    """Property that is predicted, for instance ``k_vrh``."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """Name of the kind of model; also the default name of the model."""

    @property
    @abstractmethod
    def inputs(self) -> Mapping[str, FeatureConfig]:
        """Inputs of the model, by modality, in the order of the modalities."""

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities that the model reads, in order."""
        return tuple(self.inputs)

    @property
    def embedded(self) -> tuple[str, ...]:
        """Modalities that a vector of the model represents."""
        return self.modalities

    @property
    def phases(self) -> tuple[str, ...]:
        """Phases of training, in order: ``fit`` for a model that is fitted in one step."""
        return ("fit",)

    @property
    def is_network(self) -> bool:
        """Whether the model is one neural network."""
        return self.phases != ("fit",)

    @property
    def is_stack(self) -> bool:
        """Whether the model joins towers that are models of their own."""
        return False

    @property
    def is_baseline(self) -> bool:
        """Whether the model is a baseline."""
        return False

    @property
    def joins_features(self) -> bool:
        """Whether the model is a stack whose one regressor reads the features of all towers."""
        return False

    @property
    def shares_space(self) -> bool:
        """Whether images and texts have vectors in one space."""
        return False

    @property
    def training_config(self) -> TrainingConfig:
        """Training of the dense layers and backbones; the default where nothing trains by epochs."""
        return TrainingConfig()

    @property
    def finetune_enabled(self) -> bool:
        """Whether backbones are fine-tuned."""
        return self.training_config.finetune_enabled

    @property
    def stop_fraction(self) -> float:
        """Share of the training rows that early stopping uses."""
        return self.training_config.stop_fraction if self.is_network else 0.0

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Targets that dense layers learn beside the model's own."""
        return ()

    def phase(self, name: str) -> PhaseConfig:
        """Settings of one of :attr:`phases`."""
        return self.training_config.readout if name == "readout" else self.training_config.finetune

    def reads_raw(self, phase: str) -> bool:
        """Whether the model reads raw inputs by backbones of its own after a phase."""
        return False

    def tower_config(self, modality: str) -> TrainConfig:
        """Configuration of the model that is one tower of a stack alone.

        Raises
        ------
        ConfigurationError
            If the model is not a stack, or has no such tower.
        """
        raise ConfigurationError(f"a {self.kind} model has no tower {modality!r} of its own")

    @property
    def recipe_name(self) -> str | None:
        """Image recipe that the model reads."""
        return next((one.recipe_name for one in self.inputs.values() if one.recipe_name is not None), None)

    @property
    def text_level_name(self) -> str | None:
        """Text level that the model reads."""
        return next((one.text_level_name for one in self.inputs.values() if one.text_level_name is not None), None)
