"""Map of the vectors of an encoder in a plane: a point for each crystal, as a figure or as an interactive page."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from sqlalchemy import select
from sqlalchemy.orm import Session

from ecdreg.figures.files import InteractiveFigure
from ecdreg.figures.style import SERIES, style
from ecdreg.output.rendering import render
from registry.encoders import read_embeddings, resolve_encoder
from registry.errors import ConfigurationError, QueryError, UnknownNameError
from registry.properties import PROPERTIES
from registry.search.filters import materials, parse
from train.analysis.projection import METHODS, project

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecdreg.connection import RegistryConnection
    from train.analysis.projection import Projection

__all__ = [
    "CATEGORIES",
    "CrystalMap",
    "check_colour",
    "crystal_map",
    "map_figure",
    "read_crystals",
]

CATEGORIES = {"prototype": "prototype", "space_group_symbol": "space group"}
"""Columns of ``v_materials`` without a number that a map can be coloured by, with their labels."""

_UNKNOWN = "#b8b8b8"
_MARKERS = ("o", "s", "^", "D", "v", "P")
_LABELS = 16


@dataclass(frozen=True)
class CrystalMap:
    """Positions of N crystals in a plane."""

    encoder: str
    projection: Projection
    crystals: Sequence[Mapping[str, Any]]
    """Rows of ``v_materials``."""

    def values(self, name: str) -> NDArray[np.float64]:
        """Values of a property (N,) in its unit; NaN where it is unknown or suspect."""
        return np.array(
            [
                np.nan if row[name] is None or name in (row["suspect"] or ()) else float(row[name])
                for row in self.crystals
            ]
        )

    def groups(self, name: str) -> list[str]:
        """Groups of a category (N,): the six most frequent, and ``other``."""
        found = [str(row[name]) if row[name] is not None else "unknown" for row in self.crystals]
        frequent = [one for one, _ in sorted(Counter(found).items(), key=lambda item: (-item[1], item[0]))]
        kept = set(frequent[: len(SERIES)])
        return [one if one in kept else "other" for one in found]


def crystal_map(
    registry: RegistryConnection,
    encoder: str | None = None,
    *,
    method: str = "pca",
    where: str | None = None,
    seed: int = 0,
) -> CrystalMap:
    """Project the vectors of an encoder on a plane.

    Parameters
    ----------
    registry
        An open registry; only read.
    encoder
        Name or alias; None: the alias ``default``.
    method
        ``pca``, or ``umap``, which needs the package umap-learn.
    where
        A filter, as ``k_vrh > 100``; see :mod:`registry.search.filters`.
    seed
        Random seed of ``umap``.

    Raises
    ------
    ConfigurationError
        If there is no such method, or its package is not installed.
    NotFoundError
        If there is no such encoder.
    QueryError
        If the filter is invalid, or fewer than three crystals pass it and have a vector.
    """
    if method not in METHODS:
        raise ConfigurationError(f"no projection {method!r}; choose from {', '.join(METHODS)}")
    with Session(registry.engine) as session:
        chosen = resolve_encoder(session, encoder)
        name = chosen.name
        crystals, vectors = read_crystals(session, chosen.id, where)
    if len(crystals) < 3:
        raise QueryError(f"{len(crystals)} crystals have a vector of {name} and pass the filter; a map needs 3")
    return CrystalMap(name, project(vectors, method=method, seed=seed), crystals)


def check_colour(name: str) -> None:
    """Check that a map can be coloured by a property or category.

    Raises
    ------
    UnknownNameError
        If it is neither a property nor one of :data:`CATEGORIES`; the message proposes the nearest name.
    """
    names = [*PROPERTIES, *CATEGORIES]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names)}"
        raise UnknownNameError(f"a map cannot be coloured by {name!r}; {hint}")


def read_crystals(
    session: Session, encoder_id: int, where: str | None = None
) -> tuple[list[dict[str, Any]], NDArray[np.float64]]:
    """Read the crystals with a vector of an encoder, as rows of ``v_materials``, and the vectors (N, D).

    Parameters
    ----------
    session
        Only read.
    encoder_id
        The encoder.
    where
        A filter; see :mod:`registry.search.filters`.

    Raises
    ------
    QueryError
        If the filter is invalid.
    """
    names = ("revision_id", "source", "source_id", "formula", "suspect", *CATEGORIES, *PROPERTIES)
    view = materials()
    query = select(*(view.c[name] for name in names)).order_by(view.c.crystal_id)
    if where is not None:
        query = query.where(parse(where))
    rows = [dict(row) for row in session.execute(query).mappings()]
    vectors = read_embeddings(session, encoder_id, [int(row["revision_id"]) for row in rows])
    kept = [row for row in rows if int(row["revision_id"]) in vectors]
    found = [vectors[int(row["revision_id"])][1] for row in kept]
    return kept, np.array(found, dtype=np.float64)


@style()
def map_figure(chart: CrystalMap, colour: str) -> InteractiveFigure:
    """Draw the map; its HTML page is interactive.

    Parameters
    ----------
    chart
        Crystals in a plane.
    colour
        A property, or one of :data:`CATEGORIES`; the page offers the others.

    Raises
    ------
    UnknownNameError
        If there is no such property or category.
    """
    check_colour(colour)
    figure = _MapFigure(label=f"Map of {chart.encoder}", figsize=(7.6, 6.0), layout="constrained")
    figure.chart, figure.colour = chart, colour
    panel = figure.add_subplot()
    x, y = chart.projection.points.T
    if colour in CATEGORIES:
        _categories(panel, x, y, chart.groups(colour))
    else:
        _numbers(figure, panel, x, y, chart.values(colour), colour)
    for i in _spread(chart.projection.points):
        panel.annotate(
            str(chart.crystals[i]["formula"]),
            (x[i], y[i]),
            xytext=(4, 3),
            textcoords="offset points",
            fontsize=7,
            color="#333333",
        )
    panel.set_xlabel(chart.projection.axes[0])
    panel.set_ylabel(chart.projection.axes[1])
    panel.margins(0.06)
    panel.set_title(f"{len(x)} crystals under {chart.encoder}", loc="left")
    return figure


class _MapFigure(InteractiveFigure):
    chart: CrystalMap
    colour: str

    def page(self) -> str:
        return _page(self.chart, self.colour)


def _page(chart: CrystalMap, colour: str) -> str:
    names = [name for name in PROPERTIES if np.isfinite(chart.values(name)).any()]
    columns = {name: [None if np.isnan(v) else float(f"{v:.6g}") for v in chart.values(name)] for name in names}
    shades = [mpl.colors.to_hex(mpl.colormaps["viridis"](i / 63)) for i in range(64)]
    data = {
        "points": np.round(chart.projection.points, 5).tolist(),
        "ids": [f"{row['source']}:{row['source_id']}" for row in chart.crystals],
        "formulas": [row["formula"] for row in chart.crystals],
        "groups": {name: chart.groups(name) for name in CATEGORIES},
        "facts": {name: [row[name] for row in chart.crystals] for name in CATEGORIES},
        "values": columns,
        "units": {name: PROPERTIES[name].unit for name in names},
        "labels": {name: PROPERTIES[name].label for name in names} | CATEGORIES,
        "axes": chart.projection.axes,
        "shades": shades,
        "series": list(SERIES),
        "unknown": _UNKNOWN,
        "colour": colour if colour in names or colour in CATEGORIES else (names or list(CATEGORIES))[0],
    }
    # Formulas and ids may contain any text; inside a script only "<" could end the element.
    text = json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    title = f"{len(chart.crystals)} crystals under {chart.encoder}"
    return render(
        "figures/crystal_map.html.j2", title=title, projection=chart.projection.description, data=Markup(text)
    )


def _numbers(
    figure: InteractiveFigure, panel: Any, x: NDArray[np.float64], y: NDArray[np.float64], values: Any, name: str
) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        panel.scatter(
            x[~finite], y[~finite], s=14, color=_UNKNOWN, marker="x", linewidths=0.8, label="unknown or suspect"
        )
        panel.legend(loc="best", frameon=False)
    if finite.any():
        # The ends are the 2nd and the 98th percentile: a few extremes would leave no colour for the other values.
        low, high = np.percentile(values[finite], [2, 98])
        order = np.argsort(values[finite])
        dots = panel.scatter(
            x[finite][order],
            y[finite][order],
            c=values[finite][order],
            s=24,
            cmap="viridis",
            vmin=low,
            vmax=high if high > low else low + 1.0,
            edgecolors="white",
            linewidths=0.3,
        )
        bar = figure.colorbar(dots, ax=panel, extend="both", pad=0.01, aspect=30)
        bar.set_label(f"{PROPERTIES[name].label} [{PROPERTIES[name].unit}]")


def _categories(panel: Any, x: NDArray[np.float64], y: NDArray[np.float64], groups: Sequence[str]) -> None:
    found = np.array(groups, dtype=object)
    frequent = [one for one, _ in Counter(groups).most_common() if one != "other"]
    looks = [*zip(frequent, SERIES, _MARKERS, strict=False), *[("other", _UNKNOWN, "x")][: "other" in groups]]
    handles = []
    for one, colour, marker in looks:
        rows = found == one
        edge = {} if marker == "x" else {"edgecolors": "white"}
        panel.scatter(x[rows], y[rows], s=22, color=colour, marker=marker, linewidths=0.4, **edge)
        handles.append(Line2D([], [], linestyle="none", marker=marker, color=colour, label=f"{one} ({rows.sum()})"))
    panel.legend(handles=handles, frameon=False)


def _spread(points: NDArray[np.float64]) -> list[int]:
    """Points with a label, far from each other: the outermost point, then repeatedly the one farthest from those."""
    scaled = (points - points.mean(axis=0)) / np.maximum(points.std(axis=0), 1e-12)
    chosen = [int(np.argmax(np.linalg.norm(scaled, axis=1)))]
    nearest = np.linalg.norm(scaled - scaled[chosen[0]], axis=1)
    while len(chosen) < min(_LABELS, len(points)) and nearest.max() > 0.35:
        chosen.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
    return chosen
