"""Networks: the tower of one modality, and the stack that joins towers.

A tower is ``backbone -> scaler -> readout``. The backbone is optional: in the readout phase the inputs are frozen
features, which are computed once, instead of raw inputs.

Inputs are a mapping with one entry for each modality:

==========  ==============================================================================
``image``   frozen features (N, D), or slices (N, C, H, W) in the unit of their recipe
``text``    frozen features (N, D), or N texts
``joined``  for a stack only, instead of both: its towers' penultimate features, (N, 256 T)
==========  ==============================================================================

Trainable state by phase:

===================  ====================  =============================================
                     readout               finetune
===================  ====================  =============================================
tower: readout       weights, BN stats     weights, BN stats
tower: backbone      none (eval mode)      weights; BatchNorm statistics are fixed
stack: readout       weights, BN stats     weights, BN stats
stack: towers        none (eval mode)      weights; BatchNorm statistics are fixed
===================  ====================  =============================================

BatchNorm statistics of pre-trained parts are fixed, because a readout was fitted to features normalised by them, and
those of a few hundred crystals in batches of 32 are less accurate.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from registry.errors import ModelError
from train.backbones.base import Backbone
from train.features.views import ONE_VIEW, Views
from train.featurizers.catalog import Featurizer
from train.models.scalers import FEATURE_LIMIT, StandardScaler

__all__ = [
    "Inputs",
    "Network",
    "Phase",
    "Readout",
    "Scale",
    "StackedNetwork",
    "Tower",
]

Inputs: TypeAlias = Mapping[str, "Tensor | Sequence[str]"]
Phase = Literal["align", "readout", "finetune"]


class Scale(nn.Module):
    """Feature standardisation inside a network, in buffers that are not trained.

    Standardised features are clamped to :data:`train.models.scalers.FEATURE_LIMIT` standard deviations. Many features
    of a rectified backbone are zero on nearly every training row: their standard deviation is very small, and a crystal
    with a non-zero value would be hundreds of deviations away (ridge regression of the bulk modulus on slices: R2 of -5
    without clamping, 0.88 with it).
    """

    mean: Tensor
    scale: Tensor
    limit: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.register_buffer("limit", torch.tensor(FEATURE_LIMIT))

    def set(self, scaler: StandardScaler) -> None:
        """Copy a scaler that was fitted on the training rows.

        Raises
        ------
        ModelError
            If the scaler has another number of features.
        """
        if scaler.mean.shape != tuple(self.mean.shape):
            raise ModelError(f"a scaler of {scaler.mean.shape} features on a tower of {tuple(self.mean.shape)}")
        self.mean.copy_(torch.as_tensor(scaler.mean))
        self.scale.copy_(torch.as_tensor(scaler.scale))

    def forward(self, features: Tensor) -> Tensor:
        """Standardised, clamped features, (N, D) -> (N, D)."""
        return ((features - self.mean) / self.scale).clamp(-self.limit, self.limit)


class Readout(nn.Module):
    """Dense layers to one number: ``dim - widths... - 1``.

    Each but the last is Linear, ReLU, BatchNorm, dropout (Massa et al., arXiv 2401.09301). With ``outputs`` above 1 it
    also predicts auxiliary targets, after its own target.
    """

    def __init__(self, dim: int, widths: Sequence[int], *, dropout: float, outputs: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Linear(dim, width), nn.ReLU(), nn.BatchNorm1d(width), nn.Dropout(dropout)]
            dim = width
        self.body = nn.Sequential(*layers)
        self.head: nn.Module = nn.Linear(dim, outputs)
        self.width = dim

    def penultimate(self, features: Tensor) -> Tensor:
        """Input of the last layer, (N, dim) -> (N, width)."""
        return self.body(features)  # type: ignore[no-any-return]

    def forward(self, features: Tensor) -> Tensor:
        """Prediction of the standardised target, (N, dim) -> (N,)."""
        return self.every(features)[:, 0]

    def every(self, features: Tensor) -> Tensor:
        """Predictions of the standardised target and auxiliary targets, (N, dim) -> (N, outputs)."""
        return self.head(self.penultimate(features))  # type: ignore[no-any-return]


class Network(nn.Module):
    """Base class of towers and stacks: a readout, phases, inputs by modality."""

    readout: Readout
    phase: Phase

    @property
    def modalities(self) -> tuple[str, ...]:
        """Input modalities of the network."""
        raise NotImplementedError

    @property
    def width(self) -> int:
        """Dimension of :meth:`penultimate`."""
        return self.readout.width

    def forward_features(self, inputs: Inputs) -> Tensor:
        """Input of the readout, (N, dim)."""
        raise NotImplementedError

    def penultimate(self, inputs: Inputs) -> Tensor:
        """Input of the last layer, (N, :attr:`width`): the network's embedding."""
        return self.readout.penultimate(self.forward_features(inputs))

    def forward(self, inputs: Inputs) -> Tensor:
        """Prediction of the standardised target, (N,)."""
        return self.every(inputs)[:, 0]

    def every(self, inputs: Inputs) -> Tensor:
        """Predictions of the standardised target and auxiliary targets, (N, outputs)."""
        return self.readout.head(self.penultimate(inputs))  # type: ignore[no-any-return]

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        """Training loss: the mean squared error of the standardised target, ().

        Targets (N, outputs) include the auxiliary ones; NaN where a value is not known.
        """
        if targets.ndim == 1:
            return nn.functional.mse_loss(self(inputs), targets)
        known = targets.isfinite()
        wrong = torch.where(known, self.every(inputs) - targets.nan_to_num(), 0.0)
        return (wrong.square().sum(0) / known.sum(0).clamp(min=1)).mean()

    def set_phase(self, phase: Phase) -> None:
        """Set the trainable state of a phase; see the module's table.

        Sets ``requires_grad`` of every parameter, and which modules :meth:`train` puts into training mode.
        """
        self.phase = phase
        for module in self._pretrained():
            module.requires_grad_(phase == "finetune")
        self.readout.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> Network:
        """Training mode for modules that the phase trains, evaluation mode for all others."""
        super().train(mode)
        for module in self._pretrained():
            if self.phase == "readout":
                module.eval()
            _keep_statistics(module.modules())
        return self

    def _pretrained(self) -> list[nn.Module]:
        raise NotImplementedError


