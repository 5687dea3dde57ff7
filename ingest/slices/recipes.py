"""Image recipes: named definitions of how a slice image is rendered.

The parameters of a recipe contain every number that its image depends on; their hash is its
version in the registry. Pixels keep their physical values (e/Å^3); only models scale them.
``metric`` is the default; ``metric-111`` is its variant for the (111) plane; ``paper`` is the
published image, of the spin density, with ``paper-total`` and ``paper-deformation`` for the other
kinds; each has a ``-fourier`` variant.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ingest.densities.checks import KINDS, check_lattice
from ingest.slices.planes import Miller, fourier_magnitude, index_slice, metric_slice, plane_frame, plane_points
from ingest.slices.primitive_grid import regrid_primitive
from ingest.slices.space_groups import SYMPREC
from ingest.slices.symmetry import conventional_frame
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
    """Definition of a slice image. Frozen: a changed recipe is another recipe."""

    name: str

    @property
    @abstractmethod
    def kinds(self) -> tuple[str, ...]:
        """Required density kinds."""

    @property
    @abstractmethod
    def channel_kinds(self) -> tuple[str, ...]:
        """Density kind of each channel, in order."""

    @property
    @abstractmethod
    def unit(self) -> str | None:
        """Unit of the pixels; None: no unit."""

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Every number that the image depends on, as JSON values; the name is not included."""

    @abstractmethod
    def _render(self, densities: Mapping[str, DensityData], structure: Structure) -> NDArray[np.floating[Any]]:
        """Image of shape (C, H, W)."""

    def render(self, densities: Mapping[str, DensityData], structure: Structure) -> NDArray[np.float32]:
        """Render the image.

        Parameters
        ----------
        densities
            Densities by kind [e/Å^3]; unused kinds are ignored.
        structure
            Structure of the densities' own cell.

        Returns
        -------
        ndarray
            Shape (C, H, W), float32, in :attr:`unit`.

        Raises
        ------
        InputError
            If a kind is missing, a density has another cell, or spglib finds no symmetry.
        """
        for kind in self.kinds:
            if kind not in densities:
                there = ", ".join(sorted(densities)) or "none"
                raise InputError(f"recipe {self.name} needs a {kind} density; there is: {there}{_ADVICE.get(kind, '')}")
            check_lattice(densities[kind], structure)
        return np.ascontiguousarray(self._render(densities, structure), dtype=np.float32)


@dataclass(frozen=True)
class PaperRecipe(ImageRecipe):
    """The published image: 186 x 186 grid points of the plane f1 + f2 + f3 = integer.

    The density of the primitive cell is interpolated to 60^3, then read by grid indices
    (:func:`ingest.slices.planes.index_slice`). As published, the image is oblique, ignores the size
    of the cell and depends on the stored origin; unlike the published one it is not rescaled.
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

    The planes refer to the conventional cell; centre and axes come from
    :func:`ingest.slices.symmetry.conventional_frame`, so that the image depends on the crystal and
    not on the stored cell, origin or order of atoms. Channels: for each plane, each kind of density.
    Values are interpolated on the native grid by a periodic spline.
    """

    planes: tuple[tuple[Miller, float], ...] = (((1, -1, 0), 0.0),)
    """Miller indices and offset (in units of the plane spacing) of each plane."""
    density_kinds: tuple[str, ...] = ("total", "deformation")
    window: tuple[float, float] = (12.0, 12.0)
    """Width and height [Å]."""
    pixels: tuple[int, int] = (160, 160)
    """Height and width."""
    views: tuple[View, ...] = ((0.0, 0.0, 0.0),)
    """Windows of each plane: rotation [degrees], shift to the right and shift up [Å]
    (:meth:`ingest.slices.planes.PlaneFrame.moved`). Several views serve augmentation: the properties of a crystal do
    not depend on position and rotation of the window. Each view is rendered from the density itself. The scale is
    fixed: a magnified image would show another crystal."""
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
                f"{self.spline_order} (0 to 5) do not define an image"
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
        # Included only if it differs from the default, so that older recipes keep their hash.
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
        crystal = conventional_frame(structure, symprec=self.symprec)
        to_fractional = np.linalg.inv(structure.lattice.matrix)
        frames = [plane_frame(crystal, miller, offset=offset) for miller, offset in self.planes]
        windows = [frame.moved(rotation=rotation, shift=(x, y)) for rotation, x, y in self.views for frame in frames]
        points = np.stack([plane_points(window, window=self.window, pixels=self.pixels) for window in windows])
        fractional = points @ to_fractional  # views planes x H x W x 3
        by_kind = [metric_slice(densities[kind], fractional, spline_order=self.spline_order) for kind in self.kinds]
        return np.stack(by_kind, axis=1).reshape(-1, *self.pixels)


@dataclass(frozen=True)
class FourierRecipe(ImageRecipe):
    """Fourier magnitude of another recipe's image, ``log(1 + |F|)`` per channel."""

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
        raise ConfigurationError(
            f"recipe {name} has density kinds {kinds}; choose each at most once from {', '.join(KINDS)}"
        )


# Shifts that are not fractions of a cell, and rotations that are not symmetries of a cubic plane.
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
