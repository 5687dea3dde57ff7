"""Networks of images and texts in one shared space: a CLIP, and the dual encoder of two separate backbones.

Each modality is mapped by its backbone and a projection to unit vectors in the shared space. The backbones of a CLIP
include the projection; those of a dual encoder are separate networks with linear projections, which are aligned by the
contrastive loss on the training rows. The target is predicted by one linear layer from both projections side by side,
standardised (Massa et al., arXiv 2401.09301). A crystal's embedding is the projection of its image; the projections of
texts are compared with it.

Trainable parameters by phase:

=====================  ================  ==========  =============
                       align             readout     finetune
=====================  ================  ==========  =============
backbones              none              none        weights
projections            weights           none        weights
temperature            weight            none        none
linear layer           none              weights     weights
=====================  ================  ==========  =============

Only a dual encoder has the align phase.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from train.models.networks import Inputs, Network, Phase, Readout, Scale, StackedNetwork, Tower

__all__ = ["ContrastiveNetwork", "Projection", "contrastive_loss"]

_INITIAL_SCALE, _MAX_SCALE = 1 / 0.07, 100.0
"""Initial and largest factor of cosines in the contrastive loss (inverse temperature)."""


class Projection(Readout):
    """A linear map to unit vectors in the shared space; the identity before normalisation if ``width`` is None."""

    def __init__(self, dim: int, width: int | None, *, dropout: float = 0.0) -> None:
        nn.Module.__init__(self)
        self.body = nn.Sequential() if width is None else nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, width))
        self.head = nn.Identity()
        self.width = dim if width is None else width

    def penultimate(self, features: Tensor) -> Tensor:
        """Unit vectors in the shared space, (N, dim) -> (N, width)."""
        return nn.functional.normalize(self.body(features), dim=1)


class ContrastiveNetwork(StackedNetwork):
    """Images and texts in one space, with one linear layer on both projections.

    Parameters
    ----------
    towers
        Towers ``image`` and ``text``, each with a :class:`Projection` of the same width.
    """

    def __init__(self, towers: Mapping[str, Tower]) -> None:
        Network.__init__(self)
        self.towers = nn.ModuleDict(dict(towers))
        joined = sum(tower.width for tower in towers.values())
        self.scale = Scale(joined)
        self.readout = Readout(joined, (), dropout=0.0)
        self.log_scale = nn.Parameter(torch.tensor(math.log(_INITIAL_SCALE)))
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
        """Projections of the images, (N, :attr:`width`), or of the texts if there are no images."""
        return self.tower("image" if "image" in inputs else "text").penultimate(inputs)

    def every(self, inputs: Inputs) -> Tensor:
        """Standardised target, predicted from both projections, (N, 1)."""
        return self.readout.every(self.forward_features(inputs))

    def loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        """The contrastive loss in the align phase, otherwise the mean squared error of the target, ()."""
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
                # Trains the projection on a frozen backbone.
                self.tower(name).set_phase("readout")
        self.train(self.training)


def contrastive_loss(image: Tensor, text: Tensor, log_scale: Tensor) -> Tensor:
    """Symmetric cross entropy of assigning texts to images and images to texts within a batch, ().

    This is the loss of CLIP (Radford et al., arXiv 2103.00020); logits are cosines times a trainable scale of at most
    100.

    Parameters
    ----------
    image, text
        Unit vectors, (N, D); the same row is the same crystal.
    log_scale
        Logarithm of the scale, ().
    """
    logits = log_scale.exp().clamp(max=_MAX_SCALE) * image @ text.T
    own = torch.arange(len(logits), device=logits.device)
    cross_entropy = nn.functional.cross_entropy
    return (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