class Tower(Network):
    """Network of one modality: frozen features, or a backbone on raw inputs, followed by a readout.

    Parameters
    ----------
    modality
        Name of the modality, the key of its inputs.
    readout
        Dense layers on the features of one view.
    dim
        Number of features D of all views, view after view.
    views
        Views V of a crystal. In each epoch a row is trained on one view drawn at random; a prediction is the mean over
        all (:class:`train.features.views.Views`).
    """

    backbone: Backbone | None

    def __init__(self, modality: str, readout: Readout, *, dim: int, views: Views = ONE_VIEW) -> None:
        super().__init__()
        self.modality = modality
        self.dim = dim
        self.views = views
        self.scale = Scale(views.dim(dim))
        self.readout = readout
        self.backbone = None
        self.phase = "readout"
        self.set_phase("readout")

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modality of the tower."""
        return (self.modality,)

    def attach(self, backbone: Featurizer) -> None:
        """Attach a copy of a backbone, so that the tower takes raw inputs.

        Training changes the copy only: networks do not share weights.

        Raises
        ------
        ModelError
            If it is not a trainable backbone, or gives another number of features.
        """
        if not isinstance(backbone, Backbone):
            raise ModelError(f"features {backbone.name!r} follow a fixed rule; they cannot be fine-tuned")
        if backbone.dim != self.dim:
            raise ModelError(
                f"backbone {backbone.name!r} gives {backbone.dim} features, the {self.modality} tower takes {self.dim}"
            )
        self.backbone = copy.deepcopy(backbone)
        self.set_phase(self.phase)

    def forward_features(self, inputs: Inputs) -> Tensor:
        """Standardised features of the views in use, (M, D / V), from features (N, D) or raw inputs.

        M is N in training, or if one view is in use; otherwise N V, with the views of each row in sequence.

        Raises
        ------
        ModelError
            If the modality is missing, has another number of features, or raw inputs come
            without a backbone attached.
        """
        if self.modality not in inputs:
            raise ModelError(f"the {self.modality} tower got {sorted(inputs)}; give it {self.modality!r}")
        values = inputs[self.modality]
        if isinstance(values, Tensor) and values.ndim == 2:
            features = values
        elif self.backbone is None:
            raise ModelError(f"raw {self.modality} inputs on a tower without backbone; attach one or give features")
        else:
            trains = self.backbone.training and isinstance(values, Tensor)
            features = self.backbone(self.views.augmented(values) if trains else values)  # type: ignore[arg-type]
        if features.shape[1] != self.dim:
            raise ModelError(f"{features.shape[1]} {self.modality} features, the tower takes {self.dim}")
        return self.scale(self.views.selected(features, training=self.training))  # type: ignore[no-any-return]

    def penultimate(self, inputs: Inputs) -> Tensor:
        """Input of the last layer, (N, :attr:`width`), averaged over views."""
        penultimate = self.readout.penultimate(self.forward_features(inputs))
        return self.views.mean(penultimate, training=self.training)

    def _pretrained(self) -> list[nn.Module]:
        return [] if self.backbone is None else [self.backbone]


class StackedNetwork(Network):
    """Trained towers joined at their penultimate layers, followed by a joint readout.

    Parameters
    ----------
    towers
        Trained towers by modality; the stack copies them. Their last layers are not used.
    """

    def __init__(self, towers: Mapping[str, Tower], *, widths: Sequence[int], dropout: float, outputs: int = 1) -> None:
        super().__init__()
        self.towers = nn.ModuleDict({name: copy.deepcopy(tower) for name, tower in towers.items()})
        joined = sum(tower.width for tower in towers.values())
        self.readout = Readout(joined, widths, dropout=dropout, outputs=outputs)
        self.phase = "readout"
        self.set_phase("readout")

    @property
    def modalities(self) -> tuple[str, ...]:
        """Modalities of the towers, in the order in which they are joined."""
        return tuple(self.towers)

    def joined(self, inputs: Inputs) -> Tensor:
        """The towers' penultimate features side by side, (N, 256 T)."""
        return torch.cat([self.tower(name).penultimate(inputs) for name in self.towers], dim=1)

    def tower(self, modality: str) -> Tower:
        """One of the towers.

        Raises
        ------
        ModelError
            If the stack has no tower of this modality.
        """
        if modality not in self.towers:
            raise ModelError(f"no {modality!r} tower in this stack of {', '.join(self.towers)}")
        tower = self.towers[modality]
        assert isinstance(tower, Tower)
        return tower

    def forward_features(self, inputs: Inputs) -> Tensor:
        """``inputs["joined"]`` if given, otherwise :meth:`joined` of the inputs.

        Raises
        ------
        ModelError
            As :meth:`Tower.forward_features`; or if ``joined`` has another width, or is
            given in the finetune phase, where the towers would not be trained.
        """
        values = inputs.get("joined")
        if values is None:
            return self.joined(inputs)
        width = sum(self.tower(name).width for name in self.towers)
        if not isinstance(values, Tensor) or values.ndim != 2 or values.shape[1] != width:
            raise ModelError(f"joined tower features must have the shape (N, {width})")
        if self.training and self.phase == "finetune":
            raise ModelError("joined tower features cannot fine-tune towers; give the towers' own inputs")
        return values

    def set_phase(self, phase: Phase) -> None:
        """As :meth:`Network.set_phase`; the towers' unused last layers are not trained."""
        super().set_phase(phase)
        for name in self.towers:
            tower = self.tower(name)
            tower.phase = phase
            tower.readout.head.requires_grad_(False)
        self.train(self.training)

    def _pretrained(self) -> list[nn.Module]:
        return list(self.towers.values())


def _keep_statistics(modules: Iterable[nn.Module]) -> None:
    for module in modules:
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
