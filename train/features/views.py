"""Views of a crystal: augmentation that its physics allows.

What labels a crystal does not depend on where a window lies in its plane, how it is turned there, or whether it is
seen in a mirror; the picture does, unless the crystal itself has that symmetry, and then it adds nothing. Views are
cut from the density by the recipe, at any angle and shift, in e/Å^3 and in one scale of length: nothing here
interpolates, and nothing magnifies. Views of a crystal are columns of its one row, so they are in one fold by
construction, and a crystal that is scored is no copy of one that was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from registry.errors import ModelError
from train.config.features import FeatureConfig

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ONE_VIEW", "Views", "views_of"]


@dataclass(frozen=True)
class Views:
    """How a tower looks at V views of each crystal.

    Attributes
    ----------
    count
        Number of views V, whose features lie view after view.
    average
        Whether a prediction is the mean over the views, and not that of the first one alone.
    augment
        Whether fine-tuning turns pictures by quarters and mirrors them at random.
    """

    count: int = 1
    average: bool = True
    augment: bool = False

    def dim(self, total: int) -> int:
        """Number of features of one view, of that of all views.

        Raises
        ------
        ModelError
            If the features are not those of so many views.
        """
        if total % self.count:
            raise ModelError(
                f"{total} features are not those of {self.count} views; give the number that the recipe has"
            )
        return total // self.count

    def rows(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (N, V D) with a row for each view, (N V, D)."""
        return features.reshape(-1, self.dim(features.shape[1]))

    def pooled(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (N, V D) as a regressor reads them, (N, D): the mean over the views, or the first."""
        views = features.reshape(len(features), self.count, self.dim(features.shape[1]))
        return np.asarray(views.mean(axis=1) if self.average else views[:, 0])

    def looked_at(self, features: Tensor, *, training: bool) -> Tensor:
        """Features (N, V D) -> (N, D) of one view of each row, drawn anew, in training; else of all views, (N V, D)."""
        import torch  # configurations are read without it

        if self.count == 1:
            return features
        views = features.reshape(len(features), self.count, self.dim(features.shape[1]))
        if training:
            drawn = torch.randint(self.count, (len(views),)).to(views.device)
            return views[torch.arange(len(views), device=views.device), drawn]
        return views.flatten(0, 1) if self.average else views[:, 0]

    def mean(self, seen: Tensor, *, training: bool) -> Tensor:
        """Undo :meth:`looked_at`: the mean over the views of each row, (N V, W) -> (N, W)."""
        if training or self.count == 1 or not self.average:
            return seen
        return seen.reshape(-1, self.count, seen.shape[1]).mean(dim=1)

    def augmented(self, pixels: Tensor) -> Tensor:
        """Pictures (N, C, H, W), each turned by quarters and mirrored at random where that is wanted.

        The same values in other places: the group of the square for square pictures, of the rectangle for others.
        """
        import torch

        if not self.augment:
            return pixels
        quarters = 4 if pixels.shape[-1] == pixels.shape[-2] else 2
        turns = (torch.randint(quarters, (len(pixels),)) * (4 // quarters)).tolist()
        mirrors = torch.randint(2, (len(pixels),)).tolist()
        moved = [
            torch.rot90(picture.flip(-1) if mirror else picture, turn, (-2, -1))
            for picture, turn, mirror in zip(pixels, turns, mirrors, strict=True)
        ]
        return torch.stack(moved)


ONE_VIEW = Views()
"""A crystal as one picture."""


def views_of(features: FeatureConfig) -> Views:
    """Views of the inputs that a configuration names."""
    return Views(features.view_count, average=features.averages_views, augment=features.augments_views)
