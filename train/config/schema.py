"""Configurations of towers, stacks, contrastive models and baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from registry.errors import ConfigurationError
from train.config.config import TrainConfig
from train.config.phases import PhaseConfig, TrainingConfig
from train.config_base import ConfigModel, Fraction, Name, Whole, Widths, validated
from train.modalities import MODALITIES, modality_order
from train.modalities.features import (
    ClipImageFeatures,
    ClipTextFeatures,
    CompositionFeatures,
    FeatureConfig,
    ImageFeatures,
    TextFeatures,
)

__all__ = [
    "NETWORK",
    "BaselineConfig",
    "ClipEncoder",
    "ContrastiveConfig",
    "DualEncoder",
    "Head",
    "Join",
    "NetworkHead",
    "NetworkJoin",
    "RegressorHead",
    "RegressorJoin",
    "StackConfig",
    "TowerConfig",
    "TowerPart",
]

NETWORK = "network"
"""Name of the dense layers, where a regressor may be named instead."""


class NetworkHead(ConfigModel):
    """Dense layers on the features of a tower."""

    type: Literal["network"] = "network"
    widths: Widths
    """Widths of the hidden layers."""
    dropout: Fraction
    """Dropout after each hidden layer."""

    @property
    def name(self) -> str:
        """``network``."""
        return NETWORK


class RegressorHead(ConfigModel):
    """A regressor on the features of a tower."""

    type: Literal["regressor"] = "regressor"
    name: Name
    """Name in ``REGRESSORS``."""


Head = Annotated[NetworkHead | RegressorHead, Field(discriminator="type")]


class NetworkJoin(ConfigModel):
    """Dense layers on the penultimate layers of towers."""

    type: Literal["network"] = "network"
    widths: Widths = (256,)
    """Widths of the hidden layers."""
    dropout: Fraction = 0.1
    """Dropout after each hidden layer."""
    tower_features: Literal["in-sample", "out-of-fold"] = "in-sample"
    """Tower features that the dense layers are fitted to: in-sample as published, or of towers that have not seen the
    row. In cross-validation on the bundled sample neither is better, and out-of-fold trains five times the towers."""

    @property
    def name(self) -> str:
        """``network``."""
        return NETWORK


class RegressorJoin(ConfigModel):
    """A regressor on the features of all towers, or on their out-of-fold predictions."""

    type: Literal["regressor"] = "regressor"
    name: Name
    """Name in ``REGRESSORS``."""
    reads: Literal["features", "predictions"]
    """Data to which the regressor is fitted. A regressor that weighs groups of features reads features."""


Join = Annotated[NetworkJoin | RegressorJoin, Field(discriminator="type")]


class TowerPart(ConfigModel):
    """A tower of a stack: one modality, its features, and its network or regressor."""

    modality: Name
    """Name in ``MODALITIES``."""
    features: SerializeAsAny[FeatureConfig]
    """Inputs of the tower, and its featurizer."""
    head: Head
    """Dense layers or a regressor."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        return _with_defaults(values)

    @model_validator(mode="after")
    def _augments_a_network(self) -> Self:
        _check_augment(self.features, self.head)
        return self


