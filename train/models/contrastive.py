"""Networks whose images and texts share one space: a CLIP, and the dual encoder that stands in for one.

Each modality goes through its backbone and a projection onto the shared space, at unit length. A CLIP's backbones
project by themselves; a dual encoder's are two networks that never saw each other, with linear projections that are
aligned by the contrastive loss, on the rows to fit and no others. The target is read by one linear layer from both
projections side by side, standardised (Massa et al., arXiv 2401.09301). A crystal's vector is its image's projection;
a text's projection is compared with it.

What each phase may change:

=====================  ================  ==========  =============
                       align             readout     finetune
=====================  ================  ==========  =============
backbones              nothing           nothing     weights
projections            weights           nothing     weights
temperature            weight            nothing     nothing
linear layer           nothing           weights     weights
=====================  ================  ==========  =============

Only a dual encoder has the first phase.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from registry.errors import ModelError
from train.config.config import TrainConfig
from train.features.featurizers import Featurizer
from train.models import optimization as engine
from train.models.fitting import FittedNetwork, OnEpoch, Shown, derived_seed, phases_of, telling
from train.models.networks import Inputs, Network, Phase, Readout, Scale, StackedNetwork, Tower, build_network
from train.models.scalers import StandardScaler

__all__ = ["ContrastiveNetwork", "Projection", "build_contrastive", "contrastive_loss", "fit_contrastive"]

_FIRST_SCALE, _LARGEST_SCALE = 1 / 0.07, 100.0


class Projection(Readout):
    """A linear map onto the shared space, at unit length; without a width, the space is the features' own."""

    def __init__(self, dim: int, width: int | None, *, dropout: float = 0.0) -> None:
        nn.Module.__init__(self)
        self.body = nn.Sequential() if width is None else nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, width))
        self.head = nn.Identity()
        self.width = dim if width is None else width

    def penultimate(self, features: Tensor) -> Tensor:
        """Projections of unit length, (N, dim) -> (N, width)."""
        return nn.functional.normalize(self.body(features), dim=1)


class ContrastiveNetwork(StackedNetwork):
    """Images and texts in one space, and one linear layer on both projections.

    Parameters
    ----------
    towers
        Of ``image`` and ``text``, with a :class:`Projection` each, of the same width.
    """

    def __init__(self, towers: Mapping[str, Tower]) -> None:
        Network.__init__(self)
        self.towers = nn.ModuleDict(dict(towers))
        joined = sum(tower.width for tower in towers.values())
        self.scale = Scale(joined)
        self.readout = Readout(joined, (), dropout=0.0)
        self.log_scale = nn.Parameter(torch.tensor(math.log(_FIRST_SCALE)))
        self.phase = "readout"
        self.set_phase("readout")

    @property
    def width(self) -> int:
        """Dimension of the shared space."""
        return self.tower("image").width

    def forward_features(self, inputs: Inputs) -> Tensor:
        """As :meth:`StackedNetwork.forward_features`, standardised."""
        return self.scale(super().forward_features(inputs))  # type: ignore[no-any-return]

    def penultimate(self, inputs: Inputs) -> Tensor:
        """Where the images lie in the shared space, (N, :attr:`width`); the texts, where no images are given."""
        return self.tower("image" if "image" in inputs else "text").penultimate(inputs)

    def every(self, inputs: Inputs) -> Tensor:
        """The standardised target, from both projections, (N, 1)."""
        return self.readout.every(self.forward_features(inputs))

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        """The contrastive loss in the align phase, else the mean squared error of the target, ()."""
        if self.phase != "align":
            return super().loss(inputs, targets)
        image, text = (self.tower(name).penultimate(inputs) for name in ("image", "text"))
        return contrastive_loss(image, text, self.log_scale)

    def set_phase(self, phase: Phase) -> None:
        """As :meth:`Network.set_phase`; see the module's table."""
        super().set_phase(phase)
        aligns = phase == "align"
        self.readout.requires_grad_(not aligns)
        self.log_scale.requires_grad_(aligns)
        if aligns:
            for name in self.towers:
                # A tower whose readout trains on a frozen backbone.
                self.tower(name).set_phase("readout")
        self.train(self.training)


def contrastive_loss(image: Tensor, text: Tensor, log_scale: Tensor) -> Tensor:
    """Symmetric cross entropy of telling which text belongs to which image, and which image to which text, ().

    The loss of CLIP (Radford et al., arXiv 2103.00020): rows of a batch against each other, cosines times a learnt
    scale of at most 100.

    Parameters
    ----------
    image, text
        (N, D), of unit length; row by row of the same crystal.
    log_scale
        Logarithm of the scale, ().
    """
    logits = log_scale.exp().clamp(max=_LARGEST_SCALE) * image @ text.T
    own = torch.arange(len(logits), device=logits.device)
    cross_entropy = nn.functional.cross_entropy
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2


def build_contrastive(config: TrainConfig, input_dims: Mapping[str, int]) -> ContrastiveNetwork:
    """A network with fresh projections; :func:`train.models.networks.build_network` calls it with its seed set.

    Parameters
    ----------
    config
        Of kind ``clip`` or ``dual-encoder``.
    input_dims
        Number of features of ``image`` and ``text``.

    Raises
    ------
    ModelError
        If the features of a CLIP's halves differ in number.
    """
    width = None if config.kind == "clip" else config.projection_dim
    dims = {name: input_dims[name] for name in config.towers}
    if width is None and len(set(dims.values())) != 1:
        raise ModelError(f"the halves of {config.clip!r} project to {dims}; they are not of one CLIP")
    projections = {name: Projection(dim, width, dropout=config.projection_dropout) for name, dim in dims.items()}
    return ContrastiveNetwork({name: Tower(name, projections[name], dim=dim) for name, dim in dims.items()})


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
