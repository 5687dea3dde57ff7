"""Densities in planes along z (figure 4 of the paper), and slices with their Fourier magnitudes (figure 9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.colors import AsinhNorm, LogNorm, Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from ecdreg.figures.style import style
from registry.crystals import DensityData, resolve
from registry.errors import ConfigurationError, NotFoundError
from registry.files.grids import GridStore
from registry.image_recipes import find_recipe
from registry.models import CrystalRevision, Density, SliceImage
from registry.properties import DEFAULT_COLOUR
from registry.search.filters import materials

if TYPE_CHECKING:
    from ecdreg.connection import RegistryConnection

__all__ = [
    "DENSITY_KINDS",
    "Planes",
    "Slice",
    "density_figure",
    "draw_fourier",
    "draw_planes",
    "fourier_figure",
    "read_planes",
    "read_slices",
]

DENSITY_KINDS = ("total", "spin", "deformation")

HEIGHTS = (0.0, 0.125, 0.25, 0.375, 0.5)
"""Heights of the planes [lattice parameters]: half a cell, which is repeated in a centred cubic crystal."""


@dataclass(frozen=True)
class Planes:
    """Parallel planes through one crystal."""

    title: str
    kinds: tuple[str, ...]
    pixels: NDArray[np.float32]
    """(heights, kinds, H, W) [e/Å^3]"""
    width: float
    """Width of the window [Å]."""


@dataclass(frozen=True)
class Slice:
    """The first channel of the slice of one crystal."""

    title: str
    pixels: NDArray[np.float32]
    """(H, W), in the unit of the recipe"""


def density_figure(registry: RegistryConnection, ids: Sequence[str] = (), *, kinds: Sequence[str] = ()) -> Figure:
    """Draw two kinds of density of crystals in planes along z, through one conventional cell.

    Parameters
    ----------
    registry
        An open registry; only read.
    ids
        Ids of crystals; empty: the crystal with the largest magnetic moment that has both kinds.
    kinds
        Two of :data:`DENSITY_KINDS`; empty: total and spin, or total and deformation if a given crystal has no spin
        density.

    Raises
    ------
    ConfigurationError
        If ``kinds`` are not two different kinds.
    NotFoundError
        If a crystal lacks one of the kinds, or no crystal has both.
    """
    if kinds and (len(kinds) != 2 or set(kinds) - set(DENSITY_KINDS) or kinds[0] == kinds[1]):
        raise ConfigurationError(f"--kind {' '.join(kinds)}: give two of {', '.join(DENSITY_KINDS)}")
    with Session(registry.engine) as session:
        first, second = kinds or _usual_kinds(session, ids)
        crystals = read_planes(session, GridStore(registry.settings.grids_url), ids, kinds=(first, second))
    return draw_planes(crystals)


def fourier_figure(registry: RegistryConnection, ids: Sequence[str] = (), *, recipe: str = "metric") -> Figure:
    """Draw slices above their Fourier magnitudes.

    Parameters
    ----------
    registry
        An open registry; only read.
    ids
        Ids of crystals; empty: four crystals, from the smallest to the largest bulk modulus.
    recipe
        Name of an image recipe.

    Raises
    ------
    NotFoundError
        If a crystal has no image of this recipe.
    """
    with Session(registry.engine) as session:
        unit = find_recipe(session, recipe).unit
        slices = read_slices(session, ids, recipe=recipe)
    return draw_fourier(slices, recipe=recipe, unit=unit)


def read_planes(session: Session, grids: GridStore, idents: Sequence[str], *, kinds: tuple[str, str]) -> list[Planes]:
    """Read planes along z through crystals.

    Parameters
    ----------
    session
        Only read.
    grids
        Storage of the density grids.
    idents
        Ids of crystals; empty: the crystal with the largest magnetic moment that has both kinds.
    kinds
        Kinds of density.

    Raises
    ------
    NotFoundError
        If a crystal lacks one of the kinds, or no crystal has both.
    """
    from ingest.slices.parallel_planes import parallel_planes

    found = []
    for revision_id in [resolve(session, ident).revision_id for ident in idents] or [_largest_moment(session, kinds)]:
        revision = session.get_one(CrystalRevision, revision_id)
        title = f"{revision.formula} ({revision.crystal.source_id})"
        rows = session.scalars(select(Density).where(Density.revision_id == revision_id)).all()
        densities = {row.kind: row for row in rows if row.kind in kinds}
        if lacking := [kind for kind in kinds if kind not in densities]:
            available = ", ".join(sorted(row.kind for row in rows)) or "none"
            raise NotFoundError(
                f"{title} has no {lacking[0]} density; available: {available}; choose other kinds with --kind"
            )
        if revision.structure is None:
            raise NotFoundError(f"{title} has no structure; choose another crystal")
        read = {}
        for kind, row in densities.items():
            values, lattice = grids.get(row.uri, row.sha256)
            read[kind] = DensityData(kind, row.level_of_theory, values, lattice)
        pixels, width = parallel_planes(revision.structure, read, kinds=kinds, heights=HEIGHTS)
        found.append(Planes(title, kinds, pixels, width))
    return found


@style()
def draw_planes(crystals: Sequence[Planes]) -> Figure:
    """Draw planes: a row for each kind of each crystal, a column for each height.

    Parameters
    ----------
    crystals
        At least one.
    """
    rows = sum(len(one.kinds) for one in crystals)
    label = f"{' and '.join(crystals[0].kinds)} density along z"
    figure = Figure(label=label, figsize=(11.0, 0.5 + 2.35 * rows), layout="constrained")
    panels = figure.subplots(rows, len(HEIGHTS), squeeze=False)
    row = 0
    for one in crystals:
        for channel, kind in enumerate(one.kinds):
            fields = one.pixels[:, channel].astype(np.float64)
            norm, colours = _scale(fields, signed=kind != "total")
            for column, height in enumerate(HEIGHTS):
                panel = panels[row, column]
                image = panel.imshow(
                    fields[column],
                    norm=norm,
                    cmap=colours,
                    extent=(0, one.width, 0, one.width),
                    interpolation="nearest",
                )
                panel.set_title(f"z = {height:g} a" if row == 0 else "")
                if column == 0:
                    panel.set_ylabel(f"{one.title}\n{kind}\ny [Å]" if channel == 0 else f"{kind}\ny [Å]")
                else:
                    panel.set_yticklabels([])
                if row == rows - 1:
                    panel.set_xlabel("x [Å]")
            unit = "μ_B/Å³" if kind == "spin" else "e/Å³"
            _bar(figure, image, list(panels[row]), label=unit, extend="both")
            row += 1
    return figure


def read_slices(session: Session, idents: Sequence[str], *, recipe: str, count: int = 4) -> list[Slice]:
    """Read the first channel of the slices of crystals.

    Parameters
    ----------
    session
        Only read.
    idents
        Ids of crystals; empty: crystals from the smallest to the largest bulk modulus.
    recipe
        Name of an image recipe.
    count
        Number of crystals if no ids are given.

    Raises
    ------
    NotFoundError
        If there is no such image.
    """
    recipe_id = find_recipe(session, recipe).id
    ids = [resolve(session, ident).revision_id for ident in idents] or _spread(session, recipe_id, count)
    found = []
    for revision_id in ids:
        image = session.get(SliceImage, (revision_id, recipe_id))
        revision = session.get_one(CrystalRevision, revision_id)
        title = f"{revision.formula} ({revision.crystal.source_id})"
        if image is None:
            raise NotFoundError(f"{title} has no image of recipe {recipe!r}; choose another crystal or recipe")
        found.append(Slice(title, image.pixels.reshape(image.channels, image.height, image.width)[0]))
    return found


@style()
def draw_fourier(slices: Sequence[Slice], *, recipe: str, unit: str | None) -> Figure:
    """Draw slices above their Fourier magnitudes, log(1 + |F|) with the zero frequency in the centre.

    Parameters
    ----------
    slices
        At least one.
    recipe
        Name of their image recipe.
    unit
        Unit of their pixels; None: no unit.
    """
    from ingest.slices.planes import fourier_magnitude

    figure = Figure(
        label="Slices and their Fourier magnitudes", figsize=(0.8 + 2.6 * len(slices), 5.7), layout="constrained"
    )
    panels = figure.subplots(2, len(slices), squeeze=False)
    fields = np.stack([one.pixels for one in slices]).astype(np.float64)
    signed = bool(fields.min() < -0.15 * fields.max())
    norm, colours = _scale(fields, signed=signed)
    spectra = [fourier_magnitude(one.pixels) for one in slices]
    spectral = Normalize(0.0, float(np.quantile(spectra, 0.999)))
    for column, one in enumerate(slices):
        above = panels[0, column].imshow(one.pixels, norm=norm, cmap=colours, interpolation="nearest")
        below = panels[1, column].imshow(spectra[column], norm=spectral, cmap="magma", interpolation="nearest")
        panels[0, column].set_title(one.title)
        for panel in panels[:, column]:
            panel.set(xticks=[], yticks=[])
            for spine in panel.spines.values():
                spine.set_visible(False)
    panels[0, 0].set_ylabel(f"slice, recipe {recipe}")
    panels[1, 0].set_ylabel("Fourier magnitude")
    _bar(figure, above, list(panels[0]), label=(unit or "no unit").replace("^3", "³"), extend="both")
    _bar(figure, below, list(panels[1]), label="log(1 + |F|)", extend="max")
    return figure


def _usual_kinds(session: Session, ids: Sequence[str]) -> tuple[str, str]:
    """Total and spin, as published; total and deformation if a given crystal has no spin density."""
    if not ids:
        return ("total", "spin")
    found = session.scalar(
        text("SELECT bool_and('spin' = ANY(density_kinds)) FROM v_materials WHERE crystal_id = ANY(:ids)"),
        {"ids": [resolve(session, ident).crystal_id for ident in ids]},
    )
    return ("total", "spin" if found else "deformation")


def _bar(figure: Figure, image: Any, panels: list[Any], *, label: str, extend: str) -> None:
    bar = figure.colorbar(image, ax=panels, pad=0.01, aspect=17, extend=extend)
    bar.set_label(label)
    bar.outline.set_visible(False)
    norm = image.norm
    if isinstance(norm, AsinhNorm):
        # The default ticks of matplotlib are too dense around zero.
        top = float(norm.vmax or 0.0)
        powers = [10.0**p for p in range(-6, 4) if 4 * norm.linear_width < 10.0**p <= top]
        bar.set_ticks([*(-p for p in reversed(powers)), 0.0, *powers])
        bar.minorticks_off()


def _scale(fields: NDArray[np.float64], *, signed: bool) -> tuple[Any, str]:
    """Colours of one kind: logarithmic for a density; for a field with a sign, linear around zero, then logarithmic.

    Quantiles: the cusp at a single nucleus would otherwise take the whole scale.
    """
    low, high = (float(q) for q in np.quantile(fields, [0.005, 0.995]))
    if signed:
        top = max(-low, high) or 1.0
        return AsinhNorm(linear_width=max(0.02 * top, 1e-9), vmin=-top, vmax=top), "PuOr_r"
    if high <= 0:
        return Normalize(low, max(high, low + 1e-9)), "viridis"
    return LogNorm(max(low, 1e-3 * high), high, clip=True), "viridis"


def _largest_moment(session: Session, kinds: tuple[str, str]) -> int:
    found = session.scalar(
        text(
            "SELECT revision_id FROM v_materials WHERE density_kinds @> CAST(:kinds AS text[])"
            " ORDER BY abs(total_magnetization) DESC NULLS LAST, crystal_id LIMIT 1"
        ),
        {"kinds": list(kinds)},
    )
    if found is None:
        raise NotFoundError(f"no crystal has a {' and a '.join(kinds)} density; choose other kinds with --kind")
    return int(found)


def _spread(session: Session, recipe_id: int, count: int) -> list[int]:
    view = materials()
    ids = session.scalars(
        select(view.c.revision_id)
        .join(SliceImage, SliceImage.revision_id == view.c.revision_id)
        .where(SliceImage.recipe_id == recipe_id)
        .order_by(view.c[DEFAULT_COLOUR].nulls_first(), view.c.crystal_id)
    ).all()
    return [int(ids[rank]) for rank in sorted({round(i) for i in np.linspace(0, len(ids) - 1, count)})]