class _DenseConfig(TrainConfig):
    """Common configuration of models with dense layers."""

    training: TrainingConfig = TrainingConfig()
    """Training of the dense layers and backbones."""
    auxiliary_targets: tuple[Name, ...] = ()
    """Targets that dense layers learn beside their own, from the same training rows."""

    @field_validator("auxiliary_targets")
    @classmethod
    def _sorted(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(names)) != len(names):
            raise ValueError("give each property once")
        return tuple(sorted(names))

    @model_validator(mode="after")
    def _fields_have_an_effect(self) -> Self:
        if self.target in self.auxiliary_targets:
            raise ValueError(f"auxiliary_targets holds {self.target!r}, which is the target; give other properties")
        if not self._has_dense_layers:
            # Values are compared with the defaults, so that a copy of a configuration stays valid.
            for name in ("training", "auxiliary_targets"):
                if getattr(self, name) != _DenseConfig.model_fields[name].default:
                    raise ValueError(f"{name} has no effect on a {self.kind} model without dense layers; leave it out")
        return self

    @property
    def _has_dense_layers(self) -> bool:
        return self.is_network

    def to_dict(self) -> dict[str, Any]:
        """The fields that have an effect, as JSON values."""
        values = super().to_dict()
        if not self._has_dense_layers:
            del values["training"], values["auxiliary_targets"]
        return values

    @property
    def training_config(self) -> TrainingConfig:
        """Training of the dense layers and backbones."""
        return self.training

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Targets that dense layers learn beside the model's own."""
        return self.auxiliary_targets


class TowerConfig(_DenseConfig):
    """One modality: its features, and dense layers or a regressor on them."""

    type: Literal["tower"] = "tower"
    modality: Name
    """Name in ``MODALITIES``."""
    features: SerializeAsAny[FeatureConfig]
    """Inputs of the tower, and its featurizer."""
    head: Head
    """Dense layers or a regressor."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        return _with_defaults(values)

    @model_validator(mode="after")
    def _augments_a_network(self) -> Self:
        _check_augment(self.features, self.head)
        return self

    @property
    def kind(self) -> str:
        """The modality."""
        return self.modality

    @property
    def inputs(self) -> Mapping[str, FeatureConfig]:
        """Features of the one modality."""
        return {self.modality: self.features}

    @property
    def phases(self) -> tuple[str, ...]:
        """``readout``, then ``finetune`` where backbones are fine-tuned; ``fit`` for a regressor."""
        if isinstance(self.head, RegressorHead):
            return ("fit",)
        finetunes = self.training.finetune_enabled and MODALITIES[self.modality].trains_backbone
        return ("readout", "finetune") if finetunes else ("readout",)

    def reads_raw(self, phase: str) -> bool:
        """Whether the tower has a backbone of its own: after fine-tuning."""
        return phase == "finetune" and self.finetune_enabled


class StackConfig(_DenseConfig):
    """Towers of several modalities, joined."""

    type: Literal["stack"] = "stack"
    towers: Annotated[tuple[TowerPart, ...], Field(min_length=1)]
    """Towers, in the order of the modalities."""
    join: Join
    """Dense layers on penultimate layers, or a regressor."""

    @field_validator("towers")
    @classmethod
    def _in_order(cls, towers: tuple[TowerPart, ...]) -> tuple[TowerPart, ...]:
        names = [tower.modality for tower in towers]
        if len(set(names)) != len(names):
            raise ValueError(f"the towers are {', '.join(names)}; give each modality once")
        # One order, whatever the order given: the same stack is the same configuration.
        return tuple(sorted(towers, key=lambda tower: modality_order(tower.modality)))

    @model_validator(mode="after")
    def _joins_networks(self) -> Self:
        if isinstance(self.join, NetworkJoin):
            for tower in self.towers:
                if not isinstance(tower.head, NetworkHead):
                    raise ValueError(
                        f"the {tower.modality} tower has the regressor {tower.head.name!r}, which has no penultimate"
                        f" layer to join; join by a regressor, or give the tower the head {NETWORK!r}"
                    )
        return self

    @property
    def kind(self) -> str:
        """``stacked``."""
        return "stacked"

    @property
    def inputs(self) -> Mapping[str, FeatureConfig]:
        """Features of each tower."""
        return {tower.modality: tower.features for tower in self.towers}

    @property
    def is_stack(self) -> bool:
        """True."""
        return True

    @property
    def joins_features(self) -> bool:
        """Whether one regressor reads the features of all towers."""
        return isinstance(self.join, RegressorJoin) and self.join.reads == "features"

    @property
    def phases(self) -> tuple[str, ...]:
        """``readout`` and ``finetune`` for dense layers; ``finetune`` also trains those of the towers."""
        return ("readout", "finetune") if isinstance(self.join, NetworkJoin) else ("fit",)

    @property
    def _has_dense_layers(self) -> bool:
        return self.is_network or any(isinstance(tower.head, NetworkHead) for tower in self.towers)

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Targets that dense layers of the stack or of its towers learn; a regressor on features learns none."""
        return () if self.joins_features else self.auxiliary_targets

    def reads_raw(self, phase: str) -> bool:
        """Whether the towers have been fine-tuned, which happens before the stack is fitted."""
        return self.is_network and self.finetune_enabled

    def tower(self, modality: str) -> TowerPart:
        """The tower of a modality.

        Raises
        ------
        ConfigurationError
            If the stack has none.
        """
        for tower in self.towers:
            if tower.modality == modality:
                return tower
        raise ConfigurationError(f"tower is {modality!r}; choose from {', '.join(self.modalities)}")

    def tower_config(self, modality: str) -> TowerConfig:
        """Configuration of the model that is one tower alone.

        Raises
        ------
        ConfigurationError
            If the stack has no such tower.
        """
        tower = self.tower(modality)
        values: dict[str, Any] = {"target": self.target, **{n: getattr(tower, n) for n in type(tower).model_fields}}
        if isinstance(tower.head, NetworkHead):
            values |= {"training": self.training, "auxiliary_targets": self.auxiliary_targets}
        return validated(TowerConfig, values)


