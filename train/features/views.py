"""Views of a crystal: augmentation by physically equivalent images.

The labels of a crystal do not depend on the position and the rotation of a window in its plane, or on reflection; its
image does, unless the crystal has that symmetry. Views are cut from the density by the recipe, at any angle and shift,
in e/Å^3 and at one scale of length, without interpolation of images. The views of a crystal are columns of one row, so
that they are in one fold, and no view of a scored crystal is in the training rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from registry.errors import ModelError
from train.modalities.features import FeatureConfig

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ONE_VIEW", "Views", "views_of"]


@dataclass(frozen=True)
class Views:
    """Use of V views of each crystal by a tower.

    Attributes
    ----------
    count
        Number of views V, of which the features are concatenated.
    average
        Whether a prediction is the mean over the views; otherwise it is that of the first view.
    augment
        Whether fine-tuning rotates images by quarter turns and reflects them at random.
    """

    count: int = 1
    average: bool = True
    augment: bool = False

    def dim(self, total: int) -> int:
        """Number of features of one view, from that of all views.

        Raises
        ------
        ModelError
            If the number is not a multiple of the number of views.
        """
        if total % self.count:
            raise ModelError(
                f"{total} features cannot be divided into {self.count} views; give the number of views of the recipe"
            )
        return total // self.count

    def rows(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (N, V D) with one row for each view, (N V, D)."""
        return features.reshape(-1, self.dim(features.shape[1]))

    def pooled(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (N, V D) pooled for a regressor, (N, D): the mean over the views, or the first view."""
        views = features.reshape(len(features), self.count, self.dim(features.shape[1]))
        return np.asarray(views.mean(axis=1) if self.average else views[:, 0])

    def selected(self, features: Tensor, *, training: bool) -> Tensor:
        """Select views of features (N, V D): in training a random view of each row, (N, D), otherwise all, (N V, D)."""
        import torch  # configurations are read without torch

        if self.count == 1:
            return features
        views = features.reshape(len(features), self.count, self.dim(features.shape[1]))
        if training:
            drawn = torch.randint(self.count, (len(views),)).to(views.device)
            return views[torch.arange(len(views), device=views.device), drawn]
        return views.flatten(0, 1) if self.average else views[:, 0]

    def mean(self, values: Tensor, *, training: bool) -> Tensor:
        """Average values of the selected views of each row, (N V, W) -> (N, W)."""
        if training or self.count == 1 or not self.average:
            return values
        return values.reshape(-1, self.count, values.shape[1]).mean(dim=1)

    def augmented(self, pixels: Tensor) -> Tensor:
        """Images (N, C, H, W), rotated by quarter turns and reflected at random if :attr:`augment` is set.

        The operations are the symmetries of the square for square images, of the rectangle for others.
        """
        import torch

        if not self.augment:
            return pixels
        quarters = 4 if pixels.shape[-1] == pixels.shape[-2] else 2
        turns = (torch.randint(quarters, (len(pixels),)) * (4 // quarters)).tolist()
        mirrors = torch.randint(2, (len(pixels),)).tolist()
        moved = [
            torch.rot90(image.flip(-1) if mirror else image, turn, (-2, -1))
            for image, turn, mirror in zip(pixels, turns, mirrors, strict=True)
        ]
        return torch.stack(moved)


ONE_VIEW = Views()
"""A single view."""


def views_of(features: FeatureConfig) -> Views:
    """Views of the inputs that a configuration names."""
    return Views(features.view_count, average=features.averages_views, augment=features.augments_views)
