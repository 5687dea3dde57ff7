"""Image recipes: how a slice image is made, entry by entry.

A recipe's parameters hold every number that its picture depends on; their hash is its version
in the registry. Pixels keep their physical values (e/Å^3): whatever is scaled, is scaled by a
model. ``metric`` is the default; ``metric-111`` lies beside it; ``paper`` is the published
picture, of the spin density, with ``paper-total`` and ``paper-deformation`` made alike; each has
its ``-fourier`` variant.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ingest.densities.checks import KINDS, check_lattice, regrid_primitive
from ingest.slices.planes import Miller, fourier_magnitude, index_slice, metric_slice, plane_frame, plane_points
from ingest.slices.space_groups import SYMPREC
from ingest.slices.symmetry import standard_setting
from registry.catalog import Catalog
from registry.crystals import DensityData
from registry.errors import ConfigurationError, InputError

if TYPE_CHECKING:
    from pymatgen.core.structure import Structure

__all__ = ["RECIPES", "FourierRecipe", "ImageRecipe", "MetricRecipe", "PaperRecipe"]

DENSITY_UNIT = "e/Å^3"
_ADVICE = {"deformation": " (a CHGCAR.reference beside it, or --derive-deformation, would give one)"}

View = tuple[float, float, float]


@dataclass(frozen=True)
class ImageRecipe(ABC):
    """How the slice images of one kind are made. Frozen: a recipe that changes is another one."""

    name: str

    @property
    @abstractmethod
    def kinds(self) -> tuple[str, ...]:
        """The density kinds that must be there."""

    @property
    @abstractmethod
    def channel_kinds(self) -> tuple[str, ...]:
        """The density kind of each channel, in order."""

    @property
    @abstractmethod
    def unit(self) -> str | None:
        """Unit of the pixels, or None."""

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Every number that the picture depends on, as JSON values; the name is not among them."""

    @abstractmethod
    def _render(self, densities: Mapping[str, DensityData], structure: Structure) -> NDArray[np.floating[Any]]:
        """Shape (C, H, W)."""

    def render(self, densities: Mapping[str, DensityData], structure: Structure) -> NDArray[np.float32]:
        """Make the picture.

        Parameters
        ----------
        densities
            By kind [e/Å^3]; those that the recipe does not use are ignored.
        structure
            The structure of the densities' own cell.

        Returns
        -------
        ndarray
            Shape (C, H, W), float32, in :attr:`unit`.

        Raises
        ------
        InputError
            If a kind is missing, a density lies in another cell, or the crystal's symmetry cannot
            be found.
        """
        for kind in self.kinds:
            if kind not in densities:
                there = ", ".join(sorted(densities)) or "none"
                raise InputError(f"recipe {self.name} needs a {kind} density; there is: {there}{_ADVICE.get(kind, '')}")
            check_lattice(densities[kind], structure)
        return np.ascontiguousarray(self._render(densities, structure), dtype=np.float32)


@dataclass(frozen=True)
class PaperRecipe(ImageRecipe):
    """The published picture: 186 x 186 grid points of the plane f1 + f2 + f3 = integer.

    pyrho brings the density of the primitive cell to 60^3, then a lookup in grid indices
    (:func:`ingest.slices.planes.index_slice`). As published it is oblique, ignores the size of the cell,
    and passes through the stored origin alone; unlike the published one it is not rescaled.
    """

    kind: str = "spin"
    points: int = 60
    start: int = 25
    stop: int = 211
    repeats: int = 8
    symprec: float = SYMPREC
    version: int = 1

    def __post_init__(self) -> None:
        _check_kinds(self.name, (self.kind,))

    @property
    def kinds(self) -> tuple[str, ...]:
        return (self.kind,)

    @property
    def channel_kinds(self) -> tuple[str, ...]:
        return (self.kind,)

    @property
    def unit(self) -> str | None:
        return DENSITY_UNIT

    def parameters(self) -> dict[str, Any]:
        return {
            "recipe": "paper",
            "version": self.version,
            "kinds": [self.kind],
            "cell": "primitive",
            "grid": [self.points] * 3,
            "regrid": "fourier",
            "indices": [self.start, self.stop],
            "plane": f"i + j + k = {self.repeats * self.points}",
            "repeats": self.repeats,
            "symprec": self.symprec,
        }

    def _render(self, densities: Mapping[str, DensityData], structure: Structure) -> NDArray[np.floating[Any]]:
        grid = regrid_primitive(densities[self.kind], structure, points=self.points, symprec=self.symprec)
        return index_slice(grid.values, start=self.start, stop=self.stop, repeats=self.repeats)[None]