_CLIP_PHASE = PhaseConfig(learning_rate=1.5e-4, max_epochs=800, patience=50)


class ContrastiveTraining(TrainingConfig):
    """Training of a CLIP and a dual encoder, as published for CLIP."""

    readout: PhaseConfig = _CLIP_PHASE
    """The linear layer on both projections."""
    finetune: PhaseConfig = _CLIP_PHASE
    """Linear layer, projections and backbones."""


class ClipEncoder(ConfigModel):
    """A pre-trained CLIP."""

    type: Literal["clip"] = "clip"
    name: Name = "openai/clip-vit-base-patch32"
    """A folder in the layout of transformers, or a hub id."""


class DualEncoder(ConfigModel):
    """Two backbones whose projections are aligned on the training rows."""

    type: Literal["dual"] = "dual"
    image_backbone: Name = "efficientnet_lite0"
    """As of :class:`train.modalities.features.ImageFeatures`."""
    image_size: int | None = None
    """Pixels a side that the image backbone reads; None: its default."""
    text_backbone: Name = "minilm"
    """As of :class:`train.modalities.features.TextFeatures`."""
    projection_dim: Whole = 512
    """Dimension of the shared space."""
    projection_dropout: Fraction = 0.5
    """Dropout of the features that are projected, in the phase ``align``."""
    align: PhaseConfig = PhaseConfig(learning_rate=1e-3, batch_size=128, max_epochs=300, patience=30)
    """First phase: the projections, by the contrastive loss."""

    @model_validator(mode="after")
    def _default_size(self) -> Self:
        if self.image_size is None:
            size = validated(ImageFeatures, {"backbone": self.image_backbone}).size
            object.__setattr__(self, "image_size", size)
        return self


class ContrastiveConfig(TrainConfig):
    """Images and texts in one space, and a linear layer on both projections."""

    type: Literal["contrastive"] = "contrastive"
    recipe: Name = "metric"
    """Image recipe."""
    text_level: Literal["formula", "keywords", "all"] = "keywords"
    """Text level."""
    encoder: Annotated[ClipEncoder | DualEncoder, Field(discriminator="type")]
    """A CLIP, or a dual encoder in its place."""
    training: ContrastiveTraining = ContrastiveTraining()
    """Training of the linear layer and the backbones."""

    @property
    def kind(self) -> str:
        """``clip`` or ``dual-encoder``."""
        return "clip" if isinstance(self.encoder, ClipEncoder) else "dual-encoder"

    @property
    def inputs(self) -> Mapping[str, FeatureConfig]:
        """Features of images and texts."""
        if isinstance(self.encoder, ClipEncoder):
            name = self.encoder.name
            return {
                "image": validated(ClipImageFeatures, {"recipe": self.recipe, "backbone": name}),
                "text": validated(ClipTextFeatures, {"text_level": self.text_level, "backbone": name}),
            }
        image = {"recipe": self.recipe, "backbone": self.encoder.image_backbone, "size": self.encoder.image_size}
        text = {"text_level": self.text_level, "backbone": self.encoder.text_backbone}
        return {"image": validated(ImageFeatures, image), "text": validated(TextFeatures, text)}

    @property
    def embedded(self) -> tuple[str, ...]:
        """Images: the vector of a crystal is the projection of its image."""
        return ("image",)

    @property
    def shares_space(self) -> bool:
        """True."""
        return True

    @property
    def phases(self) -> tuple[str, ...]:
        """``align`` for a dual encoder, ``readout``, and ``finetune`` where backbones are fine-tuned."""
        align = ("align",) if isinstance(self.encoder, DualEncoder) else ()
        return (*align, "readout", *(("finetune",) if self.finetune_enabled else ()))

    @property
    def training_config(self) -> TrainingConfig:
        """Training of the linear layer and the backbones."""
        return self.training

    def phase(self, name: str) -> PhaseConfig:
        """Settings of one of :attr:`phases`."""
        if name == "align" and isinstance(self.encoder, DualEncoder):
            return self.encoder.align
        return super().phase(name)

    def reads_raw(self, phase: str) -> bool:
        """Whether the model has backbones of its own: after fine-tuning."""
        return phase == "finetune" and self.finetune_enabled


class BaselineConfig(TrainConfig):
    """A baseline: the mean of the training rows, or trees on Magpie features of the composition."""

    type: Literal["baseline"] = "baseline"
    name: Literal["mean", "magpie"]
    """Name of the baseline."""
    n_estimators: Whole = 400
    """Trees of ``magpie``."""

    @model_validator(mode="after")
    def _trees_have_an_effect(self) -> Self:
        if self.name == "mean" and self.n_estimators != type(self).model_fields["n_estimators"].default:
            raise ValueError("n_estimators has no effect on the baseline 'mean'; leave it out")
        return self

    @property
    def kind(self) -> str:
        """``baseline-mean`` or ``baseline-magpie``."""
        return f"baseline-{self.name}"

    @property
    def inputs(self) -> Mapping[str, FeatureConfig]:
        """Nothing, or the composition by Magpie features."""
        return {"composition": CompositionFeatures()} if self.name == "magpie" else {}

    @property
    def is_baseline(self) -> bool:
        """True."""
        return True


def _with_defaults(values: Any) -> Any:
    """Values of a tower, with features of the modality's own type and its default dense layers."""
    if not isinstance(values, Mapping) or "modality" not in values:
        return values
    modality = MODALITIES[str(values["modality"])]
    features = values.get("features", {})
    if isinstance(features, FeatureConfig):
        if not isinstance(features, modality.config):
            raise ValueError(f"features are {type(features).__name__}, not those of modality {modality.name!r}")
    else:
        features = validated(modality.config, features, where="features")
    head = values.get("head", {"type": "network"})
    if isinstance(head, Mapping) and head.get("type", "network") == "network":
        head = {"type": "network", "widths": modality.widths, "dropout": modality.dropout, **head}
    return {**values, "features": features, "head": head}


def _check_augment(features: FeatureConfig, head: NetworkHead | RegressorHead) -> None:
    if features.augments_views and isinstance(head, RegressorHead):
        raise ValueError(f"features.augment has no effect on the regressor {head.name!r}; leave it out")