@dataclass(frozen=True)
class MetricRecipe(ImageRecipe):
    """Planes with orthonormal axes, in a window of fixed size in Å, centred on an atom.

    The planes are meant in the conventional cell; middle and axes come from
    :func:`ingest.slices.symmetry.standard_setting`, so that the picture belongs to the crystal and not
    to the cell, the origin or the order in which it is stored. Channels: for each plane, each
    kind of density. Values are read from the native grid by a periodic spline.
    """

    planes: tuple[tuple[Miller, float], ...] = (((1, -1, 0), 0.0),)
    """Miller indices and offset (in spacings of the plane) of each plane."""
    density_kinds: tuple[str, ...] = ("total", "deformation")
    window: tuple[float, float] = (12.0, 12.0)
    """Width and height [Å]."""
    pixels: tuple[int, int] = (160, 160)
    """Height and width."""
    views: tuple[View, ...] = ((0.0, 0.0, 0.0),)
    """Windows of each plane: turn [degrees], shift to the right and shift up [Å] (:meth:`PlaneFrame.moved`). Several
    views are for augmentation: what labels a crystal does not depend on where the window lies or how it is turned, and
    each view is cut from the density itself. None is a magnification: that would be another crystal."""
    spline_order: int = 3
    symprec: float = SYMPREC
    version: int = 1

    def __post_init__(self) -> None:
        _check_kinds(self.name, self.density_kinds)
        if not self.planes or any(not any(miller) for miller, _ in self.planes):
            raise ConfigurationError(f"recipe {self.name} needs planes with Miller indices other than (0, 0, 0)")
        if not self.views or len(set(self.views)) != len(self.views):
            raise ConfigurationError(f"recipe {self.name} has views {self.views}; give at least one, each once")
        if min(self.window) <= 0 or min(self.pixels) < 1 or not 0 <= self.spline_order <= 5:
            raise ConfigurationError(
                f"recipe {self.name}: window {self.window} Å, pixels {self.pixels} and spline order "
                f"{self.spline_order} (0 to 5) do not make a picture"
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        return self.density_kinds

    @property
    def channel_kinds(self) -> tuple[str, ...]:
        return self.density_kinds * (len(self.planes) * len(self.views))

    @property
    def unit(self) -> str | None:
        return DENSITY_UNIT

    def parameters(self) -> dict[str, Any]:
        # Named only where there are others than the plain one: so recipes of old keep their hash.
        views = {} if self.views == MetricRecipe.views else {"views": [list(view) for view in self.views]}
        return {
            "recipe": "metric",
            "version": self.version,
            "planes": [{"miller": list(miller), "offset": offset} for miller, offset in self.planes],
            "kinds": list(self.density_kinds),
            "window": list(self.window),
            "pixels": list(self.pixels),
            "spline_order": self.spline_order,
            "symprec": self.symprec,
            **views,
        }

    def _render(self, densities: Mapping[str, DensityData], structure: Structure) -> NDArray[np.floating[Any]]:
        setting = standard_setting(structure, symprec=self.symprec)
        to_fractional = np.linalg.inv(structure.lattice.matrix)
        frames = [plane_frame(setting, miller, offset=offset) for miller, offset in self.planes]
        windows = [frame.moved(turn=turn, shift=(x, y)) for turn, x, y in self.views for frame in frames]
        points = np.stack([plane_points(window, window=self.window, pixels=self.pixels) for window in windows])
        fractional = points @ to_fractional  # views planes x H x W x 3
        by_kind = [metric_slice(densities[kind], fractional, spline_order=self.spline_order) for kind in self.kinds]
        return np.stack(by_kind, axis=1).reshape(-1, *self.pixels)


@dataclass(frozen=True)
class FourierRecipe(ImageRecipe):
    """The magnitude of another recipe's picture in reciprocal space, ``log(1 + |F|)`` per channel."""

    of: ImageRecipe
    version: int = 1

    @property
    def kinds(self) -> tuple[str, ...]:
        return self.of.kinds

    @property
    def channel_kinds(self) -> tuple[str, ...]:
        return self.of.channel_kinds

    @property
    def unit(self) -> str | None:
        return None

    def parameters(self) -> dict[str, Any]:
        return {"recipe": "fourier", "version": self.version, "scale": "log1p", "of": self.of.parameters()}

    def _render(self, densities: Mapping[str, DensityData], structure: Structure) -> NDArray[np.floating[Any]]:
        return fourier_magnitude(self.of.render(densities, structure))


RECIPES: Catalog[ImageRecipe] = Catalog("recipes")
"""Image recipes by name; other packages add theirs through the entry-point group ``ecdreg.recipes``."""


def _check_kinds(name: str, kinds: tuple[str, ...]) -> None:
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds or len(set(kinds)) != len(kinds):
        raise ConfigurationError(f"recipe {name} has density kinds {kinds}; choose each once from {', '.join(KINDS)}")


# Shifts of a fraction of the window that is no fraction of a cell, turns that are no symmetry of a cubic plane.
_VIEWS: tuple[View, ...] = ((0.0, 0.0, 0.0), (17.0, 1.3, 2.1), (41.0, -2.7, 0.8), (68.0, 0.9, -3.1))

for _recipe in (
    MetricRecipe("metric"),
    MetricRecipe("metric-111", planes=(((1, 1, 1), 0.0),)),
    MetricRecipe("metric-planes", planes=(((1, -1, 0), 0.0), ((1, 1, 1), 0.0), ((0, 0, 1), 0.0))),
    MetricRecipe("metric-views", views=_VIEWS),
    PaperRecipe("paper"),
    PaperRecipe("paper-total", kind="total"),
    PaperRecipe("paper-deformation", kind="deformation"),
):
    RECIPES.add(_recipe.name, _recipe)
    RECIPES.add(f"{_recipe.name}-fourier", FourierRecipe(f"{_recipe.name}-fourier", of=_recipe))
